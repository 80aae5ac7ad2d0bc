"""What can go wrong, as one small tree.

Every error derives from `PipelineError` and from the built-in that people already catch, and
carries the exit code that `run_stream.py` documents.
"""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class PipelineError(Exception):
    """Anything boxstream reports to its user; the message says what, and what to do about it."""

    exit_code = 1


class ConfigError(PipelineError, ValueError):
    """An argument, a key or a value of the configuration is wrong."""

    exit_code = 2


class SourceError(PipelineError, OSError):
    """A source cannot be opened or read."""

    exit_code = 3


class SourceNotFound(SourceError, FileNotFoundError):
    """The file, folder or device does not exist."""


class NoVideo(SourceError):
    """The source opens, but holds no picture that can be shown."""


class UnsupportedCodec(SourceError):
    """The source holds video for which this FFmpeg has no decoder."""


class UnsupportedProtocol(SourceError):
    """This FFmpeg was built without what the source's address asks for."""


class CameraUnreachable(SourceError, ConnectionError):
    """No connection to the camera: refused, no such host name, no route."""


class CameraRefused(SourceError, PermissionError):
    """The camera wants another user or password, or forbids this one."""


class TlsFailed(SourceError, ConnectionError):
    """No secure connection to the camera."""


class StreamStalled(SourceError, TimeoutError):
    """The camera does not answer in time, or sends no picture any more."""


class StreamBroken(SourceError, ConnectionError):
    """The camera ended the stream, or sends what is none."""


class EngineError(PipelineError, RuntimeError):
    """A model file or an engine cannot be used."""

    exit_code = 4


class ModelNotFound(EngineError, FileNotFoundError):
    """There is no such model name or file."""


class ModelMismatch(EngineError):
    """The file is not a model file of ours, or is broken, or does not fit what was asked."""


class EngineUnavailable(EngineError):
    """The engine asked for is not installed or has no device here."""


class SinkError(PipelineError, OSError):
    """An output cannot be created or written."""

    exit_code = 5

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # without the number of the system's error


def reason(error: BaseException) -> str:
    """Why, in the words of the system or of FFmpeg, and nothing else.

    The full text of an FFmpeg error ends with the last line of its log, which may be about
    another stream, and hold that one's password.
    """
    return getattr(error, "strerror", None) or str(error)


def without_frames(error: E) -> E:
    """`error` itself, for keeping: its traceback, and those of its causes, would keep pictures."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
