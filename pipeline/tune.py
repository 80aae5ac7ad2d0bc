"""Measure how the engine should divide this machine's cores, and keep the answer for later runs.

    python -m pipeline.tune
    python -m pipeline.tune --model mine.onnx --engine onnxruntime

Threads, calls at once and images per call follow a fixed rule unless they are asked for. This tries
others on drawn frames, for some fifteen seconds; where one is clearly better, runs with the same
model on this machine use it, and say so. No run does this by itself: its start would take so much
longer, and it would measure beside all that is starting.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.checkup.divisions import MARGIN, Row, engine_loader, measure
from pipeline.commands import leave, model_path
from pipeline.cores import usable_cores
from pipeline.engines import gpu_name
from pipeline.engines.cache_folder import cache_folder
from pipeline.engines.nvidia import tensorrt_package
from pipeline.engines.tuning import RULE, Measured, write
from pipeline.errors import EngineUnavailable, PipelineError
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from pipeline.terminal import drawing, say

PURPOSES = {
    "cameras": "several cameras",
    "recording": "recordings",
    "camera": "one camera",
}
_MOST_WAITED = 0.2  # of the time; what is measured beside others is mostly their noise


def tune(model: ModelFile, settings: EngineSettings, busy: bool = False) -> Measured:
    """Measure, show, and return what is best for each purpose; keeps it where that is wanted.

    Args:
        model: What is run.
        settings: Engine, precision and where to keep the answer.
        busy: Keep it even if others have used the machine meanwhile.

    Raises:
        EngineUnavailable: The engine is none of the CPU's, or is not here; or the model is a
            program of torch, whose engine divides nothing.
        EngineError: It cannot run the model.
        SinkError: What is to be said cannot be written to stdout.
    """
    if model.is_program:
        raise EngineUnavailable(
            f"{model.path.name} is a program of torch, for which nothing is measured; name the "
            "ONNX file that it was made of"
        )
    of_a_cpu = settings.name != "auto" or settings.precision in ("bf16", "int8")
    if not of_a_cpu and gpu_name() and tensorrt_package():
        raise _no_cores("TensorRT, which auto takes here,")
    load = engine_loader(model, settings)
    with load(RULE, "recording") as engine:
        runs, name, precision = engine.model, engine.name, engine.precision
        reason = engine.reason
    if name not in ("openvino", "onnxruntime"):
        raise _no_cores(name)
    cores = usable_cores()
    _say(f"{runs.path.stem} on {name} in {precision}, {cores} cores: {reason}")
    rows = [row for heat in measure(model, load, name, cores) for row in heat]
    with drawing(120) as console:
        console.print(table(rows, cores))
    best = {row.purpose: row.division for row in rows if row.chosen}
    measured = Measured(date.today().isoformat(), best)
    waited = statistics.median(row.waited for row in rows) if rows else 0.0
    if waited > _MOST_WAITED and not busy:
        _say(
            f"nothing is kept: {waited:.0%} of the time others had the cores; measure again when "
            "the machine rests, or with --busy if it never does",
        )
    else:
        _say(_kept(runs, settings, name, precision, measured))
    return measured


def _no_cores(engine: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"{engine} has no cores to divide; name --engine openvino or onnxruntime"
    )


def table(rows: Iterable[Row], cores: int) -> Table:
    """One line for each candidate; a star where it was chosen."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("for")
    shown.add_column("")
    for title in ("threads", "calls", "batch", "images/s", "CPU ms", "gain"):
        shown.add_column(title, justify="right")
    for row in rows:
        rule = row.division == RULE
        shown.add_row(
            PURPOSES[row.purpose] if rule else "",
            "*" if row.chosen else "",
            str(row.threads or cores),
            str(row.streams),
            str(row.batch),
            f"{row.images_per_second:.1f}",
            f"{row.cpu_ms:.1f}",
            "rule" if rule else f"{row.gain:+.0%}",
        )
    return shown


def _kept(
    model: ModelFile, settings: EngineSettings, name: str, precision: str, measured: Measured
) -> str:
    """Keep what was measured; return what is to be said of it."""
    changed = [PURPOSES[purpose] for purpose, best in measured.best.items() if best != RULE]
    better = f"not the rule for {' and '.join(changed)}" if changed else "the rule holds"
    found = f"{better} (it goes unless something gains more than {MARGIN:.0%})"
    folder = cache_folder(settings.cache)
    if folder is None:
        return f"{found}; nothing is kept, because there is no folder for it"
    write(folder, model, name, precision, measured)
    if folder.trouble:
        return f"{found}; nothing is kept, because {folder.trouble}"
    of_what = f"{model.path.stem}, this processor and version of {name}"
    return f"{found}; kept in {folder.path} for {of_what}"


def _say(sentence: str) -> None:
    say(f"{sentence}\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tune",
        description="Measure how the engine should divide this machine's cores, and keep the "
        "answer for later runs.",
        epilog="Exit codes: 0 done, 2 arguments, 4 model or engine, 5 stdout.",
    )
    add = parser.add_argument
    add("--model", metavar="NAME_OR_FILE", default="street", help="what is run")
    add("--engine", choices=["auto", "openvino", "onnxruntime"], default="auto")
    add("--precision", choices=["auto", "f32", "bf16", "int8"], default="auto")
    add("--cache", metavar="FOLDER", default="auto", help="as in engine.cache of the settings")
    add("--busy", action="store_true", help="keep it even if others use the machine meanwhile")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code."""
    arguments = parse(argv)
    choice: Any = {"name": arguments.engine, "precision": arguments.precision}
    try:
        model = read_model_file(model_path(arguments.model))
        settings = EngineSettings(**choice, cache=arguments.cache)
        tune(model, settings, arguments.busy)
    except PipelineError as error:
        console = Console(stderr=True)
        console.print(f"error {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    leave(main)
