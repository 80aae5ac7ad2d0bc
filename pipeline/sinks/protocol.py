"""What a sink is, what it may know of its source, and how it fails."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av

from pipeline.errors import SinkError, reason
from pipeline.frame import PixelClasses, Result
from pipeline.sinks.territory import Territory

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes the results of one source; used in a ``with`` block, which finishes the output.

    The output is finished whichever way the block is left. On the way out of an error a second
    one does not hide the first.

    Attributes:
        name: Where the output goes, as shown to the user.
        wants_picture: Whether drawing on the pictures makes sense for this sink.
        frames: Results written so far.
        may_drop: Whether it must never hold up the line: what it cannot take in time is lost to
            it, and counted. True of everything behind a network.
        capacity: How many results may wait for it.
    """

    name: str
    wants_picture: bool
    frames: int
    may_drop: bool
    capacity: int

    def write(self, result: Result) -> None:
        """Write one result; `SinkError` when that is impossible."""
        ...

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes and whatever else is worth knowing afterwards."""
        ...

    def __enter__(self) -> Sink: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None: ...


@runtime_checkable
class Tidying(Protocol):
    """A sink that has something to do now and then, also while nothing is written."""

    def tidy(self) -> None:
        """Delete what is too old, finish what waits; called between two results, on the thread
        that writes.
        """
        ...


@runtime_checkable
class TakesGpuPictures(Protocol):
    """A sink that may be given pictures that lie in a GPU's memory."""

    @property
    def takes_gpu_pictures(self) -> bool:
        """Whether it takes them as they are now; else they are copied to main memory for it."""
        ...


@runtime_checkable
class Claiming(Protocol):
    """A sink that writes, and perhaps deletes, more than the one file or folder of its name."""

    @property
    def territory(self) -> Sequence[Territory]:
        """All that it ever writes or deletes."""
        ...


@dataclass(frozen=True)
class SinkTarget:
    """What a sink may know of its source before the first result.

    Attributes:
        name: The source's name; stands for ``{source}`` in paths.
        class_names: What class ids of detections mean.
        rate: Frames/s that the source declares.
        media_path: The file it reads, if it reads one; sound is copied from there.
        origin: Seconds that the source took off the timestamps of `media_path`.
        live: Whether it goes at its own pace and without an end.
        is_images: Whether it is a folder of pictures, with names of their own.
        pixels: What the classes of pixels mean; None without a model that knows them.
    """

    name: str
    class_names: tuple[str, ...]
    rate: Fraction | None = None
    media_path: Path | None = None
    origin: Fraction = Fraction(0)
    live: bool = False
    is_images: bool = False
    pixels: PixelClasses | None = None


_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space, or choose another --out",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another --out",
    errno.EFBIG: "the file has reached the largest size allowed here (see ulimit -f)",
    errno.EISDIR: "it is a folder; end it with / to write pictures into it",
    errno.EROFS: "that disk is read-only; choose another --out",
    errno.EACCES: "permission denied; choose another --out",
    errno.EPERM: "permission denied; choose another --out",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another --out",
    errno.ENAMETOOLONG: "the name is too long; choose another --out",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside the block, turn what the system or FFmpeg says into a `SinkError` with a remedy."""
    try:
        yield
    except SinkError:
        raise
    except (OSError, av.FFmpegError) as error:
        code = error.errno or 0
        why = _REMEDIES.get(code) or reason(error)
        raise SinkError(code, f"cannot write {str(path)!r}: {why}") from error


@contextmanager
def finishing(error: BaseException | None) -> Iterator[None]:
    """For the end of a sink's ``with`` block: a failure in here does not hide `error`.

    What fails after another failure mostly fails because of it, so it is only worth a note.
    """
    try:
        yield
    except SinkError as second:
        if error is None:
            raise
        log.debug("while closing after another error: %s", second)
