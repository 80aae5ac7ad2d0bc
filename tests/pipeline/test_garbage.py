"""Garbage is collected while a line runs, and only what came of the line is looked at."""

from __future__ import annotations

import ctypes
import gc
import platform
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from pipeline import garbage
from pipeline.garbage import Garbage, keep_memory_together
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


def pictures_between_small_things() -> float:
    """How many resident MB remain of pictures that are no longer there."""
    keep_memory_together()
    first = [np.ones(4 << 20, np.uint8)]
    first.clear()  # from now on glibc would put blocks of that size among the others
    begin = resident_mb()
    pictures, small = list[np.ndarray](), list[np.ndarray]()
    for _ in range(200):
        pictures.append(np.ones(400_000, np.uint8))
        small.append(np.ones(2_000, np.uint8))
    del pictures
    return resident_mb() - begin


def heaps_of_many_threads() -> int:
    """How many heaps glibc has when many threads have asked for memory at once."""
    keep_memory_together()
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait()
        small = [bytes(3_000) for _ in range(100)]
        together.wait()
        del small

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with tempfile.NamedTemporaryFile() as file:
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        return Path(file.name).read_text().count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has to be asked")
def test_pictures_of_cameras_leave_no_holes():
    assert alone(pictures_between_small_things) < 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has to be asked")
def test_the_threads_of_cameras_share_a_heap():
    assert alone(heaps_of_many_threads) <= 3  # those of threads that were there before
