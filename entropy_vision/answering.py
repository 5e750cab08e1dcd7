"""A policy behind its tower as stages that can be timed and counted: projector, prompt, answer.

Every input is a row by itself, its visual tokens in front of a prompt of so many tokens, and the answer has a fixed
length: what is measured is the bill of `policy_cost.language_flops`, not what the policy would say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from entropy_vision.measure import Chain
from entropy_vision.projectors import Places

if TYPE_CHECKING:
    from entropy_vision.policy import EntropyVLM

Read = tuple[DynamicCache, int]
"""What a row has read, and the rotary position of its next token."""


@dataclass(frozen=True, eq=False)
class Answering:
    """The stages of one answer about each of some inputs.

    Attributes:
        policy: in eval mode.
        prompt: text tokens of every row, at least 1; answer: tokens that follow, at least 1.
    """

    policy: EntropyVLM
    prompt: int
    answer: int

    @property
    def chain(self) -> Chain:
        """The stages by name; the first is given what `EntropyVLM.see` gives."""
        return {"project": self.project, "prefill": self.prefill, "decode": self.decode}

    @torch.no_grad()
    def project(self, seen: tuple[Tensor, Places]) -> Sequence[Tensor]:
        """What fills the placeholders of every row, [M_i, D_text]."""
        embeds = self.policy.projector.embed(*seen)
        return embeds.split(list(self.policy.projector.slots(seen[1]).counts))

    @torch.no_grad()
    def prefill(self, embeds: Sequence[Tensor]) -> list[Read]:
        """Read visual tokens and prompt, with the logits of the last place."""
        return [self._read(row) for row in embeds]

    def _read(self, embeds: Tensor) -> Read:
        cache, holes = DynamicCache(), torch.full((1, len(embeds)), self.policy.config.image_token_id)
        ids = torch.cat((holes, torch.full((1, self.prompt), self._word)), dim=1).to(embeds.device)
        places = torch.arange(ids.shape[1], device=ids.device)[None]  # which ones they are costs nothing
        self.policy(ids, position_ids=places, visual_embeds=embeds, cache=cache, use_cache=True, logits_to_keep=1)
        return cache, ids.shape[1]

    @torch.no_grad()
    def decode(self, read: Sequence[Read]) -> None:
        """Answer token by token: the first one is the prefill's."""
        ids = torch.tensor([[self._word]], device=self.policy.device)
        for cache, length in read:
            for place in range(length, length + self.answer - 1):
                self.policy(ids, position_ids=ids.new_tensor([[place]]), cache=cache, use_cache=True, logits_to_keep=1)

    @property
    def _word(self) -> int:
        """Some token that is no placeholder."""
        return int(self.policy.config.image_token_id == 0)
