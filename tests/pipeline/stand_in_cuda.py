"""A stand-in for ``cuda.bindings.runtime``: streams that run when somebody waits, or at once.

On a GPU nothing says when a stream gets on; what is right only because a copy happened to be done
early, or late, is wrong. So each stream here is either lazy (it runs when the host, or a stream
that the host waits for, needs it) or hasty (as soon as nothing holds it). Memory is the host's,
filled with rubbish when it is got and when it is given back, and every copy must lie inside.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

ALIGNMENT = 256  # bytes
SUCCESS, INVALID, NOT_PERMITTED = 0, 1, 900
Op = Callable[[], None]


class Record:
    """That an event happens at a place of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.done_at = stream, 0.0

    @property
    def done(self) -> bool:
        return self.done_at > 0

    def happen(self) -> None:
        self.done_at = time.perf_counter()


class Event:
    def __init__(self, number: int) -> None:
        self.number, self.record = number, None


class Stream:
    """What is still to be done: calls, and records that have to happen first."""

    def __init__(self, number: int, hasty: bool) -> None:
        self.number, self.hasty = number, hasty
        self.waiting = deque[Op | Record]()
        self.capture: list[Op] | None = None
        self.capture_broken = False


class StandInCuda:
    """The module; see `install`.

    Attributes:
        hasty: Which streams run at once, by the order in which they are made.
        fail: Functions that fail from now on, with the code that they give.
        broken: What every function gives from now on, as after a kernel that went wrong; 0 if none.
        live: What has been got and not been given back, by kind.
        copied: Bytes by the direction in which they were to be copied.
    """

    cudaStreamNonBlocking, cudaEventBlockingSync = 1, 1
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="up",
        cudaMemcpyDeviceToHost="down",
        cudaMemcpyDeviceToDevice="across",
    )

    def __init__(self, hasty: tuple[int, ...] = ()) -> None:
        self.hasty = hasty
        self.fail: dict[str, int] = {}
        self.broken = 0
        self.live: Counter[str] = Counter()
        self.copied: Counter[str] = Counter()
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Event] = {}
        self._memory: dict[int, np.ndarray] = {}
        self._given_back: list[np.ndarray] = []  # kept, so that a late reader finds rubbish
        self.numbers = itertools.count(1)
        self._lock = threading.RLock()

    # Memory

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._get("device memory", "cudaMalloc", size)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._get("host memory", "cudaMallocHost", size)

    def cudaFree(self, devPtr: int) -> tuple[int]:
        return self._give_back("device memory", devPtr)

    def cudaFreeHost(self, ptr: int) -> tuple[int]:
        return self._give_back("host memory", ptr)

    def cudaMemsetAsync(self, devPtr: int, value: int, count: int, stream: Stream) -> tuple[int]:
        if not self.holds(devPtr, count):
            return (INVALID,)
        return self._append("cudaMemsetAsync", stream, lambda: ctypes.memset(devPtr, value, count))

    def cudaMemcpyAsync(
        self, dst: int, src: int, count: int, kind: str, stream: Stream
    ) -> tuple[int]:
        if not (self.holds(dst, count) and self.holds(src, count)):
            return (INVALID,)
        self.copied[kind] += count
        return self._append("cudaMemcpyAsync", stream, lambda: ctypes.memmove(dst, src, count))

    # Streams and events

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        stream = Stream(next(self.numbers), len(self.streams) in self.hasty)
        self.streams[stream.number] = stream
        return self._made("stream", "cudaStreamCreateWithFlags", stream)

    def cudaStreamDestroy(self, stream: Stream) -> tuple[int]:
        assert self.broken or not stream.waiting, "a stream that still had work was destroyed"
        return self._ended("stream")

    def cudaStreamSynchronize(self, stream: Stream) -> tuple[int]:
        with self._lock:
            if stream.capture is not None:
                return (NOT_PERMITTED,)
            if code := self._fault("cudaStreamSynchronize"):
                return (code,)
            self._run(stream)
        return (SUCCESS,)

    def cudaStreamWaitEvent(self, stream: Stream, event: Event, flags: int) -> tuple[int]:
        assert flags == 0
        if event.record is None:
            return (SUCCESS,)
        if event.record.stream is None:  # it was recorded in a capture
            return (NOT_PERMITTED,)
        return self._append("cudaStreamWaitEvent", stream, event.record)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaEventBlockingSync
        event = Event(next(self.numbers))
        self.events[event.number] = event
        return self._made("event", "cudaEventCreateWithFlags", event)

    def cudaEventDestroy(self, event: Event) -> tuple[int]:
        return self._ended("event")

    def cudaEventRecord(self, event: Event, stream: Stream) -> tuple[int]:
        record = event.record = Record(stream)
        if stream.capture is not None:
            record.stream = None
        return self._append("cudaEventRecord", stream, record.happen)

    def cudaEventSynchronize(self, event: Event) -> tuple[int]:
        with self._lock:
            if code := self._fault("cudaEventSynchronize"):
                return (code,)
            if event.record is not None:
                self._until(event.record)
        return (SUCCESS,)

    def cudaEventElapsedTime(self, start: Event, end: Event) -> tuple[int, float]:
        assert start.record.done and end.record.done
        return SUCCESS, 1e3 * (end.record.done_at - start.record.done_at)

    # Graphs

    def cudaStreamBeginCapture(self, stream: Stream, mode: str) -> tuple[int]:
        assert mode == "thread" and not stream.waiting
        if code := self._fault("cudaStreamBeginCapture"):
            return (code,)
        stream.capture, stream.capture_broken = [], False
        return (SUCCESS,)

    def cudaStreamEndCapture(self, stream: Stream) -> tuple[Any, ...]:
        graph, stream.capture = stream.capture, None
        code = self._fault("cudaStreamEndCapture")
        if stream.capture_broken or code:
            return code or NOT_PERMITTED, None
        return self._made("graph", "cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph: list[Op], flags: int) -> tuple[Any, ...]:
        return self._made("executable graph", "cudaGraphInstantiate", list(graph))

    def cudaGraphDestroy(self, graph: list[Op]) -> tuple[int]:
        return self._ended("graph")

    def cudaGraphLaunch(self, graphExec: list[Op], stream: Stream) -> tuple[int]:
        if code := self._fault("cudaGraphLaunch"):
            return (code,)
        for op in graphExec:
            self._append("cudaGraphLaunch", stream, op)
        return (SUCCESS,)

    def cudaGraphExecDestroy(self, graphExec: list[Op]) -> tuple[int]:
        graphExec.clear()
        return self._ended("executable graph")

    def cudaGetLastError(self) -> tuple[int]:
        return (SUCCESS,)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return SUCCESS, f"error {error} of the stand-in".encode()

    # For the stand-ins of TensorRT and of pictures

    def lend(self, block: np.ndarray) -> None:
        """Memory that others manage lies on the device, too."""
        self._memory[block.ctypes.data] = block

    def append(self, stream: Stream, op: Op) -> None:
        """Give a stream work."""
        assert self._append("append", stream, op) == (SUCCESS,)

    def holds(self, address: int, size: int) -> bool:
        """Whether all of that is memory that has not been given back."""
        return any(
            begin <= address and address + size <= begin + len(block)
            for begin, block in self._memory.items()
        )

    def block(self, address: int, size: int) -> np.ndarray:
        """Those bytes."""
        assert self.holds(address, size), "that memory was given back, or ends before"
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)

    def left(self) -> dict[str, int]:
        """What has not been given back."""
        return {kind: count for kind, count in self.live.items() if count}

    def _append(self, function: str, stream: Stream, op: Op | Record) -> tuple[int]:
        with self._lock:
            if code := self._fault(function):
                return (code,)
            if stream.capture is not None:
                assert not isinstance(op, Record), "a captured stream waits for one outside"
                stream.capture.append(op)
                return (SUCCESS,)
            stream.waiting.append(op)
            self._hurry()
        return (SUCCESS,)

    def _hurry(self) -> None:
        """Run hasty streams as far as nothing holds them."""
        moved = True
        while moved:
            moved = False
            for stream in self.streams.values():
                while stream.hasty and stream.waiting and self._is_free(stream.waiting[0]):
                    self._step(stream)
                    moved = True

    def _is_free(self, op: Op | Record) -> bool:
        return not isinstance(op, Record) or op.done

    def _until(self, record: Record) -> None:
        while not record.done:
            self._step(record.stream)
        self._hurry()

    def _run(self, stream: Stream) -> None:
        while stream.waiting:
            self._step(stream)
        self._hurry()

    def _step(self, stream: Stream) -> None:
        if isinstance(op := stream.waiting[0], Record) and not op.done:
            self._until(op)  # others must find the stream held; and may have freed it then
            return
        stream.waiting.popleft()
        if not isinstance(op, Record):
            op()

    def _get(self, kind: str, function: str, size: int) -> tuple[Any, ...]:
        if code := self._fault(function):
            return code, None
        block = _aligned(size)
        block[:] = 0xAB
        self._memory[block.ctypes.data] = block
        return self._made(kind, function, block.ctypes.data)

    def _made(self, kind: str, function: str, thing: object) -> tuple[Any, ...]:
        if code := self._fault(function):
            return code, None
        self.live[kind] += 1
        return SUCCESS, thing

    def _fault(self, function: str) -> int:
        return self.broken or self.fail.get(function, SUCCESS)

    def _ended(self, kind: str) -> tuple[int]:
        """Counted as given back, unless it is broken, when nothing can be."""
        self.live[kind] -= not self.broken
        return (self.broken,)

    def _give_back(self, kind: str, address: int) -> tuple[int]:
        if self.broken:
            return (self.broken,)
        block = self._memory.pop(address)
        block[:] = 0xDD
        self._given_back.append(block)
        self.live[kind] -= 1
        return (SUCCESS,)


def _aligned(size: int) -> np.ndarray:
    """So many bytes, which begin where CUDA's would."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]
