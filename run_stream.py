"""Point boxstream at a video: decode, detect, draw, write, and say how fast it was.

The way of a frame is `stream`: one line for each station. What stands above it gets ready,
what stands below it reports. This is the only file that knows both `pipeline/` (time) and
`models/` (tensors; here only the folder of finished model files).

Exit codes: 0 done, 2 bad arguments or configuration, 3 a source, 4 the model or engine,
5 a sink, 130 and 143 stopped by SIGINT or SIGTERM (what was written is complete).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipeline.batch import batches
from pipeline.config import dump_settings, load_settings
from pipeline.detect import detect, low_threshold, show
from pipeline.engines import Engine, infer, load_engine
from pipeline.errors import ConfigError, PipelineError
from pipeline.frame import Result
from pipeline.graph import Graph, StageStats
from pipeline.model_file import ModelFile, read_model_file
from pipeline.preprocess import preprocess
from pipeline.progress import ProgressView
from pipeline.render import render
from pipeline.report import build_report, print_summary, stage_reports, write_report
from pipeline.settings import Settings
from pipeline.sinks import Sink, open_sinks
from pipeline.sources import Source, open_sources
from pipeline.tally import Tally, describe

MODELS = {"street": Path(__file__).parent / "models" / "zoo" / "street.onnx"}


def stream(
    sources: Sequence[Source],
    model: ModelFile,
    engine: Engine,
    sinks: dict[str, list[Sink]],
    settings: Settings,
    tally: Tally,
    view: ProgressView,
    stop: StopRequest,
) -> list[StageStats]:
    """Lead every frame from its source to its sinks; return what each station did."""
    outlets = [(source.name, sink) for source in sources for sink in sinks[source.name]]
    draw = settings.render.enabled and any(sink.wants_picture for _, sink in outlets)
    judged = any(source.url.startswith("synthetic:") for source in sources)
    scored = low_threshold(settings.detection) if judged else settings.detection
    with Graph() as graph, stop.ends(graph):
        frames = graph.merge(
            {source.name: source.frames() for source in sources},
            capacity=max(4, engine.batch),
            on_error=tally.source_failed,
        )
        groups = batches(frames, engine.batch, settings.engine.batch_wait_seconds)
        images = graph.stage(
            preprocess(groups, model.input_size_hw, model.fit), name="preprocess", capacity=2
        )
        calls = max(1, engine.in_flight - 1)  # one more is being made, another waited for
        answers = graph.stage(infer(images, engine), name="infer", capacity=calls)
        found = tally.found(detect(answers, model, scored))
        results = graph.stage(show(found, model, settings.detection), name="detect")
        drawn = render(results, model.class_names, settings.render, tally.hud) if draw else results
        branches = graph.tee(drawn, [partial(comes_from, name) for name, _ in outlets], name="draw")
        for (name, sink), branch in zip(outlets, branches, strict=True):
            first = sink is sinks[name][0]
            graph.sink(
                branch,
                tally.sunk(branch, sink, first),
                name=f"write {sink.name}",
                on_error=tally.sink_failed,
            )
        while not graph.wait(0.2):
            view.update()
    return graph.stats


def comes_from(name: str, result: Result) -> bool:
    """Tell whether a result belongs to the source of that name."""
    return result.frame.source == name


class StopRequest:
    """SIGINT and SIGTERM: the first asks the line to run dry, a second one cuts it off.

    Attributes:
        signal: The signal that was received, if any.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def ends(self, graph: Graph) -> Iterator[None]:
        """Inside the block a signal stops `graph`, so that every sink is finished properly."""

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number)
            graph.stop()

        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(settings: Settings, console: Console, quiet: bool) -> int:
    """Do what the settings say, print the summary, and return the exit code."""
    model = read_model_file(MODELS.get(settings.model, settings.model))
    with ExitStack() as stack:
        sources = open_sources(
            settings.sources,
            max_frames=settings.max_frames,
            duration=settings.duration,
            decoder_threads=settings.decoder_threads,
        )
        for source in sources:
            stack.callback(source.close)
        sinks = open_all_sinks(settings, sources, model)
        engine = stack.enter_context(load_engine(model, settings.engine))
        tally = Tally(
            [source.stats for source in sources], model.class_names, partial(complain, console)
        )
        stop, stages, started = StopRequest(), list[StageStats](), time.perf_counter()
        for group in in_groups(sources, settings.concurrent):
            if stop.signal is None:
                with ProgressView(group, console, quiet) as view:
                    stages += stream(group, model, engine, sinks, settings, tally, view, stop)
        wall_seconds = time.perf_counter() - started
        tally.close()
    report = build_report(
        wall_seconds=wall_seconds,
        engine=engine_report(engine, model, settings),
        sources=[source.stats for source in sources],
        sinks=sink_reports(sinks, tally),
        stages=stage_reports(stages) | infer_report(engine, stages),
        truth=tally.score.report() if tally.score else None,
        interrupted=stop.signal.name if stop.signal else None,
    )
    if not quiet:
        print_summary(report, Console(width=None if sys.stdout.isatty() else 160))
    if settings.report:
        write_report(report, settings.report)
    return exit_code(tally, stop)


def open_all_sinks(
    settings: Settings, sources: Sequence[Source], model: ModelFile
) -> dict[str, list[Sink]]:
    """The sinks of every source, by the source's name; none may write over an input."""
    inputs = [source.media_path for source in sources if source.media_path]
    return {
        source.name: open_sinks(
            outs(settings.out, source, len(sources)),
            source,
            model.class_names,
            settings.video,
            inputs,
        )
        for source in sources
    }


