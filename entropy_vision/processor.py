"""EntropyVLMProcessor: text, pictures and videos in, what EntropyVLM reads out.

inputs = processor(text="<image> <video> what changed ?", images=picture, videos=video, budget=0.25)
out = model.generate(**inputs)

A prompt has one `<image>` or `<video>` for each of them, in any order; each becomes as many placeholders as patches
are kept. With a budget in tokens or keep that number is known before anything is read, see `placeholders`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from transformers import AutoProcessor, BatchFeature
from transformers.processing_utils import MultiModalData, ProcessorMixin

from entropy_vision.attend import Attend, read_attend
from entropy_vision.budget import Budget
from entropy_vision.errors import UsageError
from entropy_vision.frames import Frames
from entropy_vision.grid import grid_size
from entropy_vision.packed import PackedPatches
from entropy_vision.patchset import PatchSet
from entropy_vision.policy_config import EntropyVLMConfig
from entropy_vision.pooled import PooledTokenizer
from entropy_vision.projectors import half
from entropy_vision.reduction import Reduction
from entropy_vision.text import ASSISTANT
from entropy_vision.tokenizer import EntropyTokenizer
from entropy_vision.visuals import FITS, Fit, load_image, load_video

if TYPE_CHECKING:
    from entropy_vision.policy import EntropyVLM

_MARK = re.compile("<image>|<video>")
# lists of text, pictures and videos -> text with a mark for each of them: what any tokenizer's own template takes
FLATTEN = """{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}{%- set flat.messages = flat.messages + [message] -%}
{%- else -%}{%- set part = namespace(text='') -%}
{%- for piece in message['content'] -%}
{%- set part.text = part.text + (piece['text'] if piece['type'] == 'text' else '<' + piece['type'] + '>\\n') -%}
{%- endfor -%}
{%- set flat.messages = flat.messages + [dict(message, content=part.text)] -%}
{%- endif -%}{%- endfor -%}{%- set messages = flat.messages -%}
"""
PLAIN = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


class EntropyVLMProcessor(ProcessorMixin):
    """Tokenizer, and how pictures become patches; saved and loaded as any processor of transformers."""

    def __init__(
        self,
        tokenizer: Any = None,
        patch_size: int = 16,
        image_size: int | Sequence[int] = (224, 224),
        keep: float = 0.25,
        selector: str = "rate",
        seed: int = 0,
        merge: int = 1,
        fit: Fit = "stretch",
        scaled: Sequence[int] | None = None,
        onevision: bool = False,
        image_token: str = "<image>",
        chat_template: str | None = None,
        attend: Attend = "frame",
        reduction: dict[str, Any] | None = None,
        blocks: int | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            tokenizer: any tokenizer of transformers that knows `image_token` as one token.
            patch_size, image_size: the tower's, in pixels; (height, width), or the side of a square.
            keep, selector, seed, merge: as in `EntropyTokenizer`.
            fit, scaled: how pictures of other sizes are brought to `image_size`, see `visuals.fitted`.
            attend, reduction: which patches see each other in the tower, and how many tokens are left of them, as in
                `EntropyVLMConfig`.
            blocks: how many the tower has, in each of which `tome` halves tokens at most; only that asks for it.
            onevision: four patches of a video make one token, and every input ends in one more (LLaVA-OneVision).
            chat_template: by default the tokenizer's own, with pictures and videos allowed among the text.

        Raises:
            UsageError: a token that the tokenizer does not know, or an option out of range.
        """
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.patch_size, self.image_size = int(patch_size), [int(side) for side in sides]
        self.keep, self.selector, self.seed, self.merge = keep, selector, seed, merge
        self.fit, self.onevision, self.image_token = fit, onevision, image_token
        self.attend, self.reduction, self.blocks = read_attend(attend), reduction, blocks
        self.scaled: tuple[int, int] | None = None if scaled is None else (int(scaled[0]), int(scaled[1]))
        if blocks is not None and (isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1):
            raise UsageError(f"blocks must be a whole number of at least 1, got {blocks!r}")
        for name in kwargs:
            near = get_close_matches(name, signature(EntropyVLMProcessor.__init__).parameters, n=1, cutoff=0.8)
            if near:  # others are transformers' own
                raise UsageError(f"the processor has no option {name!r}; did you mean {near[0]!r}?")
        if fit not in FITS:
            raise UsageError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
        if onevision and merge > 1:
            raise UsageError("a tower that pools its tokens takes no merged patches: leave merge at 1")
        if image_token not in tokenizer.get_vocab():
            raise UsageError(
                f"the tokenizer has no token {image_token!r}: name its own with image_token=, "
                "or add one with tokenizer.add_special_tokens"
            )
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.chooser(), Reduction.read(reduction)  # refuse a wrong option now
        own = tokenizer.chat_template or PLAIN
        # a tokenizer that lies beside a saved processor has been given the processor's template
        own = own if own.startswith(FLATTEN) else FLATTEN + own
        super().__init__(tokenizer, chat_template=chat_template or own)

    @classmethod
    def for_model(cls, model: EntropyVLM, tokenizer: Any, **options: Any) -> EntropyVLMProcessor:
        """The processor that fits a policy. `options`: what the class takes.

        Raises:
            UsageError: a patch size, a size of pictures, an `attend` or a reduction other than the policy's, or a
                tokenizer with another id for the placeholder.
        """
        _check_names(options, signature(cls.__init__).parameters)
        encoder, onevision = model.encoder, getattr(model.projector, "image_newline", None) is not None
        mine = {"patch_size": encoder.patch_size, "image_size": list(encoder.image_size), "onevision": onevision}
        mine |= cls._shared(model)
        options.setdefault("scaled", getattr(encoder, "scaled", None))
        for name, value in mine.items():
            given = options.setdefault(name, value)
            if (list(given) if isinstance(given, tuple) else given) != value:
                raise UsageError(f"the policy takes {name}={value}, not {given}: leave {name} out")
        token = tokenizer.convert_ids_to_tokens(model.config.image_token_id)
        if options.setdefault("image_token", token) != token:
            raise UsageError(f"the model's placeholder is {token!r}, not {options['image_token']!r}")
        return cls(tokenizer, **options)

    def follow(self, model: EntropyVLM) -> None:
        """Take what both say, `attend` and `reduction`, from a policy, whose configuration may have been changed, and
        the `blocks` of its tower."""
        for name, value in self._shared(model).items():
            setattr(self, name, value)

    @staticmethod
    def _shared(model: EntropyVLM) -> dict[str, Any]:
        """What a policy says, too."""
        merges = model.reduction is not None and model.reduction.kind == "tome"
        shared = {"attend": model.config.attend, "reduction": model.config.reduction}
        return shared | {"blocks": model.encoder.layers if merges else None}

    def _reduction(self) -> Reduction | None:
        """What reduces tokens. Raises UsageError: another kind or fraction, or merging in nobody knows how many
        blocks."""
        found = Reduction.read(self.reduction)
        if found is not None and found.kind == "tome" and self.blocks is None:
            raise UsageError(
                "how many tokens tome leaves depends on the tower: give the processor its number of blocks="
            )
        return found

    @classmethod
    def from_llava(cls, path: str | Path, **options: Any) -> EntropyVLMProcessor:
        """The processor that goes with `EntropyVLM.from_llava`: the checkpoint's tokenizer, template and sizes.

        Raises:
            UsageError: an option that there is not.
        """
        from transformers import AutoTokenizer

        from entropy_vision.llava import llava_config

        _check_names(options, signature(cls.__init__).parameters)
        config = llava_config(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        onevision = config.model_type == "llava_onevision"
        settings, _ = cls.get_processor_dict(path)
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        mine: dict[str, Any] = {
            "patch_size": patch,
            "image_size": (side // patch * patch,) * 2,
            "scaled": (side, side) if side % patch else None,
            "fit": "stretch_bicubic" if onevision else "crop_bicubic",
            "onevision": onevision,
            "image_token": tokenizer.convert_ids_to_tokens(config.image_token_id),
            "chat_template": settings.get("chat_template"),
        }
        return cls(tokenizer, **(mine | options))

    # ---- how many placeholders -----------------------------------------------------------------------------------

    def placeholders(self, frames: int | Frames = 1, budget: Budget | float | None = None) -> int | None:
        """Placeholders of a picture, or of a video of `frames` frames; None where only its pixels tell (bits,
        thresholds, FLOPs; of tokens that are merged in several groups of frames also where there are fewer patches
        than frames, or where halving in every block hardly reaches so few)."""
        frames = frames.count if isinstance(frames, Frames) else frames
        rows, columns = self._units(frames)
        count = self._budget(budget).size(frames * rows * columns)
        reduction = self._reduction()
        if count is None or reduction is None:
            return None if count is None else count + self.onevision
        left = Budget(keep=reduction.keep).size(count)
        if left is None or reduction.kind != "tome":
            return left
        from entropy_vision.reduced import shares

        # each group of frames keeps one at the least, and so each frame is in there where there are enough patches
        together = int({"frame": 1, "input": frames}.get(str(self.attend), self.attend))
        if together >= frames or count in (frames, frames * rows * columns):  # all lengths are known
            groups = [min(together, frames - first) for first in range(0, frames, together)]
            return sum(shares([count * group // frames for group in groups], reduction.keep, self.blocks or 0))
        segments = -(-frames // together)
        # no share is below what halving reaches where their slope is not
        enough = (max(left, segments) - segments) * 2 ** (self.blocks or 0) >= count - segments
        return max(left, segments) if count >= frames and enough else None

    def _get_num_multimodal_tokens(
        self, image_sizes: Any = None, video_sizes: Any = None, **kwargs: Any
    ) -> MultiModalData:
        """What serving engines ask: tokens of pictures of (height, width), of videos of (frames, height, width)."""
        data: dict[str, Any] = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.placeholders() for _ in image_sizes]
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            data["num_video_tokens"] = [self.placeholders(frames) for frames, _, _ in video_sizes]
        return MultiModalData(**data)

    def _units(self, frames: int) -> tuple[int, int]:
        """Rows and columns of what is chosen among: patches, or four of them."""
        height, width = self.image_size
        rows, columns = grid_size(height, width, self.patch_size)
        return (half(rows), half(columns)) if self.onevision and frames > 1 else (rows, columns)

    def _budget(self, budget: Budget | float | None) -> Budget:
        if budget is None or isinstance(budget, float | int):
            return Budget(keep=self.keep if budget is None else budget)
        return budget

    # ---- choosing ------------------------------------------------------------------------------------------------

    def chooser(self, budget: Budget | float | None = None, selector: str | None = None) -> EntropyTokenizer:
        """What scores and chooses the patches, by default at the processor's own budget and by its own selector."""
        kind = PooledTokenizer if self.onevision else EntropyTokenizer
        return kind(
            self.patch_size,
            budget=self._budget(budget),
            selector=selector or self.selector,
            seed=self.seed,
            merge=self.merge,
        )

    def select(self, frames: Frames, budget: Budget | float | None = None) -> PatchSet:
        """The patches kept of frames of the tower's size."""
        return self.chooser(budget)(frames)

    # ---- text ----------------------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """Whether a conversation is written word by word, for want of a chat template of the tokenizer."""
        return self.chat_template == FLATTEN + PLAIN

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text that the chat template wrote, opened by the tokenizer's own mark once."""
        opening = self.tokenizer.bos_token
        opened = opening is not None and text.startswith(opening)
        return list(self.tokenizer(text, add_special_tokens=not opened)["input_ids"])

    # ---- the call ------------------------------------------------------------------------------------------------

    def __call__(  # type: ignore[override]
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        budget: Budget | float | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        keep: float | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokens and patches of one prompt or of several.

        Args:
            images: a path, a PIL image, uint8 [H, W, 3] or Frames; several as a list, for several prompts a list of
                lists or one list in the order of the marks.
            text: the prompt or prompts, with one `<image>` or `<video>` for each picture and video.
            videos: a path, uint8 [F, H, W, 3], a list of pictures or Frames; several as a list of those.
            budget: for each picture and video; a number is a fraction to keep. By default the processor's own.
            num_frames, fps: which frames of video files are taken; all where neither is given.
            keep: short for budget=keep.
            kwargs: the tokenizer's; by default prompts are padded at the left, to be continued.

        Returns:
            input_ids, attention_mask: int64 [B, T]; patches: PackedPatches of all rows, where there are any.

        Raises:
            UsageError: marks and inputs do not agree, a picture of a kind that is not known, both keep and budget, or
                an argument that neither this nor the tokenizer has.
            InputError: a file that cannot be read.
        """
        if text is None or audio is not None:
            raise UsageError("EntropyVLMProcessor takes text, with images and videos or without; no audio")
        if keep is not None and budget is not None:
            raise UsageError("give keep or budget, not both: keep=0.25 is short for budget=0.25")
        budget = keep if budget is None else budget
        _check_names(
            kwargs, (signature(type(self).__call__).parameters | signature(self.tokenizer.__call__).parameters)
        )
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise UsageError("text is an empty list: there is nothing to read")
        marks = [mark for one in texts for mark in _MARK.findall(one)]
        height, width = self.image_size
        pictures, films = _flat(images, _is_image), _flat(videos, _is_video)
        for name, given in (("<image>", pictures), ("<video>", films)):
            if marks.count(name) != len(given):
                raise UsageError(f"the text has {marks.count(name)} {name} for {len(given)} inputs: write one for each")
        still, moving = iter(pictures), iter(films)
        kept = [
            self.select(load_image(next(still), (height, width), self.fit, self.scaled), budget)
            if mark == "<image>"
            else self.select(load_video(next(moving), (height, width), self.fit, num_frames, fps, self.scaled), budget)
            for mark in marks
        ]
        packed = PackedPatches.pack(kept, self.attend) if kept else None
        counts = iter(self._counts(kept, packed))
        texts = [_MARK.sub(lambda _: self.image_token * next(counts), one) for one in texts]
        kwargs.pop("return_tensors", None)
        settings = {"padding": True, "padding_side": "left"} | kwargs
        if self.tokenizer.pad_token is None and len(texts) == 1:
            settings["padding"] = False
        encoded = self.tokenizer(texts, return_tensors="pt", return_token_type_ids=False, **settings)
        data: dict[str, Any] = dict(encoded)
        if packed is not None:
            data["patches"] = packed
        return BatchFeature(data)

    def _counts(self, kept: Sequence[PatchSet], packed: PackedPatches | None) -> list[int]:
        """Placeholders of every input."""
        reduction = self._reduction()
        if reduction is not None and packed is not None:
            from entropy_vision.reduced import reduced_counts

            return list(reduced_counts(packed, reduction, self.blocks or 0))
        if not self.onevision:
            return [len(one) for one in kept]
        from entropy_vision.projectors import pooled_units

        return [1 + (len(one) if one.grid[0] == 1 else len(pooled_units(one.positions, one.grid)[2])) for one in kept]

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "patches"]


def _check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an option that there is not: it would change nothing in silence."""
    names = [name for name in known if name not in ("self", "kwargs")]
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.0)
            raise UsageError(f"the processor has no option {name!r}; the nearest is {near[0]!r}")


def without_marks(text: str) -> str:
    """A text that stands for no picture and no video."""
    return _MARK.sub("", text).strip()


def _is_image(value: Any) -> bool:
    return not isinstance(value, list | tuple)


def _is_video(value: Any) -> bool:
    """A list of pictures is one video; a list of anything else is several."""
    if not isinstance(value, list | tuple):
        return True
    return bool(value) and all(_is_frame(one) for one in value)


def _is_frame(value: Any) -> bool:
    picture = type(value).__module__.startswith("PIL.")
    return picture or (isinstance(value, np.ndarray) and value.ndim == 3)


def _flat(values: Any, single: Any) -> list[Any]:
    """Inputs one by one out of one, a list, or a list of lists."""

    def walk(value: Any) -> Iterator[Any]:
        if value is None:
            return
        if single(value):
            yield value
        else:
            for one in value:
                yield from walk(one)

    return list(walk(values))


AutoProcessor.register(EntropyVLMConfig, cast(Any, EntropyVLMProcessor), exist_ok=True)
