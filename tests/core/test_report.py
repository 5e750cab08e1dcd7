"""The page: safe whatever the text, small whatever the pictures, true to the selection it shows."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from entropy_vision.charts import Level, Line, Mark, line_chart, number, tick_texts, ticks
from entropy_vision.frames import Frames
from entropy_vision.overlay import DIM, heat_colors, heat_picture, heat_top, kept_picture, pick_frames, spread
from entropy_vision.page import running_mean
from entropy_vision.patchset import PatchSet
from entropy_vision.report import (
    AccuracyRow,
    CurvePoint,
    Headline,
    Report,
    Sample,
    Story,
    render_report,
    write_report,
)
from entropy_vision.storyboard import story_section

EVIL = "</script><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\"'&"


def frames_and_kept(
    count: int = 3, height: int = 40, width: int = 56, patch: int = 16, seed: int = 0, selector: str = "rate"
) -> tuple[Frames, PatchSet]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    grid = (count, -(-height // patch), -(-width // patch))
    bits = rng.exponential(20, grid).astype(np.float32)
    positions = np.argwhere(rng.random(grid) < 0.4).astype(np.int32)
    kept = np.zeros((len(positions), patch, patch, 3), np.uint8)
    frames = Frames(pixels=pixels, pts_seconds=np.arange(count) / 8)
    return frames, PatchSet(pixels=kept, positions=positions, bits=bits, selector=selector)


def full_report(text: str = "plain", selector: str = "rate") -> Report:
    frames, kept = frames_and_kept(selector=selector)
    story = Story(
        title=text, frames=frames, kept=kept, beside=(kept,), note=text, question=text, answer=text, completion=text
    )
    rows = [
        AccuracyRow(
            selector=name, keep=keep, accuracy=0.5, low=0.4, high=0.6, n=90, tokens=144 * keep, flops=1e8, seconds=0.1
        )
        for name in (selector, "random")
        for keep in (1.0, 0.5, 0.25)
    ]
    blind = AccuracyRow(selector="blind", keep=0.0, accuracy=0.3, low=0.2, high=0.4, n=90)
    values = {"reward": 0.5, "accuracy": 0.6, text: 1.0}
    return Report(
        title=text,
        lead=text,
        headlines=[Headline(label=text, value=text, note=text)],
        stories=[story],
        accuracy=[*rows, blind],
        accuracy_note=text,
        curve=[CurvePoint(step=step, values=values) for step in range(40)],
        curve_note=text,
        samples=[Sample(question=text, answer=text, before=text, after=text, right_before=False, right_after=True)],
        settings={text: text, "nested": {"key": text}},
        command=text,
    )


class Tags(HTMLParser):
    """Collects tags with their attributes, checks that they close in order, keeps the text of scripts."""

    VOID = frozenset({"meta", "img", "input", "link", "br", "line", "rect", "circle", "path", "polyline"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


@pytest.mark.parametrize("text", ["plain", EVIL])
def test_a_page_holds_no_tag_attribute_or_address_that_came_from_its_text(text: str) -> None:
    plain, page = Tags(render_report(full_report())), Tags(render_report(full_report(text, selector=text)))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"href", "srcset", "action", "data", "background"} & set(attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/"), tag


def test_a_page_names_no_address() -> None:
    page = render_report(full_report())
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+|url\(|@import", page)


def test_the_policy_lets_only_the_pages_own_script_run() -> None:
    page = Tags(render_report(full_report(EVIL, selector=EVIL)))
    (policy,) = [one["content"] or "" for tag, one in page.tags if tag == "meta" and "http-equiv" in one]
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    assert kinds == ["application/json", None]
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_an_empty_report_is_a_page_with_its_title() -> None:
    page = render_report(Report(title="nothing yet"))
    assert "<h1>nothing yet</h1>" in page
    assert "<section>" not in page


def story_data(story: Story) -> dict[str, object]:
    section = Tags(f"<main>{story_section(story, 10_000_000)}</main>")
    return json.loads(section.scripts[0])


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def test_a_story_shows_the_heat_and_the_mask_of_every_frame() -> None:
    frames, kept = frames_and_kept()
    data = story_data(Story(title="t", frames=frames, kept=kept))
    (drawn,) = data["kept"]
    assert len(data["frames"]) == 3 and data["seconds"] == [0.0, 0.125, 0.25]
    for index in range(3):
        assert (picture(drawn["heat"][index]) == heat_colors(kept.bits[index], heat_top(kept.bits))).all()
        dimmed = picture(drawn["mask"][index])
        assert ((dimmed[..., 3] == 0) == kept.mask[index]).all()
        assert drawn["count"][index] == kept.mask[index].sum()
        assert [one == "1" for one in drawn["bitmap"][index]] == kept.mask[index].ravel().tolist()
        assert np.allclose(drawn["bits"][index], kept.bits[index].ravel(), atol=0.5)
        shown = picture(data["frames"][index]).astype(int)
        assert abs(shown - frames.pixels[index]).mean() < 25  # JPEG of noise


def test_the_grid_of_a_padded_story_is_as_large_as_its_patches() -> None:
    frames, kept = frames_and_kept(height=40, width=56, patch=16)  # 3 x 4 patches: 48 x 64 pixels
    section = story_section(Story(title="t", frames=frames, kept=kept), 10_000_000)
    assert f"width:{100 * 64 / 56:.4f}%;height:{100 * 48 / 40:.4f}%" in section


def test_a_story_of_many_frames_shows_sixteen_and_counts_all() -> None:
    frames, kept = frames_and_kept(count=50, height=32, width=32)
    section = story_section(Story(title="t", frames=frames, kept=kept), 10_000_000)
    assert len(json.loads(Tags(f"<main>{section}</main>").scripts[0])["frames"]) == 16
    assert section.count("<rect") == 50


def test_a_story_shrinks_until_it_fits_its_share() -> None:
    frames, kept = frames_and_kept(count=16, height=224, width=224)
    story = Story(title="t", frames=frames, kept=kept)
    large, small = story_section(story, 10_000_000), story_section(story, 120_000)
    assert len(large) > 300_000 > 120_000 >= len(small)


def test_a_report_of_many_stories_stays_below_three_megabytes(tmp_path: Path) -> None:
    frames, kept = frames_and_kept(count=8, height=224, width=224)
    story = Story(title="t", frames=frames, kept=kept, beside=(kept,))
    path = write_report(Report(title="t", stories=[story] * 24), tmp_path / "new" / "report.html")
    assert path.stat().st_size < 3_000_000
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_a_story_refuses_a_selection_of_other_frames() -> None:
    frames, _ = frames_and_kept(count=2)
    _, kept = frames_and_kept(count=3)
    with pytest.raises(ValueError, match="2 frames"):
        Story(title="t", frames=frames, kept=kept)


def test_the_kept_picture_dims_exactly_the_dropped_patches() -> None:
    frames, kept = frames_and_kept(height=40, width=56, patch=16)
    pixels, mask = frames.pixels[0], kept.mask[0]
    drawn = kept_picture(pixels, mask, 16)
    for y in range(40):
        for x in range(56):
            if mask[y // 16, x // 16]:
                assert (drawn[y, x] == pixels[y, x]).all()
            else:
                expected = [(255 - DIM[3]) / 255 * pixels[y, x, c] + DIM[3] / 255 * DIM[c] for c in range(3)]
                assert np.allclose(drawn[y, x], expected, atol=0.51)


def test_the_heat_picture_colours_every_pixel_by_its_patch() -> None:
    frames, kept = frames_and_kept(height=40, width=56, patch=16)
    drawn = heat_picture(frames.pixels[0], kept.bits[0], 16, 50.0, opacity=1.0)
    for y, x in ((0, 0), (15, 16), (39, 55), (20, 31)):
        assert (drawn[y, x] == heat_colors(kept.bits[0, y // 16, x // 16], 50.0)).all()


def test_more_bits_are_brighter() -> None:
    colors = heat_colors(np.linspace(0, 120, 300), 100.0) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(colors) > -0.6).all() and colors[-1] > colors[0] + 180


def test_the_heat_scale_ignores_one_outlier_and_survives_zeros() -> None:
    assert heat_top(np.array([1.0] * 999 + [1e6])) == 1.0
    assert heat_top(np.zeros((2, 2))) == 1.0
    assert heat_top(np.array([0.0] * 999 + [7.0])) == 7.0


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 1000])
def test_picked_frames_are_spread_and_hold_both_ends(count: int) -> None:
    picked = pick_frames(count, 16)
    assert picked[0] == 0 and picked[-1] == count - 1
    assert len(picked) == min(count, 16) == len(set(picked))
    gaps = np.diff(picked)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_spread_equals_a_loop() -> None:
    grid = np.arange(6).reshape(2, 3)
    drawn = spread(grid, 4, (7, 11))
    assert drawn.shape == (7, 11)
    assert all(drawn[y, x] == grid[y // 4, x // 4] for y in range(7) for x in range(11))


def chart_of(lines: list[Line], **options: object) -> ElementTree.Element:
    return ElementTree.fromstring(line_chart(lines, x_label="x", y_label="y", **options))  # type: ignore[arg-type]


def test_a_chart_places_points_and_intervals_in_proportion() -> None:
    marks = [Mark(x=x, y=y, low=y - 0.1, high=y + 0.1) for x, y in ((10, 0.2), (20, 0.4), (40, 0.8))]
    svg = chart_of([Line(name="a", marks=marks)], log_x=True, percent=True)
    centres = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in svg.iter("circle")]
    (x0, y0), (x1, y1), (x2, y2) = centres
    assert math.isclose(x1 - x0, x2 - x1, abs_tol=0.11)  # every step doubles
    assert math.isclose((y1 - y2) / (y0 - y1), 2.0, rel_tol=0.01)  # .4 to .8 is twice .2 to .4
    bars = [re.findall(r"-?[\d.]+", one.get("d", "")) for one in svg.iter("path")]
    for (_, y), bar in zip(centres, bars, strict=True):
        assert math.isclose(float(bar[1]) - y, y - float(bar[2]), abs_tol=0.11)
        assert math.isclose(float(bar[1]) - float(bar[2]), (y0 - y1), rel_tol=0.02)  # 0.2 wide, as 0.2 to 0.4 is


def test_a_chart_draws_levels_inside_its_range() -> None:
    marks = [Mark(x=1, y=0.7), Mark(x=2, y=0.8)]
    svg = chart_of([Line(name="a", marks=marks)], levels=[Level(name="blind", y=0.3, low=0.25, high=0.35)])
    (band,) = svg.iter("rect")
    height = float(svg.get("viewBox", "").split()[3])
    assert 0 < float(band.get("y", "")) < height - float(band.get("height", "")) < height


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0], [-1.0, 3.0], [1e-9, 2e-9], [1e12, 5e12]])
def test_a_chart_of_any_values_has_finite_places(values: list[float]) -> None:
    text = line_chart(
        [Line(name="a", marks=[Mark(x=i, y=y) for i, y in enumerate(values)])], x_label="x<y", y_label="&", small=True
    )
    assert "nan" not in text and "inf" not in text
    ElementTree.fromstring(text)


def test_a_chart_without_points_is_nothing() -> None:
    assert line_chart([Line(name="a", marks=[])], x_label="x", y_label="y") == ""


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.3, 0.71), (-2, 5), (0, 144), (1e-7, 9e-7), (0, 3e12)])
def test_ticks_are_round_evenly_spaced_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    steps = np.diff(found)
    assert 2 <= len(found) <= 7
    assert found[0] >= low - 1e-9 * (high - low) and found[-1] <= high * (1 + 1e-9)
    assert np.allclose(steps, steps[0])
    assert round(float(f"{steps[0]:.6e}".split("e")[0]), 3) in (1, 2, 5)


def test_ticks_of_whole_numbers_are_whole() -> None:
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert ticks(0, 119, whole=True) == ticks(0, 119)


def test_ticks_that_stand_close_get_the_digits_that_tell_them_apart() -> None:
    assert tick_texts([4.556, 4.558, 4.56]) == ["4.556", "4.558", "4.560"]
    assert tick_texts([0.0, 0.5, 1.0]) == ["0", "0.5", "1"]
    assert tick_texts([12345.0]) == ["12.3 k"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.1234, "0.123"),
        (7, "7"),
        (999.6, "1,000"),
        (1234, "1,234"),
        (12345, "12.3 k"),
        (4.2e6, "4.2 M"),
        (3.14e9, "3.14 G"),
        (2e12, "2 T"),
    ],
)
def test_a_number_reads_well(value: float, text: str) -> None:
    assert number(value) == text


def test_the_running_mean_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    marks = [Mark(x=i, y=float(rng.normal())) for i in range(60)]
    smooth = running_mean(marks)
    for i, mark in enumerate(smooth):
        near = [marks[j].y for j in range(60) if abs(i - j) <= 2]  # a twelfth of 60 is 5: two on each side
        assert math.isclose(mark.y, sum(near) / len(near))
        assert mark.x == i


def test_the_table_tells_what_is_saved_against_dense() -> None:
    rows = [
        AccuracyRow(
            selector="rate", keep=1.0, accuracy=0.7, low=0.6, high=0.8, n=50, tokens=144, flops=4e8, seconds=0.2
        ),
        AccuracyRow(
            selector="rate", keep=0.25, accuracy=0.7, low=0.6, high=0.8, n=50, tokens=36, flops=8e7, seconds=0.08
        ),
        AccuracyRow(selector="blind", keep=0.0, accuracy=0.3, low=0.2, high=0.4, n=50, flops=1e7, seconds=0.01),
    ]
    page = html.unescape(render_report(Report(title="t", accuracy=rows)))
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)[1:]]
    assert cells[1] == ["rate", "0.25", "36", "70.0 %", "60.0 to 80.0", "50", "80 M", "0.08", "5x", "2.5x"]
    assert cells[2][-2:] == ["", ""]


def test_rows_without_accuracy_give_a_table_and_no_chart() -> None:
    page = render_report(
        Report(title="t", accuracy=[AccuracyRow(selector="rate", keep=0.5, tokens=72, flops=1e8, seconds=1)])
    )
    assert "What each selection costs" in page and "<svg" not in page and "95 %" not in page
