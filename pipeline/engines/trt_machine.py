"""TensorRT, CUDA and the GPU, as they are found here: what every part of the engine works with."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

from pipeline.engines.cuda_calls import Cuda
from pipeline.engines.nvidia import NEWER_DRIVER, Gpu, TensorRtPackage, driver
from pipeline.engines.trt_calls import LeanTensorRt, Runtime, TensorRt, import_tensorrt, version_of
from pipeline.engines.trt_log import TrtLog
from pipeline.engines.trt_memory import Lane
from pipeline.errors import EngineUnavailable


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        trt: TensorRT's module.
        package: Which that is.
        log: What it says.
        cuda: Memory, streams and graphs of the GPU.
        lane: The streams that all work goes through.
        gpu: The first of the driver's devices.
    """

    trt: LeanTensorRt
    package: TensorRtPackage
    log: TrtLog
    cuda: Cuda
    lane: Lane
    gpu: Gpu

    @classmethod
    def here(cls, end: ExitStack) -> Machine:
        """Find it; what was made for it is given back at the end.

        Raises:
            EngineUnavailable: The driver, a GPU, TensorRT or cuda-bindings is missing or broken.
        """
        gpu = driver().gpus[0]  # asked first: without one, TensorRT ends the process
        trt, package = import_tensorrt()
        cuda, log = Cuda(), TrtLog(trt)
        if package.can_build:  # the lean runtime finds in a plan what it needs of them
            full = cast(TensorRt, trt)
            _load_vc_plugin(version_of(trt)[0])
            if not full.init_libnvinfer_plugins(log.logger, ""):
                raise EngineUnavailable(f"TensorRT cannot load its plugins ({log.last_error()})")
        machine = cls(trt, package, log, cuda, Lane(cuda, end), gpu)
        machine.runtime()  # it is better known now than after a build of minutes
        return machine

    def runtime(self) -> Runtime:
        """What reads plans; `EngineUnavailable` if it is of no use here.

        Where it finds the driver too old it says so, and still makes an object, whose use, and
        whose end, would end the process. (Seen in the lean runtime of 11.4, without a driver.)
        """
        with self.log.told("make a runtime"):
            made = self.trt.Runtime(self.log.logger)
        if said := self.log.last_error(otherwise=""):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # it must never be destroyed
            raise EngineUnavailable(
                f"TensorRT {self.trt.__version__} cannot use the GPU ({said}); {NEWER_DRIVER}"
            )
        return made

    @property
    def compute_capability(self) -> str:
        """Such as ``"9.0"``."""
        return "{}.{}".format(*self.gpu.compute_capability)


def _load_vc_plugin(major: int) -> None:
    """Have in the process what the ONNX parser opens by name for a RoiAlign.

    TensorRT's own wheels lack it. The package that has it is not imported, because that would load
    a second runtime. A TensorRT of the system has it where the parser looks.
    """
    package = find_spec("tensorrt_lean_libs")
    for folder in (package and package.submodule_search_locations) or ():
        with suppress(OSError):  # of another version; the parser says so if it is needed
            ctypes.CDLL(f"{folder}/libnvinfer_vc_plugin.so.{major}")
