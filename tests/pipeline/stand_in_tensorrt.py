"""A stand-in for ``tensorrt``, lean or full: plans are ONNX models, computed by ONNX Runtime.

Everything that the engine calls is here under its own name, and as strict: what a real call would
refuse is refused, and what belongs to the GPU goes through the streams of `StandInCuda`.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from tests.pipeline.stand_in_cuda import StandInCuda, Stream

DTYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.UINT8: np.uint8,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
}
MAGIC = b"stand-in plan\n"
SCRATCH = 1 << 10  # bytes that a context needs for each image, beside what comes and goes


class ILogger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    def __init__(self) -> None:
        self.is_whole = True  # a real subclass that leaves this out crashes

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_whole = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        scores: Added to all scores; by precision, so that one may be right and one wrong.
        capture: Work cannot be captured.
        enqueue: Work cannot be enqueued.
        dark: Added to the scores of images without a bright pixel, such as no golden one is.
        several: Added to all scores of a call of more than one image, likewise.
        layers: Name of what one Conv, Gemm or MatMul gives; its weights are wrong; by precision.
        fused: They are so only where that is no output of the network.
        most_outputs: More outputs than so many cannot be built.
        build: Nothing can be built.
        unknown: An operator that the parser does not know.
        library: What the parser opens at its end, as for a RoiAlign.
        memory: The GPU has none for a plan.
        driver: It is too old; a builder cannot be made, a runtime is made and of no use.
    """

    scores: dict[str, float] = field(default_factory=dict)
    dark: dict[str, float] = field(default_factory=dict)
    several: dict[str, float] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    fused: bool = False
    most_outputs: int = 1000
    capture: bool = False
    enqueue: bool = False
    build: bool = False
    unknown: str = ""
    library: str = ""
    memory: bool = False
    driver: bool = False


class StandInTensorRt:
    """The module.

    Attributes:
        faults: What goes wrong from now on.
        built: Precisions and profiles of all that has been built, in order.
        given_timings: What the builds were given as earlier timings.
        crashes: What would have ended the process.
        contexts: Those that have not ended.
    """

    ILogger, IProgressMonitor = ILogger, IProgressMonitor
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    BuilderFlag = SimpleNamespace(TF32="tf32", VERSION_COMPATIBLE="version compatible")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ExecutionContextAllocationStrategy = SimpleNamespace(STATIC=0, USER_MANAGED=2)

    def __init__(self, cuda: StandInCuda, version: str = "11.4.0.106", gpu: str = "gpu") -> None:
        self.cuda, self.__version__, self.gpu = cuda, version, gpu
        self.faults = Faults()
        self.built: list[tuple[str, tuple[int, ...]]] = []
        self.given_timings: list[bytes] = []
        self.plugins_loaded = False
        self.crashes = self.contexts = 0

    def init_libnvinfer_plugins(self, logger: ILogger, namespace: str) -> bool:
        assert logger.is_whole and namespace == ""
        self.plugins_loaded = True
        return True

    def nptype(self, trt_type: int) -> type[Any]:
        if trt_type not in DTYPES:
            raise TypeError("no such type in numpy")
        return DTYPES[trt_type]

    def Builder(self, logger: ILogger) -> Builder:
        assert self.plugins_loaded and logger.is_whole
        if self.faults.driver:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Builder(self, logger)

    def OnnxParser(self, network: Network, logger: ILogger) -> OnnxParser:
        assert logger.is_whole
        return OnnxParser(network, self.faults)

    def Runtime(self, logger: ILogger) -> Runtime:
        assert logger.is_whole
        if self.faults.driver:
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        return Runtime(self, logger)


class LeanStandIn:
    """As much of it as ``tensorrt_lean`` has."""

    def __init__(self, full: StandInTensorRt) -> None:
        self.full = full
        same = ("ILogger", "TensorIOMode", "ExecutionContextAllocationStrategy")
        for name in (*same, "__version__", "Runtime", "nptype"):
            setattr(self, name, getattr(full, name))


class Network:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << 1, "a network must be strongly typed"
        self.model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> SimpleNamespace:
        value = self.model.graph.input[index]
        return SimpleNamespace(name=value.name, shape=_shape(value))


