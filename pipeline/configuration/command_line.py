"""The command line of ``run_stream.py``: every flag is a shorthand for a key of the settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence

from pipeline.configuration import strict_yaml
from pipeline.configuration.durations import parse_duration
from pipeline.errors import ConfigError
from pipeline.settings import Settings
from pipeline.sinks.pattern import is_pattern

SOURCES = (
    "video, folder, glob, rtsp://, http://, rtmp:// or srt:// camera, /dev/video0, camera:0, "
    "replay:FILE or synthetic://street"
)
OUTPUTS = (
    ".mp4, .mkv, .jsonl, .m3u8, folder/ or null:; http://:8080 for a page to watch; mqtt://, "
    "redis:// or kafka://; rtsp:// to a server; a file with %%H%%M in its name for a new one now "
    "and then"
)


def parse(argv: Sequence[str] | None, models: Iterable[str]) -> argparse.Namespace:
    """Read the command line; `models` are the names that ``--model`` knows."""
    parser = argparse.ArgumentParser(
        prog="run_stream.py",
        description="Detect objects in video from files and cameras, show and write the results, "
        "and tell the honest speed.",
        epilog="Exit codes: 0 done, 2 arguments or config, 3 source, 4 model or engine, 5 sink, "
        "130/143 stopped by SIGINT/SIGTERM.",
    )
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help=SOURCES)
    add("--config", metavar="FILE", help="YAML file; see configs/")
    add(
        "--model",
        action="append",
        metavar="NAME_OR_FILE",
        help=f"{', '.join(models)} or a model file (.onnx, .pt2); twice for objects and pixels",
    )
    add("--engine", help="auto, openvino, onnxruntime, tensorrt or program")
    add(
        "--no-build", action="store_true", help="run only plans and programs that were built before"
    )
    add(
        "--out",
        nargs="+",
        action="append",
        default=[],
        metavar="PATH_OR_URL",
        help=OUTPUTS,
    )
    add("--report", metavar="FILE", help="where the JSON report goes")
    add("--threshold", metavar="T", help="lowest score that is shown, 0 to 1")
    add("--batch", metavar="N", help="images per call of the engine; auto: for this machine")
    add("--max-frames", metavar="N", help="stop each source after N frames")
    add("--duration", metavar="SECONDS", help="stop each source after so much of its own time")
    add("--max-fps", metavar="N", help="take at most N frames a second of each video and camera")
    add("--stride", metavar="N", help="take every Nth frame of each source")
    add("--latency-budget", metavar="MS", help="keep the way from camera to output below MS")
    add(
        "--segment",
        metavar="TIME",
        help="begin a new file every TIME (10min, 1h); needs %% in --out",
    )
    add("--keep", metavar="TIME", help="delete recorded files older than TIME (24h, 7d)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="any key")
    add("--no-draw", action="store_true", help="leave the pictures as they are")
    add("--quiet", action="store_true", help="print only what goes wrong, and that it is over")
    add("--print-config", action="store_true", help="show the settings in force, and stop")
    return parser.parse_intermixed_args(argv)


def refuse_mistakes(arguments: argparse.Namespace, settings: Settings) -> None:
    """Refuse arguments that, by the settings in force, would write over a source or do nothing.

    Raises:
        ConfigError: With what to write instead.
    """
    if not arguments.sources and settings.sources == Settings().sources:
        refuse_swallowed_source(arguments.out)
    rows = [out for out in settings.out if is_pattern(out)]
    videos = [out for out in rows if not out.lower().endswith(".jsonl")]
    for flag, wish, fitting in (
        ("--segment", arguments.segment, videos),
        ("--keep", arguments.keep, rows),
    ):
        if wish is not None and not fitting:
            raise ConfigError(
                f"{flag}: no output is a row of files; give one a name that tells when each "
                "began, such as --out 'rec/{source}/%Y%m%d-%H%M%S.mp4'"
            )


def refuse_swallowed_source(outs: Iterable[Sequence[str]]) -> None:
    """``--out a.mp4 drive.mp4`` with no SOURCE would overwrite what was meant to be read.

    Args:
        outs: What stands behind each ``--out``.
    """
    for out in (out for behind in outs for out in behind[1:]):
        if _may_be_a_source(out):
            raise ConfigError(
                f"{out} exists and no SOURCE is given; write SOURCE before --out, "
                f"or another --out before {out} if it is to be written over"
            )


def _may_be_a_source(path: str) -> bool:
    """Tell whether there is a folder with something in it, or a video that could be an output."""
    try:
        return bool(os.listdir(path))
    except OSError:
        return path.lower().endswith((".mp4", ".mkv")) and os.path.isfile(path)


def flags(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The flags that were given, as they were typed, and each as a word like those of --set.

    They come after --set and so outrank it.
    """
    outs = [out for behind in arguments.out for out in behind]
    texts = {
        ("SOURCE", "sources"): arguments.sources,
        ("--model", "model"): arguments.model,
        ("--engine", "engine.name"): arguments.engine,
        ("--out", "out"): outs,
        ("--report", "report"): arguments.report,
    }
    for (flag, key), wish in texts.items():
        if wish is not None and wish != []:
            typed = flag if isinstance(wish, list) else f"{flag} {wish}"
            yield typed, f"{key}={strict_yaml.dump(wish)}"
    numbers = {
        ("--threshold", "detection.threshold"): arguments.threshold,
        ("--batch", "engine.batch"): arguments.batch,
        ("--max-frames", "max_frames"): arguments.max_frames,
        ("--duration", "duration"): arguments.duration,
        ("--max-fps", "live.max_fps"): arguments.max_fps,
        ("--stride", "live.stride"): arguments.stride,
        ("--max-fps", "recorded.max_fps"): arguments.max_fps,
        ("--stride", "recorded.stride"): arguments.stride,
        ("--latency-budget", "latency.budget_ms"): arguments.latency_budget,
    }
    for (flag, key), wish in numbers.items():
        if wish is not None:
            yield f"{flag} {wish}", f"{key}={wish}"
    times = {
        ("--segment", "recording.segment_seconds"): arguments.segment,
        ("--keep", "recording.keep_seconds"): arguments.keep,
    }
    for (flag, key), wish in times.items():
        if wish is not None:
            yield f"{flag} {wish}", f"{key}={_seconds(flag, wish)}"
    if arguments.no_build:
        yield "--no-build", "engine.build=false"
    if arguments.no_draw:
        yield "--no-draw", "render.enabled=false"


def _seconds(flag: str, wish: str) -> float:
    """A length of time; `ConfigError` with the name of the flag where it is none."""
    try:
        return parse_duration(wish)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from None
