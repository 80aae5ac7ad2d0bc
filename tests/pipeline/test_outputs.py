"""Outputs of sources that come and go: what remains of them, and whose place is whose."""

from __future__ import annotations

import errno
import gc
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.report import Finished, sink_reports
from pipeline.bookkeeping.tally import DEPARTED_KEPT, Tally
from pipeline.errors import ConfigError, SinkError
from pipeline.outputs import Outputs
from pipeline.settings import Settings, VideoSettings
from pipeline.sinks import open_sink
from pipeline.sinks.encoder import Encoder
from tests.live.kit.odd_servers import refused_url
from tests.recording.footage import LIVE, NAMES, shot

MODEL: Any = SimpleNamespace(object_names=NAMES)


@dataclass
class Camera:
    """A source, as far as its outputs need to know it."""

    name: str
    url: str = "rtsp://camera"
    rate: Fraction | None = Fraction(25)
    input_path: Path | None = None
    media_path: Path | None = None
    live: bool = True
    is_images: bool = False


def outputs_of(*names: str, out: str) -> Outputs:
    cameras: list[Any] = [Camera(name) for name in names]
    return Outputs(Settings(out=(out,), video=VideoSettings()), MODEL, cameras, None)


def encoders() -> list[Encoder]:
    gc.collect()
    # Not isinstance, which asks objects that pretend to be another.
    return [each for each in gc.get_objects() if type(each) is Encoder]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "out", ["a.mp4", "a.mkv", "a.m3u8", "%H%M%S.mp4", "%H%M%S-{event}.mp4", "rtsp"]
)
def test_a_closed_sink_holds_no_encoder(tmp_path: Path, out: str, fails: bool) -> None:
    earlier = weakref.WeakSet(encoders())
    video = VideoSettings(preset="ultrafast")
    sink = open_sink(refused_url() if out == "rtsp" else f"{tmp_path}/{out}", LIVE, video)
    with suppress(AttributeError), sink:  # how a sink fails that is given no result
        for number in range(3):
            sink.write(shot(number))
        assert len(encoders()) == len(earlier) + 1
        if fails:
            sink.write(None)
    assert not set(encoders()) - set(earlier)
    assert sink.report()["path"] == sink.name
    assert "_rewind" not in vars(sink) or not vars(sink)["_rewind"].bytes


def test_of_a_removed_source_nothing_remains_but_what_its_outputs_reported(tmp_path: Path) -> None:
    outputs = outputs_of("door", "yard", out=f"{tmp_path}/{{source}}.mp4")
    (sink,) = outputs.sinks["door"]
    with sink:
        sink.write(shot(0))
    reported, remains = sink.report(), weakref.ref(sink)
    outputs.forget("door", Tally([], NAMES, print))
    del sink
    gc.collect()
    assert remains() is None
    assert reported["frames"] == 1 and reported["bytes"]
    told = reported | {"error": None}
    assert [each.report() for each in outputs.opened if "door" in each.name] == [told]


@pytest.mark.parametrize("ending", [".mp4", ".jsonl", "/", ".m3u8", "-%H%M.mp4", "-{event}.mkv"])
def test_two_sources_whose_names_become_one_file_name_are_refused(
    tmp_path: Path, ending: str
) -> None:
    out = f"{tmp_path}/{{source}}{ending}"
    with pytest.raises(ConfigError, match="'front:door' and 'front_door' would both write"):
        outputs_of("front:door", "front_door", out=out)
    assert len(outputs_of("front_door", "front-door", out=out).opened) == 2


def test_what_is_kept_of_sources_that_have_left_is_counted_by_source(tmp_path: Path) -> None:
    cameras: list[Any] = [Camera(f"{number}") for number in range(DEPARTED_KEPT + 1)]
    out = ("null:{source}", f"{tmp_path}/{{source}}.jsonl")
    outputs = Outputs(Settings(out=out, video=VideoSettings()), MODEL, cameras, None)
    for camera in cameras:
        outputs.forget(camera.name, Tally([], NAMES, print))
    kept = [sink.name for sink in outputs.opened]
    assert kept[:2] == ["null:1", f"{tmp_path}/1.jsonl"] and len(kept) == 2 * DEPARTED_KEPT


def test_the_files_of_a_source_that_has_left_are_not_written_over(tmp_path: Path) -> None:
    outputs = outputs_of("front:door", "yard", out=f"{tmp_path}/{{source}}.jsonl")
    outputs.forget("front:door", Tally([], NAMES, print))
    joining: Any = Camera("front_door")
    for _ in range(2):
        with pytest.raises(ConfigError, match="give one of them another name"):
            outputs.of(joining)
    assert list(outputs.sinks) == ["yard"]


