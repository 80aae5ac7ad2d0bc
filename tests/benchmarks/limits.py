"""The limits: what each part of the line can do alone, and how near the line comes to them.

Pure arithmetic says what decoding, inference and encoding allow together on these cores: if
nothing else cost anything and no core ever waited, frames/s would be

    cores / (CPU seconds to decode + to infer + to encode a frame).

Efficiency is the line's frames/s over that. Beside it stands the plainer ratio, the line's frames/s
over those of the engine alone on the same cores; where the processor is the engine, too, decoding
and encoding take it away, so that ratio is high for heavy networks only. Processor time is measured
in the form that the line uses; encoding is (decode + encode) less decode.

A core whose neighbours rest is a faster one: they share caches, memory, the clock and, where two
"cores" are threads of one, even its units. In the line no core rests. Decoding and encoding are
therefore measured twice: alone, and as often at once as there are cores. The engine keeps all
cores busy by itself.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cores import usable_cores
from pipeline.detect import detect
from pipeline.drawing.render import render
from pipeline.engines import Engine, Purpose, infer, load_engine
from pipeline.frame import Batch, Detections, Frame, Result
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.preprocess import preprocess
from pipeline.settings import EngineSettings, RenderSettings, Settings
from pipeline.sinks import open_sinks
from pipeline.sources import Source, open_sources
from pipeline.yuv import own_yuv420p, stamped
from tests.benchmarks.contestant import Job
from tests.benchmarks.cost import Cost, Meter, in_turn, middle
from tests.benchmarks.files import STREET, best_precision, model_for_the_line
from tests.benchmarks.line import Contest, Entry
from tests.benchmarks.material import CLIPS, clip, hd_clip, synthetic_clip
from tests.benchmarks.ours import run_line, settings_for
from tests.benchmarks.outcome import aim, arguments, in_words, report, wanted

ROUNDS = 3
HD_FRAMES = 150
RATE = 25
"""Frames a second of all clips; above it the line is faster than real time."""
HELD_FRAMES = 48
"""Decoded frames kept for the parts that need some; they are gone through again and again."""
COLUMNS = {
    "name": "clip, part",
    "fps": "frames/s",
    "spread": "spread",
    "wall_ms": "ms/frame",
    "cpu_ms": "CPU ms/frame",
}


@dataclass
class Bench:
    """One clip and one model, with frames, batches and detections at hand.

    Attributes:
        path: The clip.
        most: Frames of it to use.
        model: The model file.
        precision: Of the engine.
        held: Some decoded frames, spread over the clip.
        images: (H, W, 3) of each, ready for the engine.
        found: The same with what is in each.
        folder: For what is written.
    """

    path: Path
    most: int
    model: ModelFile
    precision: Any
    held: list[Frame]
    images: list[Batch]
    found: list[Result]
    folder: Path

    @classmethod
    def of(cls, path: Path, most: int, model: ModelFile, precision: str, folder: Path) -> Bench:
        """Decode, prepare and detect once."""
        every = max(1, most // HELD_FRAMES)
        frames = islice(_source(path, most).frames(), 0, None, every)
        held = [replace(f, picture=own_yuv420p(f.picture)) for f in islice(frames, HELD_FRAMES)]
        images = list(preprocess([[frame] for frame in held], model.input_size_hw, model.fit))
        bench = cls(path, most, model, precision, held, images, [], folder)
        with bench.engine(1, "camera") as engine:
            results = detect(infer(images, engine), model, Settings().detection)
            bench.found = list(results)
        return bench

    def engine(self, batch: int, purpose: Purpose) -> Engine:
        """As the line would load it."""
        settings = EngineSettings(name="openvino", precision=self.precision, batch=batch)
        return load_engine(self.model, settings, purpose=purpose)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "limits",
        __doc__,
        ROUNDS,
        argv,
        model={"default": STREET, "help": "street (bundled), mobilenet_v3_large_320_fpn or a file"},
        precision={"choices": ("f32", "bf16"), "help": "of the engine"},
        frames={"type": int, "help": "of each clip, at most"},
    )
    precision = asked.precision or best_precision()
    model = read_model_file(model_for_the_line(asked.model))
    rows: list[dict[str, Any]] = []
    sums: list[dict[str, Any]] = []
    aims: list[dict[str, Any]] = []
    for name, path, most in _clips(asked.smoke, asked.frames):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench.of(path, most, model, precision, Path(folder))
            parts = {f"{name} {part}": work for part, work in parts_of(bench).items()}
            chosen = {part: work for part, work in parts.items() if wanted(part, asked.only)}
            costs = in_turn(asked.rounds, chosen)
        table = {part: middle(cost) for part, cost in costs.items()}
        rows += [{"name": part, **figures} for part, figures in table.items()]
        sums += efficiency(name, table)
        aims += over_engine(name, table)
    report(
        f"limits_{Path(asked.model).stem}",
        asked,
        rows,
        COLUMNS,
        title=f"The limits with {asked.model}, OpenVINO {precision}, {usable_cores()} cores",
        notes=[
            "allowed together = cores / CPU seconds a frame of (decode + engine + encode), where "
            "encode = (decode + encode) - decode, and engine is its cheapest form",
            *[one["sum"] for one in sums],
            *in_words([*sums, *aims]),
        ],
        aims=[*sums, *aims],
        precision=precision,
    )


def _clips(smoke: bool, frames: int | None) -> Iterator[tuple[str, Path, int]]:
    if smoke:
        yield "small", synthetic_clip((180, 320), 12), 12
        return
    for name, recording in CLIPS.items():
        yield name, clip(recording), frames or recording.frames
    yield "1080p", hd_clip(), frames or HD_FRAMES


def parts_of(bench: Bench) -> dict[str, Callable[[], Cost]]:
    """What is measured, by name; engines are loaded once and stay."""
    latency, in_flight = bench.engine(1, "camera"), bench.engine(1, "recording")
    four = bench.engine(4, "recording")
    return {
        DECODE: lambda: together(1, decode, bench),
        DECODE_ENCODE: lambda: together(1, decode_and_encode, bench),
        DECODE + CROWDED: lambda: together(usable_cores(), decode, bench),
        DECODE_ENCODE + CROWDED: lambda: together(usable_cores(), decode_and_encode, bench),
        "preprocess": lambda: preprocess_only(bench),
        "engine, one at a time on all cores": lambda: one_at_a_time(bench, latency),
        f"engine, {in_flight.in_flight} requests in flight": lambda: several(bench, in_flight, 1),
        f"engine, batch 4, {four.in_flight} in flight": lambda: several(bench, four, 4),
        "draw": lambda: draw_only(bench),
        LINE: lambda: whole_line(bench),
        UNWRITTEN: lambda: line_without_output(bench),
    }


DECODE, DECODE_ENCODE, LINE = "decode", "decode + encode", "the whole line"
UNWRITTEN = "the line, nothing written"
CROWDED = ", on every core at once"


def efficiency(clip_name: str, table: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The line's frames/s over what its parts allow together; nothing if a part is missing."""
    engines = [row["cpu_ms"] for part, row in table.items() if " engine" in part]
    line = table.get(f"{clip_name} {LINE}")
    sums = []
    for how in ("", CROWDED):
        parts = [table.get(f"{clip_name} {part}{how}") for part in (DECODE, DECODE_ENCODE)]
        if not engines or line is None or None in parts:
            continue
        decode_ms, both_ms = (figures["cpu_ms"] for figures in parts if figures)
        encode_ms, engine_ms, fps = both_ms - decode_ms, min(engines), line["fps"]
        allowed = 1e3 * usable_cores() / (decode_ms + engine_ms + encode_ms)
        words = (
            f"{clip_name}{how}: {usable_cores()} cores / "
            f"({decode_ms:.2f} + {engine_ms:.2f} + {encode_ms:.2f}) "
            f"ms = {allowed:.1f} frames/s allowed; the line does {fps:.1f}, with "
            f"{line['cpu_ms']:.2f} CPU ms a frame and {fps * line['cpu_ms'] / 1e3:.2f} cores busy"
        )
        what = f"{clip_name}: efficiency (line / allowed together{how})"
        sums.append(
            {**aim(what, fps / allowed, 0.9), "allowed_fps": round(allowed, 2), "sum": words}
        )
    return sums


