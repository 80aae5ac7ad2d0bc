"""Point boxstream at a video: decode, detect, draw, write, and say how fast it was.

The way of a frame is `stream`: one line for each station. What stands above it gets ready,
what stands below it reports. This is the only file that knows both `pipeline/` (time) and
`models/` (tensors).

Exit codes: 0 done, 2 bad arguments or configuration, 3 a source, 4 the model or engine,
5 a sink, 130 and 143 stopped by SIGINT or SIGTERM (what was written is complete).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from pipeline import serve
from pipeline.batch import batches
from pipeline.bookkeeping.progress import ProgressView
from pipeline.bookkeeping.report import (
    build_report,
    engine_reports,
    infer_report,
    sink_reports,
    stage_reports,
    try_report,
    write_report,
)
from pipeline.bookkeeping.summary import print_summary
from pipeline.bookkeeping.tally import Tally
from pipeline.commands import MODELS, model_path
from pipeline.configuration.command_line import flags, parse, refuse_mistakes
from pipeline.configuration.reading import dump_settings, load_settings
from pipeline.control import LineControl, RunningLine
from pipeline.crew import Crew, Named, in_order, pixels_of
from pipeline.detect import Shown, detect, low_threshold
from pipeline.drawing.blur import conceal, detect_also_blurred
from pipeline.drawing.render import render
from pipeline.engines import EngineWatch, Purpose, infer, load_engine
from pipeline.errors import (
    ConfigError,
    EngineError,
    EngineUnavailable,
    ModelMismatch,
    PipelineError,
)
from pipeline.garbage import Garbage, keep_memory_together
from pipeline.governor import Governor
from pipeline.gpu.preprocess import trouble_of_kernels
from pipeline.graph import Graph, any_given_up, any_in_background
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.outputs import Outputs, Page, SinksOfSources, is_page
from pipeline.pace import Pace
from pipeline.propose import Propose, propose
from pipeline.roster import Roster
from pipeline.settings import DetectionSettings, Settings
from pipeline.sources import Source, any_live, close_sources, open_sources
from pipeline.sources.gpu import GpuDecoding
from pipeline.stop_request import StopRequest
from pipeline.terminal import Complaints, drawing, logged_to, say
from pipeline.title import hide_secrets
from pipeline.zones import count_in_zones, zones_of


def stream(
    sources: Sequence[Source],
    crew: Crew,
    outputs: SinksOfSources,
    settings: Settings,
    shown: Shown,
    tally: Tally,
    view: ProgressView,
    stop: StopRequest,
    governor: Governor,
    control: LineControl | None = None,
) -> None:
    """Lead every frame from its source to its sinks."""
    live, model = any_live(sources), crew.model
    zones = zones_of(settings.zones, model.object_names, None if control else tally.sources)
    with (
        tally.running(Graph(in_bursts=not live)) as graph,
        stop.ends(graph),
        Garbage() as garbage,
        ExitStack() as end,
    ):
        inlet = graph.inlet(capacity=max(4, crew.batch), on_error=tally.source_failed)
        slots = graph.slots(crew.in_flight) if live else None
        pace = Pace(tally, settings, slots)
        groups = batches(inlet.channel, crew.batch, pace)
        images = graph.stage(crew.prepare(groups, governor.input_hw), name="preprocess")
        if crew.proposer:
            images = graph.stage(propose(images, crew.proposer, model.regions), name="propose")
        calls = max(1, crew.in_flight - 1)  # one more is being made, another waited for
        watch = EngineWatch(crew.engine)
        beside = watch.beside(crew.beside_engine) if crew.beside_engine else None
        answers = infer(images, watch, beside)
        asked = graph.stage(answers, name="infer", capacity=calls, in_bursts=False)
        low = lowered(sources, model, settings, can_change=control is not None)
        found = tally.found(detect(pace.answered(asked), model, low, tally.inexact, crew.maps))
        private = conceal(found, model, shown, settings.render)
        counted = count_in_zones(shown.filter(private), zones, model.object_names)
        results = graph.stage(counted, name="detect")
        drawn = render(
            *(results, model.object_names, settings.render, tally.hud, zones),
            outputs.may_stay_on_gpu,
        )
        outlet = graph.outlet(drawn if outputs.want_pictures else results, name="draw")
        roster = Roster(graph, inlet, outlet, outputs, tally, pace.share_among)
        for source in sources:
            roster.join(source)
        governor.steer(pace.limit_fps, roster.set_effort)
        if control:
            control.attach(RunningLine(graph, roster, shown, crew, watch, governor, tally))
            end.callback(control.detach)
        roster.open(stays=live and control is not None)
        while not graph.wait(0.2):
            roster.sweep()
            governor.update()
            watch.update()
            garbage.collect()
            view.update(roster.sources)


def lowered(
    sources: Sequence[Source], model: ModelFile, settings: Settings, *, can_change: bool
) -> DetectionSettings:
    """Thresholds low enough to judge by, to be changed to while the line runs, and to blur by."""
    judged = any(source.url.startswith("synthetic:") for source in sources)
    detection = settings.detection
    if judged or can_change:
        detection = low_threshold(detection, model.score_threshold)
    return detect_also_blurred(detection, settings.render, model)


def run(settings: Settings, console: Console, quiet: bool) -> int:
    """Do what the settings say, print the summary, and return the exit code."""
    names, models = zip(*in_order(list(model_files(settings))), strict=True)
    model, proposer = models[0], proposer_of(models[0])
    shown = Shown(model, settings.detection)
    with ExitStack() as stack:
        gpu = GpuDecoding(settings.decoder)
        sources = open_sources(
            settings.sources,
            max_frames=settings.max_frames,
            duration=settings.duration,
            decoder=gpu,
            decoder_threads=settings.decoder_threads,
            live=settings.live,
            recorded=settings.recorded,
        )
        stack.callback(close_sources, sources)
        if any_live(sources):
            keep_memory_together()
        control = LineControl(settings, models, names, gpu)
        page = stack.enter_context(page_of(settings, control, console))
        outputs = Outputs(settings, model, sources, page, pixels_of(models))
        if settings.report:
            try_report(settings.report)
        may_shrink = settings.latency.budget_ms is not None and any_live(sources)
        load = partial(
            load_engine,
            settings=settings.engine,
            purpose=purpose_of(sources),
            all_sizes=may_shrink,
        )
        engines = [stack.enter_context(load(each)) for each in models]
        crew = Crew.of(models, engines, proposer)
        if crew.takes_pictures_on_gpu:
            gpu.keep_pictures(trouble_of_kernels)
        complaints = partial(complain, console)
        tally = Tally([source.stats for source in sources], model.object_names, complaints)
        governor = Governor(
            settings.latency.budget_ms,
            lambda: list(tally.sources.values()),
            smaller_hw=crew.engine.sizes_hw[1:],
        )
        stop, started = StopRequest(), time.perf_counter()
        failure: EngineError | None = None
        try:
            for group in in_groups(sources, settings.concurrent):
                if stop.signal is None:
                    with ProgressView(console, quiet) as view:
                        stream(
                            group,
                            crew,
                            outputs,
                            settings,
                            shown,
                            tally,
                            view,
                            stop,
                            governor,
                            control if page else None,
                        )
        except EngineError as error:  # what was done until then is told all the same
            failure = error
        except KeyboardInterrupt:
            if stop.signal is None:
                raise
            if any_given_up():  # what hangs may still use all that would be closed now
                leave(exit_code(tally, stop))
        wall_seconds = time.perf_counter() - started
        tally.close()
    report = build_report(
        wall_seconds=wall_seconds,
        engine=engine_reports(engines, models, names),
        sources=tally.all_sources,
        sinks=sink_reports(outputs.opened, tally),
        stages=stage_reports(tally.stages) | infer_report(engines, tally.stages),
        truth=tally.score.report() if tally.score else None,
        latency_budget=governor.report(),
        interrupted=stop.signal.name if stop.signal else None,
        error=str(failure) if failure else None,
    )
    if settings.report:
        with tally.writing("report"):
            write_report(report, settings.report)
    if not quiet:
        with tally.writing("summary"), drawing(160) as stdout:
            print_summary(report, stdout)
    if failure:
        raise failure
    return exit_code(tally, stop)


def purpose_of(sources: Sequence[Source]) -> Purpose:
    """What the engine is to be quick at. It stays so, whoever joins later."""
    if not any_live(sources):
        return "recording"
    return "camera" if len(sources) == 1 else "cameras"


def model_files(settings: Settings) -> Iterator[Named]:
    """What each of the models asked for says about itself."""
    for name in settings.model:
        yield Named(name, read_model_file(model_path(name)))


def proposer_of(model: ModelFile) -> Propose | None:
    """Who tells the model where to look, from `models/`; None where it looks for itself."""
    if model.proposer is None:
        return None
    try:
        from models.detection.proposers import PROPOSERS
    except ImportError as error:
        raise EngineUnavailable(
            f"{model.path} needs the proposer {model.proposer!r}, which cannot be loaded "
            f"({error}); run `pip install -e '.[proposals]'`"
        ) from error
    if model.proposer not in PROPOSERS:
        raise ModelMismatch(
            f"{model.path} needs the proposer {model.proposer!r}; known are "
            f"{', '.join(PROPOSERS)}; export it again"
        )
    return PROPOSERS[model.proposer]


@contextmanager
def page_of(settings: Settings, control: LineControl, console: Console) -> Iterator[Page | None]:
    """Serve the page inside the block, if one is asked for."""
    urls = [out for out in settings.out if is_page(out)]
    if not urls:
        yield None
        return
    if len(urls) > 1:
        raise ConfigError("out: more than one page is asked for; one shows all sources")
    with serve.page(urls[0], control, environment_token=os.environ.get("BOXSTREAM_TOKEN")) as page:
        shown = page.url_with_token if page.token_is_new else page.url
        console.print(f"watch at {escape(shown)}", highlight=False, soft_wrap=True, emoji=False)
        yield page


def exit_code(tally: Tally, stop: StopRequest) -> int:
    """What the shell is told; a signal outranks a failure that may have come of it."""
    if stop.signal:
        return 128 + stop.signal
    failures = [*tally.failed_sources.values(), *tally.failed_sinks.values()]
    default = 3 if tally.failed_sources else 5
    return getattr(failures[0], "exit_code", default) if failures else 0


def in_groups(sources: Sequence[Source], size: int) -> Iterator[Sequence[Source]]:
    """The sources in order, at most `size` at a time; cameras cannot wait for others to end."""
    size = len(sources) if any_live(sources) else size
    for start in range(0, len(sources), size):
        yield sources[start : start + size]


def complain(console: Console, sentence: str) -> None:
    """Say on the terminal what went wrong."""
    console.print(f"[red]error[/] {escape(sentence)}", highlight=False, soft_wrap=True, emoji=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    console = Complaints()
    try:
        arguments = parse(argv, MODELS)
        settings = load_settings(arguments.config, arguments.set, flags(arguments))
        refuse_mistakes(arguments, settings)
        if arguments.print_config:
            say(dump_settings(settings))
            return 0
        with logged_to(console):
            return run(settings, console, arguments.quiet)
    except PipelineError as error:
        complain(console, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def command() -> NoReturn:
    """What the shell calls."""
    hide_secrets(sys.orig_argv)
    leave(main())


def leave(code: int) -> NoReturn:
    """End the process.

    A camera's reader that hangs in the network cannot be ended, nor can an output whose disk does
    not answer. On Python's own way out the latter would be waited for; and the interpreter is taken
    away under the former, and one process in some hundred crashes.
    """
    if any_in_background() or any_given_up():
        with suppress(PipelineError):  # it cannot be read, and the code tells all
            say("")  # all that was printed
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