@pytest.mark.parametrize(
    ("out", "live", "may"),
    [
        ("{source}.jsonl", True, True),
        ("{source}.jsonl", False, False),
        ("{source}-%H%M.mp4", True, True),
        ("{source}/", True, False),
    ],
)
def test_a_source_comes_back_where_nothing_that_it_left_is_written_over(
    tmp_path: Path, out: str, live: bool, may: bool
) -> None:
    outputs = outputs_of("door", "yard", out=f"{tmp_path}/{out}")
    back: Any = Camera("door", live=live)
    for _ in range(2):
        outputs.forget("door", Tally([], NAMES, print))
        if may:
            assert outputs.of(back)
        else:
            with pytest.raises(ConfigError, match="written over; choose another name"):
                outputs.of(back)
            break


def test_of_a_source_that_came_back_each_time_has_its_own_entries() -> None:
    outputs = outputs_of("door", "yard", out="null:")
    tally = Tally([SourceStats("door"), SourceStats("yard")], NAMES, print)
    tally.sink_failed("write null:door", SinkError("the disk is full"))
    tally.sink_drops["door", "null:door"] += 1
    back: Any = Camera("door")
    for _ in range(2):
        outputs.forget("door", tally)
        tally.forget("door", ["null:door"])
        tally.joined(SourceStats("door"))
        outputs.of(back)
    entries = sink_reports(outputs.opened, tally)
    assert list(entries) == ["null:door~1", "null:door~2", "null:yard", "null:door"]
    assert [entry["error"] for entry in entries.values()] == ["the disk is full", None, None, None]
    assert [entry.get("frames_dropped") for entry in entries.values()] == [1, None, None, None]
    assert tally.sink_stats("door", outputs.of(back)[0]).error is None
    assert list(tally.failed_sinks) == ["null:door"]  # for the exit code


def test_no_source_writes_over_what_another_one_reads(tmp_path: Path) -> None:
    cameras: list[Any] = [Camera("yard"), Camera("door", input_path=tmp_path / "yard.mp4")]
    with pytest.raises(ConfigError, match="over the input"):
        Outputs(Settings(out=(f"{tmp_path}/{{source}}.mp4",)), MODEL, cameras, None)


def test_every_source_that_is_only_counted_has_an_entry_of_its_own() -> None:
    counts = {"door": 100, "yard": 7}
    outputs, tally = outputs_of(*counts, out="null:"), Tally([], NAMES, print)
    for name, count in counts.items():
        with outputs.sinks[name][0] as sink:
            for number in range(count):
                sink.write(shot(number))
    entries = sink_reports(outputs.opened, tally)
    assert {name: entry["frames"] for name, entry in entries.items()} == {
        "null:door": 100,
        "null:yard": 7,
    }
    assert [sink.name for sink in outputs_of("door", out="null:").opened] == ["null:"]


class OutOfReach:
    """An output whose folder nobody may enter any more."""

    name = "vault/door.mp4"

    def report(self) -> dict[str, Any]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.name)


def test_an_output_that_can_no_longer_be_looked_at_costs_no_others_figures() -> None:
    healthy, tally = outputs_of("door", out="null:").opened, Tally([], NAMES, print)
    entries = sink_reports([OutOfReach(), *healthy], tally)
    assert entries["null:"] == {"frames": 0, "error": None}
    told = {"path": "vault/door.mp4", "error": "cannot look at what is there: Permission denied"}
    assert entries["vault/door.mp4"] == told
    assert Finished.of(OutOfReach(), tally).report() == told

    tally.sink_failed("write vault/door.mp4", SinkError("cannot write it"))
    assert sink_reports([OutOfReach()], tally)["vault/door.mp4"]["error"] == "cannot write it"


def test_what_sources_can_share_they_share() -> None:
    for out in ("mqtt://localhost/boxes", "srt://host:8890?streamid=publish:{source}"):
        assert len(outputs_of("front:door", "front_door", out=out).opened) == 2


@pytest.mark.parametrize(
    ("out", "report"),
    [
        ("{source}.jsonl", "door.jsonl"),
        ("{source}/", "door"),
        ("%H%M.jsonl", "1200.jsonl"),
        ("{event}.mp4", "events.jsonl"),
        ("{source}.m3u8", "door-7.ts"),
    ],
)
def test_no_output_may_become_the_file_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, report: str
) -> None:
    monkeypatch.chdir(tmp_path)
    door: Any = Camera("door")
    for place, is_taken in ((report, True), (f"other/{report}", False)):
        settings = Settings(out=(f"{tmp_path}/{out}",), report=place)
        if is_taken:
            with pytest.raises(ConfigError, match="could write over the report"):
                Outputs(settings, MODEL, [door], None)
        else:
            assert Outputs(settings, MODEL, [door], None).opened


def test_a_source_that_joins_does_not_write_over_the_report_either(tmp_path: Path) -> None:
    settings = Settings(out=(f"{tmp_path}/{{source}}.jsonl",), report=f"{tmp_path}/yard.jsonl")
    door, yard = Camera("door"), Camera("yard")
    cameras: list[Any] = [door]
    outputs = Outputs(settings, MODEL, cameras, None)
    joining: Any = yard
    with pytest.raises(ConfigError, match="could write over the report"):
        outputs.of(joining)
