"""boxstream's line, set up as `run_stream.run` does it, with a meter around the part that runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from rich.console import Console

import run_stream
from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.progress import ProgressView
from pipeline.bookkeeping.report import stage_reports
from pipeline.bookkeeping.tally import Tally
from pipeline.commands import model_path
from pipeline.configuration import strict_yaml
from pipeline.configuration.reading import load_settings
from pipeline.crew import Crew
from pipeline.detect import Shown
from pipeline.engines import load_engine
from pipeline.governor import Governor
from pipeline.model_file.reading import read_model_file
from pipeline.outputs import Outputs
from pipeline.settings import Settings
from pipeline.sources import Source, open_sources
from pipeline.stop_request import StopRequest
from tests.benchmarks.cost import Meter

WARM_UP_CALLS = 3


class View(Protocol):
    """Something that is told a few times a second that the line is running."""

    def update(self, sources: Sequence[Source]) -> None: ...


@dataclass(frozen=True)
class LineRun:
    """What came of a run."""

    frames: int
    engine: str
    sinks: list[dict[str, Any]]
    stages: dict[str, Any]
    sources: list[SourceStats]


def settings_for(options: dict[str, Any], extra: Sequence[str] = ()) -> Settings:
    """Settings as from the command line; `extra` are KEY=VALUE and come first."""
    own = [f"{key}={strict_yaml.dump(value)}" for key, value in options.items()]
    return load_settings(None, [*extra, "report=null", *own])


def run_line(settings: Settings, meter: Meter, view: View | None = None) -> LineRun:
    """Run the line on recorded sources; any failure ends the program."""
    (name,) = settings.model
    model = read_model_file(model_path(name))
    with load_engine(model, settings.engine) as engine:
        nothing = np.zeros((engine.batch, *model.input_size_hw, 3), np.uint8)
        for _ in range(WARM_UP_CALLS):
            engine.infer(nothing)
        return line_with(Crew(model, engine), settings, meter, view)


def line_with(crew: Crew, settings: Settings, meter: Meter, view: View | None = None) -> LineRun:
    """The same with a crew that is ready; cameras run for the `duration` of the settings."""
    model, engine = crew.model, crew.engine
    with meter:
        sources = open_sources(
            settings.sources,
            max_frames=settings.max_frames,
            duration=settings.duration,
            decoder_threads=settings.decoder_threads,
            live=settings.live,
        )
        outputs = Outputs(settings, model, sources, page=None)
        tally = Tally([source.stats for source in sources], model.class_names, _fail)
        governor = Governor(None, lambda: ())
        quiet = ProgressView(Console(stderr=True), True)
        with quiet if view is None else nullcontext(view) as seen:
            stop = StopRequest()
            shown = Shown(model, settings.detection)
            run_stream.stream(sources, crew, outputs, settings, shown, tally, seen, stop, governor)
    return LineRun(
        sum(source.stats.frames_inferred for source in sources),
        f"{engine.name} {engine.precision} batch {engine.batch}",
        [sink.report() for sink in outputs.opened],
        stage_reports(tally.stages),
        [source.stats for source in sources],
    )


def _fail(sentence: str) -> None:
    raise SystemExit(sentence)
