"""Fixtures that all tests share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.clips import write_clip

# A busy machine is no failure.
hypothesis.settings.register_profile("boxstream", deadline=None)
hypothesis.settings.load_profile("boxstream")

NO_SKIPS = os.environ.get("BOXSTREAM_NO_SKIPS") == "1"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings: beside the checkout, or where BOXSTREAM_SHARED says.

    Skips without it; fails instead where BOXSTREAM_NO_SKIPS=1 promises it.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("BOXSTREAM_SHARED", beside)) / "data"
    if not folder.is_dir():
        reason = f"no real recordings at {folder}"
        if NO_SKIPS:
            pytest.fail(f"{reason}, though BOXSTREAM_NO_SKIPS=1 promises them")
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def no_thread_outlives_the_test() -> Iterator[None]:
    """Fail a test that leaves a Python thread running."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(timeout=2.0)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"threads left running: {alive}"


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """``make_clip("a.mp4", codec=..., frames=...)`` writes a clip; see `write_clip`."""

    def make(name: str = "clip.mp4", **options: Any) -> Path:
        return write_clip(tmp_path / name, **options)

    return make
