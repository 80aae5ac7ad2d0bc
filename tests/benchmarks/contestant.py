"""One run of one program over one clip, in a process of its own; prints what it cost as JSON.

The clock runs from opening the clip to closing the output. Imports, loading the model, and ten
frames through a rival's loop (three calls of boxstream's engine) to warm it up come before; they
are told apart as ``start_seconds``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.cost import Meter, children_peak_mb, peak_mb

WARM_UP_FRAMES = 10


@dataclass(frozen=True)
class Job:
    """What is to be done, the same for all programs.

    Attributes:
        clip: Input file.
        model: Model file.
        folder: Where ``video.mp4`` and ``lines.jsonl`` go.
        precision: ``f32`` or ``bf16``.
        encoder: ``default``, ``mpeg4`` or ``x264``.
        x264: For ``x264`` in the loops: preset, crf, x264_params.
        most: Frames to stop after.
        extra: More settings for boxstream, KEY=VALUE.
        twin: For torchvision's detector: see `detectors.Torchvision`.
    """

    clip: Path
    model: Path
    folder: Path
    precision: str
    encoder: str
    x264: Mapping[str, Any] | None
    most: int
    extra: tuple[str, ...] = ()
    twin: Mapping[str, str] | None = None

    @property
    def video(self) -> Path:
        """Annotated video."""
        return self.folder / "video.mp4"

    @property
    def lines(self) -> Path:
        """Detections."""
        return self.folder / "lines.jsonl"


Run = Callable[[Job, Meter], tuple[int, dict[str, Any]]]
"""Does the job; gives the number of frames, and what else there is to say."""


def ffmpeg(job: Job) -> list[str]:
    """FFmpeg with the H.264 that boxstream chose."""
    x264 = job.x264 or {}
    more = ["-x264-params", x264["x264_params"]] if x264.get("x264_params") else []
    return [
        *("ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-i", str(job.clip)),
        *("-frames:v", str(job.most), "-an", "-c:v", "libx264", "-preset", x264["preset"]),
        *("-crf", str(x264["crf"]), "-bf", "0", "-g", str(keyframe_every(job)), *more),
        str(job.video),
    ]


def gstreamer(job: Job) -> list[str]:
    """GStreamer with the same; it cannot be told to stop after so many frames."""
    x264 = job.x264 or {}
    options = x264.get("x264_params") or ""
    encoder = [
        *("x264enc", f"speed-preset={x264['preset']}", "pass=qual", f"quantizer={x264['crf']}"),
        *("bframes=0", f"key-int-max={keyframe_every(job)}"),
        *([f"option-string={options}"] if options else []),
    ]
    return [
        *("gst-launch-1.0", "-q", "filesrc", f"location={job.clip}", "!", "qtdemux", "!"),
        *("h264parse", "!", "avdec_h264", "!"),
        *("videoconvert", "!", *encoder, "!"),
        *("h264parse", "!", "mp4mux", "!", "filesink", f"location={job.video}"),
    ]


def keyframe_every(job: Job) -> int:
    """Two seconds, as boxstream has it."""
    from tests.benchmarks.material import frame_rate

    return round(2 * frame_rate(job.clip))


def main() -> None:
    """Do the job that stands on standard input as JSON."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.contestant")
    parser.add_argument("program", choices=RUN)
    arguments = parser.parse_args()
    entry = json.load(sys.stdin)
    for key in ("clip", "model", "folder"):
        entry[key] = Path(entry[key])
    job = Job(**entry)
    meter = Meter()
    frames, more = RUN[arguments.program](job, meter)
    cost = meter.cost(frames)
    outcome = {
        "frames": frames,
        "wall_seconds": cost.wall_seconds,
        "cpu_seconds": cost.cpu_seconds,
        "start_seconds": time.perf_counter() - started - cost.wall_seconds,
        "peak_mb": peak_mb(),
        "output_mb": job.video.stat().st_size / 1e6,
    }
    # Where the files lie for the moment tells nothing, and is to go into no table of results.
    sys.stdout.write(json.dumps(outcome | more).replace(f"{job.folder}/", ""))


def run_boxstream(job: Job, meter: Meter) -> tuple[int, dict[str, Any]]:
    """`run_stream.stream`, with its defaults but for what the job says."""
    from tests.benchmarks.ours import run_line, settings_for

    options = {
        "sources": [str(job.clip)],
        "out": [str(job.video), str(job.lines)],
        "model": str(job.model),
        "engine.precision": job.precision,
        "max_frames": job.most,
    }
    if job.encoder != "default":
        options["video.encoder"] = job.encoder
    run = run_line(settings_for(options, job.extra), meter)
    return run.frames, {"engine": run.engine, "encoding": run.sinks[0], "stages": run.stages}


def run_rival(
    loop: str, job: Job, meter: Meter, torchvision: str | None = None
) -> tuple[int, dict[str, Any]]:
    """One of the loops in `rivals`, with our model file or with torchvision's detector."""
    from tests.benchmarks import detectors, rivals

    run: rivals.Loop = getattr(rivals, f"{loop}_loop")()
    if torchvision:
        detector = detectors.Torchvision(job.model, job.twin or {}, torchvision, job.precision)
    else:
        detector = detectors.OurFile(job.model, job.precision)
    x264 = job.x264 if job.encoder == "x264" else None
    # Compilers try again when a shape is new, and libraries import when they are first used.
    with tempfile.TemporaryDirectory() as folder:
        rehearsed = Path(folder, job.video.name), Path(folder, job.lines.name)
        run(job.clip, *rehearsed, detector, WARM_UP_FRAMES, x264)
    with meter:
        frames = run(job.clip, job.video, job.lines, detector, job.most, x264)
    return frames, {"engine": detector.about}


def run_command(command: Callable[[Job], list[str]], job: Job, meter: Meter) -> tuple[int, dict]:
    """A program that only decodes and encodes; it finds nothing."""
    from tests.benchmarks.material import count_frames

    with meter:
        subprocess.run(command(job), check=True, stdout=subprocess.DEVNULL)
    frames = count_frames(job.video)
    nothing = (json.dumps({"frame": n, "detections": []}) + "\n" for n in range(frames))
    job.lines.write_text("".join(nothing))
    return frames, {"engine": "none", "peak_mb": children_peak_mb()}


def loop(name: str, torchvision: str | None = None) -> Run:
    """A loop with a detector."""
    return lambda job, meter: run_rival(name, job, meter, torchvision)


def floor(command: Callable[[Job], list[str]]) -> Run:
    """A command line that decodes and encodes."""
    return lambda job, meter: run_command(command, job, meter)


RUN: dict[str, Run] = {
    "boxstream": run_boxstream,
    "opencv": loop("opencv"),
    "supervision": loop("supervision"),
    "inference-pipeline": loop("inference"),
    "ultralytics-loader": loop("ultralytics"),
    "torchvision-eager": loop("opencv", "eager"),
    "torchvision-compiled": loop("opencv", "compiled"),
    "torchvision-onnxruntime": loop("opencv", "onnxruntime"),
    "torchvision-openvino": loop("opencv", "openvino"),
    "ffmpeg": floor(ffmpeg),
    "gstreamer": floor(gstreamer),
}


if __name__ == "__main__":
    main()