def outs(wanted: Sequence[str], source: Source, source_count: int) -> list[str]:
    """Where one source's results go; with several sources each gets outputs of its own."""
    if not wanted:
        picture = "out/{source}/" if source.is_images else "out/{source}.mp4"
        return [picture, "out/{source}.jsonl"]
    if source_count == 1:
        return list(wanted)
    return [out if "{source}" in out else one_for_each(out) for out in wanted]


def one_for_each(out: str) -> str:
    """``all.mp4`` -> ``all-{source}.mp4``, ``folder/`` -> ``folder/{source}/``."""
    if out.endswith("/"):
        return f"{out}{{source}}/"
    if out.startswith("null:"):
        return out
    path = Path(out)
    return str(path.with_name(f"{path.stem}-{{source}}{path.suffix}"))


def exit_code(tally: Tally, stop: StopRequest) -> int:
    """What the shell is told; a signal outranks a failure that may have come of it."""
    if stop.signal:
        return 128 + stop.signal
    failures = [*tally.failed_sources.values(), *tally.failed_sinks.values()]
    default = 3 if tally.failed_sources else 5
    return getattr(failures[0], "exit_code", default) if failures else 0


def engine_report(engine: Engine, model: ModelFile, settings: Settings) -> dict[str, Any]:
    """The report's entry on the engine."""
    return {
        "name": engine.name,
        "precision": engine.precision,
        "reason": engine.reason,
        "model": settings.model,
        "input_size_hw": list(model.input_size_hw),
        "batch": engine.batch,
        "load_seconds": round(engine.load_seconds, 3),
    }


def infer_report(engine: Engine, stages: Sequence[StageStats]) -> dict[str, Any]:
    """The report's entry on inference, whose work is the engine's, not its thread's."""
    work = {"calls": engine.calls, "busy_seconds": round(engine.busy_seconds, 4)}
    entries = stage_reports(stage for stage in stages if stage.name == "infer")
    return {name: entry | work for name, entry in entries.items()}


def sink_reports(sinks: dict[str, list[Sink]], tally: Tally) -> dict[str, Any]:
    """The report's entries on the sinks, by name."""
    entries: dict[str, Any] = {}
    for sink in (sink for group in sinks.values() for sink in group):
        error = tally.failed_sinks.get(f"write {sink.name}")
        entries[sink.name] = {**sink.report(), "error": describe(error) if error else None}
    return entries


def in_groups(sources: Sequence[Source], size: int) -> Iterator[Sequence[Source]]:
    """The sources in order, at most `size` at a time."""
    for start in range(0, len(sources), size):
        yield sources[start : start + size]


def complain(console: Console, sentence: str) -> None:
    """Say on the terminal what went wrong."""
    console.print(f"[red]error[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="run_stream.py",
        description="Detect objects in video, write annotated video, and tell the honest speed.",
        epilog="Exit codes: 0 done, 2 arguments or config, 3 source, 4 model or engine, 5 sink, "
        "130/143 stopped by SIGINT/SIGTERM.",
    )
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="video, folder, glob or synthetic://street")
    add("--config", metavar="FILE", help="YAML file; see configs/")
    add("--model", metavar="NAME_OR_FILE", help=f"{', '.join(MODELS)} or a model file (.onnx)")
    add("--engine", help="auto, openvino or onnxruntime")
    add(
        "--out",
        nargs="+",
        action="extend",
        metavar="PATH_OR_URL",
        help=".mp4, .mkv, .jsonl, folder/ or null:",
    )
    add("--report", metavar="FILE", help="where the JSON report goes")
    add("--threshold", metavar="T", help="lowest score that is shown, 0 to 1")
    add("--batch", metavar="N", help="images per call of the engine; 0: chosen for this machine")
    add("--max-frames", metavar="N", help="stop each source after N frames")
    add("--duration", metavar="SECONDS", help="stop each source after so much of its own time")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="any key")
    add("--no-draw", action="store_true", help="leave the pictures as they are")
    add("--quiet", action="store_true", help="print errors only")
    add("--print-config", action="store_true", help="show the settings in force, and stop")
    arguments = parser.parse_intermixed_args(argv)
    if not arguments.sources and not arguments.config:
        refuse_swallowed_source(arguments.out or [])
    return arguments


def refuse_swallowed_source(out: Sequence[str]) -> None:
    """``--out a.mp4 drive.mp4`` with no SOURCE would overwrite what was meant to be read."""
    for path in map(Path, out[1:]):
        if path.suffix.lower() in {".mp4", ".mkv"} and path.is_file():
            raise ConfigError(f"{path} exists and no SOURCE is given; write SOURCE before --out")


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The command line's flags as ``key=value``; they come after --set and so outrank it."""
    values = {
        "sources": arguments.sources or None,
        "model": arguments.model,
        "engine.name": arguments.engine,
        "out": arguments.out,
        "report": arguments.report,
    }
    numbers = {
        "detection.threshold": arguments.threshold,
        "engine.batch": arguments.batch,
        "max_frames": arguments.max_frames,
        "duration": arguments.duration,
        "render.enabled": "false" if arguments.no_draw else None,
    }
    texts = [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]
    texts += [f"{key}={value}" for key, value in numbers.items() if value is not None]
    return [*arguments.set, *texts]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    console = Console(stderr=True)
    try:
        arguments = parse(argv)
        settings = load_settings(arguments.config, overrides(arguments))
        if arguments.print_config:
            sys.stdout.write(dump_settings(settings))
            return 0
        return run(settings, console, arguments.quiet)
    except PipelineError as error:
        complain(console, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
