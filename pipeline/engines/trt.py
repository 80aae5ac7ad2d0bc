"""TensorRT on an NVIDIA GPU.

This engine has never run on a GPU: none was to be had. What could be done without one is done.
Every call is held against the real bindings of TensorRT 10.13 and 11 and of CUDA, by name and
arguments (``tests/pipeline/test_trt_calls.py``); what happens between the calls is tried against
stand-ins that keep streams, events and graphs apart as the GPU does, and compute with ONNX
Runtime (``tests/pipeline/stand_in_cuda.py``, ``stand_in_tensorrt.py``). How fast it is, and
whether TensorRT's own answers pass the check, nobody knows.

| file | holds |
|---|---|
| `trt_machine` | driver, GPU, TensorRT and CUDA, found and made ready |
| `trt_plans` | a plan from the cache or a new one, and whether it may work |
| `trt_graph`, `trt_build`, `trt_progress` | from the model file to a plan |
| `trt_cache` | plans on disk |
| `parity` | how far two answers are apart |
| `trt_layers`, `layers` | which layers of a refused plan moved |
| `trt_run`, `trt_memory` | a plan at work |
| `trt_calls`, `cuda_calls` | all that is used of TensorRT and of CUDA |
"""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from pipeline.engines.contract import Awaited, Images, Outputs, Regions, Size, check_images
from pipeline.engines.parity import LabelledAp
from pipeline.engines.precision import check_float8, in_the_graph
from pipeline.engines.trt_cache import PlanCache, plan_folder
from pipeline.engines.trt_machine import Machine
from pipeline.engines.trt_plans import Opened, Plans, Wanted
from pipeline.errors import ConfigError
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings

BATCH = 4  # of recordings; a guess
OLDEST_WITH_TF32 = (8, 0)  # compute capability


class TensorRtEngine:
    """Keeps any number of calls under way, two of them on the GPU; see `Engine`.

    Args:
        model: The model file.
        settings: Precision, batch, and whether plans may be built; 0 and ``"auto"`` are resolved
            here.
        latency: A camera's images, which do not wait for others, unless a batch is asked for.
        all_sizes: Take images of every size that the file has; each has a plan of its own.
        because: Why this engine was chosen.
        portable: Build plans that later versions of TensorRT, and the lean runtime, can run, too.
        anew: Build plans, whatever is in the cache.
        folder: Of the cache; None: the user's.

    Raises:
        ConfigError: bf16 is asked for.
        EngineUnavailable: The driver, TensorRT or a plan that may not be built here is missing,
            or the GPU has no float8, which the model has.
        ModelMismatch: TensorRT cannot take the model.
        EngineError: The GPU fails, or no plan passes its check.
    """

    name = "tensorrt"
    on_gpu = True
    busy_seconds = 0.0
    calls = 0
    in_flight = 2  # one computes while the inputs of another are copied

    def __init__(
        self,
        model: ModelFile,
        settings: EngineSettings,
        *,
        latency: bool,
        all_sizes: bool,
        because: str,
        portable: bool = False,
        anew: bool = False,
        folder: Path | None = None,
    ) -> None:
        started = time.perf_counter()
        self._model = self.model = model
        self.batch = settings.batch or (1 if latency else BATCH)
        self.sizes_hw = model.input_sizes_hw if all_sizes else (model.input_size_hw,)
        with ExitStack() as end:
            machine = Machine.here(end)
            check_float8(model, machine.gpu.name, machine.gpu.compute_capability)
            wanted = Wanted(
                model,
                batch_sizes(self.batch),
                precisions(settings, machine.gpu.compute_capability),
                may_build=settings.build,
                portable=portable,
                anew=anew,
                command=build_command(model, settings, self.batch, all_sizes),
            )
            self._plans = Plans(machine, PlanCache(folder or plan_folder(settings.cache)), wanted)
            self._opened = dict[Size, Opened]()
            for size_hw in self.sizes_hw:
                self._opened[size_hw] = self._plans.open(size_hw)
                end.callback(self._opened[size_hw].runner.close)
            self._end = end.pop_all()
        first = self._opened[self.sizes_hw[0]]
        self.precision = first.key.precision
        self.reason = f"{because}; {in_the_graph(model)}{_told(settings, first)}"
        self.load_seconds = time.perf_counter() - started

    def submit(self, images: Images, regions: Regions | None = None) -> Awaited:
        """Hand the images to the GPU; returns at once, and keeps no reference to them."""
        check_images(images, self._model, self.sizes_hw, self.batch, regions)
        runner = self._opened[images.shape[1], images.shape[2]].runner
        return runner.submit(images, regions, self._answered)

    def infer(self, images: Images, regions: Regions | None = None) -> Outputs:
        """Start, wait, and return the answer."""
        return self.submit(images, regions).result()

    def judge(self, size_hw: Size, ap: LabelledAp) -> bool:
        """Keep beside a plan what its average precision is.

        Returns:
            False if too much is lost: then the plan was refused, and the next engine builds another
            or none.
        """
        return self._plans.judge(self._opened[size_hw], ap)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._end.close()

    def _answered(self, seconds: float) -> None:
        """Count a call. All go through one stream, so that their times on the GPU add up."""
        self.busy_seconds += seconds
        self.calls += 1


def batch_sizes(batch: int) -> tuple[int, ...]:
    """Powers of two below `batch`, and itself: a call pays for fewer than twice its images.

    >>> batch_sizes(6)
    (1, 2, 4, 6)
    """
    return (*(1 << i for i in range((batch - 1).bit_length())), batch)


def precisions(settings: EngineSettings, compute_capability: tuple[int, int]) -> tuple[str, ...]:
    """What may be tried, in order; `ConfigError` for bf16.

    Types stand in the graph, and TensorRT keeps to them: a file with half precision in it is run
    so whatever is asked for. What is left to choose is how products of float32 are rounded.
    """
    if settings.precision in ("bf16", "f16", "int8"):
        raise ConfigError(
            "TensorRT computes in the types that the model file's graph has, so that precision "
            f"{settings.precision} cannot be asked of it; use precision f32 or auto, or --engine "
            "openvino"
        )
    has_tf32 = compute_capability >= OLDEST_WITH_TF32
    return ("tf32", "f32") if settings.precision == "auto" and has_tf32 else ("f32",)


def build_command(model: ModelFile, settings: EngineSettings, batch: int, all_sizes: bool) -> str:
    """What makes the plans of such an engine beforehand."""
    words = ["python", "-m", "pipeline.build", str(model.path), "--batch", str(batch)]
    words += [] if settings.precision == "auto" else ["--precision", settings.precision]
    words += ["--all-sizes"] if all_sizes and model.smaller_hw else []
    words += ["--cache", settings.cache] if settings.cache not in (None, "auto") else []
    return shlex.join(words)


def _told(settings: EngineSettings, opened: Opened) -> str:
    if settings.precision == "f32":
        words = "f32 as asked"
    elif opened.key.precision == "tf32":
        words = "products of float32 rounded to tf32"
    else:
        words = "f32"
    no_graphs = opened.runner.no_graphs
    graphs = f"without CUDA graphs, because {no_graphs}" if no_graphs else "in CUDA graphs"
    return f"{words}, {graphs}; {opened.origin}"
