"""A machine with a GPU that is none: driver, CUDA and TensorRT replaced by their stand-ins."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engines.nvidia import Driver, Gpu
from pipeline.engines.trt import TensorRtEngine
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings
from tests.pipeline.stand_in_cuda import StandInCuda
from tests.pipeline.stand_in_tensorrt import LeanStandIn, StandInTensorRt

GPU = Gpu("NVIDIA of straw", (9, 0), 1 << 34)


@dataclass
class StrawGpu:
    """The stand-ins, and a folder for plans."""

    cuda: StandInCuda
    trt: StandInTensorRt
    folder: Path

    def engine(
        self,
        model: ModelFile,
        *,
        latency: bool = False,
        all_sizes: bool = False,
        portable: bool = False,
        anew: bool = False,
        **settings: Any,
    ) -> TensorRtEngine:
        """An engine for batches of three unless told otherwise."""
        return TensorRtEngine(
            model,
            EngineSettings(name="tensorrt", **{"batch": 3} | settings),
            latency=latency,
            all_sizes=all_sizes,
            because="asked",
            portable=portable,
            anew=anew,
            folder=self.folder,
        )


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, hasty: tuple[int, ...] = (), **trt: str
) -> StrawGpu:
    """Put the stand-ins where the real modules would be found."""
    cuda = StandInCuda(hasty)
    straw = StrawGpu(cuda, StandInTensorRt(cuda, **trt), folder)
    tools = SimpleNamespace(get_cuda_native_handle=lambda thing: thing.number)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.utils", tools)
    monkeypatch.setitem(sys.modules, "tensorrt", straw.trt)
    for module in ("pipeline.engines", "pipeline.engines.trt_machine"):
        monkeypatch.setattr(f"{module}.driver", lambda: Driver((13, 1), (GPU,)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return straw


def make_lean(monkeypatch: pytest.MonkeyPatch, straw: StrawGpu) -> None:
    """Leave only the lean runtime installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", LeanStandIn(straw.trt))
