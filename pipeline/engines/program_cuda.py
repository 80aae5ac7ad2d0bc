"""Runs a program of torch on an NVIDIA GPU, as one CUDA graph for each batch size.

The order of things is that of `pipeline.engines.trt_run`: inputs have two places on the GPU, and
while a batch is computed from one, the next is copied into the other. A call has pinned memory of
its own on the host until its answer has been taken out, and returns when its work has been handed
over. Where torch's work cannot be captured, it is given to the stream operator by operator.

Never run on a GPU. What happens between the calls is tried on a stand-in that keeps streams,
events and graphs apart as a GPU does (``tests/pipeline/stand_in_torch_cuda.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from pipeline.channel import idle
from pipeline.engines.contract import Awaited, Outputs
from pipeline.engines.program_compile import Call
from pipeline.engines.program_graph import Torch, first_line
from pipeline.errors import EngineError
from pipeline.gpu.images import DeviceImages

PLACES = 2  # of inputs on the GPU
WARM_UP_CALLS = 3  # before a capture: libraries choose and allocate at the first calls
Handle = Any
Tensor = Any


class Port(NamedTuple):
    """One input or output: its name, the shape of one image's part, and its type in torch."""

    name: str
    shape: tuple[int, ...]
    dtype: Any


class TorchCuda:
    """As much of ``torch.cuda`` as is used; `EngineError` for whatever fails."""

    def __init__(self, torch: Torch) -> None:
        self._torch, self._cuda = torch, torch.cuda
        self._pool: Any = None

    def stream(self) -> Handle:
        """One that does not wait for the default stream."""
        return self._cuda.Stream()

    def event(self) -> Handle:
        """One that tells the time, and whose waiter sleeps: the cores have other work."""
        return self._cuda.Event(enable_timing=True, blocking=True)

    def pinned(self, port: Port, batch: int) -> Tensor:
        """Memory of the host that the GPU can copy while Python goes on."""
        return self._torch.empty((batch, *port.shape), dtype=port.dtype, pin_memory=True)

    def zeros(self, port: Port, batch: int) -> Tensor:
        """Memory of the GPU."""
        return self._torch.zeros((batch, *port.shape), dtype=port.dtype, device="cuda")

    def copy(self, target: Tensor, source: Tensor, stream: Handle) -> None:
        """Copy when the stream comes to it."""
        with self._cuda.stream(stream):
            target.copy_(source, non_blocking=True)

    def run(self, work: Callable[[], None], stream: Handle) -> None:
        """Give the stream all that `work` does."""
        with self._torch.no_grad(), self._cuda.stream(stream):
            work()

    def hold(self, stream: Handle, event: Handle) -> None:
        """Have the stream wait for the event's last record."""
        stream.wait_event(event)

    def record(self, event: Handle, stream: Handle) -> None:
        """Have the event happen when the stream comes to it."""
        event.record(stream)

    def wait(self, event: Handle) -> None:
        """Wait for the event's last record."""
        event.synchronize()

    def finish(self, stream: Handle) -> None:
        """Wait for all that the stream has been given."""
        stream.synchronize()

    def settle(self) -> None:
        """Wait for all streams."""
        self._cuda.synchronize()

    def seconds_between(self, start: Handle, end: Handle) -> float:
        """Time of the GPU between two events that have happened."""
        return float(start.elapsed_time(end)) / 1e3

    def captured(self, work: Callable[[], None], stream: Handle) -> Handle:
        """What `work` gives the stream, to be launched later; all graphs share their memory."""
        graph = self._cuda.CUDAGraph()
        # Their runs follow each other in one stream, and outputs are copied out in between.
        self._pool = self._pool or self._cuda.graph_pool_handle()
        before = self._cuda.current_stream()
        try:
            how = self._cuda.graph(graph, self._pool, stream, "thread_local")
            with self._torch.no_grad(), how:
                work()
        except RuntimeError:
            self._cuda.set_stream(before)  # torch forgets it where a capture cannot be ended
            raise
        return graph

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Give the stream what was captured."""
        with self._cuda.stream(stream):
            graph.replay()


@dataclass(frozen=True)
class _Place:
    """Inputs on the GPU; when they have been filled, and when they are not needed any more."""

    inputs: tuple[Tensor, ...]
    filled: Handle
    consumed: Handle


class _Staging:
    """The host's side of one call, and when its computing begins and its outputs are here."""

    def __init__(
        self, cuda: TorchCuda, inputs: Sequence[Port], outputs: Sequence[Port], batch: int
    ) -> None:
        self.inputs = [cuda.pinned(port, batch) for port in inputs]
        self.outputs = [cuda.pinned(port, batch) for port in outputs]
        self.begun, self.done = cuda.event(), cuda.event()
        self.lent: DeviceImages | None = None


