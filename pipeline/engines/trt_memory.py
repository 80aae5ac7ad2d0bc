"""Where the arrays of a TensorRT engine lie while they are on their way.

A call has a `Staging` of its own on the host, in memory that the GPU can copy by itself, until its
answer has been taken out. On the GPU there are two places for inputs: while a batch is computed
from one, the next is copied into the other. Outputs need one place, since they are copied away
before the next batch is begun.

Never run on a GPU; see `pipeline.engines.trt`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engines.contract import Outputs
from pipeline.engines.cuda_calls import Address, Cuda, Handle
from pipeline.errors import EngineError
from pipeline.gpu.images import DeviceImages

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Port:
    """One input or output of the network.

    Attributes:
        name: As in the graph.
        shape: Of one image's part, the batch left out.
        dtype: Of its numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def image_bytes(self) -> int:
        """Of one image's part."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Ports:
    """Inputs, the images first, and outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class Lane:
    """The two streams that all calls go through in order, one behind the other.

    Attributes:
        copying: Brings inputs to the GPU, ahead of the other.
        computing: Computes, and brings outputs back.
        turn: Held by the one thread that gives them work at a time.
    """

    def __init__(self, cuda: Cuda, end: ExitStack) -> None:
        self.turn = Lock()
        self.copying, self.computing = cuda.stream(), cuda.stream()
        for stream in (self.copying, self.computing):
            end.callback(cuda.end_stream, stream)

    def finish(self, cuda: Cuda) -> None:
        """Wait until nothing is under way."""
        cuda.finish(self.copying)
        cuda.finish(self.computing)

    @contextmanager
    def idle_on_error(self, cuda: Cuda) -> Iterator[None]:
        """If the block fails, nothing is under way behind it, so that memory can be freed."""
        try:
            yield
        except BaseException:  # Ctrl-C, too, while the GPU still writes to it
            with suppress(EngineError):  # the one that is under way says more
                self.finish(cuda)
            raise


@dataclass(frozen=True)
class Place:
    """Inputs on the GPU.

    Attributes:
        addresses: By the inputs' order.
        filled: Happens when a batch has been copied there.
        consumed: Happens when it is not needed any more.
    """

    addresses: tuple[Address, ...]
    filled: Handle
    consumed: Handle

    @classmethod
    def new(
        cls, cuda: Cuda, ports: Sequence[Port], batch: int, lane: Lane, end: ExitStack
    ) -> Place:
        """Zeros for `batch` images; what a smaller batch leaves as it was is computed, too."""
        addresses = device_memory(cuda, ports, batch, end)
        for port, address in zip(ports, addresses, strict=True):
            cuda.clear(address, port.image_bytes * batch, lane.copying)
        return cls(addresses, event(cuda, end), event(cuda, end))


class Staging:
    """The host's side of one call: inputs and outputs of at most `batch` images.

    Attributes:
        begun: Happens when its computing begins.
        done: Happens when its outputs are here.
    """

    def __init__(self, cuda: Cuda, ports: Ports, batch: int, end: ExitStack) -> None:
        self._cuda, self._ports = cuda, ports
        self._inputs = [_host_array(cuda, port, batch, end) for port in ports.inputs]
        self._outputs = [_host_array(cuda, port, batch, end) for port in ports.outputs]
        self.begun, self.done = event(cuda, end), event(cuda, end)
        self._lent: DeviceImages | None = None

    def upload(self, given: Sequence[Array | DeviceImages], place: Place, lane: Lane) -> None:
        """Have the lane bring them to the place once that is free.

        Of arrays a copy is taken. Images on the GPU are kept until the answer is there.
        """
        self._cuda.hold(lane.copying, place.consumed)
        for port, array, here, there in zip(
            self._ports.inputs, given, self._inputs, place.addresses, strict=True
        ):
            n = len(array)
            if isinstance(array, DeviceImages):
                self._move(there, array, n * port.image_bytes, lane)
                continue
            here[:n] = array
            self._cuda.upload(there, here.ctypes.data, n * port.image_bytes, lane.copying)
        self._cuda.record(place.filled, lane.copying)

    def _move(self, there: Address, images: DeviceImages, size: int, lane: Lane) -> None:
        self._lent = images
        if images.ready is not None:
            self._cuda.hold(lane.copying, images.ready.cuda_event)
        self._cuda.move(there, images.address, size, lane.copying)

    def download(self, outputs: Sequence[Address], n: int, lane: Lane) -> None:
        """Have the lane bring `n` images' parts of the outputs back."""
        for port, here, there in zip(self._ports.outputs, self._outputs, outputs, strict=True):
            self._cuda.download(here.ctypes.data, there, n * port.image_bytes, lane.computing)
        self._cuda.record(self.done, lane.computing)

    def answer(self, n: int) -> Outputs:
        """Copies of what has been brought back."""
        self._lent = None
        names = (port.name for port in self._ports.outputs)
        return {name: rows[:n].copy() for name, rows in zip(names, self._outputs, strict=True)}


def device_memory(
    cuda: Cuda, ports: Sequence[Port], batch: int, end: ExitStack
) -> tuple[Address, ...]:
    """Memory on the GPU for `batch` images, freed at the end."""
    addresses = []
    for port in ports:
        addresses.append(cuda.device_memory(port.image_bytes * batch))
        end.callback(cuda.free_device, addresses[-1])
    return tuple(addresses)


def event(cuda: Cuda, end: ExitStack) -> Handle:
    """An event, destroyed at the end."""
    made = cuda.event()
    end.callback(cuda.end_event, made)
    return made


def _host_array(cuda: Cuda, port: Port, batch: int, end: ExitStack) -> Array:
    size = port.image_bytes * batch
    address = cuda.host_memory(size)
    end.callback(cuda.free_host, address)
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memoryview(memory), port.dtype).reshape(batch, *port.shape)
