"""One start of the program, in a process of its own; prints when each step was done, as JSON.

    python -m tests.benchmarks.first_frame BEGIN run_stream's words ...

``BEGIN`` is the monotonic second at which the process was asked for. What belongs to a step is
timed around the calls that do it, by the clock on the wall and by the processor time of the
process; the program itself does not know.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

READING, COMPILING, FIRST_CALL = "reading the model", "compiling", "first call"
SOURCE = "opening the source"


class Clocks:
    """Wall and processor milliseconds since the process was asked for.

    Attributes:
        steps: What each step took, by its name.
        moments: When something was there.
    """

    def __init__(self, begin: float) -> None:
        self._begin = begin
        self.steps: dict[str, tuple[float, float]] = {}
        self.moments: dict[str, tuple[float, float]] = {}

    def now(self) -> tuple[float, float]:
        """Wall and processor time."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return 1e3 * (time.monotonic() - self._begin), 1e3 * (used.ru_utime + used.ru_stime)

    def add(self, step: str, since: tuple[float, float] = (0.0, 0.0)) -> None:
        """The step took the time from `since` until now, beside what it took before."""
        (wall, cpu), (more_wall, more_cpu) = self.steps.get(step, (0.0, 0.0)), self.now()
        self.steps[step] = wall + more_wall - since[0], cpu + more_cpu - since[1]

    def timed(self, owner: Any, name: str, step: str) -> None:
        """Have each call of ``owner.name`` count as that step, unless it is within another."""
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            before, known = self.now(), dict(self.steps)
            try:
                return inner(*args, **kwargs)
            finally:
                self.steps = known
                self.add(step, before)

        setattr(owner, name, call)

    def seen(self, owner: Any, name: str, what: str) -> None:
        """Note when ``owner.name`` first returned."""
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            outcome = inner(*args, **kwargs)
            self.moments.setdefault(what, self.now())
            return outcome

        setattr(owner, name, call)


def main() -> int:
    """Start, run, and tell."""
    clocks = Clocks(float(sys.argv[1]))
    clocks.add("interpreter")
    before, words = clocks.now(), sys.argv[2:]
    import run_stream
    from pipeline.engines.watch import EngineWatch, _Watched
    from pipeline.sinks.null import NullSink

    engine = "onnxruntime" if "onnxruntime" in words else "openvino"
    (_time_onnxruntime if engine == "onnxruntime" else _time_openvino)(clocks)
    clocks.add("imports", before)
    clocks.timed(run_stream, "open_sources", SOURCE)
    clocks.seen(run_stream, "load_engine", "engine ready")
    clocks.seen(EngineWatch, "submit", "first frame asked for")
    clocks.seen(_Watched, "result", "first detection")
    clocks.seen(NullSink, "write", "first frame at the sink")
    code = run_stream.main(words)
    rounded = {
        kind: {name: [round(ms, 1) for ms in both] for name, both in found.items()}
        for kind, found in (("steps", clocks.steps), ("moments", clocks.moments))
    }
    json.dump(rounded, sys.stdout)
    return code


def _time_openvino(clocks: Clocks) -> None:
    from pipeline.engines import ov, ov_compiler

    clocks.timed(ov_compiler, "key_of", READING)
    clocks.timed(ov_compiler.CacheFolder, "read", READING)
    clocks.timed(ov, "at_size", READING)
    clocks.timed(ov, "choose_form", READING)
    clocks.timed(ov.openvino.Core, "read_model", READING)
    clocks.timed(ov.openvino.Core, "compile_model", COMPILING)
    clocks.timed(ov.openvino.Core, "import_model", COMPILING)
    clocks.timed(ov.OpenVinoEngine, "infer", FIRST_CALL)


def _time_onnxruntime(clocks: Clocks) -> None:
    from pipeline.engines import ort

    clocks.timed(ort, "at_size", READING)
    clocks.timed(ort.onnxruntime, "InferenceSession", COMPILING)
    clocks.timed(ort.OnnxRuntimeEngine, "infer", FIRST_CALL)


if __name__ == "__main__":
    sys.exit(main())
