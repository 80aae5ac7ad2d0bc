"""Write video with a sink, and read back what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.frame import Detections, Frame, Result
from pipeline.settings import VideoSettings
from pipeline.sinks import SinkTarget, open_sink
from tests.clips import as_frame, numbered_picture, read_number

NAMES = ("person", "bicycle", "car")
SIZE = (128, 96)
MP4_AND_MKV = pytest.mark.parametrize("ending", ["mp4", "mkv"])
MILLISECOND = Fraction(1, 1000)
LAYOUTS = {"s16": np.int16, "s16p": np.int16, "flt": np.float32, "fltp": np.float32}


def result(
    number: int,
    pts: int | None = None,
    time_base: Fraction = Fraction(1, 25),
    size: tuple[int, int] = SIZE,
    pixel_hw: tuple[int, int] = (1, 1),
) -> Result:
    """A numbered picture without detections, not drawn on."""
    picture = as_frame(numbered_picture(number % 256, size), "yuv420p")
    pts = number if pts is None else pts
    frame = Frame(picture, "a", number, pts, time_base, 0.0, pixel_hw=pixel_hw)
    return Result(frame, Detections.none())


def write(
    path: Path, results: Iterable[Result], target: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """Write `results` to `path` and return the sink's report."""
    facts = SinkTarget("a", NAMES, **({"rate": Fraction(25)} | (target or {})))
    sink = open_sink(str(path), facts, VideoSettings(**settings))
    with sink:
        for one in results:
            sink.write(one)
    return sink.report()


def times(path: Path) -> list[Fraction]:
    """Presentation times in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def pixel_aspect(path: Path) -> Fraction | None:
    """Width of a pixel for its height, as a player reads it; None: nothing is said of it."""
    with av.open(str(path)) as container:
        return container.streams.video[0].sample_aspect_ratio


def numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [read_number(frame) for frame in container.decode(video=0)]


def playable(path: Path) -> list[int]:
    """The numbers that a player shows of a file that was cut off: it stops where it breaks."""
    shown = []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                shown.append(read_number(frame))
        except av.FFmpegError:
            pass  # a torn end; what was shown before counts
    return shown


def sound_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        packets = container.demux(container.streams.audio[0])
        return [float(p.pts * p.time_base) for p in packets if p.pts is not None]


def with_sound(
    path: Path, codec: str = "aac", seconds: float = 2.0, begin: float = 0.0, video: float = 2.0
) -> Path:
    """A small clip with a tone of its own length and beginning."""
    rate = 48_000
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        sound = output.add_stream(codec, rate=rate)
        sound.layout = "mono"
        for n in range(round(video * 25)):
            picture = as_frame(numbered_picture(n % 256, (64, 48)), "yuv420p")
            picture.pts, picture.time_base = n, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
        form, block = sound.codec_context.format.name, sound.codec_context.frame_size or 1024
        for n in range(int(seconds * rate / block)):
            silence = np.zeros((1, block), LAYOUTS[form])
            tone = av.AudioFrame.from_ndarray(silence, form, "mono")
            tone.sample_rate, tone.pts = rate, n * block + int(begin * rate)
            tone.time_base = Fraction(1, rate)
            output.mux(sound.encode(tone))
        output.mux(sound.encode(None))
    return path


def copied(source: Path, path: Path, frames: int = 10**9, **settings: Any) -> dict[str, Any]:
    """Decode `source` as `RecordedSource` would and write it to `path`."""
    with av.open(str(source)) as container:
        origin = Fraction(container.start_time or 0, av.time_base)
        stream = container.streams.video[0]
        shift = round(origin / stream.time_base)

        def results() -> Iterator[Result]:
            for n, picture in zip(range(frames), container.decode(stream), strict=False):
                frame = Frame(picture, "a", n, picture.pts - shift, stream.time_base, 0.0)
                yield Result(frame, Detections.none())

        return write(path, results(), {"media_path": source, "origin": origin}, **settings)
