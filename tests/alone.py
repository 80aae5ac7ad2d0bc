"""A process of its own, for what measures its memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")


def alone(work: Callable[[], T]) -> T:
    """What `work`, a function of a module, returns in a new interpreter.

    What other tests have left in this one (allocators, caches, threads on their way out) would
    count as what the test in question did.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(work).result()
