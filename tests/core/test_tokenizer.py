"""EntropyTokenizer: what it promises whatever the selector."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oracles_selection as oracle
import pytest
from media import as_frames, drifting

from entropy_vision import Budget, EntropyTokenizer, Frames, UsageError, selectors
from entropy_vision.pooled import PooledTokenizer
from entropy_vision.rate import Bits
from entropy_vision.selection import Selector


def _frames(*shape: int, seed: int = 0) -> Frames:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8)


@pytest.mark.parametrize("name", selectors())
def test_tokenizer_keeps_the_pixels_that_stand_at_the_positions(name: str) -> None:
    frames = _frames(2, 30, 41)
    kept = EntropyTokenizer(patch_size=8, keep=0.3, selector=name)(frames)
    expected = oracle.patches(frames.pixels, 8)
    assert kept.grid == (2, 4, 6)
    assert kept.selector == name
    assert len(kept) == round(0.3 * 48)
    for patch, position in zip(kept.pixels, kept.positions.tolist(), strict=True):
        np.testing.assert_array_equal(patch, expected[tuple(position)])


def test_tokenizer_keeps_a_quarter_when_nothing_is_said() -> None:
    assert EntropyTokenizer().budget == Budget(keep=0.25)


def test_scoring_once_and_selecting_equals_calling() -> None:
    frames, tok = _frames(3, 32, 32), EntropyTokenizer(8, budget=Budget(tokens=9))
    called, selected = tok(frames), tok.select(frames, tok.score(frames))
    np.testing.assert_array_equal(called.positions, selected.positions)
    assert len(tok.select(frames, tok.score(frames), Budget(tokens=5))) == 5


@pytest.mark.parametrize("name", ["rate", "histogram"])
def test_a_budget_in_bits_is_never_exceeded(name: str) -> None:
    frames, tok = _frames(3, 40, 40), EntropyTokenizer(8, selector=name)
    bits = tok.score(frames)
    for total in np.quantile(bits, 0.9) * np.array([1.5, 4, 20]):
        kept = tok.select(frames, bits, Budget(bits=float(total)))
        assert kept.bits[kept.mask].sum(dtype=np.float64) <= total * (1 + 1e-6)


def test_a_choice_is_the_same_whoever_scored_the_frames() -> None:
    """What the score has seen of them is kept for the choice: of other frames, or of another patch size, it is not."""
    tokenizer, small = EntropyTokenizer(16, keep=0.3), EntropyTokenizer(8, keep=0.3)
    frames = as_frames(drifting(12, 64, 96))
    bits = tokenizer.score(frames)
    expected = tokenizer.select(frames, bits)
    again = Frames(pixels=frames.pixels.copy(), pts_seconds=frames.pts_seconds)
    small.score(frames)
    other = as_frames(np.repeat(frames.pixels[:1], 12, axis=0))
    tokenizer.score(other)
    for one in (frames, again):
        np.testing.assert_array_equal(tokenizer.select(one, bits).positions, expected.positions)
    assert (tokenizer.select(other, bits).mask != expected.mask).any()


def test_a_threshold_keeps_every_patch_that_has_as_many_bits() -> None:
    frames, tok = _frames(1, 64, 64), EntropyTokenizer(8, selector="histogram")
    bits = tok.score(frames)
    threshold = float(np.median(bits))
    np.testing.assert_array_equal(tok.select(frames, bits, Budget(threshold=threshold)).mask, bits >= threshold)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0.5, "budget": Budget(tokens=3)}, "not both"),
        ({"keep": 0.0}, r"in \(0, 1\]"),
        ({"budget": 0.5}, "must be a Budget"),
        ({"patch_size": 0}, "at least 1"),
        ({"patch_size": 7.5}, "whole number"),
        ({"patch_size": "16"}, "whole number"),
        ({"selector": None}, "must be a name"),
        ({"selector": "rats"}, "did you mean 'rate'"),
        ({"selector": "xyz"}, "there are rate"),
    ],
)
def test_tokenizer_refuses_settings_it_cannot_mean(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EntropyTokenizer(**given)


def test_select_refuses_scores_of_other_frames() -> None:
    tok = EntropyTokenizer(8)
    with pytest.raises(ValueError, match="do not belong"):
        tok.select(_frames(1, 32, 32), tok.score(_frames(1, 40, 32)))
    with pytest.raises(ValueError, match="finite"):
        tok.select(_frames(1, 32, 32), np.full((1, 4, 4), np.nan, np.float32))


def test_select_refuses_a_budget_that_is_none() -> None:
    frames, tok = _frames(1, 32, 32), EntropyTokenizer(8)
    with pytest.raises(UsageError, match="must be a Budget"):
        tok.select(frames, tok.score(frames), 0.5)  # type: ignore[arg-type]


def test_a_selector_of_ones_own_is_used() -> None:
    class Last(Selector):
        name, version = "last", 3

        def score(self, frames: Frames, patch_size: int) -> np.ndarray:
            return np.arange(16, dtype=np.float32).reshape(1, 4, 4)

        def choose(self, bits: np.ndarray, count: int, frames: Frames, patch_size: int) -> np.ndarray:
            return bits >= bits.size - count

    kept = EntropyTokenizer(8, keep=0.25, selector=Last())(_frames(1, 32, 32))
    assert kept.positions.tolist() == [[0, 3, c] for c in range(4)]
    assert kept.selector == "last"


def test_fingerprint_changes_with_every_setting_and_with_nothing_else() -> None:
    tokens = [
        EntropyTokenizer(),
        EntropyTokenizer(patch_size=14),
        EntropyTokenizer(keep=0.5),
        EntropyTokenizer(budget=Budget(tokens=64)),
        EntropyTokenizer(budget=Budget(bits=64)),
        EntropyTokenizer(selector="random"),
        EntropyTokenizer(selector="random", seed=1),
    ]
    prints = [tok.fingerprint() for tok in tokens]
    assert len(set(prints)) == len(prints)
    assert EntropyTokenizer(keep=0.25).fingerprint() == prints[0]


def test_tokenizing_imports_no_torch() -> None:
    code = (
        "import sys, numpy as np, entropy_vision as ev;"
        "ev.EntropyTokenizer()(ev.Frames(pixels=np.zeros((2, 32, 32, 3), np.uint8), pts_seconds=np.zeros(2)));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["terminal_rich.gif", "h264_10bit.mp4", "bottle.mp4"])
def test_tokenizer_meets_the_budget_on_real_videos(shared_data: Path, name: str) -> None:
    import av

    with av.open(str(shared_data / "videos" / name)) as source:
        source.streams.video[0].thread_type = "NONE"
        decoded = [frame for frame, _ in zip(source.decode(video=0), range(6), strict=False)]
        pixels = np.stack([frame.reformat(width=160, height=120, format="rgb24").to_ndarray() for frame in decoded])
    frames = Frames(pixels=pixels, pts_seconds=np.arange(len(pixels)) / 8)
    for selector in selectors():
        tok = EntropyTokenizer(patch_size=14, keep=0.2, selector=selector)
        kept = tok(frames)
        assert len(kept) == round(0.2 * kept.bits.size)
        assert kept.mask.any(axis=(1, 2)).all()


@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_a_stream_gives_frame_by_frame_what_the_call_gives_at_once(size: tuple[int, int]) -> None:
    frames = as_frames(drifting(9, *size))
    tok = EntropyTokenizer(8, budget=Budget(threshold=40))
    whole, push = tok(frames), tok.stream()
    parts = [push(frame) for frame in frames.pixels]
    np.testing.assert_array_equal(np.concatenate([part.bits for part in parts]), whole.bits)
    np.testing.assert_array_equal(np.concatenate([part.mask for part in parts]), whole.mask)
    np.testing.assert_array_equal(np.concatenate([part.pixels for part in parts]), whole.pixels)
    assert not np.array_equal(tok.stream()(frames.pixels[5]).bits, parts[5].bits)  # the state matters, and is its own


def test_the_state_of_a_stream_does_not_grow() -> None:
    bits, sizes = Bits(8), []
    for frame in drifting(40):
        bits(frame)
        sizes.append(len(pickle.dumps(bits)))
    assert max(sizes[10:]) <= 1.1 * sizes[9]  # a frame with a camera's motion holds a little more than one without


def test_a_stream_of_a_still_scene_keeps_one_patch_a_frame_after_the_first() -> None:
    push, still = EntropyTokenizer(8, budget=Budget(threshold=40)).stream(), drifting(1)[0]
    assert len(push(still)) > 1
    assert [len(push(still)) for _ in range(5)] == [1] * 5


def test_slips_are_one_line() -> None:
    pixels, frames = drifting(2), as_frames(drifting(2))
    tok = EntropyTokenizer(8)
    for call in (lambda: tok(pixels), lambda: tok.score(None)):
        with pytest.raises(UsageError, match=r"takes Frames, got (ndarray|NoneType): Frames\(pixels="):
            call()
    assert len(tok.select(frames, tok.score(frames).tolist())) == len(tok(frames))
    for seed in ("x", None, 1.7, True):
        with pytest.raises(UsageError, match="seed must be a whole number"):
            EntropyTokenizer(8, seed=seed)
    with pytest.raises(UsageError, match="must be finite"):
        Budget(tokens=10**400)
    assert len(EntropyTokenizer(8, budget=Budget(threshold=1e39))(frames)) == 2


def test_pooled_tokens_neither_stream_nor_merge() -> None:
    with pytest.raises(UsageError, match="does not stream"):
        PooledTokenizer(8, budget=Budget(threshold=9)).stream()
    with pytest.raises(UsageError, match="merges no patches"):
        PooledTokenizer(8, keep=0.5, merge=2)
    with pytest.raises(UsageError, match="FLOPs do not price"):
        PooledTokenizer(16, budget=Budget(flops=1e12, tower="ViT-B-16"))(as_frames(drifting(2, 64, 64)))


def test_what_cannot_stream_says_so() -> None:
    for tok in (EntropyTokenizer(), EntropyTokenizer(budget=Budget(bits=9))):
        with pytest.raises(UsageError, match="threshold"):
            tok.stream()
    with pytest.raises(UsageError, match="evs scores whole videos"):
        EntropyTokenizer(budget=Budget(threshold=9), selector="evs").stream()
    push = EntropyTokenizer(8, budget=Budget(threshold=9)).stream()
    push(drifting(1)[0])
    with pytest.raises(ValueError, match="a frame of"):
        push(drifting(1, 32, 64)[0])


@pytest.mark.parametrize("moments", [1, 4])
@pytest.mark.parametrize("name", selectors())
def test_fewer_of_what_was_kept_are_those_of_the_frames_or_refused(name: str, moments: int) -> None:
    """Chosen without pixels from half of the patches: every budget below, none of it wrong."""
    frames = as_frames(drifting(moments, 40, 48, seed=3))
    tokenizer = EntropyTokenizer(patch_size=8, keep=0.5, selector=name)
    kept = tokenizer(frames)
    bits, exact = tokenizer.score(frames), 0
    assert tokenizer.narrow(kept, Budget(keep=0.5)) is kept
    for count in range(1, len(kept)):
        try:
            fewer = tokenizer.narrow(kept, Budget(tokens=count))
        except UsageError:
            continue
        wanted = tokenizer.select(frames, bits, Budget(tokens=count))
        np.testing.assert_array_equal(fewer.positions, wanted.positions)
        np.testing.assert_array_equal(fewer.pixels, wanted.pixels)
        np.testing.assert_array_equal(fewer.bits, wanted.bits)
        exact += 1
    if moments == 1:
        assert exact == len(kept) - 1 or name in ("uniform", "uniform_frames")
    else:
        assert exact == 0 if name == "rate" else exact > 0


def test_more_than_was_kept_or_of_another_tokenizer_is_refused() -> None:
    frames = _frames(2, 32, 32)
    kept = EntropyTokenizer(patch_size=8, keep=0.25)(frames)
    with pytest.raises(UsageError, match=r"keep = 0\.5 asks for more than was kept: 8 of 32"):
        EntropyTokenizer(patch_size=8).narrow(kept, Budget(keep=0.5))
    with pytest.raises(UsageError, match="chosen by rate at patch size 8, not by rate at 16"):
        EntropyTokenizer(patch_size=16).narrow(kept, Budget(keep=0.25))
    with pytest.raises(UsageError, match="not by evs at 8"):
        EntropyTokenizer(patch_size=8, selector="evs").narrow(kept, Budget(keep=0.25))
    merged = EntropyTokenizer(patch_size=8, keep=0.5, merge=2)(_frames(1, 32, 32))
    whole = EntropyTokenizer(patch_size=8, keep=1.0)(_frames(1, 32, 32))
    for merge, some in ((1, merged), (2, kept), (4, kept)):
        for keep in (0.125, len(some) / some.bits.size):
            with pytest.raises(UsageError, match=f"were not merged as by merge = {merge}"):
                EntropyTokenizer(patch_size=8, merge=merge).narrow(some, Budget(keep=keep))
    merging = EntropyTokenizer(patch_size=8, keep=0.5, merge=2)
    assert merging.narrow(merged, Budget(keep=0.5)) is merged and merging.narrow(whole, Budget(keep=1.0)) is whole
    with pytest.raises(UsageError, match="needs the pixels"):
        merging.narrow(merged, Budget(keep=0.25))


def test_of_a_video_pooled_tokens_are_not_what_was_kept() -> None:
    pooled, plain = PooledTokenizer(patch_size=8, keep=0.25), EntropyTokenizer(patch_size=8, keep=0.25)
    video, still = _frames(2, 32, 32), _frames(1, 32, 32)
    with pytest.raises(UsageError, match="takes pooled tokens, which are not what was kept"):
        pooled.narrow(plain(video), Budget(keep=0.25))
    with pytest.raises(UsageError, match="takes pooled tokens, which FLOPs do not price"):
        pooled.select(video, pooled.score(video), Budget(flops=1e12))
    kept = plain(still)
    assert pooled.narrow(kept, Budget(keep=0.25)) is kept
