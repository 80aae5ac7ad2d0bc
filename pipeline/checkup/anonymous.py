"""Messages of other people's libraries without what is nobody's business.

What the doctor says will be pasted where all can read it, and a message may hold anything: where
somebody's files lie, an address with a password, a value out of the environment.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.redaction import without_secrets

_LONGEST = 400  # characters of a message
_SECRET_NAME = re.compile(r"token|pass|pwd|secret|key|credential|auth", re.IGNORECASE)
_PEOPLE = re.compile(r"/(?:home|Users)/[^/\s'\":;,]+")
_PATH = re.compile(r"(?<![\w.~/:])~?/(?:[^/\s'\":;,()\[\]]+/)+(?=[^/\s])")
_OF_THE_SYSTEM = ("/usr/", "/lib/", "/lib64/", "/opt/", "/dev/", "/proc/", "/sys/", "/etc/")


def anonymous(message: str, environment: Mapping[str, str] = os.environ) -> str:
    """The message in one line, without secrets, names of people and machines, and private paths.

    >>> anonymous("cannot open /data/anna/models/street.onnx", {})
    'cannot open …/street.onnx'
    >>> anonymous("/usr/lib/libcuda.so.1: file too short", {})
    '/usr/lib/libcuda.so.1: file too short'
    """
    line = " ".join(message.split())
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= 4:
            line = line.replace(value, "***")
    line = without_secrets(line.replace("file://", ""))
    home = str(Path(environment.get("HOME", "/")))
    if home != "/":
        line = line.replace(home, "~")
    line = _PATH.sub(_shortened, _PEOPLE.sub("~", line))
    host = platform.node()
    if len(host) >= 4 and host != "localhost":
        line = re.sub(rf"\b{re.escape(host)}\b", "***", line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _shortened(folder: re.Match[str]) -> str:
    return folder[0] if folder[0].startswith(_OF_THE_SYSTEM) else "…/"
