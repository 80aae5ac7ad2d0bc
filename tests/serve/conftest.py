"""Tests of the page need what serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from tests.serve.served import Served, serving


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve("front", "back", url=..., ...)`` serves a page with these sources."""
    with ExitStack() as stack:

        def start(*names: str, **options: Any) -> Served:
            return stack.enter_context(serving(*names, **options))

        yield start
