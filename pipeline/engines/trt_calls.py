"""Every call of TensorRT that is made here, by the names that TensorRT gives them.

Nothing else in `pipeline` imports TensorRT, and what is not written here mypy does not let
through; so the tests can hold this one list against the real bindings, of 10.13 and of 11,
without a GPU. `LeanTensorRt` is what the lean runtime has as well, which runs plans and makes none.

A class is called as there, and so are the arguments of its methods. Lists of what an enumeration
holds end in "s".
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, SupportsInt, TypeAlias, cast

from pipeline.engines.nvidia import INSTALL, TensorRtPackage, tensorrt_package
from pipeline.errors import EngineUnavailable

OLDEST = (10, 13)
Shape = Sequence[int]
Member: TypeAlias = object  # of an enumeration; only compared and handed on


class Severities(Protocol):
    INTERNAL_ERROR: Member
    ERROR: Member
    WARNING: Member


class ILogger(Protocol):
    """Subclassed here; a subclass must call ``__init__``."""

    Severity: Severities

    def __init__(self) -> None: ...
    def log(self, severity: Member, msg: str) -> None: ...


class IProgressMonitor(Protocol):
    """Subclassed here, likewise; called from threads of TensorRT's."""

    def __init__(self) -> None: ...
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...
    def phase_finish(self, phase_name: str) -> None: ...


class TensorIOModes(Protocol):
    INPUT: Member
    OUTPUT: Member


class ExecutionContextAllocationStrategys(Protocol):
    USER_MANAGED: Member


class BuilderFlags(Protocol):
    TF32: Member
    VERSION_COMPATIBLE: Member


class NetworkDefinitionCreationFlags(Protocol):
    STRONGLY_TYPED: SupportsInt


class IHostMemory(Protocol):
    """Also a buffer; see `bytes_of`."""

    @property
    def nbytes(self) -> int: ...


class IExecutionContext(Protocol):
    def set_device_memory(self, memory: int, size: int) -> None: ...
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool: ...
    def set_input_shape(self, name: str, shape: Shape) -> bool: ...
    def infer_shapes(self) -> list[str]: ...
    def get_tensor_shape(self, name: str) -> Shape: ...
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def set_input_consumed_event(self, event: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    @property
    def num_io_tensors(self) -> int: ...
    @property
    def num_optimization_profiles(self) -> int: ...
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> Member: ...
    def get_tensor_dtype(self, name: str) -> Member: ...
    @property
    def device_memory_size_v2(self) -> int: ...
    def create_execution_context(self, strategy: Member) -> IExecutionContext | None: ...


class Runtime(Protocol):
    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None: ...


class IOptimizationProfile(Protocol):
    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None: ...


class ITimingCache(Protocol):
    def serialize(self) -> IHostMemory: ...


class ITensor(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...


class INetworkDefinition(Protocol):
    @property
    def num_inputs(self) -> int: ...
    def get_input(self, index: int) -> ITensor: ...


class IBuilderConfig(Protocol):
    progress_monitor: IProgressMonitor
    plugins_to_serialize: list[str]

    def set_flag(self, flag: Member) -> None: ...
    def clear_flag(self, flag: Member) -> None: ...
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...
    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...
    def get_timing_cache(self) -> ITimingCache | None: ...


class ParserError(Protocol):
    def desc(self) -> str: ...


class OnnxParser(Protocol):
    @property
    def num_errors(self) -> int: ...
    def parse(self, model: bytes) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...
    def get_used_vc_plugin_libraries(self) -> list[str]: ...


class Builder(Protocol):
    def create_network(self, flags: int) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None: ...


# Inside the classes below these names mean what makes one.
_ILogger: TypeAlias = ILogger
_IProgressMonitor: TypeAlias = IProgressMonitor
_Runtime: TypeAlias = Runtime
_Builder: TypeAlias = Builder
_OnnxParser: TypeAlias = OnnxParser


class LeanTensorRt(Protocol):
    """The module ``tensorrt_lean``, and as much of ``tensorrt``."""

    __version__: str
    ILogger: type[_ILogger]
    TensorIOMode: TensorIOModes
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategys

    def Runtime(self, logger: _ILogger) -> _Runtime: ...
    def nptype(self, trt_type: Member) -> type[Any]: ...


class TensorRt(LeanTensorRt, Protocol):
    """The module ``tensorrt``."""

    BuilderFlag: BuilderFlags
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlags
    IProgressMonitor: type[_IProgressMonitor]

    def init_libnvinfer_plugins(self, logger: _ILogger, namespace: str) -> bool: ...
    def Builder(self, logger: _ILogger) -> _Builder: ...
    def OnnxParser(self, network: INetworkDefinition, logger: _ILogger) -> _OnnxParser: ...


def import_tensorrt() -> tuple[LeanTensorRt, TensorRtPackage]:
    """The module to run with, the full one where there is one, and which it is.

    The driver must have been asked before: see `pipeline.engines.nvidia`.

    Raises:
        EngineUnavailable: None is installed, it cannot be loaded, or it is too old.
    """
    package = tensorrt_package()
    if package is None:
        raise EngineUnavailable(f"TensorRT is not installed; run {INSTALL}")
    try:
        module = cast(LeanTensorRt, importlib.import_module(package.module))
    except (ImportError, OSError) as error:  # OSError: one of its libraries
        raise EngineUnavailable(f"TensorRT cannot be loaded ({error}); run {INSTALL}") from error
    if version_of(module) < OLDEST:
        raise EngineUnavailable(
            f"TensorRT {module.__version__} is too old, 10.13 is the oldest that is used here; "
            f"run {INSTALL}"
        )
    return module, package


def bytes_of(memory: IHostMemory) -> bytes:
    """A copy of memory that TensorRT holds."""
    return bytes(cast(Any, memory))


def version_of(module: LeanTensorRt) -> tuple[int, int]:
    """Major and minor number."""
    major, minor = module.__version__.split(".")[:2]
    return int(major), int(minor)
