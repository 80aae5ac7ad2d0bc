"""Whose file is whose, when the names of sources and outputs look alike."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.outputs import Outputs
from pipeline.settings import RecordingSettings, Settings, VideoSettings
from pipeline.sinks import open_sink
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.territory import ANY, Names, Piece, Territory
from tests.pipeline.test_outputs import MODEL, Camera
from tests.recording.footage import LIVE, NOON, shot
from tests.recording.test_retention import HOUR, aged, names


def outputs_of(*sources: str, out: tuple[str, ...], events: tuple[str, ...] = ()) -> Outputs:
    recording = RecordingSettings(event_classes=events)
    settings = Settings(out=out, video=VideoSettings(), recording=recording)
    cameras: list[Any] = [Camera(name) for name in sources]
    return Outputs(settings, MODEL, cameras, None)


def test_the_second_file_of_one_camera_is_not_the_first_of_another(tmp_path: Path) -> None:
    door, other = (FilePattern(f"{tmp_path}/%Y%m%d-{name}.mp4") for name in ("door", "door-2"))
    made = [pattern.create(NOON) for pattern in (door, door, door, other, other)]
    assert len({*made}) == 5 and len(names(tmp_path)) == 5
    assert [door.matches(path) for path in made] == [True] * 3 + [False] * 2
    assert [other.matches(path) for path in made] == [False] * 3 + [True] * 2
    assert not door.territory.meets(other.territory)


@pytest.mark.parametrize("ending", [".mp4", "-{event}.mp4", ".jsonl"])
def test_one_cameras_limit_never_costs_another_a_file(tmp_path: Path, ending: str) -> None:
    outputs = outputs_of("door", "door-2", out=(f"{tmp_path}/%Y%m%d-{{source}}{ending}",))
    assert len(outputs.opened) == 2
    ending = ending.replace("{event}", "car")
    for hour in range(1, 5):
        aged(tmp_path / f"2026010{hour}-door-2{ending}", 30 + hour, size=100)
    aged(tmp_path / f"20260105-door{ending}", 25, size=100)
    for keep in (RecordingSettings(keep_bytes=100), RecordingSettings(keep_seconds=24 * HOUR)):
        out = f"{tmp_path}/%Y%m%d-{{source}}{ending}"
        with open_sink(out, replace(LIVE, name="door"), VideoSettings(), recording=keep):
            pass
        assert len(names(tmp_path)) == (5 if keep.keep_bytes else 4)
    assert all("door-2" in name for name in names(tmp_path))


def test_the_pieces_of_a_playlist_are_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "door-2-7.ts").write_text("of the other camera")
    (tmp_path / "door-7.ts").write_text("left behind")
    target = replace(LIVE, name="door")
    with open_sink(f"{tmp_path}/{{source}}.m3u8", target, VideoSettings(preset="ultrafast")) as it:
        it.write(shot(0))
    assert (tmp_path / "door-2-7.ts").exists() and not (tmp_path / "door-7.ts").exists()
    assert outputs_of("door", "door-2", out=(f"{tmp_path}/{{source}}.m3u8",)).opened


@pytest.mark.parametrize(
    ("sources", "out", "events"),
    [
        (("cam", "cam12"), ("{source}%H%M.mp4", "{source}%H.mp4"), ()),
        (("cam", "cam12"), ("{source}%H%M.jsonl", "{source}%H.jsonl"), ()),
        (("c", "b-c"), ("%H-{event}-{source}.mp4",), ("person", "person-b")),
        (("2026-a", "a"), ("{source}.mp4", "%Y-{source}.mp4"), ()),
    ],
)
def test_what_could_be_a_file_of_either_is_refused(
    tmp_path: Path,
    sources: tuple[str, ...],
    out: tuple[str, ...],
    events: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MODEL, "object_names", (*MODEL.object_names, *events))
    out = tuple(f"{tmp_path}/{each}" for each in out)
    with pytest.raises(ConfigError, match=r"would both write.*; give one of them another name"):
        outputs_of(*sources, out=out, events=events)
    first = outputs_of(sources[0], "other", out=out, events=events)
    joining: Any = Camera(sources[1])
    for _ in range(2):
        with pytest.raises(ConfigError, match="would both write"):
            first.of(joining)
    assert list(first.sinks) == [sources[0], "other"]


def test_two_outputs_of_one_source_do_not_share_files_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could write the same file; change one"):
        outputs_of("door", out=(f"{tmp_path}/%m.mp4", f"{tmp_path}/%H.mp4"))
    with pytest.raises(ConfigError, match="could write the same file"):
        outputs_of(
            "2026", out=(f"{tmp_path}/{{source}}/%Y/a.mp4", f"{tmp_path}/%Y/{{source}}/a.mp4")
        )
    with pytest.raises(ConfigError, match="could write the same file"):
        outputs_of("door", out=(f"{tmp_path}/%m-{{event}}.mp4", f"{tmp_path}/events.jsonl"))
    out = (f"{tmp_path}/%Y%m%d-{{event}}.mp4", f"{tmp_path}/%Y%m%d-%H.mp4")
    assert len(
        outputs_of("door", "yard", out=tuple(f"{o[:-4]}-{{source}}.mp4" for o in out)).opened
    )


def test_a_name_cannot_pretend_to_be_anothers_second(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would both write"):
        outputs_of("door~2", "door_2", out=(f"{tmp_path}/%H-{{source}}.mp4",))
    assert outputs_of("door~2", "door", out=(f"{tmp_path}/%H-{{source}}.mp4",)).opened


def random_names(chance: random.Random) -> list[Piece]:
    """A few pieces of a small alphabet."""
    letters = ("a", "b", "ab", ANY)
    pieces = []
    for _ in range(chance.randint(1, 3)):
        words = tuple(
            tuple(chance.choice(letters) for _ in range(chance.randint(0, 2)))
            for _ in range(chance.randint(1, 2))
        )
        pieces.append(Piece(words, more=chance.choice(["", "", "b"])))
    return pieces


def test_two_sets_of_names_meet_where_writing_them_all_down_finds_one_in_both() -> None:
    chance, met = random.Random(0), 0
    texts = ["".join(word) for length in range(8) for word in product("ab", repeat=length)]
    for _ in range(300):
        one, other = Names(random_names(chance)), Names(random_names(chance))
        expected = any(one.match(text) and other.match(text) for text in texts)
        assert one.meet(other) == other.meet(one) == expected
        met += expected
    assert 50 < met < 250


def test_names_are_what_their_pieces_say() -> None:
    names = Names([Piece(("a", "^-]"), more="01"), Piece(((ANY,),))])
    for text, fits in {
        "ax": 1,
        "a01x": 1,
        "^-]0/": 0,
        "^-]é": 1,
        "a": 0,
        "a0": 1,
        "a2x": 0,
    }.items():
        assert names.match(text) is bool(fits)


def test_one_place_has_many_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    here = Territory.of(Path("real"), "a")
    for spelling in ("link/a", "./real/a", "real/../real/a", f"{tmp_path}/link/a"):
        assert here.meets(Territory.of(Path(spelling)))
    assert not here.meets(Territory.of(Path("real")))


def test_a_pattern_still_finds_the_names_it_gives(tmp_path: Path) -> None:
    pattern = FilePattern(f"{tmp_path}/%Y%y/%j%m%d%H%M%S%f%z%%.mp4")
    for number in range(400):
        assert pattern.matches(pattern.named(NOON + number * 100_003.7))
