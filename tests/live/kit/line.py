"""The whole line as a user starts it: ``run_stream.py`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.waiting import until

REPOSITORY = Path(__file__).parents[3]
START_SECONDS = 60.0


class Line:
    """Run until stopped; what it says is kept.

    Args:
        urls: Sources.
        folder: For ``report.json``, ``lines-SOURCE.jsonl`` and ``words.txt``.
        model: A model file; a small one keeps tests quick.
        out: More outputs, beside the JSON lines.
        settings: KEY=VALUE.
        environment: More of it.
        call_ms: How long every call of the engine takes at least; see `slow_down`.
        debug: Say everything that can be logged, too.
    """

    def __init__(
        self,
        urls: Sequence[str],
        folder: Path,
        model: Path,
        out: Sequence[str] = (),
        settings: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        call_ms: float = 0.0,
        debug: bool = False,
    ) -> None:
        self.folder = folder
        self._words = folder / "words.txt"
        self._call_ms = folder / "call_ms.txt"
        program = ["-m", "tests.live.kit.debug_line"] if debug else ["run_stream.py"]
        if call_ms:
            self.slow_down(call_ms)
            program = ["-m", "tests.live.kit.slow_line", str(self._call_ms)]
        command = [sys.executable, *program, *urls, "--model", str(model)]
        command += ["--out", str(folder / "lines-{source}.jsonl"), *out]
        command += ["--report", str(folder / "report.json")]
        command += ["--set", "engine.threads=1", *settings]
        with self._words.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )

    @property
    def words(self) -> str:
        """All that it has said so far."""
        return self._words.read_text(errors="replace")

    @property
    def report(self) -> dict[str, Any]:
        """What it reported at the end."""
        return dict(json.loads((self.folder / "report.json").read_text()))

    def records(self, source: str = "") -> list[dict[str, Any]]:
        """The JSON lines of the sources whose name contains `source`, whole ones only."""
        found = [path for path in self.folder.glob("lines-*.jsonl") if source in path.name]
        text = "".join(path.read_text() for path in sorted(found))
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def wait_records(self, more: int, source: str = "", within: float = START_SECONDS) -> None:
        """Wait for that many results from now on."""
        have = len(self.records(source))

        def enough() -> bool:
            assert self.process.poll() is None, f"it ended: {self.words}"
            return len(self.records(source)) >= have + more

        until(enough, within, f"{more} results of {source or 'all'}: {self.words}")

    def slow_down(self, call_ms: float) -> None:
        """Have later calls of the engine take so long; only of a line that began with slow ones."""
        fresh = self._call_ms.with_suffix(".new")
        fresh.write_text(str(call_ms))
        fresh.replace(self._call_ms)  # at once: it is read all the time

    def stop(self, number: signal.Signals = signal.SIGINT, within: float = 30.0) -> float:
        """Send a signal; return the seconds until it had ended."""
        begin = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=within)
        return time.monotonic() - begin

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *ended: object) -> None:
        self.process.kill()
        self.process.wait()


def adds_up(source: dict[str, Any]) -> bool:
    """Whether a source's entry in the report accounts for every frame."""
    dropped = sum(source["frames_dropped"].values())
    whole = source["frames_decoded"] == source["frames_inferred"] + dropped
    return bool(whole and source["frames_in_flight"] == 0)
