"""Where results go. The ending or the scheme of an output picks its kind.

``.mp4`` and ``.mkv`` annotated video, ``.jsonl`` detections, a folder (a path that ends with
``/`` or has no ending) pictures, ``null:`` nothing; ``mqtt://``, ``redis://`` and ``kafka://``
(and with TLS ``mqtts://``, ``rediss://``) tell a broker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from glob import glob
from pathlib import Path
from typing import Protocol

from pipeline.errors import ConfigError
from pipeline.frame import Result
from pipeline.settings import VideoSettings
from pipeline.sinks.brokers import SCHEMES as BROKER_SCHEMES
from pipeline.sinks.brokers import open_broker_sink
from pipeline.sinks.images import ImagesSink
from pipeline.sinks.null import NullSink
from pipeline.sinks.protocol import Sink, SinkTarget, writing
from pipeline.sinks.records import JsonLinesSink
from pipeline.sinks.video import VideoSink

__all__ = ["Sink", "SinkTarget", "drain", "open_sink", "open_sinks"]

KNOWN = ".mp4, .mkv, .jsonl, a folder/ or null:; mqtt://, redis:// or kafka://"


class SourceFacts(Protocol):
    """A source, as far as its sinks need to know it."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def rate(self) -> Fraction | None: ...
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
) -> list[Sink]:
    """One sink for each of `outs`, for the results of `source`; see `open_sink`."""
    target = SinkTarget(
        name=source.name,
        class_names=tuple(class_names),
        rate=source.rate,
        media_path=source.media_path,
        origin=getattr(source, "origin", Fraction(0)),
        live=source.live,
        is_images=source.is_images,
    )
    inputs = [*inputs, *(_folders_of_pictures(source.url) if source.is_images else ())]
    sinks = [open_sink(out, target, video, inputs) for out in outs]
    names = [sink.name for sink in sinks if not isinstance(sink, NullSink)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"out: {name!r} is asked for twice")
    return sinks


def open_sink(
    out: str, target: SinkTarget, video: VideoSettings, inputs: Iterable[Path] = ()
) -> Sink:
    """The sink that `out` stands for; it writes nothing before its ``with`` block.

    Args:
        out: A path, in which ``{source}`` stands for the source's name, or ``null:``.
        target: What the sink may know of its source.
        video: How video is encoded.
        inputs: Files and folders that must not be written over, besides the target's own.

    Raises:
        ConfigError: It is of no known kind, or would write over an input.
        SinkError: Its folder cannot be made.
    """
    if out == "null:":
        return NullSink()
    if out.partition("://")[0] in BROKER_SCHEMES:
        return open_broker_sink(out, target)
    if re.match(r"[A-Za-z][\w+.-]+:", out):
        shown = re.sub(r"//.*@", "//***@", out)  # a password in there is not to be shown
        raise ConfigError(f"out: no sink for {shown!r}; known are {KNOWN}")
    path, suffix = Path(expanded(out, target.name)), Path(out).suffix.lower()
    is_folder = not suffix or out.endswith(("/", os.sep))
    if not is_folder and suffix not in {".mp4", ".mkv", ".jsonl"}:
        raise ConfigError(f"out: no sink for files that end with {suffix!r}; known are {KNOWN}")
    _refuse_inputs(path, [*inputs, *filter(None, [target.media_path])])
    with writing(path):
        (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    if is_folder:
        return ImagesSink(path, target)
    if suffix == ".jsonl":
        return JsonLinesSink(path, target)
    return VideoSink(path, target, video)


def expanded(out: str, source: str) -> str:
    """`out` with the source's name filled in, made fit for a file name."""
    for word in re.findall(r"\{(\w*)\}", out):
        if word != "source":
            raise ConfigError(f"out: unknown {{{word}}} in {out!r}; only {{source}} is known")
    return out.replace("{source}", re.sub(r"[/\\:\0]+", "_", source).lstrip(".") or "source")


def drain(results: Iterable[Result], sink: Sink) -> Iterator[None]:
    """Write every result, one for each step; finish the output whichever way that ends."""
    with sink:
        for result in results:
            sink.write(result)
            yield


def _refuse_inputs(path: Path, inputs: Iterable[Path]) -> None:
    if path.resolve() in {given.resolve() for given in inputs}:
        raise ConfigError(f"out: {str(path)!r} would be written over the input; choose another")


def _folders_of_pictures(url: str) -> set[Path]:
    """The folders that a source of pictures reads: a folder, a picture's, or those of a glob."""
    path = Path(url.removeprefix("file://")).expanduser()
    if path.is_dir():
        return {path}
    return {Path(found).parent for found in glob(str(path), recursive=True)} | {path.parent}
