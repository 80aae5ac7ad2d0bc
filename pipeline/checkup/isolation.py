"""Ask a question in a process of its own: what crashes or hangs there ends nothing here.

GPU libraries are the reason. One that does not fit its driver takes the whole process with it, and
a driver that is stuck never answers.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.checkup.anonymous import anonymous
from pipeline.errors import PipelineError

Finding = dict[str, Any]
"""What was found, as JSON can hold it; ``error`` is None, or says why nothing was."""
Work = Callable[..., Finding]

SECONDS = 60.0  # the slowest import that was ever seen took ten
_FAREWELL_SECONDS = 5.0  # for a killed process to go; one that waits inside a driver never does
_TOLD_OF_PARENTS_END = 1  # Linux's PR_SET_PDEATHSIG
_ROOT = Path(__file__).parents[2]


def isolated(work: Work, *, seconds: float = SECONDS, **given: Any) -> Finding:
    """What `work` finds in a new process, and ``error``.

    Args:
        work: A function of a module; what it imports at the top is imported there, too.
        seconds: How long it may take.
        given: Its arguments, as JSON can hold them.

    Returns:
        Its finding with ``error`` None; or only ``error``, a sentence without personal data, and
        ``error_kind``: the class of what was raised, ``"died"`` or ``"hung"``.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-P", "-m", __name__, str(os.getpid()), str(answer)]
        command += [work.__module__, work.__qualname__, json.dumps(given)]
        with Path(folder, "said.txt").open("w+b") as said:
            try:
                code = _finished(command, said.fileno(), seconds)
            except OSError as error:
                return _failed("died", f"no process could be started ({error.strerror})")
            if answer.exists():
                finding: Finding = json.loads(answer.read_text())
                return finding
            if code is None:
                return _failed("hung", f"no answer within {seconds:.0f} s")
            said.seek(0)
            lines = said.read()[-2000:].decode(errors="replace").split("\n")
            return _failed("died", _of_death(code, lines))


def _finished(command: list[str], said: int, seconds: float) -> int | None:
    """The exit code; None if it had to be killed."""
    search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=said,  # a file and no pipe: whatever it leaves behind may hold that open
        stderr=said,
        env=os.environ | {"PYTHONPATH": search},
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # a driver may hold even the dead
                process.wait(_FAREWELL_SECONDS)


def _of_death(code: int, said: list[str]) -> str:
    """How a process ended that gave no answer, and the last that it said."""
    last = next((line for line in reversed(said) if line.strip()), "")
    tail = f"; the last that it said: {last.strip()}" if last else ""
    try:
        how = f"it was killed by {signal.Signals(-code).name}"
    except ValueError:
        how = f"it ended with exit code {code}"
    return f"the process that asked died: {how}{tail}"


def _failed(kind: str, sentence: str) -> Finding:
    return {"error": anonymous(sentence), "error_kind": kind}


def _answer() -> None:
    """What the other process does."""
    parent, path, module, name, given = sys.argv[1:]
    _end_with(int(parent))

    def write(finding: Finding) -> None:
        # Whole or not at all, for it may be killed meanwhile.
        Path(f"{path}.part").write_text(json.dumps(finding))
        Path(f"{path}.part").replace(path)

    def raised(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        told = str(error) if issubclass(kind, PipelineError) else f"{kind.__name__}: {error}"
        write(_failed(kind.__name__, told))

    sys.excepthook = raised  # whatever it is: a package that is broken may raise anything
    finding = getattr(importlib.import_module(module), name)(**json.loads(given))
    write(finding | {"error": None})


def _end_with(parent: int) -> None:
    """Be killed when the process that asked ends, whatever ends it; only Linux knows how."""
    if sys.platform == "linux":
        # Strictly, when the thread ends that asked; which waits for the answer.
        ctypes.CDLL(None).prctl(_TOLD_OF_PARENTS_END, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            sys.exit("who asked has gone")


if __name__ == "__main__":
    _answer()
