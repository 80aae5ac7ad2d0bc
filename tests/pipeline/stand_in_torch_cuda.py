"""A stand-in for what `TorchCuda` does on a GPU: work happens when its stream gets to it.

Streams, events and graphs are those of `StandInCuda`, lazy or hasty; tensors are the host's,
filled with rubbish when they are got. A graph is replayed by doing its work again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.engines.program_cuda import Port
from tests.pipeline.stand_in_cuda import Event, StandInCuda, Stream


class StandInTorchCuda:
    """The face of `TorchCuda`.

    Attributes:
        machine: Keeps streams and events apart.
        no_capture: What a capture fails with, if it does.
        captured_works: How many graphs were made.
        launches: How many were launched.
        failing: What every wait fails with, if it does.
    """

    def __init__(self, hasty: tuple[int, ...] = ()) -> None:
        self.machine = StandInCuda(hasty)
        self.no_capture: str | None = None
        self.failing: str | None = None
        self.captured_works = self.launches = 0

    def stream(self) -> Stream:
        return self.machine.cudaStreamCreateWithFlags(1)[1]

    def event(self) -> Event:
        return self.machine.cudaEventCreateWithFlags(1)[1]

    def pinned(self, port: Port, batch: int) -> torch.Tensor:
        return torch.full((batch, *port.shape), 77, dtype=torch.uint8).to(port.dtype)

    def zeros(self, port: Port, batch: int) -> torch.Tensor:
        return torch.zeros((batch, *port.shape), dtype=port.dtype)

    def copy(self, target: torch.Tensor, source: torch.Tensor, stream: Stream) -> None:
        self.machine.append(stream, lambda: target.copy_(source))

    def run(self, work: Callable[[], None], stream: Stream) -> None:
        self.machine.append(stream, work)

    def hold(self, stream: Stream, event: Event) -> None:
        assert self.machine.cudaStreamWaitEvent(stream, event, 0) == (0,)

    def record(self, event: Event, stream: Stream) -> None:
        assert self.machine.cudaEventRecord(event, stream) == (0,)

    def wait(self, event: Event) -> None:
        if self.failing:
            raise RuntimeError(self.failing)
        assert self.machine.cudaEventSynchronize(event) == (0,)

    def finish(self, stream: Stream) -> None:
        assert self.machine.cudaStreamSynchronize(stream) == (0,)

    def settle(self) -> None:
        for stream in self.machine.streams.values():
            self.finish(stream)

    def seconds_between(self, start: Event, end: Event) -> float:
        return self.machine.cudaEventElapsedTime(start, end)[1] / 1e3

    def captured(self, work: Callable[[], None], stream: Stream) -> Any:
        assert not stream.waiting, "a capture begins on a stream that has nothing to do"
        if self.no_capture:
            raise RuntimeError(f"{self.no_capture}\n  at somewhere.cpp")
        self.captured_works += 1
        return work

    def launch(self, graph: Any, stream: Stream) -> None:
        self.launches += 1
        self.machine.append(stream, graph)
