"""Where results go. The ending or the scheme of an output picks its kind.

``.mp4`` and ``.mkv`` annotated video, ``.jsonl`` detections, a folder (a path that ends with
``/`` or has no ending) pictures, ``null:`` nothing; with ``classes:`` in front a folder holds the
class of each pixel as PNG, and a video shows nothing else; ``mqtt://``, ``redis://`` and ``kafka://``
(and with TLS ``mqtts://``, ``rediss://``) tell a broker. A video or ``.jsonl`` whose name holds
``%H`` and the like is a row of files, a video with ``{event}`` a file for each event; ``.m3u8`` is
a playlist for browsers; ``rtsp://``, ``rtmp://`` and ``srt://`` send video to a server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from glob import glob
from pathlib import Path
from typing import Protocol

from pipeline.errors import ConfigError
from pipeline.frame import PixelClasses
from pipeline.redaction import without_secrets, without_stream_key
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks.brokers import SCHEMES as BROKER_SCHEMES
from pipeline.sinks.brokers import open_broker_sink
from pipeline.sinks.classes import ClassMapsSink, ClassVideoSink
from pipeline.sinks.events import EventsSink
from pipeline.sinks.hls import HlsSink
from pipeline.sinks.images import ImagesSink
from pipeline.sinks.journal import JournalSink
from pipeline.sinks.null import NullSink
from pipeline.sinks.pattern import FilePattern, fit_for_a_name, is_pattern
from pipeline.sinks.protocol import Sink, SinkTarget, writing
from pipeline.sinks.push import SCHEMES as PUSH_SCHEMES
from pipeline.sinks.push import PushSink
from pipeline.sinks.records import JsonLinesSink
from pipeline.sinks.segments import SegmentsSink
from pipeline.sinks.territory import Territory
from pipeline.sinks.video import VideoSink

__all__ = ["Sink", "SinkTarget", "open_sink", "open_sinks", "target_of"]

CLASSES = "classes:"
KNOWN = (
    ".mp4, .mkv, .jsonl, a folder/ or null:; .m3u8; classes:folder/ or classes:FILE.mp4; "
    "mqtt://, redis:// or kafka://; rtsp://, rtmp:// or srt://"
)
_DEFAULT_RECORDING = RecordingSettings()


class SourceFacts(Protocol):
    """A source, as far as its sinks need to know it."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def rate(self) -> Fraction | None: ...
    @property
    def input_path(self) -> Path | None: ...
    @property
    def media_path(self) -> Path | None: ...
    @property
    def live(self) -> bool: ...
    @property
    def is_images(self) -> bool: ...


def open_sinks(
    outs: Sequence[str],
    source: SourceFacts,
    class_names: Sequence[str],
    video: VideoSettings,
    inputs: Iterable[Path] = (),
    recording: RecordingSettings = _DEFAULT_RECORDING,
    pixels: PixelClasses | None = None,
) -> list[Sink]:
    """One sink for each of `outs`, for the results of `source`; see `open_sink`."""
    if recording.event_classes and not any("{event}" in out for out in outs):
        raise ConfigError(
            "recording.event_classes: no output is recorded on events; "
            "add one with {event} in its name, such as rec/{source}/%Y%m%d-%H%M%S-{event}.mp4"
        )
    target = target_of(source, class_names, pixels)
    inputs = [*inputs, *filter(None, [source.input_path])]
    inputs += _folders_of_pictures(source.url) if source.is_images else ()
    sinks = [open_sink(out, target, video, inputs, recording) for out in outs]
    _tell_apart([sink for sink in sinks if isinstance(sink, PushSink)])
    names = [sink.name for sink in sinks if not isinstance(sink, NullSink)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"out: {name!r} is asked for twice")
    return sinks


def target_of(
    source: SourceFacts, class_names: Sequence[str], pixels: PixelClasses | None = None
) -> SinkTarget:
    """What sinks may know of a source."""
    return SinkTarget(
        name=source.name,
        class_names=tuple(class_names),
        rate=source.rate,
        media_path=source.media_path,
        origin=getattr(source, "origin", Fraction(0)),
        live=source.live,
        is_images=source.is_images,
        pixels=pixels,
    )


