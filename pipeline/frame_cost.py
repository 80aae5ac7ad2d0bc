"""What one frame costs at each station of the line, in processor time, on this machine.

Processor time and not time by the clock: it stays the same while other programs run, and stations
that work at the same time on other cores add up as they do in a line.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.crew import Crew
from pipeline.detect import detect
from pipeline.drawing.render import render
from pipeline.engines import Engine, Pending, infer
from pipeline.errors import ConfigError
from pipeline.frame import Batch, Frame, Result
from pipeline.graph import Graph
from pipeline.model_file.reading import ModelFile
from pipeline.preprocess import preprocess
from pipeline.redaction import without_secrets
from pipeline.settings import Settings
from pipeline.sinks import open_sinks
from pipeline.sources import Source, open_sources

T = TypeVar("T")

ROUNDS = 3
"""Each station is gone through so often; the least counts, as nothing makes work cheaper."""
STATIONS = 5  # threads that a camera's frame is handed to


@dataclass(frozen=True)
class FrameCost:
    """Processor milliseconds of all threads for one frame, by station.

    Attributes:
        decode: On one thread, as for a camera.
        scale: To the size of the network's input.
        infer: The engine, with as many calls under way as it likes.
        suppress: Thresholds, suppression, back to pixels of the frame; maps of classes.
        queues: Handing it from thread to thread.
        draw: Boxes, labels and classes of pixels into a copy of the picture.
        encode: The annotated picture as H.264, as boxstream does by default.
        gpu: By the clock, from one answer of the engine to the next, where it runs on a GPU; 0 of
            an engine that runs on the processor, whose time is in `infer`.
    """

    decode: float
    scale: float
    infer: float
    suppress: float
    queues: float
    draw: float
    encode: float
    gpu: float = 0.0

    def total(self, *, recorded: bool) -> float:
        """Of a camera that is only watched, or one that is also drawn on and recorded."""
        watched = self.decode + self.scale + self.infer + self.suppress + self.queues
        return watched + self.draw + self.encode if recorded else watched


def measure(clip: str, model: ModelFile, engine: Engine, frames: int = 50) -> FrameCost:
    """Lead the first `frames` frames of a clip through each station alone.

    Args:
        clip: A recording, as a source is named; the frames are held as they were decoded.

    Raises:
        ConfigError: It is a camera, or a folder of several recordings.
        SourceError: It cannot be read, or holds no picture.
    """
    settings, maps = Settings(), Crew(model, engine).maps
    with closing(_open(clip, frames)) as source:
        held = list(source.frames())
    prepared = list(_scaled(held, model))
    answers = list(infer(prepared, engine))
    found = list(detect(answers, model, settings.detection, maps=maps))
    drawn = list(render(found, model.class_names, settings.render))
    least = _least(
        {
            "decode": lambda: _decode(clip, frames),
            "scale": lambda: _exhaust(_scaled(held, model)),
            "infer": lambda: _answer(prepared, engine),
            "suppress": lambda: _exhaust(detect(answers, model, settings.detection, maps=maps)),
            "queues": lambda: _hand_on(held),
            "draw": lambda: _exhaust(render(found, model.class_names, settings.render)),
            "encode": lambda: _encode(clip, drawn, model, settings),
        }
    )
    costs = {name: 1e3 * cpu / len(held) for name, (cpu, _) in least.items()}
    wall = 1e3 * least["infer"][1] / len(held)
    return FrameCost(**costs, gpu=wall if engine.on_gpu else 0.0)


def _least(work: dict[str, Callable[[], None]]) -> dict[str, tuple[float, float]]:
    """The least processor and wall seconds of each piece of work, done in turn."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, do in work.items():
            cpu, wall = time.process_time(), time.perf_counter()
            do()
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: (min(cpu for cpu, _ in times), min(wall for _, wall in times))
        for name, times in seconds.items()
    }


def _open(clip: str, frames: int) -> Source:
    source, *others = open_sources([clip], max_frames=frames, decoder_threads=1)
    if not others and not source.live:
        return source
    for opened in (source, *others):
        opened.close()
    what = f"{1 + len(others)} recordings" if others else "a camera"
    raise ConfigError(
        f"{without_secrets(clip)!r} is {what}; name one recording, such as "
        "`run_stream.py CAMERA --duration 60 --no-draw --out camera.mp4` makes of a camera"
    )


def _exhaust(items: Iterable[object]) -> None:
    deque(items, maxlen=0)


def _decode(clip: str, frames: int) -> None:
    with closing(_open(clip, frames)) as source:
        _exhaust(source.frames())


def _scaled(frames: Sequence[Frame], model: ModelFile) -> Iterable[Batch]:
    return preprocess(([frame] for frame in frames), model.input_size_hw, model.fit)


def _answer(prepared: Iterable[Batch], engine: Engine) -> None:
    """Keep as many calls under way as the engine likes, and one more."""
    under_way: deque[Pending] = deque()
    for _, pending in infer(prepared, engine):
        under_way.append(pending)
        if len(under_way) > engine.in_flight:
            under_way.popleft().result()
    for pending in under_way:
        pending.result()


def _hand_on(items: Iterable[Any]) -> None:
    with Graph() as graph:
        for number in range(STATIONS):
            items = graph.stage(iter(items), name=f"station {number}")
        _exhaust(items)


def _encode(clip: str, drawn: Iterable[Result], model: ModelFile, settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder, closing(_open(clip, 1)) as source:
        outs = [str(Path(folder) / "encoded.mp4")]
        (sink,) = open_sinks(outs, source, model.class_names, settings.video)
        with sink:
            for result in drawn:
                sink.write(result)
