"""Settings from YAML and the command line: what is understood, and how the rest is refused."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.configuration.command_line import flags, parse, refuse_mistakes
from pipeline.configuration.reading import dump_settings, load_settings
from pipeline.errors import ConfigError
from pipeline.settings import (
    DetectionSettings,
    EngineSettings,
    RenderSettings,
    Settings,
    VideoSettings,
    ZoneSettings,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def refused(*overrides: str) -> str:
    """The message with which the words are refused."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, overrides)
    return str(caught.value)


def typed(*words: str) -> Settings:
    """The settings of a whole command line."""
    arguments = parse(words, [])
    return load_settings(arguments.config, arguments.set, flags(arguments))


def refused_file(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(str(path))
    return str(caught.value)


# What is understood


def test_without_file_and_words_the_defaults_hold():
    assert load_settings() == Settings()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("sources: [a.mp4, b.mp4]\nengine: {batch: 4}\ndetection:\n  threshold: 0.25\n")
    expected = Settings(
        sources=("a.mp4", "b.mp4"),
        engine=EngineSettings(batch=4),
        detection=DetectionSettings(threshold=0.25),
    )
    assert load_settings(str(file)) == expected


def test_words_win_over_the_file_and_flags_over_words(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("engine: {batch: 2, threads: 2}\nmodel: file\n")
    words = ["--model", "flag", "--set", "engine.batch=4", "model=word", "--config", str(file)]
    settings = typed(*words)
    assert (settings.engine.batch, settings.engine.threads) == (4, 2)
    assert settings.model == ("flag",)


def test_of_two_words_for_one_key_the_last_wins():
    assert load_settings(None, ["engine.batch=4", "engine.batch=8"]).engine.batch == 8


def test_a_word_may_hold_a_list_or_a_map():
    settings = load_settings(
        None, ["sources=[a.mp4, 'b, c.mp4']", "detection={nms: soft, class_thresholds: {car: 1}}"]
    )
    assert settings.sources == ("a.mp4", "b, c.mp4")
    assert settings.detection.nms == "soft"
    assert settings.detection.class_thresholds == {"car": 1.0}


def test_a_word_may_name_one_class_and_keeps_the_others():
    words = ["detection.class_thresholds={car: 0.4}", "detection.class_thresholds.person=0.6"]
    thresholds = load_settings(None, words).detection.class_thresholds
    assert thresholds == {"car": 0.4, "person": 0.6}


def test_an_empty_map_takes_all_entries_away_and_null_one(tmp_path):
    highway = str(CONFIGS / "highway.yaml")
    for word, left in {
        "class_thresholds={}": {},
        "class_thresholds={car: null}": {"person": 0.65},
        "class_thresholds.person=null": {"car": 0.45},
        "class_thresholds={car: null, bus: 0.3}": {"person": 0.65, "bus": 0.3},
    }.items():
        settings = load_settings(highway, [f"detection.{word}"])
        assert settings.detection.class_thresholds == left
    zones = str(CONFIGS / "zones.yaml")
    assert load_settings(zones, ["zones={}"]).zones == {}
    assert list(load_settings(zones, ["zones.yard=null"]).zones) == ["crossing"]


def test_what_is_not_there_cannot_be_taken_away():
    assert "car: expected a number, found nothing" in refused("detection.class_thresholds.car=null")
    assert "polygon: missing" in refused("zones.yard=null")


def test_a_lone_source_needs_no_brackets():
    assert load_settings(None, ["sources=drive.mp4"]).sources == ("drive.mp4",)


def test_any_name_may_be_given_on_the_command_line():
    odd = ["\N{AUTOMOBILE}.mp4", "1e3", "null", "\udcff", "a: b", "[not a list].mp4"]
    words = [*odd, "--model", *odd[:1], "--report", *odd[:1], "--out", *odd]
    settings = typed(*words)
    assert settings.sources == settings.out == tuple(odd)
    assert (settings.model, settings.report) == ((odd[0],), odd[0])


@pytest.mark.parametrize("text", ["1e-1", "0.1", "1E-1", "+1e-1", ".1"])
def test_a_number_may_be_written_in_the_usual_ways(text):
    assert load_settings(None, [f"detection.threshold={text}"]).detection.threshold == 0.1


def test_a_whole_number_will_do_where_a_number_is_expected():
    threshold = load_settings(None, ["detection.threshold=1"]).detection.threshold
    assert threshold == 1.0
    assert isinstance(threshold, float)


def test_null_unsets_what_may_be_unset():
    settings = load_settings(None, ["report=null", "max_frames=5", "max_frames=null"])
    assert settings.report is None
    assert settings.max_frames is None


def test_an_empty_file_or_section_changes_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("# nothing\n")
    assert load_settings(str(file)) == Settings()
    file.write_text("engine:\n  # batch: 4\n")
    assert load_settings(str(file)) == Settings()


# What is refused


def told(*words: str) -> str:
    """What is said against a command line; nothing if it can mean what it says."""
    arguments = parse(words, [])
    try:
        refuse_mistakes(arguments, typed(*words))
    except ConfigError as error:
        return str(error)
    return ""


def test_a_source_that_out_may_have_swallowed_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("drive.mp4").write_bytes(b"precious")
    Path("lines.jsonl").touch()
    for folder in ("my", "empty"):
        Path(folder).mkdir()
    Path("my/street.png").touch()
    Path("named.yaml").write_text("sources: [yard.mp4]")
    Path("unnamed.yaml").write_text("detection: {threshold: 0.4}")
    unnamed = ["--config", "unnamed.yaml", "--duration", "1"]
    for words in ([], unnamed, ["--set", "video.crf=20"]):
        assert "no SOURCE is given" in told(*words, "--out", "out.mp4", "drive.mp4")
        assert "no SOURCE is given" in told(*words, "--out", "o.jsonl", "my/")
        assert not told(*words, "--out", "drive.mp4", "lines.jsonl", "empty/")
        assert not told(*words, "--out", "out.mp4", "--out", "drive.mp4", "--out", "my")
        assert not told("yard.mp4", *words, "--out", "out.jsonl", "drive.mp4", "my/")
    assert not told("--config", "named.yaml", "--out", "out.jsonl", "drive.mp4", "my/")
    assert not told("--set", "sources=yard.mp4", "--out", "out.jsonl", "drive.mp4")
    assert not told(Settings().sources[0], "--out", "out.jsonl", "drive.mp4")


def test_how_recordings_are_cut_and_kept_is_refused_where_nothing_is_recorded_so():
    for out in ([], ["--out", "a.mp4"], ["--out", "a.jsonl", "live/index.m3u8", "null:"]):
        for flag, time in (("--segment", "10min"), ("--keep", "24h")):
            assert told(*out, flag, time).startswith(f"{flag}: no output is a row of files")
    assert "--segment" in told("--out", "%Y%m%d.jsonl", "--segment", "10min")
    assert not told("--out", "%Y%m%d.jsonl", "--keep", "24h")
    for out in ("a.mp4", "%H%M.mp4"):
        assert not told("--out", out, "--set", "recording.keep_seconds=60")
        assert not told("--out", "{event}.mp4", out, "--segment", "1h", "--keep", "24h")
    for file in ("recorder", "camera"):
        config = str(CONFIGS / f"{file}.yaml")
        assert not told("--config", config, "--segment", "1h", "--keep", "24h")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("engine.presicion=f32", "'engine.presicion'; did you mean 'engine.precision'?"),
        ("presicion=f32", "'presicion'; did you mean 'engine.precision'?"),
        ("engin.batch=4", "'engin'; did you mean 'engine'?"),
        ("treshold=0.5", "'treshold'; did you mean 'detection.threshold'?"),
        ("qwxyz=1", "unknown key 'qwxyz'; known: concurrent, decoder, decoder_threads"),
        ("engine.qwxyz=1", "known in 'engine': batch, batch_wait_seconds, build, cache, name"),
        ("engine={7: 1}", "unknown key 'engine.7'"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(word, expected):
    message = refused(word)
    assert expected in message
    assert message.startswith(f"--set {word}: unknown key")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("engine.batch=two", "engine.batch: expected a whole number, found text 'two'"),
        ("engine.batch=4.0", "engine.batch: expected a whole number, found 4.0"),
        ("engine.batch=true", "engine.batch: expected a whole number, found True"),
        ("engine.batch=", "engine.batch: expected a whole number, found nothing (null)"),
        ("detection.threshold=high", "expected a number, found text 'high'"),
        ("detection.threshold=true", "expected a number, found True"),
        ("render.hud=1", "render.hud: expected true or false, found 1"),
        ("render.hud='on'", "render.hud: expected true or false, found text 'on'"),
        ("model=2024-01-01", "model: expected a list of text, found a date"),
        ("report=[a]", "report: expected text, found a list ['a']"),
        ("model=[]", "model: expected a name or a model file"),
        ("sources=7", "sources: expected a list of text, found 7"),
        ("sources=[a.mp4, 7]", "sources[1]: expected text, found 7"),
        ("sources=[]", "sources: expected at least one file, folder or URL"),
        ("detection.class_thresholds=0.5", "class_thresholds: expected a map, found 0.5"),
        ("detection.class_thresholds.car=x", "class_thresholds.car: expected a number"),
        ("engine=auto", "'engine' is a section: expected a map of name, precision, batch"),
        ("engine.batch.x=1", "engine.batch: expected a whole number, found a map {'x': 1}"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(word, expected):
    assert expected in refused(word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("detection.threshold=1.5", "expected a number from 0 to 1, found 1.5"),
        ("detection.threshold=-0.1", "expected a number from 0 to 1, found -0.1"),
        ("detection.threshold=.nan", "expected a number from 0 to 1, found nan"),
        ("detection.class_thresholds.car=2", "car: expected a number from 0 to 1, found 2"),
        ("engine.batch=-1", "expected a whole number from 0 to 256, found -1"),
        ("max_frames=0", "max_frames: expected a whole number from 1"),
        ("duration=.inf", "duration: expected a number from 0.001"),
        ("duration=0x" + "f" * 999, "duration: expected a number from 0.001"),
        ("video.crf=52", "video.crf: expected a whole number from 0 to 51, found 52"),
    ],
)
def test_a_number_out_of_range_is_refused(word, expected):
    assert expected in refused(word)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "engine.name=openvnio",
            "expected one of auto, openvino, onnxruntime, tensorrt, program; found text",
        ),
        ("engine.name=openvnio", "did you mean 'openvino'?"),
        ("engine.precision=16", "expected one of auto, f32, bf16, f16, int8; found 16"),
        ("video.preset=null", "found nothing (null)"),
    ],
)
def test_a_word_that_is_no_choice_is_refused(word, expected):
    assert expected in refused(word)


