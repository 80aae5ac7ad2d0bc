"""Which precision a model may be run in."""

from __future__ import annotations

from typing import Literal

from pipeline.errors import ConfigError, EngineUnavailable
from pipeline.model_file import ModelFile
from pipeline.settings import AskedPrecision

Precision = Literal["f32", "bf16", "f16"]
MOST_LOSS = 0.005  # average precision that may be given up for speed: half a point


def choose_precision(
    model: ModelFile, asked: AskedPrecision, cpu_has_bf16: bool
) -> tuple[Precision, str]:
    """The precision to run in, and why; bf16 only where it is fast *and* known to be accurate.

    Of a file whose graph has int8 or float16 layers this is the precision of all others.

    Raises:
        EngineUnavailable: bf16 is asked for on a CPU that does not have it.
        ConfigError: f16 is asked for.
    """
    if asked == "f16":
        raise ConfigError(
            "precision f16 is for --engine program on an NVIDIA GPU; use f32, bf16 or auto"
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
        measure = "mIoU" if model.is_semantic else "AP"
        cost = f" ({measure} {check['f32']:.3f} against {check['original']:.3f} of its original)"
    return f"{model.arithmetic} layers as the model file has them{cost}, all else "


def _chosen(
    model: ModelFile, asked: Literal["auto", "f32", "bf16"], cpu_has_bf16: bool
) -> tuple[Precision, str]:
    if asked != "auto":
        return asked, f"{asked} as asked"
    if not cpu_has_bf16:
        return "f32", "f32 because this CPU has no bf16 instructions"
    is_accurate, told = _checked(model)
    return ("bf16" if is_accurate else "f32"), told


def choose_gpu_precision(model: ModelFile, asked: AskedPrecision) -> tuple[Precision, str]:
    """The same for a program of torch on a GPU; ``auto`` takes f16 where bf16 is accurate enough.

    f16 rounds to a bit in 2,048 where bf16 rounds to one in 256. What it lacks is room for numbers
    above 65,504; the doctor compares it with f32.
    """
    if asked != "auto":
        return asked, f"{asked} as asked"
    is_accurate, told = _checked(model)
    if not is_accurate:
        return "f32", told
    return "f16", told.replace("bf16 because", "f16, finer than bf16, because", 1)


def _checked(model: ModelFile) -> tuple[bool, str]:
    """Whether the model is as good in bf16 by its own check, and what to say of it."""
    check = model.precision_check or {}
    if "f32" not in check or "bf16" not in check:
        return False, "f32 because the model file says nothing about its accuracy with bf16"
    measure = "mIoU" if model.is_semantic else "AP"
    compared = f"{measure} {check['bf16']:.3f} against {check['f32']:.3f}"
    # Rounded: 0.700 - 0.695 is a little over 0.005 in binary.
    if round(check["f32"] - check["bf16"], 9) > MOST_LOSS:
        return False, f"f32 because bf16 loses too much by the model file's own check ({compared})"
    return True, f"bf16 because the model file's own check shows {compared} with f32"
