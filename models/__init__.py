"""Networks: layers, papers, training, evaluation and export. Knows tensors, not time.

Importing this package imports nothing else; its modules need torch (``pip install .[models]``). A
command of it (``python -m models.train``) says so where that is not installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "pycocotools")
"""Those of the extra ``models`` without which some command does not even say what it can do."""
_LOOKING_FOR_MODULE = "-m"
"""What ``sys.argv`` begins with while Python imports the packages around the module to be run."""


def _end_without_packages() -> None:
    """End a command before it imports what is not there; other imports are left alone."""
    if sys.argv[:1] != [_LOOKING_FOR_MODULE]:
        return
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        words = (word.removeprefix(_LOOKING_FOR_MODULE) for word in sys.orig_argv)
        command = next((word for word in words if word.startswith("models.")), __name__)
        sys.stderr.write(
            f"error: python -m {command} needs {', '.join(missing)}: pip install -e '.[models]'\n"
        )
        sys.exit(2)


_end_without_packages()
