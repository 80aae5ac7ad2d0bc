"""Tests of the page need what serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed")

from tests.serve.served import Served, serving

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve("front", "back", url=..., ...)`` serves a page with these sources."""
    with ExitStack() as stack:

        def start(*names: str, **options: Any) -> Served:
            return stack.enter_context(serving(*names, **options))

        yield start


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests of a file: it takes seconds to start."""
    pytest.importorskip("selenium", reason="the extra 'test' is not installed")
    from tests.serve.browser import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(started: Chrome) -> Iterator[Chrome]:
    """The browser with a window of its usual size; it has left the page at the end."""
    started.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    started.get_log("browser"), started.get_log("performance")
    yield started
    started.get("about:blank")
