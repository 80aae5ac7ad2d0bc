"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.clips import write_clip

# A busy machine is no failure.
hypothesis.settings.register_profile("boxstream", deadline=None)
hypothesis.settings.load_profile("boxstream")

# A shell that starts us in the background has us ignore Ctrl-C, and all our children too.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SKIPS = os.environ.get("BOXSTREAM_NO_SKIPS") == "1"


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Where BOXSTREAM_NO_SKIPS=1, something that is missing is a failure and not an excuse."""
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"BOXSTREAM_NO_SKIPS=1 promises that nothing is missing: {report.longrepr}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Forbid skips, but for what lies in the machine: ``skipif`` and ``needs_cuda`` say so."""
    report = yield
    if not any(item.get_closest_marker(name) for name in ("skipif", "needs_cuda")):
        forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Forbid whole files that skip themselves because a package is missing."""
    report = yield
    forbid_skip(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """This folder's own files first: theirs are the longest tests, and whichever worker came to
    them at the end would be alone.
    """
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("needs_cuda") and not shutil.which("nvidia-smi"):
        pytest.skip("there is no NVIDIA GPU here")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings: beside the checkout, or where BOXSTREAM_SHARED says.

    Skips without it.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("BOXSTREAM_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def a_cache_of_the_tests_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test, and no process that one starts, writes to the cache folder of the user.

    One folder for all of them: what is in it is found by content, so no test can mislead another.
    """
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def no_thread_outlives_the_test() -> Iterator[None]:
    """Fail a test that leaves a Python thread running."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(timeout=20.0)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"threads left running: {alive}"


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """``make_clip("a.mp4", codec=..., frames=...)`` writes a clip; see `write_clip`."""

    def make(name: str = "clip.mp4", **options: Any) -> Path:
        return write_clip(tmp_path / name, **options)

    return make
