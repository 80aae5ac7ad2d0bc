"""Sources that go at their own pace: cameras in the network, webcams, recordings in real time.

From the outside in: `plan` turns a URL into a `CameraSource`, which supervises one `Reader` after
the other; each runs one `Connection`, and what it reads waits in a `Mailbox`.
"""

from pipeline.network.causes import Cause
from pipeline.sources.live.abandoned import ABANDONED
from pipeline.sources.live.camera import CameraSource
from pipeline.sources.live.decoder import DecodeEffort
from pipeline.sources.live.planning import is_live_url, plan

__all__ = ["ABANDONED", "CameraSource", "Cause", "DecodeEffort", "is_live_url", "plan"]
