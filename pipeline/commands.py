"""What all commands have in common: models by their names, and an end by Ctrl-C.

Nothing but Python is imported here, so that the doctor runs where a package is broken.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

MODELS = {
    path.stem: path for path in sorted((Path(__file__).parents[1] / "models/zoo").glob("*.onnx"))
}
"""The model files that ship, by name."""


def model_path(name: str) -> Path:
    """Where the model is: one that ships, or else the file that is called so."""
    return MODELS.get(name, Path(name))


def leave(main: Callable[[], int]) -> NoReturn:
    """End the process with the code that `main` returns, or, after Ctrl-C, with one line."""
    try:
        code = main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        code = 128 + signal.SIGINT
    sys.exit(code)
