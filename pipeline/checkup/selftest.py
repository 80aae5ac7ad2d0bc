"""Every engine that can be loaded here sees the same frames, and is held to ONNX Runtime's word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.checkup.isolation import Finding
from pipeline.checkup.questions import known_engines, try_engine
from pipeline.model_file.program_archive import SUFFIX

Ask = Callable[..., Finding]
Say = Callable[[str], None]

WITNESS = ("onnxruntime", "f32")
OF_PROGRAM = ("program", "f32")  # no other engine runs such a file
_NO_PROGRAM = (
    "{name} is an ONNX file; `python -m models.program` makes a program of torch of it (.pt2), "
    "for a GPU without TensorRT"
)
_SECONDS = 300.0  # a program of torch is compiled in one or two minutes
_BUILDING_SECONDS = 1800.0  # TensorRT makes its plan at the first load, and keeps it


class SelfTest:
    """Trials of engines on one model.

    Args:
        model: Path of the model file.
        folder: Where what they say about the frames may be kept meanwhile.
        ask: Runs a trial, as `pipeline.checkup.isolation.isolated` does.
        say: Told what is being done.
    """

    def __init__(self, model: Path, folder: Path, ask: Ask, say: Say) -> None:
        self._model, self._folder, self._ask, self._say = model, folder, ask, say
        self._witness = OF_PROGRAM if model.suffix == SUFFIX else WITNESS

    def choose(self, *, build: bool) -> Finding:
        """Load what ``auto`` takes, after it has been built if `build`; run nothing."""
        self._say(f"loading the engine that auto takes{_patience('auto') if build else ''}")
        return self._try("auto", "auto", run=False, build=build)

    def rows(self, chosen: Finding) -> list[dict[str, Any]]:
        """One row for each engine and precision: its ``state`` and ``remark``, figures if it ran.

        The states are ``witness``, ``passed``, ``failed``, ``unproven`` (nothing to compare with),
        ``unavailable`` (not here, and that is all right) and ``broken`` (here, and it does not
        work).
        """
        self._say(f"drawing frames and running {' '.join(self._witness)}")
        witness = self._try(*self._witness, run=True)
        rows = [_row(*self._witness, witness, None, is_witness=True)]
        for engine, precision in self._others(chosen):
            self._say(f"running {engine} {precision}{_patience(engine)}")
            found = self._try(engine, precision, run=True)
            row = _row(engine, precision, found, witness["error"], is_witness=False)
            if found.get("error_kind") != "ConfigError" and not _is_told(row, rows):
                rows.append(row)
        if self._witness != OF_PROGRAM:
            name = self._model.name
            absent = {"error": _NO_PROGRAM.format(name=name), "error_kind": "EngineUnavailable"}
            rows.append(_row(*OF_PROGRAM, absent, None, is_witness=False))
        return rows

    def _others(self, chosen: Finding) -> Iterator[tuple[str, str]]:
        """All that can be asked for; and what ``auto`` takes, if only ``auto`` can ask for it."""
        known = self._ask(known_engines)
        is_program = self._witness == OF_PROGRAM
        pairs = [
            (engine, precision)
            for engine in known.get("engines", ())
            for precision in known.get("precisions", ())
            if (engine == "program") == is_program and (is_program or precision != "f16")
            if precision != "int8"  # which auto takes, where the model has such a form
        ]
        own = (chosen["name"], chosen["precision"]) if not chosen["error"] else self._witness
        if own not in [self._witness, *pairs]:
            pairs.insert(0, (chosen["name"], "auto"))
        yield from (pair for pair in pairs if pair != self._witness)

    def _try(self, engine: str, precision: str, *, run: bool, build: bool = True) -> Finding:
        answers = self._folder / f"{engine}-{precision}.npz"
        return self._ask(
            try_engine,
            seconds=_BUILDING_SECONDS if engine in ("auto", "tensorrt") else _SECONDS,
            engine=engine,
            precision=precision,
            model=str(self._model),
            answers=str(answers) if run else None,
            witness=str(self._folder / "{}-{}.npz".format(*self._witness)) if run else None,
            build=build,
        )


def _row(
    engine: str, precision: str, found: Finding, no_witness: str | None, *, is_witness: bool
) -> dict[str, Any]:
    parity = found.get("parity")
    state, remark = _state(found, parity, is_witness, no_witness)
    figures = ("load_seconds", "ms_per_call")
    return {
        "engine": engine,
        "precision": found.get("precision", precision),
        "state": state,
        "remark": remark,
        "parity": None if is_witness else parity,
        **{name: found.get(name) for name in figures},
    }


def _state(
    found: Finding, parity: Finding | None, is_witness: bool, no_witness: str | None
) -> tuple[str, str]:
    if found["error"]:
        absent = found["error_kind"] in ("EngineUnavailable", "ConfigError")
        # Without the witness nothing is proved, whoever else is here.
        return "unavailable" if absent and not is_witness else "broken", found["error"]
    if is_witness:
        return "witness", ""
    if parity is None:
        return "unproven", f"the witness did not run ({no_witness})"
    if not parity["compared"]:
        return "unproven", "neither found anything in the drawn frames"
    told = f"{parity['matched']} of {parity['compared']} {parity['unit']} alike"
    if parity["equal"]:
        return "passed", told
    return "failed", f"{told}, {parity['needed']:.1%} are needed"


def _is_told(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> bool:
    """An engine that is not here is not here in any precision; a file in int8 has few of them."""
    key = "remark" if row["state"] == "unavailable" else "precision"
    return any((other["engine"], other[key]) == (row["engine"], row[key]) for other in rows)


def _patience(engine: str) -> str:
    if engine not in ("auto", "tensorrt"):
        return ""
    return " (on a GPU it is built the first time, which takes minutes)"
