"""``synthetic://street``: a drawn drive as a source, with the true boxes of every frame.

With ``clock=1`` the time of day is painted in the corner of each picture, to measure how long it
is under way; see `pipeline.painted_clock`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import av
from av.video.reformatter import ColorRange, Colorspace

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.errors import ConfigError
from pipeline.frame import Frame, Truth
from pipeline.painted_clock import COLUMNS, ROWS, block_pixels, has_room
from pipeline.sources.delivery import Limits, deliver
from pipeline.sources.painted import paint

if TYPE_CHECKING:
    from pipeline.sources.street import StreetFrame

EXAMPLE = "synthetic://street?seed=7&size=640x360&fps=25&seconds=20"
_MOST_PIXELS, _MOST_FPS, _MOST_SECONDS = 7680, 240, 86_400
_FINEST = 100_000  # denominator; 29.97002997002997 is 30000/1001, with which encoders can count
_BT709 = 1  # AVCOL_SPC_BT709; PyAV's enumeration for converting counts differently


class StreetSource:
    """The drawn drive, as a camera would deliver it: 4:2:0, BT.709, limited range."""

    live = False
    is_images = False
    input_path: Path | None = None
    media_path: Path | None = None
    origin = Fraction(0)

    def __init__(self, *, name: str, url: str, limits: Limits) -> None:
        """Read the URL.

        Raises:
            ConfigError: An unknown scene or key, or a value out of range.
        """
        # Twenty modules that no other source needs, so that those start sooner.
        from pipeline.sources.street import STREET_CLASSES, Street

        self.name, self.url, self._limits = name, url, limits
        self._class_names = STREET_CLASSES
        wishes = _read(url)
        rate: Fraction = wishes["fps"]
        try:
            self._street = Street(
                seed=wishes["seed"],
                size_hw=wishes["size"],
                fps=float(rate),
                seconds=float(wishes["seconds"]),
            )
        except ValueError as error:
            raise ConfigError(f"{url}: {error}") from None
        self.rate: Fraction | None = rate
        self.size_hw: tuple[int, int] | None = wishes["size"]
        self.frame_count = limits.expected(len(self._street), rate)
        self.stats = SourceStats(name, offered_fps=float(rate))
        self._time_base = 1 / rate
        self._has_clock: bool = wishes["clock"]
        if self._has_clock and not has_room(*self.size_hw):
            side = block_pixels(self.size_hw[0])
            raise ConfigError(
                f"{url}: a clock needs a picture of {COLUMNS * side}x{ROWS * side} at least; "
                "choose a larger size"
            )

    def frames(self) -> Iterator[Frame]:
        """Draw the frames in order."""
        yield from deliver(self._frames(), self.stats, self._limits)

    def stamp(self, frame: Frame) -> None:
        """Paint the time of day into a frame that is to be seen now, if a clock is wanted."""
        if self._has_clock:
            paint(frame.picture, frame.index, round(time.time() * 1000))

    def close(self) -> None:
        """Nothing is open."""

    def _frames(self) -> Iterator[Frame]:
        for index in range(len(self._street)):
            drawn = self._street.frame(index)
            frame = Frame(
                picture=_as_camera_picture(drawn),
                source=self.name,
                index=index,
                pts=index,
                time_base=self._time_base,
                arrival=time.monotonic(),
                truth=Truth(drawn.boxes, drawn.class_ids, drawn.ignored, self._class_names),
            )
            self.stamp(frame)
            yield frame


def _as_camera_picture(drawn: StreetFrame) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(drawn.image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    picture.colorspace, picture.color_range = _BT709, ColorRange.MPEG
    return picture


def _read(url: str) -> dict[str, Any]:
    """The URL's wishes laid over the defaults: seed, size (height, width), fps, seconds, clock."""
    parts = urlsplit(url)
    if (parts.netloc, parts.path.strip("/"), parts.fragment) != ("street", "", ""):
        raise ConfigError(f"no synthetic scene {parts.netloc!r}; there is one: {EXAMPLE}")
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(f"{url}: {error}; an example: {EXAMPLE}") from None
    words = dict(parse_qsl(urlsplit(EXAMPLE).query)) | {"clock": "0"}
    given: set[str] = set()
    for key, word in pairs:
        if key not in _READERS:
            near = get_close_matches(key, _READERS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{url}: unknown key {key!r}; known keys: {', '.join(words)}{meant}")
        if key in given:
            raise ConfigError(f"{url}: {key!r} is given twice")
        given.add(key)
        words[key] = word
    return {key: _value(url, key, word) for key, word in words.items()}


def _value(url: str, key: str, word: str) -> Any:
    read, expected = _READERS[key]
    try:
        return read(word)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{url}: {key} must be {expected}, got {word!r}") from None


def _size(word: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` -> (height, width)."""
    match = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", word)
    if not match:
        raise ValueError(word)
    width, height = int(match[1]), int(match[2])
    if max(width, height) > _MOST_PIXELS:
        raise ValueError(word)
    return height, width


def _seed(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", word):
        raise ValueError(word)
    return int(word)


def _yes_or_no(word: str) -> bool:
    if word not in ("0", "1"):
        raise ValueError(word)
    return word == "1"


def _number_up_to(most: int) -> Callable[[str], Fraction]:
    def read(word: str) -> Fraction:
        value = Fraction(word).limit_denominator(_FINEST)
        if not 0 < value <= most:
            raise ValueError(word)
        return value

    return read


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "seed": (_seed, "a whole number from 0 on"),
    "size": (_size, f"WIDTHxHEIGHT in pixels, at most {_MOST_PIXELS}"),
    "fps": (_number_up_to(_MOST_FPS), f"frames per second, above 0 and at most {_MOST_FPS}"),
    "seconds": (_number_up_to(_MOST_SECONDS), f"above 0 and at most {_MOST_SECONDS}"),
    "clock": (_yes_or_no, "1 for a clock painted in the corner, or 0"),
}
