"""What the API takes, checked before it reaches the line.

Cameras may be added by whoever may use the API, files may not: a picture of them would be on
the page at once, and the API would read any video or photograph that boxstream may read. Files
belong on the command line. The same goes for devices by their path; cameras of this machine
have a number.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CAMERA_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt")
_NO_CAMERA = (
    f"expected a camera: a URL that begins with {', '.join(CAMERA_SCHEMES)}, or camera:0, "
    "or synthetic://street; files can only be given on the command line"
)


def camera_url(url: str) -> str:
    """`url` if it names a camera; ``ValueError`` without the URL, which may hold a password."""
    wished = url.removeprefix("replay:")
    if wished.startswith("synthetic://"):
        return url
    if re.fullmatch(r"camera:\d{1,3}", url):
        return url
    try:
        parts = urlsplit(url)
        if parts.scheme in CAMERA_SCHEMES and parts.hostname and parts.port != 0:
            return url
    except ValueError:
        pass
    raise ValueError(_NO_CAMERA)


Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^\w[\w .-]{0,62}$")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class AddSource(_Request):
    """A camera to be added; without a name it gets one from its URL."""

    url: Annotated[str, Field(max_length=2048), AfterValidator(camera_url)]
    name: Name | None = None


class ChangeSource(_Request):
    """What may be changed about a source."""

    paused: bool


class ChangeDetection(_Request):
    """What is shown from now on; what is left out stays as it is.

    The thresholds are those of the whole line. `threshold` null: what the model recommends.
    """

    threshold: Score | None = None
    class_thresholds: dict[Annotated[str, Field(max_length=100)], Score] | None = Field(
        default=None, max_length=1000
    )
