"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture
def steady() -> Iterator[None]:
    """One thread and one seed of torch, so that a test computes the same wherever it runs."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
