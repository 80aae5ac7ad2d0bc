"""Open a media file, find its video, and say clearly what is wrong if that fails."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.errors import NoVideo, SourceError, SourceNotFound, UnsupportedCodec, reason
from pipeline.ffmpeg_log import ffmpeg_log
from pipeline.redaction import without_secrets

# FFmpeg can play text files as if they were terminals; nobody means that.
_TEXT_ART = {"tty", "bin", "adf", "idf", "xbin"}
_NOT_A_VIDEO = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
_MP4_BOXES = {b"ftyp", b"mdat", b"free", b"wide", b"skip", b"moov"}


def open_container(path: Path) -> InputContainer:
    """Open `path` for demuxing; it may only lead to local files, whatever it contains.

    Raises:
        SourceNotFound: There is nothing at `path`.
        SourceError: It is no regular file, or may not be read.
        NoVideo: FFmpeg does not know what it is.
    """
    check_regular_file(path)
    try:
        container = _open(path)
    except (av.FFmpegError, ValueError) as error:
        raise NoVideo(f"cannot read {str(path)!r} as video: {_cause(path, error)}") from None
    if container.format.name in _TEXT_ART:
        container.close()
        raise NoVideo(f"cannot read {str(path)!r} as video: it is text")
    return container


def check_regular_file(path: Path) -> None:
    """Refuse what cannot be a recording: nothing there, a pipe, a device, an empty file."""
    with reading(path):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            shown = without_secrets(str(path))
            raise SourceNotFound(f"no such file: {shown!r}{_nearest(path)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(
            f"{str(path)!r} is {_kind(status.st_mode)}, not a file; "
            "a recording must be a regular file, because it is read from its end, too"
        )
    if status.st_size == 0:
        raise NoVideo(f"{str(path)!r} is empty (0 bytes); record or copy it again")
    with reading(path):
        path.open("rb").close()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside the block, what the system says against reading becomes a `SourceError`."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        is_forbidden = isinstance(error, PermissionError)
        why = "permission denied; let this user read it" if is_forbidden else reason(error)
        raise SourceError(f"cannot read {without_secrets(str(path))!r}: {why}") from None


def printable(name: str) -> str:
    """A file's name without the bytes that are not UTF-8, which JSON could not hold."""
    return os.fsencode(name).decode("utf-8", "replace")


def choose_video(container: InputContainer, path: Path) -> VideoStream:
    """The stream to show: decodable first, then the default one, then the largest, the first.

    Cover pictures and thumbnails are not video.

    Raises:
        NoVideo: There is none.
        UnsupportedCodec: There is, but FFmpeg has no decoder for it.
    """
    videos = [s for s in container.streams.video if not s.disposition & _NOT_A_VIDEO]
    if not videos:
        raise NoVideo(f"{str(path)!r} holds no video, only {_contents(container)}")
    decodable = [s for s in videos if s.codec_context is not None]
    if not decodable:
        codec = _codec_name(container, videos[0])
        raise UnsupportedCodec(
            f"the video in {str(path)!r} is {codec}, for which this FFmpeg "
            f"({av.ffmpeg_version_info}) has no decoder; convert it to H.264 first"
        )
    return max(decodable, key=_preference)


def _preference(stream: VideoStream) -> tuple[bool, int, int]:
    is_default = bool(stream.disposition & Disposition.default)
    return is_default, stream.width * stream.height, -stream.index


def open_bound(path: Path, index: int, accelerator: HWAccel | None) -> VideoCodecContext:
    """A decoder of its own for one stream of a file, with all that the file says about it.

    Args:
        path: Of a file that was opened before.
        index: Of the stream.
        accelerator: What it is bound to; None: it decodes in software.

    Raises:
        av.FFmpegError: The file has gone, or the accelerator cannot be had.
    """
    with _open(path, accelerator) as container:
        return container.streams[index].codec_context  # type: ignore[return-value]  # a video's


def _open(path: Path, accelerator: HWAccel | None = None) -> InputContainer:
    return av.open(
        f"file:{path}",  # a colon in a name must not read as a protocol
        mode="r",
        options={"protocol_whitelist": "file,crypto,data"},  # playlists lead nowhere else
        metadata_errors="replace",
        hwaccel=accelerator,
    )


def _cause(path: Path, error: Exception) -> str:
    """Why opening failed, in a sentence's second half."""
    with path.open("rb") as file:
        head = file.read(512)
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        return "it is text"
    if head[4:8] in _MP4_BOXES and "moov atom not found" in _log_of_opening(path):
        return (
            "its index (the moov atom) is missing, because the recording was cut off before it "
            "was finished; copy it again, or rebuild it with a repair tool"
        )
    if isinstance(error, av.FFmpegError) and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}; is it a video at all?"
    return str(error)


def _log_of_opening(path: Path) -> str:
    # It fails as it did before; this time only what FFmpeg says about it is of interest.
    with ffmpeg_log(av.logging.ERROR) as lines, suppress(av.FFmpegError, ValueError):
        _open(path).close()
    return " ".join(message for _, _, message in lines)


def _codec_name(container: InputContainer, stream: VideoStream) -> str:
    """Such as ``av1 (av01 / 0x31307661)``; PyAV tells nothing of a stream it cannot decode."""
    with ffmpeg_log(av.logging.INFO):
        description = container.dumps_format()  # type: ignore[attr-defined]  # not in the stubs
    found = re.search(rf"Stream #0:{stream.index}\b.*?Video: ([^,]+)", description)
    name = found[1].strip().removeprefix("none").strip(" ()") if found else ""
    return name or "of an unknown kind"


def _contents(container: InputContainer) -> str:
    kinds = {
        "cover art" if s.disposition & _NOT_A_VIDEO else s.type or "data" for s in container.streams
    }
    return " and ".join(sorted(kinds)) or "nothing"


def _nearest(path: Path) -> str:
    """``; did you mean ...?``, or nothing."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"; nor is there a folder {without_secrets(str(path.parent))!r}"
    names.sort(key=lambda name: Path(name).suffix == path.suffix)  # of one stem the last counts
    stems = {Path(name).stem: name for name in names}  # endings are alike, whatever is meant
    near = difflib.get_close_matches(path.stem, stems, n=1)
    return f"; did you mean {str(path.parent / stems[near[0]])!r}?" if near else ""


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a disk",
    }
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "something special")
