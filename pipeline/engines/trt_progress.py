"""How far the build of a TensorRT plan is: bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pipeline.engines.trt_calls import IProgressMonitor, TensorRt

REDRAWN_EVERY_SECONDS = 0.2


@contextmanager
def build_monitor(trt: TensorRt, model: str) -> Iterator[IProgressMonitor]:
    """A monitor that draws on the terminal, and lets Ctrl-C end the build."""
    bars = BuildBars(Console(stderr=True), model)

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]  # found at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # its C++ half wants no super()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            bars.start(phase_name, num_steps, inner=bool(parent_phase))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return bars.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            bars.finish(phase_name)

    with bars:
        yield Monitor()
    if bars.interrupted:
        raise KeyboardInterrupt


class BuildBars:
    """A bar for each phase of a build, the inner ones indented; nothing without a terminal.

    Attributes:
        interrupted: Ctrl-C came while TensorRT was at work.
    """

    def __init__(self, console: Console, model: str) -> None:
        self.interrupted = False
        self._lock = Lock()
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn(f"TensorRT builds {model}: {{task.description}}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                console=console,
                auto_refresh=False,
                transient=True,
            )

    def __enter__(self) -> BuildBars:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._bars:
            self._bars.stop()

    def start(self, phase: str, steps: int, *, inner: bool) -> None:
        """A phase begins."""
        with self._lock:
            if self._bars:
                name = f"  {phase}" if inner else phase
                self._tasks[phase] = self._bars.add_task(name, total=steps)

    def step(self, phase: str, step: int) -> bool:
        """One of its steps has ended; False asks TensorRT to give up."""
        try:
            with self._lock:
                if self._bars and phase in self._tasks:
                    self._bars.update(self._tasks[phase], completed=step + 1)
                    if time.monotonic() - self._drawn > REDRAWN_EVERY_SECONDS:
                        self._drawn = time.monotonic()
                        self._bars.refresh()
        except KeyboardInterrupt:  # raised where Python happens to run: TensorRT would swallow it
            self.interrupted = True
        return not self.interrupted

    def finish(self, phase: str) -> None:
        """A phase has ended."""
        with self._lock:
            if self._bars and phase in self._tasks:
                self._bars.remove_task(self._tasks.pop(phase))
