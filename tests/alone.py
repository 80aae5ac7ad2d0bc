"""A process of its own, for what measures its memory."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[1]


def alone(work: Callable[[], T]) -> T:
    """What `work`, a function of a module, returns in a new interpreter.

    What other tests have left in this one (allocators, caches, threads on their way out) would
    count as what the test in question did.
    """
    ask = (
        "import os, pickle, sys; answer = os.fdopen(os.dup(1), 'wb'); os.dup2(2, 1); "
        f"from {work.__module__} import {work.__qualname__} as work; pickle.dump(work(), answer)"
    )
    command = [sys.executable, "-c", ask]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr.decode()[-3000:]}"
    answer: T = pickle.loads(done.stdout)
    return answer
