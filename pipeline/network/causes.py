"""Why a connection could not be made, or broke: a word for counters, a sentence for people.

FFmpeg's own error texts hold the address with its password; they never leave this file. What
goes on is a `Cause` and a sentence written here.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from glob import glob

import av

from pipeline.errors import (
    CameraRefused,
    CameraUnreachable,
    NoVideo,
    SourceError,
    SourceNotFound,
    StreamBroken,
    StreamStalled,
    TlsFailed,
    UnsupportedCodec,
    UnsupportedProtocol,
)


class Cause(StrEnum):
    """What went wrong, in one word."""

    REFUSED = "refused"
    DNS = "dns"
    TIMEOUT = "timeout"
    UNAUTHORISED = "unauthorised"
    NOT_FOUND = "not_found"
    TLS = "tls"
    UNSUPPORTED_CODEC = "unsupported_codec"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    NO_VIDEO = "no_video"
    STALLED = "stalled"
    CORRUPT = "corrupt"
    ENDED = "ended"
    READERS_HANG = "readers_hang"
    OTHER = "other"


# No passing of time will mend these.
PERMANENT = frozenset({Cause.UNSUPPORTED_PROTOCOL})

_ERRORS: dict[Cause, type[SourceError]] = {
    Cause.REFUSED: CameraUnreachable,
    Cause.DNS: CameraUnreachable,
    Cause.TIMEOUT: StreamStalled,
    Cause.UNAUTHORISED: CameraRefused,
    Cause.NOT_FOUND: SourceNotFound,
    Cause.TLS: TlsFailed,
    Cause.UNSUPPORTED_CODEC: UnsupportedCodec,
    Cause.UNSUPPORTED_PROTOCOL: UnsupportedProtocol,
    Cause.NO_VIDEO: NoVideo,
    Cause.STALLED: StreamStalled,
    Cause.CORRUPT: StreamBroken,
    Cause.ENDED: StreamBroken,
    Cause.READERS_HANG: StreamStalled,
    Cause.OTHER: StreamBroken,
}

_BY_CLASS: tuple[tuple[type[av.FFmpegError], Cause, str], ...] = (
    (av.HTTPUnauthorizedError, Cause.UNAUTHORISED, "user or password is wrong or missing"),
    (av.HTTPForbiddenError, Cause.UNAUTHORISED, "the server forbids it (403)"),
    (av.HTTPNotFoundError, Cause.NOT_FOUND, "the server knows no such path (404)"),
    (av.HTTPServerError, Cause.OTHER, "the server reports an error of its own (5xx)"),
    (av.HTTPTooManyRequestsError, Cause.OTHER, "the server has too many viewers (429)"),
    (av.HTTPClientError, Cause.OTHER, "the server refuses the request (4xx)"),
    (av.ConnectionRefusedError, Cause.REFUSED, "connection refused; nobody listens there"),
    (av.FileNotFoundError, Cause.NOT_FOUND, "there is no such device or file"),
    (av.PermissionError, Cause.UNAUTHORISED, "may not be opened by this user"),
    (av.TimeoutError, Cause.TIMEOUT, "no answer in time"),
    (av.ConnectionResetError, Cause.ENDED, "the server hung up"),
    (av.ConnectionAbortedError, Cause.ENDED, "the server hung up"),
    (av.BrokenPipeError, Cause.ENDED, "the server hung up"),
    (av.EOFError, Cause.ENDED, "the server ended the stream"),
    (av.DecoderNotFoundError, Cause.UNSUPPORTED_CODEC, "this FFmpeg has no decoder for it"),
    (av.DemuxerNotFoundError, Cause.UNSUPPORTED_PROTOCOL, "this FFmpeg cannot read such sources"),
)

_BY_NUMBER = {
    errno.EHOSTUNREACH: (Cause.REFUSED, "no route to the host; is it switched on?"),
    errno.EHOSTDOWN: (Cause.REFUSED, "the host is down"),
    errno.ENETUNREACH: (Cause.REFUSED, "no network leads there"),
    errno.ENETDOWN: (Cause.REFUSED, "the network is down"),
    errno.EBUSY: (Cause.REFUSED, "another program uses the device"),
    errno.ENODEV: (Cause.NOT_FOUND, "the device has gone"),
    errno.ENXIO: (Cause.NOT_FOUND, "the device has gone"),
    errno.EADDRINUSE: (Cause.REFUSED, "the port is in use by another program"),
}


class Trouble(Exception):
    """A connection failed; carried from whoever noticed to the source's state machine.

    Attributes:
        cause: In one word.
        detail: In a sentence without secrets.
    """

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(cause, detail)
        self.cause, self.detail = cause, detail

    def as_error(self, shown: str) -> SourceError:
        """The error with which the source at the address `shown` gives up."""
        return _ERRORS[self.cause](f"{shown}: {self.detail}")


def of_opening(error: Exception, scheme: str, seconds: float, deadline: float) -> Trouble:
    """Why a connection could not be opened.

    Args:
        error: What PyAV raised.
        scheme: Of the address, in lower case.
        seconds: How long it took.
        deadline: How long it may take.
    """
    if isinstance(error, av.ProtocolNotFoundError):
        return Trouble(Cause.UNSUPPORTED_PROTOCOL, _without_protocol(scheme))
    known = _known(error)
    if scheme == "v4l2":
        return _of_webcam(error, known)
    if known and known.cause is not Cause.TIMEOUT:
        return known
    if known or isinstance(error, av.ExitError) or seconds >= 0.95 * deadline:
        # What FFmpeg says when it is interrupted depends on what it was doing.
        return Trouble(Cause.TIMEOUT, f"no usable answer within {deadline:g} s")
    if isinstance(error, av.OSError) and scheme in ("https", "rtsps", "rtmps"):
        return Trouble(Cause.TLS, "no secure connection; the certificate or the port is wrong")
    if scheme in ("http", "https"):
        return Trouble(Cause.NO_VIDEO, "what the server sends is no video")
    return Trouble(Cause.OTHER, f"no valid answer in the language of {scheme}://")


def _of_webcam(error: Exception, known: Trouble | None) -> Trouble:
    """Why a webcam could not be opened, and what helps."""
    if not isinstance(error, av.FFmpegError):  # PyAV knows no such format
        return Trouble(
            Cause.UNSUPPORTED_PROTOCOL,
            "this FFmpeg cannot read webcams; on Linux PyAV's wheels can",
        )
    if known is None:
        return Trouble(
            Cause.OTHER,
            "the device gives no pictures so; leave out size and fps, or try its neighbour (a "
            "webcam is often two devices, one of them without pictures)",
        )
    if known.cause is Cause.NOT_FOUND:
        there = ", ".join(sorted(glob("/dev/video*"))) or "none (in a container: pass it in)"
        return Trouble(known.cause, f"there is no such device; plug it in; there are: {there}")
    if known.cause is Cause.UNAUTHORISED:
        detail = f"{known.detail}; add the user to the group that may, mostly 'video'"
        return Trouble(known.cause, detail)
    return known


def of_reading(error: Exception, deadline: float) -> Trouble:
    """Why an open connection broke; `deadline` is how long a read may take, in seconds."""
    if isinstance(error, av.ExitError | av.TimeoutError):
        return Trouble(Cause.STALLED, f"no data for {deadline:g} s")
    if isinstance(error, av.InvalidDataError):
        return Trouble(Cause.CORRUPT, "what arrives is no longer a stream")
    return _known(error) or Trouble(Cause.ENDED, "the connection broke")


def _known(error: Exception) -> Trouble | None:
    for kind, cause, detail in _BY_CLASS:
        if isinstance(error, kind):
            return Trouble(cause, detail)
    number = getattr(error, "errno", None)
    return Trouble(*_BY_NUMBER[number]) if number in _BY_NUMBER else None


def _without_protocol(scheme: str) -> str:
    return (
        f"the FFmpeg inside PyAV {av.__version__} was built without {scheme}://; install a PyAV "
        "that is built on an FFmpeg that has it (pip install --no-binary av av, beside its "
        "development packages), or have a media server turn the stream into rtsp://"
    )
