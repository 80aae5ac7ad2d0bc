"""The whole line with models of pixels, of masks and of regions, and with two models at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import cv2
import numpy as np
import pytest

import run_stream
from pipeline.commands import MODELS
from pipeline.configuration.reading import load_settings
from tests.pipeline.model_files import ENGINES, write_model
from tests.pipeline.task_files import (
    PALETTE,
    PIXEL_NAMES,
    brightness_class,
    write_instance,
    write_regional,
    write_semantic,
)

STREET = "synthetic://street?seed=4&size=96x64&fps=25&seconds=0.4"
FRAMES = 10


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run the line; return the report."""
    report = tmp_path / "report.json"
    assert run_stream.main([*arguments, "--report", str(report), "--quiet"]) == 0
    content: dict[str, Any] = json.loads(report.read_text())
    return content


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pictures_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two pictures: three stripes, and noise."""
    folder = tmp_path / "in"
    folder.mkdir()
    stripes = np.repeat(np.array([20, 120, 230], np.uint8), 32)[None, :, None]
    cv2.imwrite(str(folder / "stripes.png"), np.broadcast_to(stripes, (64, 96, 3)).copy())
    noise = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)
    cv2.imwrite(str(folder / "noise.png"), noise)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_of_pixels_gives_maps_lines_and_a_video(
    tmp_path: Path, pictures: Path, engine: str
) -> None:
    model = write_semantic(tmp_path / "pixels.onnx")
    outs = [tmp_path / "maps", tmp_path / "out.jsonl"]
    report = run(
        tmp_path,
        *(str(pictures), "--model", str(model), "--engine", engine),
        *("--out", f"classes:{outs[0]}/", str(outs[1]), f"{tmp_path}/drawn/"),
    )
    assert sorted(path.name for path in outs[0].iterdir()) == ["noise.png", "stripes.png"]
    found = cv2.imread(str(outs[0] / "stripes.png"), cv2.IMREAD_COLOR_RGB)
    for column, colour in zip((8, 48, 88), PALETTE, strict=True):
        assert np.array_equal(found[30, column], colour)
    noise, stripes = sorted(lines_of(outs[1]), key=lambda line: str(line["file"]))
    assert stripes["detections"] == [] and noise["width"] == 45
    assert stripes["class_shares"] == pytest.approx(dict.fromkeys(PIXEL_NAMES, 1 / 3), abs=0.03)
    assert [entry["label"] for entry in stripes["segments"]] == list(PIXEL_NAMES)
    assert sum(noise["class_shares"].values()) == pytest.approx(1, abs=1e-3)
    (source,) = report["sources"].values()
    mean = (np.array(list(noise["class_shares"].values())).sum() + 1) / 2
    assert sum(source["class_shares"].values()) == pytest.approx(mean, abs=1e-3)
    drawn = cv2.imread(str(tmp_path / "drawn" / "stripes.png"))
    assert np.ptp(drawn[5, 48].astype(int)) > 30  # a grey stripe has become green


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own
def test_the_run_lengths_say_what_the_maps_say(tmp_path: Path, pictures: Path) -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="the extra 'models' is not installed")
    model = write_semantic(tmp_path / "pixels.onnx", {"input_size_hw": [64, 96]})
    lines = tmp_path / "out.jsonl"
    run(tmp_path, str(pictures), "--model", str(model), "--out", str(lines))
    stripes = next(line for line in lines_of(lines) if line["file"] == "stripes.png")
    seen = np.zeros((64, 96), np.uint8)
    for entry in stripes["segments"]:
        seen[tools.decode(entry["mask"]) > 0] = entry["class_id"]
    rgb = cv2.imread(str(pictures / "stripes.png"))
    np.testing.assert_array_equal(seen, brightness_class(rgb))


def test_the_video_of_classes_shows_their_colours_and_nothing_else(tmp_path: Path) -> None:
    model, video = write_semantic(tmp_path / "pixels.onnx"), tmp_path / "classes.mp4"
    run(
        tmp_path, STREET, "--model", str(model), "--out", f"classes:{video}", "--set", "video.crf=4"
    )
    shown = pictures_of(video)
    assert len(shown) == FRAMES and shown[0].shape == (64, 96, 3)
    distance = np.abs(shown[3][:, :, None].astype(int) - np.array(PALETTE)).max(-1).min(-1)
    assert np.median(distance) < 12  # but for the edges, where chroma is coarse


@pytest.mark.parametrize("engine", ENGINES)
def test_objects_and_pixels_are_found_together_as_by_each_model_alone(
    tmp_path: Path, engine: str
) -> None:
    detector = write_model(tmp_path / "objects.onnx", {"score_threshold": 0.1})
    pixels = write_semantic(tmp_path / "pixels.onnx", {"input_size_hw": [24, 40]})
    both, alone, maps = (tmp_path / f"{name}.jsonl" for name in ("both", "alone", "maps"))
    words = ["--engine", engine, "--set", "engine.precision=f32"]
    # The order in which they are given does not matter.
    models = ["--model", str(pixels), "--model", str(detector)]
    report = run(tmp_path, STREET, *models, "--out", str(both), *words)
    run(tmp_path, STREET, "--model", str(detector), "--out", str(alone), *words)
    run(tmp_path, STREET, "--model", str(pixels), "--out", str(maps), *words)
    together, objects, shares = lines_of(both), lines_of(alone), lines_of(maps)
    assert any(line["detections"] for line in objects)
    assert [line["detections"] for line in together] == [line["detections"] for line in objects]
    for key in ("class_shares", "segments"):
        assert [line[key] for line in together] == [line[key] for line in shares]
    engines = report["engine"], report["engine"]["beside"]
    assert [entry["model"] for entry in engines] == [str(detector), str(pixels)]
    assert [entry["input_size_hw"] for entry in engines] == [[32, 48], [24, 40]]
    assert report["stages"]["infer"]["calls"] == FRAMES == report["stages"]["infer beside"]["calls"]


def test_the_summary_names_both_models_and_what_the_picture_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector, pixels = write_model(tmp_path / "a.onnx"), write_semantic(tmp_path / "b.onnx")
    words = ["--model", str(detector), "--model", str(pixels), "--out", "null:"]
    assert run_stream.main([STREET, *words, "--report", str(tmp_path / "r.json")]) == 0
    told = capsys.readouterr().out.replace("\n", "")
    assert f"{detector} at 48x32" in told and f"{pixels} at 48x32" in told
    assert "street shows " in told and "grey " in told


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_of_objects_are_written_and_drawn(tmp_path: Path, engine: str) -> None:
    model = write_instance(tmp_path / "masks.onnx", {"score_threshold": 0.1})
    lines, plain, drawn = tmp_path / "o.jsonl", tmp_path / "plain.mp4", tmp_path / "drawn.mp4"
    words = [STREET, "--model", str(model), "--engine", engine, "--set", "video.crf=4"]
    words += ["render.labels=false", "render.scores=false"]
    run(tmp_path, *words, "--out", str(lines), str(drawn))
    run(tmp_path, *words, "render.segmentation.alpha=0", "render.segmentation.edges=false",
        "--out", str(plain))  # fmt: skip  # a command
    found = [one for line in lines_of(lines) for one in line["detections"]]
    assert found and all(one["mask"]["size"] == [64, 96] for one in found)
    tinted = np.mean(
        [
            np.abs(a.astype(int) - b).mean()
            for a, b in zip(pictures_of(drawn), pictures_of(plain), strict=True)
        ]
    )
    assert tinted > 0.2  # exactly 0 where nothing is laid over


@pytest.fixture
def corners(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposer that names the upper left quarter of the picture that it is shown."""

    def propose(image: np.ndarray) -> np.ndarray:
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        height, width = image.shape[:2]
        return np.array([[0, 0, width / 2, height / 2]], np.float32)

    module = ModuleType("models.detection.proposers")
    module.PROPOSERS = {"corners": propose}
    monkeypatch.setitem(sys.modules, "models.detection.proposers", module)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", ["1", "4"])
