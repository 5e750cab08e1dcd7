"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and images; tests that need it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENTROPY_VISION_SHARED_DATA", beside)).resolve()
    if not (folder / "videos").is_dir():
        pytest.skip("no real videos and images: ENTROPY_VISION_SHARED_DATA names a folder of them")
    return folder
