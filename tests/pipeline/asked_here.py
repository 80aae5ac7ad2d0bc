"""Ask the doctor's questions in this process, where a test can change the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.checkup.isolation import Finding
from pipeline.errors import PipelineError


def asked_here(work: Callable[..., Finding], *, seconds: float = 0, **given: Any) -> Finding:
    """As `isolated`, for questions that neither crash nor hang."""
    try:
        return work(**given) | {"error": None}
    except PipelineError as error:
        return {"error": str(error), "error_kind": type(error).__name__}
