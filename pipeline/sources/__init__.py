"""Where frames come from: recorded files, folders and globs of them, a drawn street, cameras."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Protocol, TypeGuard
from urllib.parse import unquote, urlsplit

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.errors import ConfigError, NoVideo, SourceNotFound
from pipeline.frame import Frame
from pipeline.redaction import without_secrets
from pipeline.settings import DecoderName, LiveSettings, RecordedSettings
from pipeline.sources.delivery import Limits
from pipeline.sources.folder import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    FolderSource,
    natural_order,
)
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.live import DecodeEffort, is_live_url
from pipeline.sources.live import plan as plan_live
from pipeline.sources.opening import printable, reading
from pipeline.sources.recorded import RecordedSource
from pipeline.sources.synthetic import EXAMPLE, StreetSource

__all__ = ["LiveSource", "Source", "any_live", "close_sources", "is_live", "open_sources"]

_FAREWELL_SECONDS = 2.0  # for connections to be ended in order


class Source(Protocol):
    """Something that delivers frames, once.

    Attributes:
        name: Unique within a run; a file's stem, a folder's name, or ``street``.
        url: As the user gave it.
        live: Whether frames come at their own pace and must be dropped if nobody takes them.
        size_hw: Height and width of the first picture, upright; later ones may differ.
        rate: Declared frames/s, None if unknown.
        frame_count: About how many frames there will be, for a progress bar; None if unknown.
        input_path: The file that is read, which no output may write over; None if it is not one.
        media_path: The file that holds the sound, None if there can be none.
        origin: Seconds on the clock of `media_path` at which `Frame.pts` is 0.
        is_images: Whether it is a set of pictures, without a time of their own.
        stats: What became of its frames; `frames` writes what the source knows.
    """

    name: str
    url: str
    live: bool
    size_hw: tuple[int, int] | None
    rate: Fraction | None
    frame_count: int | None
    input_path: Path | None
    media_path: Path | None
    origin: Fraction
    is_images: bool
    stats: SourceStats

    def frames(self) -> Iterator[Frame]:
        """Deliver the frames in order; `Frame.pts` rises strictly."""
        ...

    def close(self) -> None:
        """Let go of files; harmless when done twice."""
        ...


class LiveSource(Source, Protocol):
    """A source that goes at its own pace: `frames` runs until `end`, through every failure."""

    def end(self) -> None:
        """Make `frames` return soon; callable from any thread and from a signal's handler."""
        ...

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        ...

    def resume(self) -> None:
        """Deliver again."""
        ...

    def set_effort(self, effort: DecodeEffort) -> None:
        """Decode with that much effort from now on."""
        ...

    def join(self, seconds: float) -> None:
        """Wait at most so long for the connections of a source that has ended."""
        ...


def is_live(source: Source) -> TypeGuard[LiveSource]:
    """Tell whether a source goes at its own pace."""
    return source.live


def any_live(sources: Iterable[Source]) -> bool:
    """Tell whether one of them goes at its own pace."""
    return any(source.live for source in sources)


Opener = Callable[..., Source]  # called with the source's name


def open_sources(
    urls: Sequence[str],
    *,
    max_frames: int | None = None,
    duration: float | None = None,
    decoder: DecoderName | GpuDecoding = "auto",
    decoder_threads: int = 0,
    live: LiveSettings | None = None,
    recorded: RecordedSettings | None = None,
    environment: Mapping[str, str] = os.environ,
    name: str | None = None,
    taken: Collection[str] = (),
) -> list[Source]:
    """Open and check everything that `urls` name, in order; cameras are not opened yet.

    Args:
        urls: Video files, pictures, folders, globs, or ``synthetic://street?...``. A folder or
            glob of videos gives one source for each, one of pictures a single source. A mixture
            is refused, because nobody can know what was meant. Or cameras: ``rtsp://`` and so
            on, ``camera:0``; ``replay:`` before a video makes it one, too.
        max_frames: Most frames that each source delivers.
        duration: Seconds of its own time after which each source ends.
        decoder: Where video is decoded, see `GpuDecoding`; or one that is shared with others.
        decoder_threads: For each source; 0 chooses for this machine.
        live: How cameras are read; None: as usual.
        recorded: How everything else is; None: all of it.
        environment: Holds what cameras' addresses write as ``$NAME``.
        name: What the source shall be called; None: after its URL.
        taken: Names that others have.

    Raises:
        ConfigError: A URL cannot mean anything, or a GPU was asked for and there is none.
        SourceError: What it names cannot be shown; see the errors derived from it.
    """
    if not urls:
        raise ConfigError(f"no source given; name a video, a folder, or {EXAMPLE}")
    limits = Limits(max_frames, duration)
    of_file = recorded or RecordedSettings()
    thinner = replace(limits, stride=of_file.stride, max_fps=of_file.max_fps)
    planned: list[tuple[str, Opener]] = []
    gpu = decoder if isinstance(decoder, GpuDecoding) else GpuDecoding(decoder)
    for url in urls:
        if is_live_url(url, environment):
            settings = live or LiveSettings()
            planned.append(plan_live(url, settings, limits, environment, decoder_threads, gpu))
        else:
            planned += _plan(url, thinner, decoder_threads, gpu)
    names = _unique([name or wish for wish, _ in planned], taken)
    sources: list[Source] = []
    try:
        for name, (_, opener) in zip(names, planned, strict=True):
            sources.append(opener(name=name))
    except BaseException:  # those that were opened are closed first
        for source in sources:
            source.close()
        raise
    return sources


