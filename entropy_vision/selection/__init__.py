"""Selectors: which patches are worth keeping. One file each, with its formula and where it comes from."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import get_args

from entropy_vision.errors import UsageError
from entropy_vision.reduction import Inside
from entropy_vision.selection.apt import Apt
from entropy_vision.selection.base import Selector
from entropy_vision.selection.dtd import Dtd
from entropy_vision.selection.evs import Evs
from entropy_vision.selection.gradient import Gradient
from entropy_vision.selection.histogram import Histogram
from entropy_vision.selection.onevision import OneVision
from entropy_vision.selection.pixelprune import PixelPrune
from entropy_vision.selection.random import Random
from entropy_vision.selection.rate import Rate
from entropy_vision.selection.rlt import Rlt
from entropy_vision.selection.surprisal import Surprisal
from entropy_vision.selection.uniform import Uniform
from entropy_vision.selection.uniform_frames import UniformFrames

# name -> maker from the seed; the default first
_MAKERS: dict[str, Callable[[int], Selector]] = {
    "rate": lambda seed: Rate(),
    "histogram": lambda seed: Histogram(),
    "random": lambda seed: Random(seed),
    "uniform": lambda seed: Uniform(),
    "uniform_frames": lambda seed: UniformFrames(),
    "surprisal": lambda seed: Surprisal(),
    "gradient": lambda seed: Gradient(),
    "rlt": lambda seed: Rlt(),
    "evs": lambda seed: Evs(),
    "dtd": lambda seed: Dtd(),
    "apt": lambda seed: Apt(),
    "pixelprune": lambda seed: PixelPrune(),
    "onevision": lambda seed: OneVision(),
}

__all__ = ["Selector", "make_selector", "selectors"]


def selectors() -> tuple[str, ...]:
    """Names of the selectors, the default first."""
    return tuple(_MAKERS)


def make_selector(name: str, seed: int = 0) -> Selector:
    """The selector of that name; the seed matters to those that draw lots.

    Raises:
        UsageError: there is none of that name; the message gives the nearest.
    """
    if name in get_args(Inside):
        raise UsageError(f"no selector {name!r}: that reduces tokens in a tower, which bench, eval and a policy can do")
    if name not in _MAKERS:
        near = difflib.get_close_matches(str(name), _MAKERS, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? " if near else ""
        reductions = " and ".join(get_args(Inside))
        raise UsageError(
            f"no selector {name!r}: {hint}there are {', '.join(_MAKERS)}; bench and eval also take {reductions}"
        )
    return _MAKERS[name](seed)
