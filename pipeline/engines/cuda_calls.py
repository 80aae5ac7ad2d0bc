"""Every call of CUDA's runtime that is made here, checked, behind plain numbers.

`CudaRuntime` is the list of what is used of ``cuda.bindings.runtime``, with the names of the
arguments there; the tests hold it against the real package. All of its functions return a code
first, and release Python's lock while they wait. Addresses, and what stands for streams and
events outside of this file, are opaque.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from pipeline.engines.nvidia import INSTALL, NEWER_DRIVER
from pipeline.errors import EngineError, EngineUnavailable

log = logging.getLogger(__name__)

Handle: TypeAlias = Any
Address: TypeAlias = int
Code: TypeAlias = Any  # an enumeration; 0 is success
_OLD_DRIVER = 35  # cudaErrorInsufficientDriver: whatever is asked of it first gives it


class CaptureModes(Protocol):
    cudaStreamCaptureModeThreadLocal: object


class CopyKinds(Protocol):
    cudaMemcpyHostToDevice: object
    cudaMemcpyDeviceToHost: object
    cudaMemcpyDeviceToDevice: object


class CudaRuntime(Protocol):
    """The module ``cuda.bindings.runtime``."""

    cudaStreamCaptureMode: CaptureModes
    cudaMemcpyKind: CopyKinds
    cudaStreamNonBlocking: int
    cudaEventBlockingSync: int

    def cudaMalloc(self, size: int) -> tuple[Code, Address]: ...
    def cudaFree(self, devPtr: Address) -> tuple[Code]: ...
    def cudaMallocHost(self, size: int) -> tuple[Code, Address]: ...
    def cudaFreeHost(self, ptr: Address) -> tuple[Code]: ...
    def cudaMemsetAsync(
        self, devPtr: Address, value: int, count: int, stream: Handle
    ) -> tuple[Code]: ...
    def cudaMemcpyAsync(
        self, dst: Address, src: Address, count: int, kind: object, stream: Handle
    ) -> tuple[Code]: ...
    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Code, Handle]: ...
    def cudaStreamDestroy(self, stream: Handle) -> tuple[Code]: ...
    def cudaStreamSynchronize(self, stream: Handle) -> tuple[Code]: ...
    def cudaStreamWaitEvent(self, stream: Handle, event: Handle, flags: int) -> tuple[Code]: ...
    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Code, Handle]: ...
    def cudaEventDestroy(self, event: Handle) -> tuple[Code]: ...
    def cudaEventRecord(self, event: Handle, stream: Handle) -> tuple[Code]: ...
    def cudaEventSynchronize(self, event: Handle) -> tuple[Code]: ...
    def cudaEventElapsedTime(self, start: Handle, end: Handle) -> tuple[Code, float]: ...
    def cudaStreamBeginCapture(self, stream: Handle, mode: object) -> tuple[Code]: ...
    def cudaStreamEndCapture(self, stream: Handle) -> tuple[Code, Handle]: ...
    def cudaGraphInstantiate(self, graph: Handle, flags: int) -> tuple[Code, Handle]: ...
    def cudaGraphDestroy(self, graph: Handle) -> tuple[Code]: ...
    def cudaGraphLaunch(self, graphExec: Handle, stream: Handle) -> tuple[Code]: ...
    def cudaGraphExecDestroy(self, graphExec: Handle) -> tuple[Code]: ...
    def cudaGetLastError(self) -> tuple[Code]: ...
    def cudaGetErrorString(self, error: Code) -> tuple[Code, bytes]: ...


class GpuFailed(EngineError):
    """The GPU or its driver failed, or has no memory; a plan is not to blame."""


class Cuda:
    """CUDA's first device; `GpuFailed` with CUDA's own words for whatever fails.

    What gives something back never fails: what begins with ``free`` or ``end``.

    Raises:
        EngineUnavailable: The package is missing; or, from any call, the driver is too old for it.
    """

    def __init__(self) -> None:
        try:
            module = importlib.import_module("cuda.bindings.runtime")
            tools: Any = importlib.import_module("cuda.bindings.utils")
        except ImportError as error:
            raise EngineUnavailable(
                f"cuda-bindings is not installed or cannot be loaded ({error}); run {INSTALL}"
            ) from error
        self._runtime = cast(CudaRuntime, module)
        self.number_of = cast(Callable[[Handle], int], tools.get_cuda_native_handle)
        """A stream or an event as TensorRT wants it."""

    def device_memory(self, size: int) -> Address:
        """So many bytes on the device, whatever they hold."""
        return cast(Address, self._done("cudaMalloc", self._runtime.cudaMalloc(max(size, 1))))

    def free_device(self, address: Address) -> None:
        self._given_back("cudaFree", self._runtime.cudaFree(address))

    def host_memory(self, size: int) -> Address:
        """So many bytes that the device can copy while Python goes on."""
        got = self._runtime.cudaMallocHost(max(size, 1))
        return cast(Address, self._done("cudaMallocHost", got))

    def free_host(self, address: Address) -> None:
        self._given_back("cudaFreeHost", self._runtime.cudaFreeHost(address))

    def clear(self, device: Address, size: int, stream: Handle) -> None:
        """Fill with zeros when the stream comes to it."""
        cleared = self._runtime.cudaMemsetAsync(device, 0, size, stream)
        self._done("cudaMemsetAsync", cleared)

    def upload(self, device: Address, host: Address, size: int, stream: Handle) -> None:
        """Copy from the host when the stream comes to it."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        copied = self._runtime.cudaMemcpyAsync(device, host, size, kind, stream)
        self._done("cudaMemcpyAsync", copied)

    def download(self, host: Address, device: Address, size: int, stream: Handle) -> None:
        """Copy to the host when the stream comes to it."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        copied = self._runtime.cudaMemcpyAsync(host, device, size, kind, stream)
        self._done("cudaMemcpyAsync", copied)

    def move(self, target: Address, source: Address, size: int, stream: Handle) -> None:
        """Copy from one place on the device to another when the stream comes to it."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        copied = self._runtime.cudaMemcpyAsync(target, source, size, kind, stream)
        self._done("cudaMemcpyAsync", copied)

    def stream(self) -> Handle:
        """One that does not wait for the default stream."""
        made = self._runtime.cudaStreamCreateWithFlags(self._runtime.cudaStreamNonBlocking)
        return self._done("cudaStreamCreateWithFlags", made)

    def end_stream(self, stream: Handle) -> None:
        self._given_back("cudaStreamDestroy", self._runtime.cudaStreamDestroy(stream))

    def finish(self, stream: Handle) -> None:
        """Wait for all that the stream has been given."""
        self._done("cudaStreamSynchronize", self._runtime.cudaStreamSynchronize(stream))

    def event(self) -> Handle:
        """One whose waiter sleeps: the cores have decoding and encoding to do."""
        made = self._runtime.cudaEventCreateWithFlags(self._runtime.cudaEventBlockingSync)
        return self._done("cudaEventCreateWithFlags", made)

    def end_event(self, event: Handle) -> None:
        self._given_back("cudaEventDestroy", self._runtime.cudaEventDestroy(event))

    def record(self, event: Handle, stream: Handle) -> None:
        """Have the event happen when the stream comes to it."""
        self._done("cudaEventRecord", self._runtime.cudaEventRecord(event, stream))

    def hold(self, stream: Handle, event: Handle) -> None:
        """Have the stream wait for the event's last record; at once done if there is none."""
        held = self._runtime.cudaStreamWaitEvent(stream, event, 0)
        self._done("cudaStreamWaitEvent", held)

    def wait(self, event: Handle) -> None:
        """Wait for the event's last record."""
        self._done("cudaEventSynchronize", self._runtime.cudaEventSynchronize(event))

    def seconds_between(self, start: Handle, end: Handle) -> float:
        """Time of the device between two events that have happened."""
        elapsed = self._runtime.cudaEventElapsedTime(start, end)
        return float(self._done("cudaEventElapsedTime", elapsed)) / 1e3

    def captured(self, stream: Handle, work: Callable[[], None]) -> Handle:
        """What `work` gives the stream, as a graph that can be launched; nothing of it runs now.

        Raises:
            EngineError: Something in it cannot be captured; the stream is as it was.
        """
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._done("cudaStreamBeginCapture", runtime.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        except EngineError:
            runtime.cudaStreamEndCapture(stream)
            runtime.cudaGetLastError()  # else a later call reports it
            raise
        try:
            graph = self._done("cudaStreamEndCapture", runtime.cudaStreamEndCapture(stream))
        except EngineError:
            runtime.cudaGetLastError()
            raise
        try:
            return self._done("cudaGraphInstantiate", runtime.cudaGraphInstantiate(graph, 0))
        finally:
            self._given_back("cudaGraphDestroy", runtime.cudaGraphDestroy(graph))

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Give the stream what was captured."""
        self._done("cudaGraphLaunch", self._runtime.cudaGraphLaunch(graph, stream))

    def end_graph(self, graph: Handle) -> None:
        self._given_back("cudaGraphExecDestroy", self._runtime.cudaGraphExecDestroy(graph))

    def _given_back(self, function: str, answer: tuple[Any, ...]) -> None:
        """Never fails: a GPU that has failed gives the same error to all that comes after.

        It was raised where it happened, with words that this would hide.
        """
        if int(answer[0]):
            log.debug("%s: CUDA's error %d", function, int(answer[0]))

    def _done(self, function: str, answer: tuple[Any, ...]) -> Any:
        """What a function returned beside its code."""
        code, *rest = answer
        if int(code):
            words = self._runtime.cudaGetErrorString(code)[1].decode("utf-8", "replace")
            if int(code) == _OLD_DRIVER:
                raise EngineUnavailable(
                    f"cuda-bindings cannot use the GPU ({function}: {words}); {NEWER_DRIVER}"
                )
            raise GpuFailed(
                f"the GPU failed ({function}: {words}); look at nvidia-smi and at the system's log"
            )
        return rest[0] if rest else None
