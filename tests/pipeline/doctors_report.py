"""What the doctor has found on a machine without a GPU, for those who judge it."""

from __future__ import annotations

from typing import Any


def report_of(
    *,
    precision: str = "bf16",
    reason: str = "as asked",
    sets: dict[str, bool] | None = None,
    has_int8_form: bool = False,
) -> dict[str, Any]:
    """The report on `street` in OpenVINO, as `pipeline.checkup.verdict.judge` takes it.

    Args:
        reason: Of the engine's choice.
        sets: Instruction sets of the processor; None where nothing tells.
    """
    engine = {"error": None, "name": "openvino", "model": "street"}
    model = {"error": None, "name": "street", "arithmetic": "f32", "has_int8_form": has_int8_form}
    return {
        "gpu": {"error": "there is no NVIDIA driver here", "cards": []},
        "tensorrt": {"error": "not here"},
        "engine": engine | {"precision": precision, "reason": reason},
        "system": {"cores": 2, "cores_usable": 2, "instruction_sets": sets},
        "model": model,
        "packages": {},
        "video": {"error": None},
        "selftest": None,
    }
