"""Tower: the shape of a ViT as far as its price depends on it, and the price in closed form.

Nothing here loads torch: a budget in FLOPs is met before any tower exists.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from entropy_vision.errors import InputError, InputReason, UsageError
from entropy_vision.towers.sizes import SIZES

OWN_CONFIGS = Path(__file__).parent / "model_configs"  # of the models that ship with this package


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Sizes of a vision transformer; the defaults are those of a CLIP's ViT-B.

    Attributes:
        name: what messages call it.
        patch_size: side P of a patch in pixels.
        width: D, the width of the residual stream.
        layers: number of blocks.
        hidden: width of the MLPs, of a gated one that of its gate.
        prefix: tokens of every segment beside its patches: class token and registers.
        gated: whether MLPs have a gate, a third matrix (SwiGLU).
    """

    name: str
    patch_size: int
    width: int = 768
    layers: int = 12
    hidden: int = 3072
    prefix: int = 1
    gated: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "the tower") -> Tower:
        """The tower of an open_clip model config, of `VisionEncoder.config` or `HFVisionEncoder.config`; what it leaves
        out is open_clip's.

        Raises:
            UsageError: a timm tower of unknown sizes. `VisionEncoder.config` brings them with it.
        """
        if "model_type" in config:  # of transformers: CLIP or SigLIP, which has no class token
            return cls(
                name=name,
                patch_size=config["patch_size"],
                width=config["hidden_size"],
                layers=config["num_hidden_layers"],
                hidden=config["intermediate_size"],
                prefix=int(config["model_type"] == "clip_vision_model"),
            )
        vision = config["vision_cfg"]
        if (timm := vision.get("timm_model_name")) is not None:
            sizes = config.get("tower") or SIZES.get(timm)
            if sizes is None:
                raise UsageError(
                    f"{name} has the timm tower {timm}, which is not supported: there are {', '.join(SIZES)}"
                )
            return cls(name=name, **sizes)
        width = vision.get("width", 768)
        return cls(
            name=name,
            patch_size=vision.get("patch_size", 16),
            width=width,
            layers=vision.get("layers", 12),
            hidden=int(width * vision.get("mlp_ratio", 4.0)),
        )

    def flops(self, segments: Sequence[int]) -> int:
        """FLOPs of `VisionEncoder.encode`, 2 for every multiply and add; equals `cost.count_flops` exactly.

        Args:
            segments: patches of every attention segment (of every frame that keeps one, by default).
        """
        return self.embed_flops(sum(segments)) + self.block_flops(segments)

    def embed_flops(self, patches: int) -> int:
        """The part of `flops` that embeds so many patches."""
        return 2 * patches * 3 * self.patch_size**2 * self.width

    def block_flops(self, segments: Sequence[int]) -> int:
        """The part of `flops` that the blocks take."""
        rows = sum(segments) + self.prefix * len(segments)
        squares = sum((count + self.prefix) ** 2 for count in segments)
        mlp = (3 if self.gated else 2) * self.hidden
        linear = rows * self.width * (3 * self.width + self.width + mlp)  # queries, keys and values, output, MLP
        attention = 2 * squares * self.width
        return 2 * self.layers * (linear + attention)


def find_tower(model: str) -> Tower:
    """The tower of a model: an open_clip model name, one of this package's, or a local folder in open_clip's layout.

    Raises:
        UsageError: an unknown model, or a tower of a class that `VisionEncoder` does not run.
        InputError: a folder whose open_clip_config.json is missing or damaged.
    """
    config = find_config(model)
    check_supported(model, config)
    return Tower.from_config(config, model)


def find_config(model: str) -> dict[str, Any]:
    """The model config of a name or a local folder, as `find_tower` takes them. A known name wins over a folder.

    Raises:
        UsageError: an unknown model; the line gives the nearest.
        InputError: a folder whose open_clip_config.json is missing or damaged.
    """
    known = {path.stem: path for folder in _config_folders() for path in folder.glob("*.json")}
    folder = Path(model.removeprefix("local-dir:"))
    if model in known:
        return cast(dict[str, Any], json.loads(known[model].read_text(encoding="utf-8")))
    if folder.is_dir():
        return read_config(folder / "open_clip_config.json")
    near = difflib.get_close_matches(model, sorted(known), n=1, cutoff=0.0)[0]
    raise UsageError(f"no folder and no open_clip model is called {model!r}; the nearest model is {near!r}")


def _config_folders() -> Iterator[Path]:
    """Where open_clip and this package keep their model configs. Finding a package does not import it."""
    yield OWN_CONFIGS
    package = importlib.util.find_spec("open_clip")
    for place in (package.submodule_search_locations or ()) if package else ():
        yield Path(place) / "model_configs"


def read_config(path: Path) -> dict[str, Any]:
    """The model config of a folder in open_clip's layout.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(
            path, InputReason.MISSING, "a model folder needs this file: save the model in open_clip's layout"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(path, InputReason.UNREADABLE, f"not JSON: {error}") from error
    config = content.get("model_cfg", content) if isinstance(content, dict) else {}
    if not {"vision_cfg", "embed_dim"} <= config.keys():
        raise InputError(path, InputReason.UNREADABLE, "no vision_cfg and embed_dim in its model_cfg")
    return cast(dict[str, Any], config)


def check_supported(model: str, config: Mapping[str, Any]) -> None:
    """Refuse what a config already tells is no ViT of a known kind.

    Raises:
        UsageError: a ResNet tower, custom blocks, pooling by two attentions.
    """
    vision = config["vision_cfg"]
    custom = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
    what = None
    if isinstance(vision.get("layers"), (list, tuple)):
        what = "a ResNet tower"
    elif isinstance(vision.get("attentional_pool"), str):
        what = "pooling by two attentions"
    elif vision.get("block_type") == "custom" or any(vision.get(name) for name in custom):
        what = "custom attention blocks"
    if what:
        raise UsageError(f"{model} has {what}, which is not supported: use a plain ViT of open_clip, such as ViT-B-32")