@pytest.mark.parametrize("word", ["engine.batch", "=4", " =4", ""])
def test_a_word_without_key_or_value_is_refused(word):
    assert "expected KEY=VALUE, such as engine.batch=4" in refused(word)


@pytest.mark.parametrize("camera", ["rtsp://me:ge.heim@h/1", "rtsp://me:ge.heim@h/1?channel=1"])
def test_a_source_that_set_has_swallowed_is_told_its_place_and_not_its_password(camera):
    words = ["--set", "engine.batch=1", camera]
    with pytest.raises(ConfigError) as caught:
        typed(*words)
    message = str(caught.value)
    assert "a SOURCE goes before --set" in message and "***@h/1" in message
    assert "ge" not in message.replace("engine", "") and "heim" not in message
    placed = typed(camera, *words[:2])
    assert placed.sources == (camera,) and placed.engine.batch == 1


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        (["--threshold", "1.5"], "--threshold 1.5: detection.threshold: "),
        (["--max-fps", "fast"], "--max-fps fast: live.max_fps: "),
        (["--engine", "abacus"], "--engine abacus: engine.name: "),
        (["--set", "live.max_fps=fast"], "--set live.max_fps=fast: live.max_fps: "),
        (["--batch", "rtsp://me:s3cret@h"], "--batch rtsp://***@h: engine.batch: "),
    ],
)
def test_what_is_wrong_is_named_as_it_was_typed(words, begin):
    with pytest.raises(ConfigError) as caught:
        typed(*words)
    assert str(caught.value).startswith(begin) and "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "sources: [{name: front, url: 'rtsp://me:ge.heim@h'}]",
        "sources: [{name: front, user: me, password: ge.heim}]",
        "sources: {'rtsp://me:ge.heim@a.camera.of.a.rather.long.name.in.the.yard': 1}",
        "engine: 'rtsp://me:ge.heim@a.camera.of.a.rather.long.name.in.the.yard.of.us'",
        "'rtsp://me:ge.heim@10.0.0.5/1': front",
        "{'rtsp://me:ge.heim@h': 1, 'rtsp://me:ge.heim@h': 2}",
    ],
)
def test_what_is_wrong_in_a_file_is_named_without_its_passwords(tmp_path, text):
    message = refused_file(tmp_path / "mine.yaml", text)
    assert "***" in message and "me:" not in message and "heim" not in message