def open_sink(
    out: str,
    target: SinkTarget,
    video: VideoSettings,
    inputs: Iterable[Path] = (),
    recording: RecordingSettings = _DEFAULT_RECORDING,
) -> Sink:
    """The sink that `out` stands for; it writes nothing before its ``with`` block.

    Args:
        out: A path, in which ``{source}`` stands for the source's name, or ``null:``.
        target: What the sink may know of its source.
        video: How video is encoded.
        inputs: Files and folders that must not be written over, besides the target's own.
        recording: How it is cut into files, and what is kept of them.

    Raises:
        ConfigError: It is of no known kind, or would write over an input.
        SinkError: Its folder cannot be made.
    """
    if out in {"null:", "null:{source}"}:
        return NullSink(out.replace("{source}", target.name))
    if out.startswith(CLASSES):
        return _open_classes(out.removeprefix(CLASSES), target, video, inputs)
    if out.partition("://")[0] in BROKER_SCHEMES:
        return open_broker_sink(out, target)
    if out.partition("://")[0] in PUSH_SCHEMES:
        return PushSink(out, target, video)
    if re.match(r"[A-Za-z][\w+.-]+:", out):
        shown = repr(without_stream_key(without_secrets(out)))
        raise ConfigError(f"out: no sink for {shown}; known are {KNOWN}")
    suffix, inputs = Path(out).suffix.lower(), [*inputs, *filter(None, [target.media_path])]
    if is_pattern(out) and suffix in {".mp4", ".mkv", ".jsonl"}:
        return _open_recording(out, target, video, inputs, recording)
    path = Path(expanded(out, target.name))
    is_folder = not suffix or out.endswith(("/", os.sep))
    if not is_folder and suffix not in {".mp4", ".mkv", ".jsonl", ".m3u8"}:
        raise ConfigError(f"out: no sink for files that end with {suffix!r}; known are {KNOWN}")
    _refuse_inputs(path, inputs)
    with writing(path):
        (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if is_folder:
        return ImagesSink(path, target)
    if suffix == ".jsonl":
        return JsonLinesSink(path, target)
    if suffix == ".m3u8":
        return HlsSink(path, target, video, recording)
    return VideoSink(path, target, video)


def _open_classes(
    out: str, target: SinkTarget, video: VideoSettings, inputs: Iterable[Path]
) -> Sink:
    """A folder of class maps, or a video of their colours."""
    if target.pixels is None:
        raise ConfigError(
            f"out: {CLASSES}{out} needs a model that says the class of every pixel; "
            "add one with --model"
        )
    path = Path(expanded(out, target.name))
    is_folder = not path.suffix or out.endswith(("/", os.sep))
    if is_pattern(out) or not (is_folder or path.suffix.lower() in {".mp4", ".mkv"}):
        raise ConfigError(f"out: {CLASSES}{out} is neither a folder/ nor an .mp4 or .mkv")
    _refuse_inputs(path, [*inputs, *filter(None, [target.media_path])])
    with writing(path):
        (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if is_folder:
        return ClassMapsSink(path, target, target.pixels)
    return ClassVideoSink(VideoSink(path, target, replace(video, audio=False)), target.pixels)


def expanded(out: str, source: str, also: Sequence[str] = ()) -> str:
    """`out` with the source's name filled in, made fit for a file name.

    Args:
        also: Other words that may stand in braces, and stay there.
    """
    for word in re.findall(r"\{(\w*)\}", out):
        if word != "source" and word not in also:
            known = " and ".join(f"{{{name}}}" for name in ("source", *also))
            raise ConfigError(f"out: unknown {{{word}}} in {out!r}; known here: {known}")
    return out.replace("{source}", fit_for_a_name(source) or "source")


def _tell_apart(pushes: Sequence[PushSink]) -> None:
    """Number those that differ only in what is not shown."""
    for name in {push.name for push in pushes}:
        urls = list(dict.fromkeys(push.url for push in pushes if push.name == name))
        for push in pushes:
            if push.name == name and (number := urls.index(push.url)):
                push.name = f"{name} ({number + 1})"


def _open_recording(
    out: str,
    target: SinkTarget,
    video: VideoSettings,
    inputs: Iterable[Path],
    recording: RecordingSettings,
) -> Sink:
    """A row of files; nothing that is read may be deleted with the old ones."""
    is_video = not out.lower().endswith(".jsonl")
    text = expanded(out, target.name.replace("%", "%%"), also=["event"] if is_video else [])
    pattern = FilePattern(text, recording.event_classes or target.class_names)
    for given in inputs:
        if pattern.territory.meets(Territory.of(given)):
            raise ConfigError(f"out: {out!r} also means the input {str(given)!r}; choose another")
    if not is_video:
        return JournalSink(pattern, target, recording)
    if pattern.is_on_event:
        return EventsSink(pattern, target, video, recording)
    return SegmentsSink(pattern, target, video, recording)


def _refuse_inputs(path: Path, inputs: Iterable[Path]) -> None:
    if path.resolve() in {given.resolve() for given in inputs}:
        raise ConfigError(f"out: {str(path)!r} would be written over the input; choose another")


def _folders_of_pictures(url: str) -> set[Path]:
    """The folders that a source of pictures reads: a folder, a picture's, or those of a glob."""
    path = Path(url.removeprefix("file://")).expanduser()
    if path.is_dir():
        return {path}
    return {Path(found).parent for found in glob(str(path), recursive=True)} | {path.parent}
