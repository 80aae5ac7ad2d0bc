"""Garbage is collected while a line runs, and only what came of the line is looked at."""

from __future__ import annotations

import gc
import platform
import weakref

import pytest

from pipeline import garbage
from pipeline.garbage import Garbage
from tests.alone import alone
from tests.benchmarks.cost import resident_mb


class Ring:
    """Refers to itself, as an exception does to the frame that it was caught in."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_ring_made_inside_the_block_is_collected_when_it_is_time(monkeypatch):
    monkeypatch.setattr(garbage, "_EVERY_SECONDS", 0.0)
    with Garbage() as collected:
        ring = weakref.ref(Ring())
        assert ring() is not None
        collected.collect()
        assert ring() is None


def fragmented() -> tuple[float, float]:
    """Resident MB with many pieces that were freed between others, before and after."""
    garbage._EVERY_SECONDS = 0.0
    with Garbage() as collected:
        pieces = [bytes(40_000) for _ in range(2000)]  # too small for mappings of their own
        del pieces[::2], pieces[:-1:2]
        before = resident_mb()
        collected.collect()
        return before, resident_mb()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has to be asked")
def test_memory_that_lies_free_between_other_is_given_back():
    before, after = alone(fragmented)
    assert after < before - 20


def test_it_is_not_collected_before():
    with Garbage() as collected:
        ring = weakref.ref(Ring())
        collected.collect()
        assert ring() is not None


def test_what_was_there_before_is_set_aside_until_the_end(monkeypatch):
    monkeypatch.setattr(garbage, "_EVERY_SECONDS", 0.0)
    before = gc.get_freeze_count()
    ring = weakref.ref(Ring())
    with Garbage() as collected:
        assert gc.get_freeze_count() > before + 1000
        collected.collect()
        assert ring() is not None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert ring() is None