class CudaRunner:
    """Keeps any number of calls under way, two of them on the GPU.

    Args:
        cuda: The GPU.
        calls: For each batch size what computes the outputs of inputs on the GPU.
        inputs: The images first.
        outputs: In the order in which the program returns them.

    Attributes:
        no_graphs: Why calls are not CUDA graphs; None if they are.

    Raises:
        EngineError: The GPU fails, or has no memory.
    """

    def __init__(
        self,
        cuda: TorchCuda,
        calls: dict[int, Call],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
    ) -> None:
        self._cuda, self._calls, self._inputs, self._ports = cuda, calls, inputs, outputs
        self._batch = max(calls)
        self._turn, self._free, self._submitted = Lock(), deque[_Staging](), 0
        self._graphs: dict[tuple[int, int], Handle] = {}
        self.no_graphs: str | None = None
        self.closed = False
        with gpu_errors():
            self._copying, self._computing = cuda.stream(), cuda.stream()
            self._places = [self._place() for _ in range(PLACES)]
            self._outputs = [cuda.zeros(port, self._batch) for port in outputs]
            self._capture()

    def submit(
        self,
        given: Sequence[Tensor | DeviceImages],
        answered: Callable[[float], None] = lambda seconds: None,
    ) -> Awaited:
        """Hand n images, and their regions, to the GPU; `answered` is told its seconds of work."""
        n, cuda = len(given[0]), self._cuda
        with self._turn:
            if self.closed:
                raise EngineError("the engine was closed")
            with gpu_errors():
                staging = self._free.pop() if self._free else self._staging()
                number = self._submitted % PLACES
                self._submitted += 1
                self._upload(given, staging, self._places[number])
                cuda.hold(self._computing, self._places[number].filled)
                cuda.record(staging.begun, self._computing)
                self._compute(min(size for size in self._calls if size >= n), number)
                cuda.record(self._places[number].consumed, self._computing)
                for here, there in zip(staging.outputs, self._outputs, strict=True):
                    cuda.copy(here[:n], there[:n], self._computing)
                cuda.record(staging.done, self._computing)
        return Awaited(partial(self.answer, staging, n), answered)

    def answer(self, staging: _Staging, n: int) -> tuple[Outputs, float]:
        """Wait for a call; its arrays, and the seconds that the GPU worked on it."""
        if self.closed:
            raise EngineError("the engine was closed before the answer was asked for")
        with gpu_errors():
            with idle():
                self._cuda.wait(staging.done)
            seconds = self._cuda.seconds_between(staging.begun, staging.done)
        names = (port.name for port in self._ports)
        arrays = (rows[:n].numpy().copy() for rows in staging.outputs)
        staging.lent = None
        self._free.append(staging)
        return dict(zip(names, arrays, strict=True)), seconds

    def close(self) -> None:
        """Wait for what is under way and let go of all memory."""
        with self._turn:
            self.closed = True
            with suppress(RuntimeError):  # it has failed before, and said so
                self._cuda.finish(self._copying)
                self._cuda.finish(self._computing)
            self._graphs.clear()
            self._free.clear()
            self._places.clear()
            self._outputs.clear()
            self._calls.clear()

    def _place(self) -> _Place:
        inputs = tuple(self._cuda.zeros(port, self._batch) for port in self._inputs)
        return _Place(inputs, self._cuda.event(), self._cuda.event())

    def _staging(self) -> _Staging:
        return _Staging(self._cuda, self._inputs, self._ports, self._batch)

    def _upload(
        self, given: Sequence[Tensor | DeviceImages], staging: _Staging, place: _Place
    ) -> None:
        """Have them brought to the place once that is free.

        Of what lies on the host a copy is taken; images on the GPU are kept until the answer is
        there.
        """
        self._cuda.hold(self._copying, place.consumed)
        for tensor, here, there in zip(given, staging.inputs, place.inputs, strict=True):
            n = len(tensor)
            if isinstance(tensor, DeviceImages):
                staging.lent = tensor
                if tensor.ready is not None:
                    self._cuda.hold(self._copying, tensor.ready)
                self._cuda.copy(there[:n], tensor.tensor, self._copying)
                continue
            here[:n].copy_(tensor)
            self._cuda.copy(there[:n], here[:n], self._copying)
        self._cuda.record(place.filled, self._copying)

    def _compute(self, size: int, number: int) -> None:
        if graph := self._graphs.get((size, number)):
            self._cuda.launch(graph, self._computing)
        else:
            self._cuda.run(partial(self._work, size, number), self._computing)

    def _work(self, size: int, number: int) -> None:
        """From the inputs at a place to the one place of outputs."""
        given = (tensor[:size] for tensor in self._places[number].inputs)
        for there, fresh in zip(self._outputs, self._calls[size](*given), strict=True):
            there[:size].copy_(fresh)

    def _capture(self) -> None:
        """Make the graphs; without any, if one cannot be made."""
        self._cuda.settle()  # zeros and weights come from the default stream
        for size in self._calls:
            for number in range(PLACES):
                work = partial(self._work, size, number)
                for _ in range(WARM_UP_CALLS):
                    self._cuda.run(work, self._computing)
                self._cuda.finish(self._computing)
                try:
                    self._graphs[size, number] = self._cuda.captured(work, self._computing)
                except RuntimeError as error:
                    self._graphs.clear()
                    self.no_graphs = first_line(error)
                    self._cuda.finish(self._computing)
                    return


@contextmanager
def gpu_errors() -> Iterator[None]:
    """Inside the block, or the function, a GPU that fails is an `EngineError`."""
    try:
        yield
    except EngineError:
        raise
    except RuntimeError as error:
        raise EngineError(
            f"the GPU failed ({first_line(error)}); look at nvidia-smi and at the system's log"
        ) from error
