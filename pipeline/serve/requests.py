"""What the API takes, checked before it reaches the line.

Cameras may be added by whoever may use the API, files may not: a picture of them would be on
the page at once, and the API would read any video or photograph that boxstream may read. Files
belong on the command line. The same goes for devices by their path (cameras of this machine
have a number), and for files with passwords, which a made-up camera would be sent.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

CAMERA_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt")
_NO_CAMERA = (
    f"expected a camera: a URL that begins with {', '.join(CAMERA_SCHEMES)}, or camera:0, "
    "or synthetic://street; files can only be given on the command line"
)
_OPTIONS_OF_FILES = {"credentials"}  # those of `pipeline.settings.LiveSettings` that name a file
_NO_FILES = (
    "'credentials' behind the # names a file, which only the command line and the configuration "
    "may; write user and password into the URL: rtsp://user:password@host/path"
)


def camera_url(url: str) -> str:
    """`url` if it names a camera; ``ValueError`` without the URL, which may hold a password."""
    if not _names_a_camera(url):
        raise ValueError(_NO_CAMERA)
    options = re.split("[#&]", url.partition("#")[2])
    if _OPTIONS_OF_FILES & {option.partition("=")[0] for option in options}:
        raise ValueError(_NO_FILES)
    return url


def _names_a_camera(url: str) -> bool:
    """Strictly as `pipeline.sources` will read it: what it finds no scheme in is a path there."""
    if url.removeprefix("replay:").startswith("synthetic://"):
        return True
    if re.fullmatch(r"camera:[0-9]{1,2}", url):
        return True
    if url.partition("://")[0].lower() not in CAMERA_SCHEMES:
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
ClassThresholds = Annotated[
    dict[Annotated[str, Field(max_length=100)], Score], Field(max_length=1000)
]
Name = Annotated[str, Field(pattern=r"^\w[\w .-]{0,62}$")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class AddSource(_Request):
    """A camera to be added; without a name it gets one from its URL."""

    url: Annotated[str, Field(max_length=2048), AfterValidator(camera_url)]
    name: Name | None = None


class ChangeSource(_Request):
    """What may be changed about a source; what is left out stays as it is.

    Thresholds count for this source alone; null gives them back to the line. Its
    `class_thresholds` replace all of the line's.
    """

    paused: bool | None = None
    threshold: Score | None = None
    class_thresholds: ClassThresholds | None = None

    @property
    def changes_thresholds(self) -> bool:
        """Whether it asks for other thresholds, or to give them back."""
        return bool(self.model_fields_set & {"threshold", "class_thresholds"})

    @model_validator(mode="after")
    def _asks_for_something(self) -> ChangeSource:
        if self.paused is None and not self.changes_thresholds:
            raise ValueError("expected paused (true or false), threshold or class_thresholds")
        return self


class ChangeDetection(_Request):
    """What is shown from now on; what is left out stays as it is.

    The thresholds are those of all sources without their own; `threshold` null: what the model
    recommends.
    """

    threshold: Score | None = None
    class_thresholds: ClassThresholds | None = None
