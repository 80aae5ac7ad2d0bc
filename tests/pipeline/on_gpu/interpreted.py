"""The kernels that draw, run by Triton's interpreter on tensors of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")
pytest.importorskip("triton", reason="torch brings it on Linux")

import triton.language

from pipeline.gpu import painting


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels are interpreted."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    painting.kernels.cache_clear()
    painting.kernels()
    # The sums that it knows are numpy's; any other function it would call for each number.
    monkeypatch.setattr(triton.language.standard, "_sum_combine", painting.added)
    yield
    painting.kernels.cache_clear()
