"""Fewer tokens out of the tower than went in, as a setting; `reduced` does it.

A name of a selector may say it, too: "tome" lets every patch in and merges, "rate+evs-features" lets in what `rate`
keeps and prunes that.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from entropy_vision.errors import UsageError

if TYPE_CHECKING:
    from entropy_vision.policy import EntropyVLM

Inside = Literal["tome", "evs-features"]
"""Merged in every block of the tower, or pruned behind the last."""


@dataclass(frozen=True)
class Reduction:
    """Tokens that are left of those that go into the tower.

    Attributes:
        kind: how.
        keep: fraction of each input's tokens, in (0, 1].

    Raises:
        UsageError: another kind or fraction.
    """

    kind: Inside
    keep: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Inside):
            near = difflib.get_close_matches(str(self.kind), get_args(Inside), n=1, cutoff=0.0)
            known = " and ".join(get_args(Inside))
            raise UsageError(
                f"nothing reduces tokens by the name of {self.kind!r}, there are {known}; the nearest is {near[0]!r}"
            )
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float) or not 0 < self.keep <= 1:
            raise UsageError(f"{self.kind} keeps a fraction in (0, 1] of the tokens, got {self.keep!r}")

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> Reduction | None:
        """Of a configuration, such as {"kind": "evs-features", "keep": 0.5}; None of None.

        Raises:
            UsageError: other keys than these two, or as the class.
        """
        if given is None:
            return None
        if not isinstance(given, Mapping) or given.keys() != {"kind", "keep"}:
            raise UsageError(f'a reduction is written {{"kind": "evs-features", "keep": 0.5}}, got {given!r}')
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """What `read` takes."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What a selector's name means at one keep.

    Attributes:
        selector, keep: of patches that go into the tower; in (0, 1].
        reduction: of the tokens that come out; None where all do.
    """

    selector: str
    keep: float
    reduction: Reduction | None = None

    @classmethod
    def of(cls, name: str, keep: float) -> Choice:
        """The choice by which a fraction `keep` of all patches comes out as tokens.

        A selector's own name keeps that before the tower. That of a reduction lets every patch in. Of "rate+tome" each
        takes the same share, the square root: of a quarter, half the patches and half of their tokens.

        Raises:
            UsageError: more than one reduction, or one that is unknown or stands before the selector.
        """
        selector, plus, kind = name.partition("+")
        if selector in get_args(Inside) and not plus:
            selector, kind, before, behind = "uniform", name, 1.0, keep
        elif selector in get_args(Inside):
            raise UsageError(f"{name!r} reduces before it selects: write the selector first, such as rate+{selector}")
        elif not plus:
            return cls(selector, keep)
        else:
            before = behind = math.sqrt(keep)
        if kind not in get_args(Inside):
            from entropy_vision.selection import selectors  # which loads numpy

            if kind in selectors():
                known = " or ".join(get_args(Inside))
                near = difflib.get_close_matches(kind, get_args(Inside), cutoff=0.0)
                raise UsageError(
                    f"{name!r}: {kind} is a selector, and behind the plus stands what reduces: {known}; "
                    f"the nearest is {near[0]!r}"
                )
        reduction = Reduction(cast(Inside, kind), behind)
        return cls(selector, before, None if keep == 1.0 else reduction)

    def reduced_by(self, own: Reduction | None) -> Reduction | None:
        """What reduces the tokens of a policy whose own reduction is `own`: that one wherever patches are selected,
        none at keep 1, which is dense.

        Raises:
            UsageError: both would.
        """
        if own is None:
            return self.reduction
        if self.reduction is not None:
            raise UsageError(
                f"the policy reduces its tokens itself ({own.kind}, keep {own.keep:g}), so {self.reduction.kind} has "
                'no place: name plain selectors, or set "reduction": null in its config.json'
            )
        return None if self.keep == 1.0 else own


@contextmanager
def reducing(model: EntropyVLM, reduction: Reduction | None) -> Iterator[None]:
    """A policy that reduces its tokens so meanwhile; not at all, where None is given."""
    own = model.config.reduction
    model.config.reduction = None if reduction is None else reduction.to_dict()
    try:
        yield
    finally:
        model.config.reduction = own
