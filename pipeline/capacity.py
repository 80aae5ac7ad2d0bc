"""How many cameras will this machine carry? ``python -m pipeline.capacity [RECORDING]``

    python -m pipeline.capacity                           # a drawn street at three sizes
    python -m pipeline.capacity yard.mp4 --fps 15         # a recording of your own camera says more

Of a recording the first pictures are measured, so let it begin with a busy moment. What a frame
costs is measured station by station (`pipeline.frame_cost`), and the rest is arithmetic: a machine
has 1000 processor milliseconds a second and core, of which a line whose pictures must not grow old
can use eight in ten.

    cameras = 0.8 * 1000 * cores / (frames/s * processor ms a frame)

With ``--max-fps``, as of the line, only so many frames a second are looked at, and all are decoded.
(A line decodes fewer where keyframes alone come as evenly, and carries more cameras then.) An
engine on a GPU takes no processor time; there, its own time for a frame may be the limit.

Exit codes: 0 done, 2 arguments, 3 the recording, 4 the model or engine, 5 stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.commands import leave, model_path
from pipeline.cores import usable_cores
from pipeline.drawn_clip import draw_clip, street_url
from pipeline.engines import load_engine
from pipeline.errors import ConfigError, PipelineError
from pipeline.frame_cost import FrameCost, measure
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings
from pipeline.sources import open_sources
from pipeline.terminal import say

SCHEMA = "boxstream.capacity/1"
USABLE = 0.8
"""Share of a machine that cameras can fill before frames wait for one another and are dropped, and
before stations that share caches take longer than each alone: with 0.9, two of six forecasts for
two cores were one camera too many (``tests.benchmarks.scale``, 2026-11-29)."""
SIZES = ("640x360", "1280x720", "1920x1080")
FRAMES = 50
SLOWEST, FASTEST = 0.001, 1000
"""Frames/s of a camera, as `live.max_fps` of the settings takes them."""


@dataclass(frozen=True)
class Forecast:
    """How many cameras of one kind a machine carries.

    Attributes:
        by_processor: Until the cores are busy.
        by_gpu: Until the GPU is; infinite without one.
    """

    by_processor: float
    by_gpu: float

    @property
    def cameras(self) -> int:
        """Whole cameras, none of whose frames is dropped for want of time."""
        return int(min(self.by_processor, self.by_gpu))


def forecast(
    cost: FrameCost,
    *,
    cores: int,
    fps: float,
    max_fps: float | None = None,
    recorded: bool = False,
) -> Forecast:
    """How many cameras at `fps` frames/s so many cores carry, given what a frame costs.

    Args:
        max_fps: Most frames/s of a camera that are looked at; None: all of them.
        recorded: Boxes are drawn and an H.264 file is written for each camera.

    Raises:
        ValueError: A rate or `cores` is not above 0.

    >>> cost = FrameCost(decode=2, scale=1, infer=13, suppress=1, queues=0, draw=1, encode=5)
    >>> forecast(cost, cores=2, fps=25).cameras
    3
    >>> forecast(cost, cores=2, fps=25, recorded=True).cameras
    2
    >>> forecast(cost, cores=2, fps=25, max_fps=1).cameras
    24
    """
    looked_at = fps if max_fps is None else min(fps, max_fps)
    if looked_at <= 0 or cores <= 0:
        raise ValueError(f"rates and cores must be above 0, got {looked_at:g} and {cores}")
    share = 1000 * USABLE / looked_at  # milliseconds for each frame that is looked at
    left_out = (fps / looked_at - 1) * cost.decode
    by_processor = cores * share / (cost.total(recorded=recorded) + left_out)
    return Forecast(by_processor, share / cost.gpu if cost.gpu else math.inf)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.capacity",
        description="How many cameras will this machine carry? Measures what a frame costs.",
    )
    add = parser.add_argument
    add("recording", nargs="?", help="of a camera; without one a street is drawn")
    add("--fps", type=float, default=25.0, help="frames/s of each camera (25)")
    add("--max-fps", type=float, help="most frames/s of each that are looked at (all)")
    add("--size", nargs="+", default=SIZES, metavar="WxH", help="of the drawn street")
    add("--frames", type=int, default=FRAMES, help=f"measured, the first of the clip ({FRAMES})")
    add("--model", metavar="NAME_OR_FILE", default="street", help="what looks at the frames")
    add("--engine", default="auto", choices=("auto", "openvino", "onnxruntime", "tensorrt"))
    add("--json", action="store_true", help=f"for machines; the layout is {SCHEMA!r}")
    asked = parser.parse_args(argv)
    rates = (asked.fps, asked.fps if asked.max_fps is None else asked.max_fps)
    if not all(SLOWEST <= rate <= FASTEST for rate in rates):
        parser.error(f"--fps and --max-fps must be from {SLOWEST} to {FASTEST}")
    if asked.frames < 2:
        parser.error("--frames must be at least 2")
    for size in asked.size:
        try:
            open_sources([street_url(size, FRAMES)])
        except ConfigError:
            parser.error(f"no street can be drawn at {size!r}; give --size as WxH, such as 640x360")
    return asked


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, and return the exit code."""
    asked = parse(argv)
    try:
        report = examine(asked)
        say(f"{json.dumps(report, indent=2) if asked.json else page(report)}\n")
    except PipelineError as error:
        print(f"error {error}", file=sys.stderr)
        return error.exit_code
    return 0


