"""Runs one TensorRT plan, which is for images of one size.

Each batch size that is wanted of the plan has an optimisation profile, an execution context and, if
TensorRT's work can be captured, two CUDA graphs, one for each place where inputs may lie. A call of
fewer images takes the next larger batch size. The wait is for the answer only: a call returns when
its work has been handed to the GPU.

Never run on a GPU; see `pipeline.engines.trt`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import numpy as np

from pipeline.channel import idle
from pipeline.engines.contract import Awaited, Images, Outputs, Regions, Size
from pipeline.engines.cuda_calls import Address, GpuFailed, Handle
from pipeline.engines.trt_calls import ICudaEngine, IExecutionContext, LeanTensorRt
from pipeline.engines.trt_machine import Machine
from pipeline.engines.trt_memory import Array, Place, Port, Ports, Staging, device_memory
from pipeline.errors import EngineError
from pipeline.gpu.images import DeviceImages

PLACES = 2  # of inputs on the GPU


class PlanRunner:
    """Keeps any number of calls under way.

    Args:
        machine: TensorRT and the GPU.
        plan: The plan.
        size_hw: Of the images.
        batches: Batch sizes of its profiles, in order.
        wanted: Those of them that are used; None: all.
        portable: It brings code of its own, for other versions of TensorRT; that is allowed.
        whole: Some of its outputs begin with several rows for each image, instead of with the
            batch; each comes as (n, rows, ...), and an ordinary one as (n, 1, ...).

    Attributes:
        names: Of inputs and of outputs, in the order of the graph.
        ports: Inputs and outputs of the network.
        closed: Nothing can be answered any more.
        no_graphs: Why calls are not CUDA graphs; None if they are.

    Raises:
        EngineError: The plan does not have those profiles, or does not run.
    """

    def __init__(
        self,
        machine: Machine,
        plan: bytes,
        size_hw: Size,
        batches: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
        portable: bool = False,
        whole: bool = False,
    ) -> None:
        self._whole = whole
        self._log, self._cuda, self._lane = machine.log, machine.cuda, machine.lane
        cuda, lane = machine.cuda, machine.lane
        self._runtime = machine.runtime()  # must outlive the plan
        if portable:
            self._runtime.engine_host_code_allowed = True
        self._plan = self._deserialised(plan)
        self._free = deque[Staging]()
        self._contexts: dict[int, IExecutionContext] = {}
        self._graphs: dict[tuple[int, int], Handle] = {}
        self._calls = 0
        self.no_graphs: str | None = None
        self.closed = False
        # Nothing stays allocated if it fails half way.
        with ExitStack() as end, lane.idle_on_error(cuda):
            found = self._plan.num_optimization_profiles
            if found != len(batches):
                raise EngineError(f"the plan has {found} profiles, expected {len(batches)}")
            self.names = _names(machine.trt, self._plan)
            scratch = self._scratch(end)
            end.callback(self._contexts.clear)
            for n in batches if wanted is None else wanted:
                profile = batches.index(n)
                self._contexts[n] = self._context(machine.trt, scratch, profile, n, size_hw)
            largest = max(self._contexts)
            self.ports = self._ports(machine.trt, largest)
            self._outputs = device_memory(cuda, self.ports.outputs, largest, end)
            self._places = [
                Place.new(cuda, self.ports.inputs, largest, lane, end) for _ in range(PLACES)
            ]
            self._bind_outputs()
            lane.finish(cuda)
            self._capture(end)
            self._end = end.pop_all()

    def submit(
        self,
        images: Images,
        regions: Regions | None,
        answered: Callable[[float], None] = lambda seconds: None,
    ) -> Awaited:
        """Hand the images to the GPU; `answered` is told how long it worked on them."""
        given: tuple[Array | DeviceImages, ...] = (
            (images,) if regions is None else (images, regions)
        )
        n, cuda, lane = len(images), self._cuda, self._lane
        with lane.turn:
            if self.closed:
                raise EngineError("the engine was closed")
            staging = self._free.pop() if self._free else self._new_staging()
            place = self._calls % PLACES
            self._calls += 1
            staging.upload(given, self._places[place], lane)
            cuda.hold(lane.computing, self._places[place].filled)
            cuda.record(staging.begun, lane.computing)
            self._compute(min(size for size in self._contexts if size >= n), place)
            staging.download(self._outputs, n, lane)
        return Awaited(partial(self.answer, staging, n), answered)

    def answer(self, staging: Staging, n: int) -> tuple[Outputs, float]:
        """Wait for a call; its arrays, and the seconds that the GPU worked on it."""
        if self.closed:
            raise EngineError("the engine was closed before the answer was asked for")
        with idle():
            self._cuda.wait(staging.done)
        outputs = staging.answer(n)
        seconds = self._cuda.seconds_between(staging.begun, staging.done)
        self._free.append(staging)
        return outputs, seconds

    def close(self) -> None:
        """Wait for what is under way and give everything back."""
        with self._lane.turn, ExitStack() as end:
            self.closed = True
            end.callback(self._end.close)
            end.callback(self._free.clear)
            with suppress(EngineError):  # it has failed before, and said so
                self._lane.finish(self._cuda)

    def _deserialised(self, plan: bytes) -> ICudaEngine:
        with self._log.told("read the plan"):
            engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._failed("read the plan")
        return engine

    def _new_staging(self) -> Staging:
        return Staging(self._cuda, self.ports, max(self._contexts), self._end)

    def _compute(self, size: int, place: int) -> None:
        """Give the computing stream a batch size's work on what lies at a place."""
        stream, consumed = self._lane.computing, self._places[place].consumed
        if graph := self._graphs.get((size, place)):
            self._cuda.launch(graph, stream)
            self._cuda.record(consumed, stream)
            return
        context = self._contexts[size]
        self._bind_inputs(context, place)
        # TensorRT tells when it has read them, which is long before it has the answer.
        self._sure(context.set_input_consumed_event(self._cuda.number_of(consumed)), "set an event")
        self._enqueue(context)

    def _capture(self, end: ExitStack) -> None:
        """Make the graphs; without any, if one cannot be made.

        A captured event could not be waited for outside of its graph, so none is set yet.
        """
        stream = self._lane.computing
        try:
            for size, context in self._contexts.items():
                for place in range(PLACES):
                    self._bind_inputs(context, place)
                    self._enqueue(context)  # what is made ready by a first call is not captured
                    self._cuda.finish(stream)
                    graph = self._cuda.captured(stream, partial(self._enqueue, context))
                    end.callback(self._cuda.end_graph, graph)
                    self._graphs[size, place] = graph
        except EngineError as error:
            self._graphs.clear()
            self.no_graphs = str(error)
            self._cuda.finish(stream)

    def _enqueue(self, context: IExecutionContext) -> None:
        number = self._cuda.number_of(self._lane.computing)
        with self._log.told("run"):
            self._sure(context.execute_async_v3(number), "run")

    def _scratch(self, end: ExitStack) -> tuple[Address, int]:
        """Where all contexts compute, and its bytes; of a context's own each would be as large.

        One is enough, since one stream runs them, one after the other.
        """
        size = self._plan.device_memory_size_v2  # what the largest profile needs
        address = self._cuda.device_memory(size)
        end.callback(self._cuda.free_device, address)
        return address, size

    def _context(
        self, trt: LeanTensorRt, scratch: tuple[Address, int], profile: int, n: int, size_hw: Size
    ) -> IExecutionContext:
        """Ready for batches of `n`."""
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._plan.create_execution_context(strategy)
        if context is None:
            raise GpuFailed(f"the GPU has no memory for the plan ({self._log.last_error()})")
        stream = self._cuda.number_of(self._lane.computing)
        self._sure(context.set_optimization_profile_async(profile, stream), "take a profile")
        self._cuda.finish(self._lane.computing)
        with self._log.told("take memory"):
            context.set_device_memory(*scratch)
        if said := self._log.last_error(otherwise=""):  # it returns nothing
            raise EngineError(f"TensorRT could not take memory to compute in ({said})")
        for name in self.names[0]:
            shape = (n, *tuple(context.get_tensor_shape(name))[1:])
            if name == self.names[0][0] and shape[1:] != (*size_hw, 3):
                raise EngineError(f"the plan is for images {shape[1:]}, expected {(*size_hw, 3)}")
            self._sure(context.set_input_shape(name, shape), f"take {name} of shape {shape}")
        if missing := context.infer_shapes():
            raise EngineError(f"the plan leaves the shapes of {', '.join(missing)} open")
        return context

    def _ports(self, trt: LeanTensorRt, batch: int) -> Ports:
        inputs, outputs = (tuple(self._port(trt, n, batch) for n in names) for names in self.names)
        return Ports(inputs, outputs)

    def _port(self, trt: LeanTensorRt, name: str, batch: int) -> Port:
        n, *shape = self._contexts[batch].get_tensor_shape(name)
        if self._whole and name in self.names[1]:
            rows, rest = divmod(n, batch)
            n, shape = (n, shape) if rest else (batch, [rows, *shape])
        if n != batch or min(shape, default=0) < 0:
            raise EngineError(f"the plan's {name} has shape {(n, *shape)} for {batch} images")
        try:
            dtype = np.dtype(trt.nptype(self._plan.get_tensor_dtype(name)))
        except TypeError as error:
            raise EngineError(f"the plan's {name} has numbers that numpy lacks") from error
        return Port(name, tuple(shape), dtype)

    def _bind_inputs(self, context: IExecutionContext, place: int) -> None:
        for port, address in zip(self.ports.inputs, self._places[place].addresses, strict=True):
            self._sure(context.set_tensor_address(port.name, address), f"bind {port.name}")

    def _bind_outputs(self) -> None:
        for context in self._contexts.values():
            for port, address in zip(self.ports.outputs, self._outputs, strict=True):
                self._sure(context.set_tensor_address(port.name, address), f"bind {port.name}")

    def _sure(self, worked: bool, what: str) -> None:
        if not worked:
            raise self._failed(what)

    def _failed(self, what: str) -> EngineError:
        if said := self._log.memory_error():
            return GpuFailed(f"the GPU has no memory to {what} ({said})")
        return EngineError(f"TensorRT could not {what} ({self._log.last_error()})")


def _names(trt: LeanTensorRt, plan: ICudaEngine) -> tuple[list[str], list[str]]:
    """Of inputs and of outputs, in the order of the graph."""
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    inputs = [n for n in names if plan.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    return inputs, [name for name in names if name not in inputs]
