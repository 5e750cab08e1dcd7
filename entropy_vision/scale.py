"""Decoded frames to RGB of another size: FFmpeg's scaler, the last step of it ours where that gives the same bytes.

FFmpeg scales luma and colour apart, rounds both to 8 bits (colour still at half the width), and then looks every sample
of red, green and blue up in a table, one after another: most of the time that scaling to 224 takes. The planes before
that step can be had as well, and what the table holds is a line: a sample is the luma, moved by as many whole steps as
its chroma asks for, times a gain. As arithmetic it takes a sixth of the time. That is so where the picture is made
lower (with a kernel of two rows or one FFmpeg does not round to 8 bits between) and its width is even; everything else
goes FFmpeg's way. Which is which was found by comparing, on some 25,000 drawn frames, and a test compares again.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Size = tuple[int, int]

# What red and blue weigh in luma, by the number of a matrix in ITU-T H.273, table 4; unsaid (2) is BT.601 for FFmpeg.
_601, _2020 = (0.299, 0.114), (0.2627, 0.0593)
_WEIGHTS = {1: (0.2126, 0.0722), 2: _601, 4: (0.3, 0.11), 5: _601, 6: _601, 7: (0.212, 0.087), 9: _2020, 10: _2020}
# layouts whose planes FFmpeg rounds to 8 bits before it turns them into RGB -> those with colour in every row; with a j
# they have the full range
_LAYOUTS = {"yuv420p": "yuv422p", "yuv422p": "yuv422p", "yuvj420p": "yuvj422p", "yuvj422p": "yuvj422p"}
_CONSTANT = 10  # the number of BT.2020 with constant luminance, read as without
_FULL = 2  # the number of the full range
_LEAST = 16  # pixels of a side; below, and where it is made that many times smaller, FFmpeg sums otherwise
_MOST = 32  # times smaller
_LOWER = 1.02  # times; a kernel of two rows is left where it is less than a hundredth


class Layout(NamedTuple):
    """How a frame is stored: all that the way it is scaled hangs on.

    Attributes:
        width, height: in pixels.
        name: of FFmpeg's pixel format.
        matrix, color_range: numbers of the colour matrix, in ITU-T H.273, and of the range of values, in FFmpeg.
    """

    width: int
    height: int
    name: str
    matrix: int
    color_range: int

    @classmethod
    def of(cls, frame: Any) -> Layout:
        """That of an av.VideoFrame."""
        return cls(frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))

    def rgb_line(self, size: Size) -> np.ndarray | None:
        """What turns its planes into RGB once they are scaled to (height, width), see `line_to_rgb`.

        None where FFmpeg has to make RGB itself.
        """
        full = self.color_range == _FULL
        if self.name not in _LAYOUTS or self.matrix not in _WEIGHTS or full != self.name.startswith("yuvj"):
            return None
        (height, width), lower, narrower = size, self.height / size[0], self.width / size[1]
        if width % 2 or min(height, width) < _LEAST or not _LOWER <= lower <= _MOST or narrower > _MOST:
            return None
        return line_to_rgb(*_WEIGHTS[self.matrix], full)


class Scaler:
    """Frames of PyAV to RGB of one size, bilinear with a kernel that widens with the reduction, as decord scales them.

    What it is built from is built anew where the layout changes.
    """

    def __init__(self, size: Size, alpha: bool) -> None:
        self.size, self.alpha = size, alpha
        self.layout: Layout | None = None
        self.line: np.ndarray | None = None
        self.graph: Any = None

    def __call__(self, frame: Any) -> np.ndarray:
        """uint8 [H, W, 3] of an av.VideoFrame; what is transparent lies over white."""
        layout = Layout.of(frame)
        if layout != self.layout:
            self.line = None if self.alpha else layout.rgb_line(self.size)
            self.graph, self.layout = self._build(frame), layout
        self.graph.push(frame)
        scaled = self.graph.pull()
        if self.line is not None:
            return _from_planes(scaled.planes, self.line, self.size)
        pixels = scaled.to_ndarray()
        return on_white(pixels) if self.alpha else pixels

    def _build(self, frame: Any) -> Any:
        from av.filter import Graph

        height, width = self.size
        matrix, options = int(frame.colorspace), "flags=bilinear"
        layout = "rgba" if self.alpha else "rgb24"
        if self.line is not None:
            layout = _LAYOUTS[frame.format.name]
            # one matrix on both sides: planes are scaled and nothing else
            options += "+accurate_rnd:in_color_matrix=bt601:out_color_matrix=bt601"
        elif matrix not in _WEIGHTS:
            options += ":in_color_matrix=bt601"  # which decord's FFmpeg takes; newer ones refuse to
        elif matrix == _CONSTANT:
            options += ":in_color_matrix=bt2020"
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        chain = graph.add("scale", f"{width}:{height}:{options}"), graph.add("format", layout), graph.add("buffersink")
        graph.link_nodes(source, *chain).configure()
        return graph


def line_to_rgb(red: float, blue: float, full: bool) -> np.ndarray:
    """From YCbCr of 8 bits to RGB, in FFmpeg's 16 bits behind the point: int32 [9].

    ITU-R BT.601 and H.273, equations 38 to 41: R = Y + 2 (1 - Kr) Cr, B = Y + 2 (1 - Kb) Cb, and G such that Y is their
    weighted sum. In the narrow range luma has 219 steps and chroma 224.

    Args:
        red, blue: what they weigh in luma, Kr and Kb.
        full: the full range, 0 to 255.

    Returns:
        (of Cr, constant) for red, (of Cb, of Cr, constant) for green, (of Cb, constant) for blue, in 2^-16 steps of
        luma a step of chroma, constants in whole steps; then the gain of a step and what is added before the shift.
    """
    green, one = 1 - red - blue, 1 << 16
    gains = [
        2 * (1 - red),
        2 * (1 - blue),
        -2 * (1 - blue) * blue / green,
        -2 * (1 - red) * red / green,
    ]
    steps = [round(gain * one * 255 / 224) for gain in gains]
    luma = one if full else one * 255 // 219
    if full:
        steps = [int(step * 224 / 255) for step in steps]
    of_red, of_blue, blue_in_green, red_in_green = (int((step * one + one // 2) / luma) for step in steps)
    # In the narrow range FFmpeg's table begins at -400, and luma is looked up 326 steps into it: that is 1.8 below what
    # the standards say, and what FFmpeg and decord give. Chroma counts from 128, which is taken off rounded down.
    start, begin = (0, 0) if full else (326, -400)
    red_at, blue_at = start - (of_red >> 9), start - (of_blue >> 9)
    green_at = start - (blue_in_green >> 9) - (red_in_green >> 9)
    added = begin * one + one // 2
    line = of_red, red_at, blue_in_green, red_in_green, green_at, of_blue, blue_at, luma, added
    return np.array(line, np.int32)


def _from_planes(planes: Any, line: np.ndarray, size: Size) -> np.ndarray:
    """RGB of the planes of an av.VideoFrame, uint8 [H, W, 3]; their rows are as long as FFmpeg laid them."""
    from entropy_vision.colour import to_rgb  # which loads numba

    out = np.empty((*size, 3), np.uint8)
    y, u, v = (np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size) for plane in planes)
    to_rgb(y, u, v, line, out.reshape(size[0], -1))
    return out


def warm_up() -> None:
    """Load what turns planes into RGB, or compile it the first time."""
    import av

    frame = av.VideoFrame(64, 64, "yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    Scaler((32, 32), alpha=False)(frame)


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 [..., 4] over white: uint8 [..., 3], rounded."""
    alpha = rgba[..., 3:].astype(np.uint16)
    colour = rgba[..., :3].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