def examine(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure each clip with the model, and tell how many cameras that makes."""
    model = read_model_file(model_path(asked.model))
    cores, rows = usable_cores(), []
    with load_engine(model, EngineSettings(name=asked.engine), purpose="cameras") as engine:
        with tempfile.TemporaryDirectory() as folder:
            for name, clip in clips(asked, Path(folder)):
                cost = measure(clip, model, engine, asked.frames)
                ms = {station: round(value, 2) for station, value in asdict(cost).items()}
                of = partial(forecast, cost, cores=cores, fps=asked.fps, max_fps=asked.max_fps)
                watched, recorded = of(), of(recorded=True)
                told = {"watched": _told(watched), "drawn and recorded": _told(recorded)}
                rows.append({"clip": name, "ms": ms, **told})
        about = {
            "model": engine.model.path.stem,
            "engine": engine.name,
            "precision": engine.precision,
            "reason": engine.reason,
        }
    rates = {"fps": asked.fps, "max_fps": asked.max_fps}
    return {"schema": SCHEMA, "cores": cores, **rates, **about, "clips": rows}


def clips(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """The recording, or the street at each size."""
    if asked.recording:
        yield Path(asked.recording).name, asked.recording
        return
    for size in asked.size:
        yield f"street {size}", str(draw_clip(size, asked.frames, folder / f"{size}.mp4"))


def _told(told: Forecast) -> dict[str, float | None]:
    by_gpu = None if math.isinf(told.by_gpu) else round(told.by_gpu, 2)
    return {
        "cameras": told.cameras,
        "by_processor": round(told.by_processor, 2),
        "by_gpu": by_gpu,
    }


def page(report: dict[str, Any]) -> str:
    """A table for people."""
    rows: list[dict[str, Any]] = report["clips"]
    width = max(12, *(len(row["clip"]) + 2 for row in rows))

    def line(what: str, values: Sequence[str]) -> str:
        return f"{what:<30}" + "".join(f"{value:>{width}}" for value in values)

    most = f", {report['max_fps']:g} of them looked at" if report["max_fps"] else ""
    return "\n".join(
        [
            f"{report['model']} on {report['engine']} ({report['precision']}), "
            f"{report['cores']} cores, cameras of {report['fps']:g} frames/s{most}",
            report["reason"],
            line("processor ms a frame", [row["clip"] for row in rows]),
            *(
                line(f"  {station}", [f"{row['ms'][station]:.2f}" for row in rows])
                for station in rows[0]["ms"]
                if any(row["ms"][station] for row in rows)
            ),
            *(
                line(f"cameras, {what}", [str(row[what]["cameras"]) for row in rows])
                for what in ("watched", "drawn and recorded")
            ),
        ]
    )


if __name__ == "__main__":
    leave(main)
