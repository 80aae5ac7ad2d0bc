"""Ask the doctor's questions in this process, where a test can change them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from pipeline.checkup.isolation import Finding
from pipeline.checkup.page import print_page
from pipeline.errors import PipelineError


def asked_here(work: Callable[..., Finding], *, seconds: float = 0, **given: Any) -> Finding:
    """As `isolated`, for questions that neither crash nor hang."""
    try:
        return work(**given) | {"error": None}
    except PipelineError as error:
        return {"error": str(error), "error_kind": type(error).__name__}


def page(report: dict[str, Any]) -> str:
    """What a person is shown."""
    said = io.StringIO()
    print_page(report, Console(file=said, width=120))
    return said.getvalue()


def rows_of(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The self-test's rows by engine and precision."""
    return {(row["engine"], row["precision"]): row for row in report["selftest"]["engines"]}
