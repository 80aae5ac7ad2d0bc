"""How the commands of this room end where what they are given is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.data.pictures import DataError
from models.published import WeightsError
from models.training.starting_weights import SettingsError

EXIT_ARGUMENTS = 2


@contextmanager
def told() -> Iterator[None]:
    """Inside the block such an error ends the program, with its reason in one line.

    Whatever else is raised is a fault of ours, and keeps its traceback.
    """
    try:
        yield
    except (DataError, SettingsError, WeightsError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_ARGUMENTS)


def ends_in(*suffixes: str) -> Callable[[str], Path]:
    """An argument's type: a file to be written, whose name tells what is read from it later."""

    def file(text: str) -> Path:
        path = Path(text)
        if path.suffix not in suffixes:
            wanted = " or ".join(suffixes)
            raise argparse.ArgumentTypeError(f"the name has to end in {wanted}, got {text!r}")
        return path

    return file
