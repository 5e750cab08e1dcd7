"""FLOPs of a step in closed form: what its tokens cost to read, not what a machine was seen to do.

As in `cost`, 2 for every multiply and add of matrix products and attention, which counts as the full square; losses,
norms, the update and what chooses patches count 0. Padding is not counted, nor what
is computed again to save memory. A backward pass is twice its forward pass,
where the weights that it runs through are frozen once; low-rank maps beside them count 0. That is a little too much:
no gradient leaves the first map, and of what stands before the completions the last layer's keys and values alone get
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from entropy_vision.attend import Attend
from entropy_vision.packed import PackedPatches
from entropy_vision.policy import EntropyVLM
from entropy_vision.policy_cost import Price, meta_decoder
from entropy_vision.projectors import projector_flops
from entropy_vision.tower import Tower


@dataclass(frozen=True)
class Asked:
    """What is read of a batch of S pictures and Q questions.

    Attributes:
        visual: S counts, the slots that each picture fills.
        owner: Q numbers, the picture of each question.
        lengths: Q counts, the text tokens that are read behind it.
        before: the text tokens in front of every picture, read once.
    """

    visual: Sequence[int]
    owner: Sequence[int]
    lengths: Sequence[int]
    before: int = 0

    @property
    def slots(self) -> list[int]:
        """Q counts, what stands before each question's completions."""
        rows = zip(self.owner, self.lengths, strict=True)
        return [self.before + self.visual[owner] + length for owner, length in rows]


@dataclass(frozen=True)
class Prices:
    """What a policy's forward passes cost.

    Attributes:
        tower: of the vision encoder.
        projector: of one visual token.
        decoder: of the language model.
        backward: FLOPs of a backward pass for each of the forward pass.
        frozen: no gradient goes through the tower.
        attend: which patches see each other in the tower.
    """

    tower: Tower
    projector: int
    decoder: Price
    backward: int = 2
    frozen: bool = False
    attend: Attend = "frame"

    @classmethod
    def of(cls, model: EntropyVLM, backward: int = 2, frozen: bool = False) -> Prices:
        """Those of a policy, from its configuration."""
        language = meta_decoder(model.config.get_text_config())
        return cls(
            tower=Tower.from_config(model.encoder.config),
            projector=projector_flops(model.projector, 1),
            decoder=Price.of(language),
            backward=backward,
            frozen=frozen,
            attend=model.config.attend,
        )

    def encode(self, patches: PackedPatches) -> int:
        """Tower and projector over a pack."""
        return self._see(patches) + self.projector * len(patches)

    def _see(self, patches: PackedPatches) -> int:
        return self.tower.flops(patches.attending(self.attend).segments(self.tower.prefix))

    def read(self, length: int, past: int = 0, logits: int = 0) -> int:
        """The language model over `length` tokens behind `past` others, `logits` of which are predicted from."""
        price = self.decoder
        return length * price.linear + length * (length + past) * price.square + logits * price.head

    def back(self, forward: int, patches: PackedPatches | None = None) -> int:
        """The backward pass of a forward pass, in which `patches` were encoded."""
        frozen = self._see(patches) if self.frozen and patches is not None else 0
        return (forward - frozen) * self.backward

    def read_questions(self, patches: PackedPatches, asked: Asked, predicted: bool = False) -> int:
        """Pictures and the text around them, each once; `predicted` where logits of the text are wanted."""
        before = asked.before
        pictures = self.encode(patches) + self.read(before) + sum(self.read(count, before) for count in asked.visual)
        text = zip(asked.lengths, asked.owner, strict=True)
        return pictures + sum(
            self.read(length, before + asked.visual[owner], length * predicted) for length, owner in text
        )

    def sample(self, levels: Sequence[int], past: int) -> int:
        """A group token by token behind `past` slots; `levels` as of `beginnings`."""
        return sum(
            count * self.read(1, past + seen - 1, 1) for count, seen in zip(levels, accumulate(levels), strict=True)
        )

    def score(self, levels: Sequence[int], past: int) -> int:
        """The same group at once."""
        return self.read(sum(levels), past, sum(levels))


def beginnings(ids: Tensor, mask: Tensor, group: int) -> list[list[int]]:
    """How many distinct beginnings of 0, 1, 2 ... tokens the completions of each group have and go on from: what
    `sample` reads token by token and `score` as a tree.

    Args:
        ids, mask: [Q * group, T].
    """
    rows = [row[:length] for row, length in zip(ids.tolist(), mask.sum(1).tolist(), strict=True)]
    return [_levels(rows[i : i + group]) for i in range(0, len(rows), group)]


def _levels(rows: Sequence[Sequence[int]]) -> list[int]:
    node, levels = [0] * len(rows), [1]
    for t in range(1, max(map(len, rows))):
        known: dict[tuple[int, int], int] = {}
        for i, row in enumerate(rows):
            if t < len(row):
                node[i] = known.setdefault((node[i], row[t - 1]), len(known))
        levels.append(len(known))
    return levels
