"""A page that is really served, on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.serve import Page, PageSink, page
from pipeline.sinks.protocol import SinkTarget
from tests.serve.client import Client
from tests.serve.line import CLASSES, FakeControl, repeatedly, result


@dataclass
class Served:
    """A page, the line behind it, and a client that may use it."""

    page: Page
    control: FakeControl
    client: Client
    sinks: dict[str, PageSink]


@contextmanager
def serving(*names: str, url: str = "http://127.0.0.1:0", **options: Any) -> Iterator[Served]:
    """Serve a page with these sources."""
    control = FakeControl(*names)
    with page(url, control, **options) as shown, ExitStack() as stack:
        targets = [SinkTarget(name, CLASSES) for name in names]
        sinks = {t.name: stack.enter_context(shown.sink(t)) for t in targets}
        yield Served(shown, control, Client(shown.url), sinks)


def playing(served: Served, *names: str) -> AbstractContextManager[None]:
    """Inside the block the sources deliver ever new pictures."""

    def write(number: int) -> None:
        for name in names:
            served.sinks[name].write(result(name, number, (320, 180), found=[(0, 0.91)]))

    return repeatedly(write, 0.05)