@pytest.mark.usefixtures("corners")
def test_a_model_of_regions_is_told_where_to_look(tmp_path: Path, engine: str, batch: str) -> None:
    model, lines = write_regional(tmp_path / "regions.onnx"), tmp_path / "out.jsonl"
    # A square picture in a wide input has bars at its sides, which no proposer shall see.
    square = STREET.replace("96x64", "64x64")
    words = ["--engine", engine, "--batch", batch, "--out", str(lines)]
    report = run(tmp_path, square, "--model", str(model), *words)
    for line in lines_of(lines):
        (found,) = line["detections"]
        assert found["label"] == "car" and found["box"] == [0, 0, 32, 32]
    stage = report["stages"]["propose"]
    assert stage["items"] == report["stages"]["preprocess"]["items"] and stage["busy_seconds"] > 0


@pytest.mark.usefixtures("corners")
def test_an_unknown_proposer_is_refused_with_those_that_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_regional(tmp_path / "m.onnx", {"proposer": "edge_boxes"})
    assert run_stream.main([STREET, "--model", str(model), "--out", "null:"]) == 4
    assert "'edge_boxes'; known are corners" in capsys.readouterr().err


def test_a_proposer_that_cannot_be_loaded_names_the_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "models.detection.proposers", None)
    model = write_regional(tmp_path / "m.onnx")
    assert run_stream.main([STREET, "--model", str(model), "--out", "null:"]) == 4
    assert "pip install" in capsys.readouterr().err