def test_a_word_that_is_wrong_is_named_without_its_password():
    for word in ("live.password=ge.heim", "sources={a: 'rtsp://me:ge.heim@h'}"):
        message = refused(word)
        assert "***" in message and "heim" not in message


def test_a_duplicate_key_is_refused_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    message = refused_file(file, "engine:\n  batch: 1\n  threads: 2\n  batch: 4\n")
    assert message == f"{file}, line 4, column 3: duplicate key 'batch'"


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    assert refused_file(file, "engine:\n\tbatch: 1\n").startswith(f"{file}, line 2, column 1: ")
    assert "top level: expected a map" in refused_file(file, "- a\n- b\n")
    assert "expected a single document" in refused_file(file, "model: a\n---\nmodel: b\n")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_settings(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_settings(str(tmp_path / "binary.yaml"))


def test_yaml_that_grows_or_asks_for_python_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    doubling = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    assert "aliases" in refused_file(file, "\n".join(doubling))
    assert "tags" in refused_file(file, "model: !!python/object/apply:os.getcwd []")
    assert "longer than 1 MiB" in refused_file(file, "#" * (1 << 20) + "\n")
    assert "nested too deeply" in refused_file(file, "model: " + "[" * 50_000)


@given(st.text(max_size=60))
def test_any_text_is_either_understood_or_refused_politely(text):
    for word in (text, f"engine.batch={text}", f"engine={text}", f"sources={text}"):
        try:
            settings = load_settings(None, [word])
        except ConfigError as error:
            assert str(error).startswith("--set ")
        else:
            assert isinstance(settings, Settings)


# Showing settings, and the files in configs/


def numbers(low: float, high: float):
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


share = numbers(0, 1)
word = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff\ufffe\uffff"), max_size=20
)
any_settings = st.builds(
    Settings,
    sources=st.lists(word, min_size=1, max_size=3).map(tuple),
    model=st.lists(word, min_size=1, max_size=2).map(tuple),
    out=st.lists(word, max_size=3).map(tuple),
    report=st.none() | word,
    max_frames=st.none() | st.integers(1, 10**12),
    duration=st.none() | numbers(0.001, 1e9),
    engine=st.builds(EngineSettings, batch=st.integers(0, 256), threads=st.integers(0, 1024)),
    detection=st.builds(
        DetectionSettings,
        threshold=st.none() | share,
        class_thresholds=st.dictionaries(word, share, max_size=3),
        nms=st.sampled_from(["class_aware", "class_agnostic", "soft", "merge"]),
    ),
    render=st.builds(RenderSettings, hud=st.booleans(), line_width=st.integers(0, 100)),
    zones=st.dictionaries(
        word,
        st.builds(
            ZoneSettings,
            polygon=st.just(((0.0, 0.25), (1.0, 0.5), (0.125, 1.0))),
            classes=st.lists(word, max_size=2).map(tuple),
            anchor=st.sampled_from(["bottom", "centre"]),
        ),
        max_size=2,
    ),
    video=st.builds(VideoSettings, crf=st.integers(0, 51), preset=st.just("fast")),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shown") / "shown.yaml"


@given(any_settings)
@example(Settings(sources=("0E0", "1e3", "0x10", "yes", "1:30", "~", "2024-01-01", "\x85", "# a")))
def test_settings_that_are_shown_can_be_loaded_again(file, settings):
    file.write_text(dump_settings(settings), encoding="utf-8", newline="")
    assert load_settings(str(file)) == settings


def dotted_keys(section: object, at: str = "") -> list[str]:
    """Every setting, spelled as for --set; sections are not settings."""
    keys = []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            keys += dotted_keys(value, f"{at}{field.name}.")
        else:
            keys.append(at + field.name)
    return keys


@pytest.mark.parametrize("key", dotted_keys(Settings()))
def test_every_key_can_be_set_from_the_command_line(key):
    shown = yaml.safe_load(dump_settings(Settings()))
    for part in key.split("."):
        shown = shown[part]
    written = yaml.safe_dump(shown, default_flow_style=True).strip().removesuffix("\n...")
    assert load_settings(None, [f"{key}={written}"]) == Settings()


def test_every_key_is_explained_where_it_is_shown():
    bare = [
        line
        for line in dump_settings(Settings()).splitlines()
        if line and "  #" not in line and not line.startswith(("sources:", "#"))
    ]
    assert bare == []


def test_choices_are_shown_unless_there_are_too_many_to_read():
    shown = dump_settings(Settings())
    hints = get_type_hints(EngineSettings)
    assert " | ".join(get_args(hints["name"])) in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_the_default_configuration_is_what_is_shown_by_default():
    text = (CONFIGS / "default.yaml").read_text()
    header = text[: text.index("sources:")]
    assert all(line.startswith("#") or not line for line in header.splitlines())
    assert text == header + dump_settings(Settings()), (
        "configs/default.yaml is outdated: put the output of "
        "`run_stream.py --print-config` below its header"
    )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_loads_and_fits_a_screen(path):
    settings = load_settings(str(path))
    lines = path.read_text().splitlines()
    assert len(lines) <= 50 or path.name == "default.yaml", "only a list of everything is long"
    assert max(map(len, lines)) <= 120
    assert path.name == "default.yaml" or settings != Settings(), "it changes something"
    assert set(path.stem) <= set(string.ascii_lowercase + "_")