class OnnxParser:
    def __init__(self, network: Network, faults: Faults) -> None:
        self._network, self._faults = network, faults
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def parse(self, model: bytes) -> bool:
        self._network.model = onnx.load_from_string(model)
        for node in self._network.model.graph.node:
            if node.op_type == self._faults.unknown:
                self._errors.append(f"In node of type {node.op_type}:\nno importer")
        if self._faults.library:
            try:
                ctypes.CDLL(self._faults.library)
            except OSError as error:
                self._errors.append(f"INTERNAL_ERROR:\nUnable to open library: {error}")
        return not self._errors

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: self._errors[index])

    def get_used_vc_plugin_libraries(self) -> list[str]:
        return ["libnvinfer_vc_plugin.so.11"]


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None:
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class BuilderConfig:
    def __init__(self, trt: StandInTensorRt) -> None:
        self._trt = trt
        self.flags = {"tf32"}
        self.profiles: list[Profile] = []
        self.plugins_to_serialize: list[str] = []
        self.progress_monitor: Any = None
        self._timings = TimingCache(b"")

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        return TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not cache.content.startswith(b"timings"):
            return False
        self._timings = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return self._timings


class Builder:
    def __init__(self, trt: StandInTensorRt, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int) -> Network:
        return Network(flags)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self._trt)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> bytes | None:
        monitor = config.progress_monitor
        assert monitor.is_whole
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Timing", "Building", 3)
        goes_on = [monitor.step_complete("Timing", step) for step in range(3)]
        monitor.phase_finish("Timing")
        monitor.phase_finish("Building")
        too_many = len(network.model.graph.output) > self._trt.faults.most_outputs
        if self._trt.faults.build or too_many or not all(goes_on):
            self._logger.log(ILogger.Severity.ERROR, "no way of\n computing was found")
            return None
        portable = "version compatible" in config.flags
        assert portable == bool(config.plugins_to_serialize)
        precision = "tf32" if "tf32" in config.flags else "f32"
        profiles = [profile.shapes for profile in config.profiles]
        first = network.model.graph.input[0].name
        self._trt.built.append((precision, tuple(p[first][1][0] for p in profiles)))
        timings = config.get_timing_cache()
        self._trt.given_timings.append(timings.content)
        timings.content = timings.content + b"timings " + precision.encode()
        about = {
            "version": self._trt.__version__.split(".")[0] if portable else self._trt.__version__,
            "portable": portable,
            "precision": precision,
            "gpu": self._trt.gpu,
            "profiles": profiles,
        }
        if layer := self._trt.faults.layers.get(precision):
            _spoil(network.model.graph, layer, self._trt.faults.fused)
        body = json.dumps(about).encode() + b"\n" + network.model.SerializeToString()
        return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