def test_what_cannot_be_is_refused_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector, pixels = write_model(tmp_path / "a.onnx"), write_semantic(tmp_path / "b.onnx")
    too_high = write_semantic(tmp_path / "c.onnx", more=7)
    cases: list[tuple[list[str], int, str]] = [
        ([str(detector)] * 2, 2, "both find objects"),
        ([str(pixels)] * 2, 2, "both say the class of every pixel"),
        ([str(detector), str(pixels), str(pixels)], 2, "one or two can run together"),
        ([str(too_high)], 4, "names 3 classes; export it again"),
    ]
    for models, code, says in cases:
        words = [word for model in models for word in ("--model", model)]
        assert run_stream.main([STREET, *words, "--out", "null:", "--quiet"]) == code
        assert says in capsys.readouterr().err.replace("\n", " ")
    outputs = [
        (detector, f"classes:{tmp_path}/maps/", "needs a model that says the class of every pixel"),
        (pixels, f"classes:{tmp_path}/maps.jsonl", "neither a folder/ nor an .mp4 or .mkv"),
        (pixels, f"classes:{tmp_path}/%H.mp4", "neither a folder/ nor an .mp4 or .mkv"),
    ]
    for model, out, says in outputs:
        assert run_stream.main([STREET, "--model", str(model), "--out", out]) == 2
        assert says in capsys.readouterr().err
    blur = ["--set", "render.blur=[all]", "--out", "null:"]
    assert run_stream.main([STREET, "--model", str(pixels), *blur]) == 2
    assert "finds no objects that could be blurred" in capsys.readouterr().err


def test_the_settings_take_one_model_or_a_list(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: [street, road.onnx]\n")
    assert load_settings(str(file)).model == ("street", "road.onnx")
    file.write_text("model: street\n")
    assert load_settings(str(file)).model == ("street",)


def test_every_bundled_model_has_a_name() -> None:
    zoo = Path(run_stream.__file__).parent / "models" / "zoo"
    assert {path.name for path in MODELS.values()} == {path.name for path in zoo.glob("*.onnx")}
    assert MODELS["street"] == zoo / "street.onnx"
