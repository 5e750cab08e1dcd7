"""Reading images: modes, rotation, transparency, and which reader takes a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import drifting, reason_of, write
from PIL import Image

from entropy_vision.errors import InputReason
from entropy_vision.frames import decode, read_image, read_media, read_video


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8), (24, 32))
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(ramp).convert("RGB")
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    frames = read_image(path, size=None)
    assert frames.pixels.shape == (1, 24, 32, 3) and frames.pts_seconds.tolist() == [0.0]
    if mode != "1":
        assert np.abs(frames.pixels[0].astype(int) - ramp[..., None]).max() <= 6


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(drifting(1, 32, 48)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture is to be turned clockwise
    image.save(tmp_path / "a.png", exif=exif)
    frames, info = decode(tmp_path / "a.png", size=None)
    assert info.rotation == 270
    np.testing.assert_array_equal(frames.pixels[0], np.rot90(np.asarray(image), -1))


def test_half_transparent_pixels_mix_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 100, 128)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", size=None).pixels[0, 0, 0].tolist() == [127, 127, 177]


def test_images_and_videos_are_scaled_alike(tmp_path: Path) -> None:
    pixels = drifting(1, 120, 160)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    write(tmp_path / "a.mkv", pixels, codec="ffv1", pixel_format="bgr0")
    still = read_image(tmp_path / "a.png", size=64).pixels.astype(int)
    video = read_video(tmp_path / "a.mkv", size=64).pixels
    assert np.abs(still - video).mean() < 1


def test_read_media_goes_by_content_and_not_by_name(tmp_path: Path) -> None:
    Image.fromarray(drifting(1)[0]).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    write(tmp_path / "video.mp4", drifting(4)).rename(tmp_path / "video.jpg")
    assert read_media(tmp_path / "image.mp4").count == 1
    assert read_media(tmp_path / "video.jpg").count == 4
    assert reason_of(tmp_path / "image.mp4", kind="video") is InputReason.NO_VIDEO_STREAM
    assert reason_of(tmp_path / "video.jpg", kind="image") is InputReason.NOT_MEDIA
