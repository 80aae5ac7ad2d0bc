"""What this machine has, what boxstream will do with it, and whether the engines here agree.

    python -m pipeline.doctor
    python -m pipeline.doctor --json > machine.json

Every package and every driver is looked at in a process of its own, so that one that is broken is
a line of the report and not its end. The self-test gives drawn frames to each engine that can be
loaded here, and compares what it finds with what ONNX Runtime finds in f32, or torch, if the model
is a program of that. Nothing that is shown names a user, a machine or a secret: it is meant to be
pasted where others read it.

Exit codes: 0 all is well, 2 bad arguments, 4 the model, a package or an engine cannot be used, or
engines disagree, 5 stdout cannot be written.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.checkup import questions
from pipeline.checkup.cards import cards_on_the_bus, driver_version
from pipeline.checkup.isolation import Finding, isolated
from pipeline.checkup.packages import core_packages, extras
from pipeline.checkup.selftest import Ask, Say, SelfTest
from pipeline.checkup.verdict import judge
from pipeline.commands import leave, model_path
from pipeline.errors import EngineError, SinkError
from pipeline.machine import installed_version, instruction_sets, machine

SCHEMA = "boxstream.doctor/1"

_VIDEO_SECONDS = 300.0  # a GPU is woken, and recordings are written and read


def _unheard(_sentence: str) -> None:
    """Nobody wants to know how far it is."""


def examine(model: Path, *, test: bool = True, ask: Ask = isolated, say: Say = _unheard) -> Finding:
    """Look at everything and judge it; the layout is told in README.md beside this file.

    Args:
        model: The model file that engines are tried with.
        test: Whether they are run on drawn frames and compared; else none is built either.
        ask: Runs one question and gives its finding back, whatever becomes of it.
        say: Told now and then what is being done.
    """
    say("looking at packages and devices")
    about, gpu = ask(questions.about_model, model=str(model)), _gpu(ask)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "boxstream": installed_version("boxstream"),
        "system": _system(),
        "packages": core_packages(ask),
        "gpu": gpu,
        "tensorrt": _tensorrt(ask),
        "openvino": ask(questions.look_at_openvino),
        "onnxruntime": ask(questions.look_at_onnxruntime),
        "torch": ask(questions.look_at_torch),
        "video": _video(ask, say, has_driver=gpu["error"] is None, test=test),
        "extras": extras(),
        "model": {"name": model.stem} | about,
        "engine": {"error": "there is no model to load"},
        "selftest": None,
    }
    if about["error"] is None:
        report |= _engines(model, test, ask, say)
    return report | {"verdict": judge(report)}


def _system() -> dict[str, Any]:
    facts = machine()
    del facts["versions"]
    return {"os": _operating_system(), **facts, "instruction_sets": instruction_sets()}


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _gpu(ask: Ask) -> Finding:
    found = {"driver": driver_version(), "cards": cards_on_the_bus()}
    return found | ask(questions.look_at_gpus)


def _tensorrt(ask: Ask) -> Finding:
    found = ask(questions.look_at_tensorrt)
    if found.get("module"):
        found |= ask(questions.import_package, module=found["module"])
    return found


def _video(ask: Ask, say: Say, *, has_driver: bool, test: bool) -> Finding:
    """What FFmpeg was built with; the GPU's codecs are opened only where a driver answers."""
    found = ask(questions.look_at_ffmpeg)
    built = [name for name, there in found.get("on_the_gpu", {}).items() if there]
    opened = ask(questions.open_on_gpu, names=built) if built and has_driver else None
    say("opening the video decoder and encoder that auto takes")
    chosen = ask(questions.look_at_video_choice, seconds=_VIDEO_SECONDS, test=test)
    return found | {"opened_on_the_gpu": opened, "chosen": chosen}


def _engines(model: Path, test: bool, ask: Ask, say: Say) -> dict[str, Any]:
    """The entries on the engine that ``auto`` takes and on the self-test."""
    with tempfile.TemporaryDirectory() as folder:
        trials = SelfTest(model, Path(folder), ask, say)
        chosen = trials.choose(build=test)
        rows = trials.rows(chosen) if test else []
    if chosen["error"] is None:
        own = (chosen["name"], chosen["precision"])
        times = [row["ms_per_call"] for row in rows if (row["engine"], row["precision"]) == own]
        chosen["ms_per_call"] = times[0] if times else None
    return {"engine": chosen, "selftest": {"engines": rows} if test else None}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.doctor",
        description="Show what this machine has, what boxstream will do with it, and whether the "
        "engines here agree.",
        epilog="Exit codes: 0 all is well, 2 arguments, 4 the model, a package or an engine cannot "
        "be used, or engines disagree, 5 stdout cannot be written.",
    )
    add = parser.add_argument
    add("--model", metavar="NAME_OR_FILE", default="street", help="what the engines are tried with")
    add("--json", action="store_true", help=f"for machines; the layout is {SCHEMA!r}")
    add(
        "--no-test",
        action="store_true",
        help="build and run no engine, only say which would be taken now",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Examine, show, and return the exit code."""
    arguments = parse(argv)
    report = examine(
        model_path(arguments.model),
        test=not arguments.no_test,
        ask=isolated,
        say=_say_to_a_terminal,
    )
    try:
        _tell(report, as_json=arguments.json)
    except SinkError as error:
        print(f"error {error}", file=sys.stderr)
        return error.exit_code
    return 0 if report["verdict"]["good"] else EngineError.exit_code


def _tell(report: Finding, *, as_json: bool) -> None:
    """Show the page, or the JSON; that, too, where the package that draws pages is broken."""
    text = f"{json.dumps(report, indent=2)}\n"
    if report["packages"]["rich"]["error"]:
        print(text, end="")
        return
    from pipeline.checkup.page import print_page
    from pipeline.terminal import drawing, say

    if as_json:
        say(text)
        return
    with drawing(120) as console:
        print_page(report, console)


def _say_to_a_terminal(sentence: str) -> None:
    if sys.stderr.isatty():
        print(f"{sentence} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    leave(main)