def close_sources(sources: Sequence[Source]) -> None:
    """Let go of all that have ended; their cameras have a moment to be left, all the same one."""
    for source in sources:
        source.close()
    deadline = time.monotonic() + _FAREWELL_SECONDS
    for source in filter(is_live, sources):
        source.join(max(0.0, deadline - time.monotonic()))


def _plan(
    url: str, limits: Limits, decoder_threads: int, gpu: GpuDecoding
) -> list[tuple[str, Opener]]:
    """Each source that `url` stands for: its wished name and what opens it."""
    if url.startswith("synthetic:"):
        return [("street", partial(StreetSource, url=url, limits=limits))]
    path = _as_path(url)
    with reading(path):
        videos, pictures, name = _media(path, url)
    if pictures:
        return [(printable(name), partial(FolderSource, pictures, url=url, limits=limits))]
    open_video = partial(
        RecordedSource, url=url, limits=limits, decoder_threads=decoder_threads, gpu=gpu
    )
    return [(printable(path.stem), partial(open_video, path)) for path in videos]


def _as_path(url: str) -> Path:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    if scheme is None:
        return Path(url).expanduser()
    if scheme[1].lower() == "file":
        return Path(unquote(urlsplit(url).path))
    raise ConfigError(  # the rest of the URL may hold a password
        f"{scheme[1]}:// sources are not supported; "
        f"name a video file, a folder, a glob, {EXAMPLE}, or a camera: rtsp://, https://, camera:0"
    )


def _media(path: Path, url: str) -> tuple[list[Path], list[Path], str]:
    """The videos and the pictures that `path` stands for, and the name of the latter."""
    if path.is_dir():
        found, folder = [path / name for name in os.listdir(path)], path.resolve().name
        where = f"folder {url!r}"
    elif has_magic(str(path)) and not path.exists():
        found, folder = [Path(name) for name in glob(str(path), recursive=True)], _glob_name(path)
        where = f"glob {url!r}"
        if not found:
            raise SourceNotFound(f"nothing matches {without_secrets(url)!r}; check the path")
    elif path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
        return [], [path], path.stem
    else:
        return [path], [], ""
    files = natural_order(f for f in found if not f.name.startswith(".") and f.is_file())
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    if videos and pictures:
        raise ConfigError(
            f"{where} holds {len(videos)} videos and {len(pictures)} pictures; name one kind, "
            f"such as '*{videos[0].suffix}' or '*{pictures[0].suffix}'"
        )
    if not videos and not pictures:
        raise NoVideo(
            f"{where} holds no video and no picture, among {len(files)} files; "
            "folders inside it are not searched, '**/*.mp4' would"
        )
    return videos, pictures, folder or "pictures"


def _glob_name(path: Path) -> str:
    """The name of the last folder before a glob's first wildcard."""
    plain = [part for part in path.parent.parts if not has_magic(part)]
    return Path(*plain).resolve().name


def _unique(wished: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """``a, a, b`` -> ``a, a-2, b``; none of those that are `taken`."""
    names: list[str] = []
    for wish in wished:
        name, number = wish, 2
        while name in names or name in taken or (name != wish and name in wished):
            name, number = f"{wish}-{number}", number + 1
        names.append(name)
    return names
