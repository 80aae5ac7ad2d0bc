"""Makes a TensorRT plan out of an ONNX model; takes minutes.

The network is strongly typed: what a tensor is in the graph, it is in the plan, and the only
liberty left is TF32, the GPU's rounding inside of float32 products. Each batch size has a profile
of fixed shapes, because for those TensorRT finds the best way of computing.

Never run on a GPU; see `pipeline.engines.trt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

from pipeline.engines.nvidia import INSTALL
from pipeline.engines.trt_calls import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    OnnxParser,
    TensorRt,
    bytes_of,
)
from pipeline.engines.trt_log import TrtLog
from pipeline.engines.trt_machine import Machine
from pipeline.engines.trt_progress import build_monitor
from pipeline.errors import EngineError, EngineUnavailable, ModelMismatch


@dataclass(frozen=True)
class Order:
    """What to build.

    Attributes:
        model: Name of the model, for messages and the progress bar.
        onnx: The ONNX model; of its shapes only the batch is open.
        batches: Batch sizes, in the order of the profiles.
        tf32: Whether float32 products may be rounded.
        portable: Whether later versions of TensorRT, and the lean runtime, shall run it.
    """

    model: str
    onnx: bytes
    batches: tuple[int, ...]
    tf32: bool
    portable: bool


class Built(NamedTuple):
    """A plan, and what its build measured, to be given to the next one."""

    plan: bytes
    timings: bytes


def build(machine: Machine, order: Order, timings: bytes) -> Built:
    """Make a plan; shows how far it is on a terminal.

    Args:
        machine: TensorRT and the GPU.
        order: What to build.
        timings: What earlier builds measured, or nothing.

    Raises:
        EngineUnavailable: The TensorRT that is installed only runs plans, or lacks a library.
        ModelMismatch: TensorRT cannot read the model.
        EngineError: It can, and fails all the same.
    """
    trt = full_tensorrt(machine)
    with machine.log.told(f"build {order.model}"):
        return _built(trt, machine.log, order, timings)


def _built(trt: TensorRt, log: TrtLog, order: Order, timings: bytes) -> Built:
    builder = trt.Builder(log.logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # 11 knows nothing else
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(order.onnx):
        failed = f"TensorRT cannot read {order.model} ({_errors(parser)})"
        if "Unable to open library" in failed:
            raise EngineUnavailable(
                f"{failed}; tensorrt-lean-cu13-libs of TensorRT's version has it: run {INSTALL}, "
                "or beside tensorrt-cu12 install tensorrt-lean-cu12-libs"
            )
        raise ModelMismatch(f"{failed}; export it again, or use --engine openvino")
    config = builder.create_builder_config()
    _configure(trt, config, parser, order)
    _add_profiles(builder, network, config, order)
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):  # of another version: start with none
        config.set_timing_cache(config.create_timing_cache(b""), False)
    with build_monitor(trt, order.model) as monitor:
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT cannot build {order.model} ({log.last_error()})")
    measured = config.get_timing_cache()
    return Built(bytes_of(plan), bytes_of(measured.serialize()) if measured else b"")


def full_tensorrt(machine: Machine) -> TensorRt:
    """The module that builds; `EngineUnavailable` where only the lean one is installed."""
    if not machine.package.can_build:
        raise EngineUnavailable(
            f"{machine.package.module} only runs plans; build one with the full TensorRT, on a "
            "machine with the same GPU: python -m pipeline.build MODEL --portable"
        )
    return cast(TensorRt, machine.trt)


def _configure(trt: TensorRt, config: IBuilderConfig, parser: OnnxParser, order: Order) -> None:
    if not order.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if order.portable:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # RoiAlign is a plugin, which a runtime without plugins finds in the plan.
        config.plugins_to_serialize = parser.get_used_vc_plugin_libraries()


def _add_profiles(
    builder: Builder, network: INetworkDefinition, config: IBuilderConfig, order: Order
) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        batch, *sides = tensor.shape
        if batch != -1 or min(sides) < 1:
            raise ModelMismatch(
                f"{order.model}: input {tensor.name!r} has shape {tuple(tensor.shape)}; expected a "
                "free batch and everything else fixed; export it again"
            )
    for n in order.batches:
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            shape = (n, *tuple(tensor.shape)[1:])
            profile.set_shape(tensor.name, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"TensorRT takes no profile for {n} images of {order.model}")


def _errors(parser: OnnxParser) -> str:
    """What the parser complains of, in one line."""
    told = (parser.get_error(index).desc() for index in range(min(parser.num_errors, 3)))
    return "; ".join(" ".join(text.split()) for text in told) or "it does not say why"
