"""GStreamer's RTSP server, which runs in the system's Python."""

from __future__ import annotations

import functools
import subprocess

SYSTEM_PYTHON = "/usr/bin/python3"
_PROBE = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in sys.argv[1:] if Gst.ElementFactory.find(name) is None]
assert not missing, missing
"""


@functools.cache
def why_no_gstreamer(elements: str, packages: str) -> str | None:
    """What has to be installed; None when the server and all elements are there.

    Args:
        elements: Their names, with blanks between.
        packages: The Debian packages that hold all this.
    """
    try:
        probe = [SYSTEM_PYTHON, "-c", _PROBE, *elements.split()]
        subprocess.run(probe, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return f"no GStreamer RTSP server here; on Debian: apt install {packages}"
    return None
