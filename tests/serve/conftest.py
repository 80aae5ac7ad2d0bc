"""A page that is really served, on a port of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from pipeline.serve import Page, PageSink, page
from pipeline.sinks.protocol import SinkTarget
from tests.serve.client import Client
from tests.serve.line import CLASSES, FakeControl


@dataclass
class Served:
    """A page, the line behind it, and a client that may use it."""

    page: Page
    control: FakeControl
    client: Client
    sinks: dict[str, PageSink]


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve("front", "back", url=..., ...)`` serves a page with these sources."""
    with ExitStack() as stack:

        def start(*names: str, url: str = "http://127.0.0.1:0", **options: Any) -> Served:
            control = FakeControl(*names)
            shown = stack.enter_context(page(url, control, **options))
            targets = [SinkTarget(name, CLASSES) for name in names]
            sinks = {t.name: stack.enter_context(shown.sink(t)) for t in targets}
            return Served(shown, control, Client(shown.url), sinks)

        yield start
