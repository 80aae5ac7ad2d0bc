"""What a frame of a recording costs each station: processor time, Python's lock, bytes moved.

Whoever holds the lock keeps all other Python from running, so the sum over all stations bounds the
frames a second that any number of cores can reach. How samples are taken is told in `gil.py`, how
bytes are counted in `copies.py`. Not counted are a decoder that writes a picture, libx264, which
copies each picture once into its own, and the engine within the network.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from tests.benchmarks.copies import Copies, Moved
from tests.benchmarks.cost import Cost, Meter
from tests.benchmarks.files import STREET, best_precision, model_for_the_line
from tests.benchmarks.gil import GilSampler, Share, why_not
from tests.benchmarks.material import CLIPS, WORKSHOP, clip, synthetic_clip
from tests.benchmarks.ours import run_line, settings_for
from tests.benchmarks.outcome import arguments, report, wanted

ROUNDS = 5
FULL_HD, FRAMES = (1080, 1920), 200
COLUMNS = {
    "name": "run, station",
    "cpu_ms": "CPU ms/frame",
    "lock_ms": "with the lock, ms",
    "read_mb": "MB read",
    "written_mb": "MB written",
    "whole": "whole pictures copied",
}


class SampledMeter(Meter):
    """A meter that samples who holds the lock meanwhile."""

    def __init__(self, sampler: GilSampler) -> None:
        self._sampler = sampler

    def __enter__(self) -> SampledMeter:
        self._sampler.__enter__()
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._sampler.__exit__(kind, error, trace)


class Run:
    """One way of running the line, gone through once a round."""

    def __init__(self, options: dict[str, Any], extra: Sequence[str]) -> None:
        self._settings = settings_for(options, extra)
        self._costs: list[Cost] = []
        self._samples, self._held = Counter[str](), Counter[str]()
        self._moved: dict[str, Moved] = {}

    def once(self) -> None:
        """Sampled, and then again with every copy counted: counting takes time itself."""
        sampler, copies = GilSampler(), Copies()
        meter = SampledMeter(sampler)
        frames = run_line(self._settings, meter, sampler).frames
        self._costs.append(meter.cost(frames))
        for thread, share in sampler.shares().items():
            self._samples[_station(thread)] += share.samples
            self._held[_station(thread)] += share.held
        if not self._moved:
            with copies.counted():
                run_line(self._settings, Meter(), sampler)
            self._moved = {_station(thread): moved for thread, moved in copies.by_thread.items()}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One for each station, and one for all."""
        frames = self._costs[0].frames
        all_of_it = Share(sum(self._samples.values()), sum(self._held.values()))
        cpu_ms = sum(c.cpu_seconds for c in self._costs) * 1e3 / sum(c.frames for c in self._costs)
        a_sample = cpu_ms / max(1, all_of_it.samples)
        whole = [
            sum(getattr(moved, key) for moved in self._moved.values())
            for key in ("read", "written", "whole")
        ]
        stations = {
            station: (
                Share(self._samples[station], self._held[station]),
                self._moved.get(station, Moved()),
            )
            for station in [name for name, _ in self._samples.most_common()]
            + [name for name in self._moved if name not in self._samples]
        }
        return [
            {
                "name": f"{name}, {station}",
                "cpu_ms": round(share.samples * a_sample, 2),
                "lock_ms": round(share.held * a_sample, 2),
                "read_mb": round(moved.read / frames / 1e6, 2),
                "written_mb": round(moved.written / frames / 1e6, 2),
                "whole": round(moved.whole / frames, 2),
                "samples": share.samples,
                "fps": round(self._costs[0].fps, 2),
            }
            for station, (share, moved) in [*stations.items(), ("all", (all_of_it, Moved(*whole)))]
        ]


def _station(thread: str) -> str:
    """A station's name without the file that it reads or writes."""
    first = thread.partition(" ")[0]
    known = ("preprocess", "infer", "detect", "draw", "write", "native", "MainThread")
    names = {"MainThread": "main", "native": "engine and codecs"}
    return names.get(first, first) if first in known else "decode"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "critical_path",
        __doc__,
        ROUNDS,
        argv,
        model={"default": STREET, "help": "street (bundled), mobilenet_v3_large_320_fpn or a file"},
        precision={"choices": ("f32", "bf16"), "help": "of the engine"},
        frames={"type": int, "help": "of the clip, at most"},
    )
    if trouble := why_not():
        raise SystemExit(f"no figures: {trouble}")
    precision = asked.precision or best_precision()
    path, most = (synthetic_clip((180, 320), 12), 12) if asked.smoke else (full_hd(), FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "sources": [str(path)],
            "model": str(model_for_the_line(asked.model)),
            "engine.precision": precision,
            "max_frames": asked.frames or most,
        }
        out = [f"{folder}/video.mp4", f"{folder}/lines.jsonl"]
        ways = {
            "drawn and written": Run({**options, "out": out}, ()),
            "nothing written": Run({**options, "out": ["null:"]}, ["render.enabled=false"]),
        }
        chosen = {name: way for name, way in ways.items() if wanted(name, asked.only)}
        for turn in range(asked.rounds):
            for way in list(chosen.values())[:: 1 if turn % 2 == 0 else -1]:
                way.once()
    rows = [row for name, way in chosen.items() for row in way.rows(name)]
    report(
        "critical_path",
        asked,
        rows,
        COLUMNS,
        title=f"What a frame of 1080p costs each station, {asked.model}, OpenVINO {precision}",
        notes=[
            *_in_words(rows),
            "bytes are of pixels; read and written by our own code and by what it calls for it",
            "not counted: the decoder's own writing, libx264's copy of each picture, the network",
        ],
        precision=precision,
    )


def _in_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{row['name'].removesuffix(', all')}: the lock is held for {row['lock_ms']:.2f} ms of "
        f"{row['cpu_ms']:.1f} ms a frame, so it would allow {1e3 / row['lock_ms']:.0f} frames/s"
        for row in rows
        if row["name"].endswith(", all") and row["lock_ms"]
    ]


def full_hd() -> Path:
    """The highway clip enlarged to 1080p25, H.264; made once."""
    source, (height, width) = clip(CLIPS["540p"]), FULL_HD
    path = WORKSHOP / f"{source.stem}_{width}x{height}.mp4"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.mp4")
    with av.open(str(source)) as recording, av.open(str(unfinished), "w") as enlarged:
        stream = enlarged.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in recording.decode(video=0):
            larger = picture.reformat(width=width, height=height)
            enlarged.mux(stream.encode(larger))
        enlarged.mux(stream.encode(None))
    unfinished.rename(path)
    return path


if __name__ == "__main__":
    main()
