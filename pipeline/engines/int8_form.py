"""The form of a model in 8-bit integers that lies beside it, and whether it is run in its place.

`models.quantize` writes ``NAME_int8.onnx``, which says of which file it is a form, and what it
loses. On which processors it pays is a question of their instructions: OpenVINO names INT8 among
the abilities of every CPU. Without those for products of 8-bit integers (VNNI, AMX) it gains a
third, and sums of 16 bits overflow: mean AP of `street_int8` falls from 0.428 to 0.270 (AMD Zen 3).
There OpenVINO runs no such file, also if it is named itself. ARM has such instructions, too; what
OpenVINO makes of them has not been measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.precision import choose_precision, loses_too_much, measure_of
from pipeline.errors import ConfigError, EngineError, EngineUnavailable, ModelMismatch
from pipeline.model_file.content import content_sha256
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import AskedPrecision

INSTRUCTIONS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})  # as Linux names them
_ALIKE = ("task", "output_form", "class_names", "input_sizes_hw", "fit", "outputs")


@dataclass(frozen=True)
class Form:
    """The file that is run for a model.

    Attributes:
        model: The model itself, or its form in int8.
        told: Why; empty where there was nothing to choose, else it ends with a semicolon.
    """

    model: ModelFile
    told: str = ""


def choose_form(model: ModelFile, asked: AskedPrecision, flags: str, cpu_has_bf16: bool) -> Form:
    """The form in int8 where it is there and pays, or is asked for; else the model itself.

    Args:
        model: What the user has named.
        asked: ``auto`` and ``int8`` ask for it.
        flags: Instruction sets of the processor, as Linux names them; empty where nothing tells.
        cpu_has_bf16: Whether what is not in int8 may be in bf16.

    Raises:
        ConfigError: int8 is asked for, and there is no such form.
        ModelMismatch: int8 is asked for, and what lies there is none of that very file.
        EngineUnavailable: int8 is asked for on a CPU on which it does not pay, or the model is in
            int8 itself, and sums of its products would overflow.
    """
    if model.arithmetic == "int8" and _overflows(flags):
        raise EngineUnavailable(
            f"{model.path.name} multiplies 8-bit integers, whose sums overflow in OpenVINO on this "
            "CPU (it has neither VNNI nor AMX), so that most objects would be missed; use its "
            "original, which is faster here, or --engine onnxruntime, which is exact"
        )
    beside = beside_of(model.path)
    if asked not in ("auto", "int8") or model.arithmetic != "f32":
        return Form(model)
    if asked == "auto" and not beside.exists():
        return Form(model)
    if asked == "int8":
        return _as_asked(model, beside, flags)
    rounded, trouble = _read(model, beside)
    if rounded is None or (
        trouble := _loss(rounded) or _slow(flags) or _rest(model, rounded, cpu_has_bf16)
    ):
        return Form(model, f"{beside.name} beside it is left, because {trouble}; ")
    return Form(
        rounded,
        f"{beside.stem} in place of {model.path.stem}, because this CPU is fast in 8-bit integers "
        "and the file's own check allows it; ",
    )


def _overflows(flags: str) -> bool:
    """Whether sums of 8-bit products overflow here: on x86 without VNNI and AMX."""
    known = frozenset(flags.split())
    return "sse2" in known and known.isdisjoint(INSTRUCTIONS)


def beside_of(path: Path) -> Path:
    """Where the form in int8 of a model file lies."""
    return path.with_name(f"{path.stem}_int8{path.suffix}")


def _as_asked(model: ModelFile, beside: Path, flags: str) -> Form:
    if not beside.exists():
        raise ConfigError(
            f"precision int8: there is no {beside.name} beside {str(model.path)!r}; make it with "
            f"`python -m models.quantize {model.path} --out {beside} --calibrate drive.mp4`, or "
            "use precision auto"
        )
    rounded, trouble = _read(model, beside)
    if rounded is None:
        raise ModelMismatch(f"precision int8: {str(beside)!r} is no use, because {trouble}")
    slow = _slow(flags)
    if flags and slow:  # where nothing tells, whoever asks may know
        raise EngineUnavailable(
            f"{slow}, so precision int8 would only cost accuracy; use precision auto"
        )
    return Form(rounded, f"{beside.stem} in place of {model.path.stem} as asked; ")


def _read(model: ModelFile, beside: Path) -> tuple[ModelFile | None, str]:
    """The file beside it if it was made from that very model; else None and why not."""
    name = model.path.name  # no folders: the doctor shows this to others
    again = f"make it again: `python -m models.quantize {name} --out {beside.name} ...`"
    try:
        rounded = read_model_file(beside)
        if rounded.arithmetic != "int8":
            return None, f"none of its layers are in int8 ({again})"
        if rounded.made_from is None:
            return None, (
                "it does not say which file it was made from (`python -m models.precision_check "
                f"{beside.name} --original {name}` finds out)"
            )
        if rounded.made_from != content_sha256(model.path):
            return None, f"it was made from another file than this {name} ({again})"
    except EngineError as error:
        return None, f"it cannot be used: {error}"
    differing = [key for key in _ALIKE if getattr(model, key) != getattr(rounded, key)]
    if differing:
        return None, f"it says something else of {', '.join(differing)} ({again})"
    return rounded, ""


def _loss(rounded: ModelFile) -> str:
    """What is to be said of it if it loses too much; empty if it does not."""
    check = rounded.precision_check or {}
    if not {"f32", "original"} <= check.keys():
        return "it does not say what it loses (`models.quantize` measures that with --data)"
    before, after = check["original"], check["f32"]
    if loses_too_much(before, after):
        compared = f"{measure_of(rounded)} {after:.3f} against {before:.3f}"
        return f"it loses too much by its own check ({compared})"
    return ""


def _rest(model: ModelFile, rounded: ModelFile, cpu_has_bf16: bool) -> str:
    """What is to be said of it if the rest of it had to be in f32 where the model may be in bf16.

    `road_segmentation` takes 12.3 ms in bf16, 10.2 with int8 and bf16, 16.0 with int8 and f32.
    """
    whole, rest = (choose_precision(one, "auto", cpu_has_bf16)[0] for one in (model, rounded))
    if (whole, rest) == ("bf16", "f32"):
        return f"what is not int8 in it would be f32, where {model.path.name} is bf16 throughout"
    return ""


def _slow(flags: str) -> str:
    """What is to be said of the processor if it has not what int8 needs; empty if it has."""
    if INSTRUCTIONS.isdisjoint(flags.split()):
        known = "has no" if flags else "is not known to have"
        return f"this CPU {known} instructions for 8-bit integers (VNNI, AMX)"
    return ""
