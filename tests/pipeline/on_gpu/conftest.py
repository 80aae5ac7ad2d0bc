"""Triton's interpreter instead of a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")
pytest.importorskip("triton", reason="torch brings it on Linux")

from pipeline.gpu import kernels, preprocess
from tests.pipeline.on_gpu.interpreted import drawing

__all__ = ["drawing"]


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels run on tensors of the CPU, in blocks as large as pictures: that is quicker here."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name, size in (("ROWS", 128), ("COLUMNS", 256)):
        monkeypatch.setattr(preprocess, name, size)
    kernels.letterbox.cache_clear()
    yield
    kernels.letterbox.cache_clear()