class Runtime:
    def __init__(self, trt: StandInTensorRt, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger
        self.engine_host_code_allowed = False
        self._is_sound = not trt.faults.driver

    def __del__(self) -> None:
        if not self._is_sound:
            self._trt.crashes += 1  # as the real one does

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        assert not self._trt.faults.driver, "a real one would have crashed"
        if self._trt.faults.memory:
            for words in ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", "it failed"):
                self._logger.log(ILogger.Severity.ERROR, words)
            return None
        magic, _, rest = serialized_engine.partition(b"\n")
        sha256, _, body = rest.partition(b"\n")
        if magic + b"\n" != MAGIC or hashlib.sha256(body).hexdigest().encode() != sha256:
            self._logger.log(ILogger.Severity.ERROR, "the magic tag does not match")
            return None
        text, _, model = body.partition(b"\n")
        about = json.loads(text)
        version = self._trt.__version__
        if about["portable"]:
            assert self.engine_host_code_allowed, "its code was not allowed"
            version = version.split(".")[0]
        if (about["version"], about["gpu"]) != (version, self._trt.gpu):
            self._logger.log(ILogger.Severity.ERROR, "the plan is for another machine")
            return None
        return Engine(self._trt, self._logger, about, model)


class Engine:
    def __init__(
        self, trt: StandInTensorRt, logger: ILogger, about: dict[str, Any], model: bytes
    ) -> None:
        self.trt, self.logger, self.about = trt, logger, about
        self.graph = onnx.load_from_string(model).graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.values = {v.name: v for v in (*self.graph.input, *self.graph.output)}
        self.input_names = [value.name for value in self.graph.input]
        self.sides = {value.name: _shape(value)[1:] for value in self.graph.input}
        self.rows: dict[str, int] = {}  # of an output, for each image
        nothing = {
            name: np.zeros((1, *self.sides[name]), DTYPES[self.get_tensor_dtype(name)])
            for name in self.input_names
        }
        names = [value.name for value in self.graph.output]
        for name, found in zip(names, self.session.run(names, nothing), strict=True):
            self.sides[name] = found.shape[1:]
            self.rows[name] = (found.shape or (1,))[0]

    @property
    def num_io_tensors(self) -> int:
        return len(self.values)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.about["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.input_names else "output"

    def get_tensor_dtype(self, name: str) -> int:
        return self.values[name].type.tensor_type.elem_type

    @property
    def device_memory_size_v2(self) -> int:
        """What the largest profile needs."""
        return max(SCRATCH * profile[self.input_names[0]][2][0] for profile in self.profiles)

    @property
    def profiles(self) -> list[dict[str, Any]]:
        profiles: list[dict[str, Any]] = self.about["profiles"]
        return profiles

    def create_execution_context(self, strategy: int) -> Context | None:
        assert strategy == StandInTensorRt.ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._trt = engine, engine.trt
        self._profile: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._consumed: Any = None
        self._scratch = (0, 0)
        self._trt.contexts += 1

    def __del__(self) -> None:
        self._trt.contexts -= 1
        address, size = self._scratch
        if size and not (self._trt.cuda.broken or self._trt.cuda.holds(address, size)):
            self._trt.crashes += 1  # its memory must outlive it

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        if size < self._engine.device_memory_size_v2:
            self._say(f"{size} bytes are too few")  # as the real one, it returns nothing
            return
        self._scratch = memory, size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in self._trt.cuda.streams
        profiles = self._engine.profiles
        if profile_index < len(profiles):
            self._profile = profiles[profile_index]
        return profile_index < len(profiles)

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        lowest, _, highest = self._profile[name]
        fits = all(a <= b <= c for a, b, c in zip(lowest, shape, highest, strict=True))
        if not fits:
            self._say(f"{tuple(shape)} of {name} is not in the profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.input_names if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        n = next(iter(self._shapes.values()))[0] if self._shapes else -1
        return n * self._engine.rows.get(name, 1), *self._engine.sides[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._engine.values

    def set_input_consumed_event(self, event: int) -> bool:
        self._consumed = self._trt.cuda.events[event]
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda, stream = self._trt.cuda, self._trt.cuda.streams[stream_handle]
        faults = self._trt.faults
        if faults.enqueue or self._addresses.keys() != self._engine.values.keys():
            self._say("an address is missing, or a kernel failed")
            return False
        if self._scratch[1] < (needed := SCRATCH * self._shapes[self._engine.input_names[0]][0]):
            self._say(f"there is no memory of {needed} bytes to compute in")
            return False
        if stream.capture is not None and faults.capture:
            stream.capture_broken = True
            self._say("operation not permitted when stream is capturing")
            return False
        self._enqueue(cuda, stream, dict(self._addresses), dict(self._shapes))
        return True

    def _enqueue(
        self,
        cuda: StandInCuda,
        stream: Stream,
        addresses: dict[str, int],
        shapes: dict[str, tuple[int, ...]],
    ) -> None:
        """First the inputs are read, then the event says so, then the answer is computed."""
        feed: dict[str, np.ndarray] = {}
        scratch = self._scratch
        mark = np.random.default_rng(next(cuda.numbers)).integers(0, 256, scratch[1], np.uint8)

        def read() -> None:
            cuda.block(*scratch)[:] = mark
            for name in self._engine.input_names:
                feed[name] = self._memory(name, addresses[name], shapes[name]).copy()

        def compute() -> None:
            assert (cuda.block(*scratch) == mark).all(), "another context wrote into its memory"
            names = [value.name for value in self._engine.graph.output]
            for name, found in zip(names, self._engine.session.run(names, feed), strict=True):
                here = self._memory(name, addresses[name], found.shape)
                here[...] = found
                if name == "scores":
                    precision, faults = self._engine.about["precision"], self._trt.faults
                    here += faults.scores.get(precision, 0.0)
                    is_dark = feed[self._engine.input_names[0]].max(axis=(1, 2, 3)) < 100
                    here[is_dark] += faults.dark.get(precision, 0.0)
                    here += faults.several.get(precision, 0.0) if len(here) > 1 else 0.0

        cuda.append(stream, read)
        if self._consumed is not None:
            assert cuda.cudaEventRecord(self._consumed, stream) == (0,)
        cuda.append(stream, compute)

    def _memory(self, name: str, address: int, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(DTYPES[self._engine.get_tensor_dtype(name)])
        size = math.prod(shape) * dtype.itemsize
        return self._trt.cuda.block(address, size).view(dtype).reshape(shape)

    def _say(self, text: str) -> None:
        self._engine.logger.log(ILogger.Severity.ERROR, text)


def _spoil(graph: onnx.GraphProto, layer: str, fused: bool) -> None:
    """Turn the sign of every other weight of the layer that gives the value of that name."""
    if fused and layer in [value.name for value in graph.output]:
        return
    (node,) = (node for node in graph.node if layer in node.output)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    # Weights that are kept in half precision come through a Cast.
    weights = {out: n.input[0] for n in graph.node if n.op_type == "Cast" for out in n.output}
    tensor = tensors[weights.get(node.input[1], node.input[1])]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.ravel()[::2] *= -1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dimensions)