def over_engine(clip_name: str, table: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The line's frames/s over the engine's own, and over the clip's."""
    engines = [row["fps"] for part, row in table.items() if part.startswith(f"{clip_name} engine")]
    aims = []
    for part in (LINE, UNWRITTEN):
        row = table.get(f"{clip_name} {part}")
        if row and engines:
            what = f"{clip_name}: {part} / engine alone"
            aims.append(aim(what, row["fps"] / max(engines), 0.95))
        if row:
            what = f"{clip_name}: {part} / {RATE} frames a second"
            aims.append(aim(what, row["fps"] / RATE, 1.0))
    return aims


def together(copies: int, work: Callable[[Bench, int], int], bench: Bench) -> Cost:
    """What a frame of `work` costs while so many do the same; PyAV lets go of Python's lock."""
    with ThreadPoolExecutor(copies) as crowd, Meter() as meter:
        frames = sum(crowd.map(partial(work, bench), range(copies)))
    return meter.cost(frames)


def decode(bench: Bench, _number: int) -> int:
    """Read the clip as the line does, and look at nothing."""
    return sum(1 for _ in _source(bench.path, bench.most).frames())


def decode_and_encode(bench: Bench, number: int) -> int:
    """Read the clip and write it as the line does by default; the copy stands for drawing's."""
    source = _source(bench.path, bench.most)
    out = [str(bench.folder / f"encoded_{number}.mp4")]
    (sink,) = open_sinks(out, source, bench.model.class_names, Settings().video)
    with sink:
        for frame in source.frames():
            picture = stamped(own_yuv420p(frame.picture), frame.pts, frame.time_base)
            sink.write(Result(frame, Detections.none(), picture))
    return sink.frames


def preprocess_only(bench: Bench) -> Cost:
    """Frames that are decoded already."""
    rounds = max(1, bench.most // len(bench.held))
    groups = [[frame] for frame in bench.held] * rounds
    with Meter() as meter:
        deque(preprocess(groups, bench.model.input_size_hw, bench.model.fit), maxlen=0)
    return meter.cost(len(groups))


def one_at_a_time(bench: Bench, engine: Engine) -> Cost:
    """Wait for each answer before the next call."""
    calls = bench.images * max(1, bench.most // len(bench.images))
    with Meter() as meter:
        for batch in calls:
            engine.infer(batch.images)
    return meter.cost(len(calls))


def several(bench: Bench, engine: Engine, size: int) -> Cost:
    """Keep as many calls under way as the engine likes, and one more."""
    images = np.concatenate([batch.images for batch in bench.images])
    whole = len(images) // size * size
    groups = [images[i : i + size] for i in range(0, whole, size)] or [images]
    calls = groups * max(1, bench.most // whole if whole else 1)
    under_way: deque[Any] = deque()
    with Meter() as meter:
        for group in calls:
            under_way.append(engine.submit(group))
            if len(under_way) > engine.in_flight:
                under_way.popleft().result()
        for pending in under_way:
            pending.result()
    return meter.cost(sum(map(len, calls)))


def draw_only(bench: Bench) -> Cost:
    """The boxes that the model finds on the frames they are in."""
    settings = RenderSettings()
    rounds = max(1, bench.most // len(bench.held))
    with Meter() as meter:
        for _ in range(rounds):
            deque(render(bench.found, bench.model.class_names, settings), maxlen=0)
    return meter.cost(rounds * len(bench.held))


def whole_line(bench: Bench) -> Cost:
    """boxstream with its defaults, in a process of its own."""
    job = Job(
        bench.path, bench.model.path, bench.folder, bench.precision, "default", None, bench.most
    )
    return Contest(job, {}).run(Entry("boxstream", "H.264", "default"))


def line_without_output(bench: Bench) -> Cost:
    """Decode, prepare, detect; nothing is drawn or written."""
    options = {
        "sources": [str(bench.path)],
        "out": ["null:"],
        "model": str(bench.model.path),
        "engine.precision": bench.precision,
        "max_frames": bench.most,
    }
    meter = Meter()
    frames = run_line(settings_for(options), meter).frames
    return meter.cost(frames)


def _source(path: Path, most: int) -> Source:
    (source,) = open_sources([str(path)], max_frames=most)
    return source


if __name__ == "__main__":
    main()
