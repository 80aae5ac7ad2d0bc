"""Which precision a model may be run in."""

from __future__ import annotations

from typing import Literal

from pipeline.errors import ConfigError, EngineUnavailable
from pipeline.model_file.reading import ModelFile
from pipeline.settings import AskedPrecision

Precision = Literal["f32", "bf16", "f16"]
MOST_LOSS = 0.005  # average precision that may be given up for speed: half a point
OLDEST_WITH_FLOAT8 = (8, 9)  # compute capability


def choose_precision(
    model: ModelFile, asked: AskedPrecision, cpu_has_bf16: bool
) -> tuple[Precision, str]:
    """The precision to run in, and why; bf16 only where it is fast *and* known to be accurate.

    Of a file whose graph has int8 or float16 layers this is the precision of all others.

    Raises:
        EngineUnavailable: bf16 is asked for on a CPU that does not have it.
        ConfigError: f16 is asked for, or int8 of a file that has none.
    """
    if asked == "f16":
        raise ConfigError(
            "precision f16 is for --engine program on an NVIDIA GPU; use f32, bf16 or auto"
        )
    if asked == "int8" and model.arithmetic != "int8":
        raise ConfigError(
            f"{str(model.path)!r} does not compute in int8; use --engine openvino, which takes the "
            "form in int8 that lies beside a model file, or precision auto"
        )
    if asked == "bf16" and not cpu_has_bf16:
        raise EngineUnavailable(
            "this CPU has no bf16 instructions, so precision bf16 would only cost accuracy; "
            "use precision f32 or auto"
        )
    precision, why = _chosen(model, asked, cpu_has_bf16)
    return precision, in_the_graph(model) + why


def in_the_graph(model: ModelFile) -> str:
    """What is to be said of layers that have a precision of their own; nothing without any."""
    if model.arithmetic == "f32":
        return ""
    check = model.precision_check or {}
    cost = ""
    if {"f32", "original"} <= check.keys():
        compared = f"{measure_of(model)} {check['f32']:.3f} against {check['original']:.3f}"
        cost = f" ({compared} of its original)"
    kinds = "f8 and f16" if model.arithmetic == "f8" else model.arithmetic
    return f"{kinds} layers as the model file has them{cost}, all else "


def refuse_float8(model: ModelFile, why: str) -> None:
    """`EngineUnavailable` for a file with layers in float8, and `why`; nothing for any other."""
    if model.arithmetic == "f8":
        raise EngineUnavailable(
            f"{model.path.name} has layers in float8, {why}; use its original, or --engine "
            "onnxruntime, which computes them exactly and slowly"
        )


def check_float8(model: ModelFile, gpu: str, compute_capability: tuple[int, int]) -> None:
    """`EngineUnavailable` for such a file on a GPU whose kernels do not know float8.

    TensorRT would say no more than that there is no implementation of the first such layer.
    """
    if compute_capability < OLDEST_WITH_FLOAT8:
        has, needs = (".".join(map(str, n)) for n in (compute_capability, OLDEST_WITH_FLOAT8))
        refuse_float8(
            model,
            f"which the {gpu} does not have (compute capability {has}; {needs} or higher is "
            "needed, that is Ada, Hopper, Blackwell or later)",
        )


def named(model: ModelFile, rest: str) -> str:
    """What an engine's precision is called, ``rest`` being that of what is not in int8.

    >>> from types import SimpleNamespace as File
    >>> named(File(arithmetic="f32"), "bf16"), named(File(arithmetic="int8"), "bf16")
    ('bf16', 'int8+bf16')
    """
    return f"int8+{rest}" if model.arithmetic == "int8" else rest


def measure_of(model: ModelFile) -> str:
    """Of what the figures of its check are."""
    return "mIoU" if model.is_semantic else "AP"


def loses_too_much(before: float, after: float) -> bool:
    """Whether more of a score in 0 to 1 is lost than speed is worth."""
    # Rounded: 0.700 - 0.695 is a little over 0.005 in binary.
    return round(before - after, 9) > MOST_LOSS


def _chosen(model: ModelFile, asked: AskedPrecision, cpu_has_bf16: bool) -> tuple[Precision, str]:
    if asked in ("f32", "bf16"):
        return asked, f"{asked} as asked"
    if not cpu_has_bf16:
        return "f32", "f32 because this CPU has no bf16 instructions"
    is_accurate, reason = _checked(model)
    precision: Precision = "bf16" if is_accurate else "f32"
    return precision, f"{precision} because {reason}"


def choose_gpu_precision(model: ModelFile, asked: AskedPrecision) -> tuple[Precision, str]:
    """The same for a program of torch on a GPU; ``auto`` takes f16 where bf16 is accurate enough.

    f16 rounds to a bit in 2,048 where bf16 rounds to one in 256. What it lacks is room for numbers
    above 65,504; the doctor compares it with f32.

    Raises:
        ConfigError: int8 is asked for.
    """
    if asked == "int8":
        raise ConfigError("a program of torch has no form in int8; use precision auto, f32 or f16")
    if asked != "auto":
        return asked, f"{asked} as asked"
    is_accurate, reason = _checked(model)
    if not is_accurate:
        return "f32", f"f32 because {reason}"
    return "f16", f"f16, finer than bf16, because {reason}"


def _checked(model: ModelFile) -> tuple[bool, str]:
    """Whether the model is as good in bf16 by its own check, and what that says."""
    check = model.precision_check or {}
    if "f32" not in check or "bf16" not in check:
        return False, "the model file says nothing about its accuracy with bf16"
    compared = f"{measure_of(model)} {check['bf16']:.3f} against {check['f32']:.3f}"
    # What int8 has lost already counts, too.
    before = max(check["f32"], check.get("original", 0.0))
    if loses_too_much(before, check["bf16"]):
        return False, f"bf16 loses too much by the model file's own check ({compared})"
    return True, f"the model file's own check shows {compared} with f32"
