"""The ladder: it trains every rung, goes on where it stopped, times the parts, writes tables."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

from models.data.labelled import parse_share
from models.data.mask_batches import MaskBatches
from models.data.masks import read_masks
from models.judging.segmenters import load_segmenter
from models.ladder import __main__ as ladder
from models.ladder import timing as ladder_timing
from models.ladder import training as ladder_training
from models.ladder.judging import CRFSegmenter, is_deeplab_v1
from models.ladder.report import detection_tables, markdown_of, segmentation_tables
from models.ladder.rungs import DETECTION, LADDERS, SEGMENTATION, small
from models.ladder.scenes import CLASSES, scene, write_scenes
from models.ladder.timing import PARTS, PhaseClock, measure, watched
from models.ladder.training import (
    Run,
    claim,
    is_staged,
    pictures_once,
    train,
    training_seconds,
)
from models.model_file.writing import merge_overlap
from models.training.starting_weights import SettingsError


@pytest.fixture(autouse=True)
def one_thread():
    # Tiny tensors; on a busy machine threads would mostly wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _no_progress_monitor():
    """torch.export makes progress bars, unseen ones; each starts a thread to watch over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)
        yield


def climb(out: Path, which: str, *words: str) -> None:
    common = ["--small", "--out", str(out), "--workers", "0", "--threads", "1"]
    ladder.main([which, *common, *words])


def test_boxes_and_masks_of_a_scene_tell_the_same():
    rng = np.random.default_rng(3)
    for _ in range(5):
        image, labels, objects = scene((60, 80), rng)
        assert len(objects) == 2
        drawn = np.zeros((60, 80), np.uint8)
        for class_id, (x, y, width, height) in objects:
            drawn[y : y + height, x : x + width] = class_id
            assert (image[y + 1, x + 1] == list(CLASSES.values())[class_id - 1]).all()
        assert np.array_equal(drawn, labels)


def test_scenes_are_written_once_and_repeat(tmp_path):
    write_scenes(tmp_path / "a", 2, (48, 64), seed=1)
    write_scenes(tmp_path / "b", 2, (48, 64), seed=1)
    a, b = (tmp_path / part / "images" / "002.png" for part in "ab")
    assert a.read_bytes() == b.read_bytes()
    a.unlink()
    write_scenes(tmp_path / "a", 2, (48, 64), seed=1)
    assert not a.exists()


def test_a_picture_takes_its_boxes_and_regions_along(tmp_path):
    write_scenes(tmp_path, 1, (48, 64), seed=2)
    content = json.loads((tmp_path / "instances.json").read_text())
    x, y, width, height = content["annotations"][0]["bbox"]
    regions = {"001.png": np.array([[x, y, x + width, y + height]], np.float32)}
    words = f"{tmp_path}/instances.json:{tmp_path}/images"
    share = parse_share(words, tuple(CLASSES), regions)
    (batch,) = pictures_once(share.entries, (128, 128), 9)
    assert batch.frames.shape == (1, 128, 128, 3) and batch.regions is not None
    # Twice as large, and 16 pixels down: grey bars above and below.
    expected = torch.tensor([[2.0 * x, 2 * y + 16, 2 * (x + width), 2 * (y + height) + 16]])
    assert torch.equal(batch.regions[0], expected)
    assert torch.equal(batch.truths[0].boxes[:1], expected)
    assert (batch.frames[0, :15] == 114).all()


def test_steps_that_were_repeated_after_a_kill_count_once(tmp_path):
    rows = "step,loss,processor_seconds_per_step\n50,1,0.5\n100,1,1.0\n100,1,2.0\n120,1,0.1\n"
    (tmp_path / "losses.csv").write_text(rows)
    assert training_seconds(tmp_path) == pytest.approx(50 * 0.5 + 50 * 2.0 + 20 * 0.1)


def test_a_folder_of_another_rung_is_refused(tmp_path):
    claim(tmp_path / "rung", {"steps": 4})
    claim(tmp_path / "rung", {"steps": 4})
    with pytest.raises(SettingsError, match="other settings"):
        claim(tmp_path / "rung", {"steps": 5})


class Slow(nn.Module):
    """A part that takes so many seconds of a clock that the test moves."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, value: int) -> int:
        self.clock[0] += self.seconds
        return value


class Parts(nn.Module):
    """Crops and trunk two times over, proposals, head, and something in between."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock
        self.backbone, self.rpn = Slow(clock, 10.0), Slow(clock, 3.0)
        self.hidden, self.last = Slow(clock, 5.0), Slow(clock, 0.5)
        self.warp = self.cut

    def cut(self, value: int) -> int:
        self.clock[0] += 1.0
        return value

    def forward(self, value: int) -> int:
        for _ in range(2):
            value = self.backbone(self.warp(value))
        self.rpn(value)
        return self.last(self.hidden(value))


def test_the_clock_gives_each_part_its_own_seconds_and_leaves_the_network_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ladder_timing.time, "process_time", lambda: now[0])
    network = Parts(now)
    clock = PhaseClock()
    with watched(network, clock):
        clock.switch("features")
        assert network(7) == 7
    clock.switch("merge")
    now[0] += 0.25
    clock.switch("merge")
    assert clock.seconds == {"features": 22.0, "proposals": 3.0, "heads": 5.5, "merge": 0.25}
    assert network.warp == network.cut
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


@pytest.mark.parametrize("name", DETECTION)
def test_the_parts_of_every_detector_are_told_apart(name):
    torch.manual_seed(0)
    rung = small(DETECTION[name])
    network = rung.network(2).eval()
    picture, _, _ = scene((96, 128), np.random.default_rng(0))
    seconds = measure(network, [picture], rung.size_hw, merge_overlap(network))
    assert seconds["total"] == pytest.approx(sum(seconds[part] for part in PARTS))
    assert seconds["features"] > 0 and seconds["heads"] > 0 and seconds["merge"] > 0
    assert (seconds["proposals"] > 0) == (name != "overfeat")
    assert is_staged(network) == (name in ("rcnn", "sppnet"))


def test_only_deeplab_v1_has_its_crf_and_it_smooths():
    torch.manual_seed(0)
    has_crf = [name for name, r in SEGMENTATION.items() if is_deeplab_v1(r.network(3))]
    assert has_crf == ["deeplab_v1"]
    network = SEGMENTATION["deeplab_v1"].network(3).eval()
    picture, _, _ = scene((48, 64), np.random.default_rng(1))
    found = CRFSegmenter(network, ("a", "b", "c")).segment(picture)
    assert found.shape == (48, 64) and found.dtype == np.uint8


def detector_result(title: str, seconds: float, minutes: float) -> dict[str, object]:
    parts = {**dict.fromkeys(PARTS, seconds / 4), "total": seconds}
    scores = dict.fromkeys(("AP", "AP50", "VOC_11_points", "VOC_all_points"), 0.5)
    training = {"steps": 60 * minutes, "total": 60 * minutes}
    return {
        "title": title, **scores, "seconds": parts, "training": training, "parameters": 10**6,
    }  # fmt: skip  # a table


def test_ratios_stand_beside_the_published_ones():
    results = {
        "rcnn": detector_result("R-CNN", 10.0, 100.0),
        "fast_rcnn": detector_result("Fast R-CNN", 2.5, 20.0),
    }
    _, (_, time), (head, training) = detection_tables(results)
    assert time[1][-6:-3] == ["2.500", "0.25", "0.0469"]  # 2.3 of 49 s
    assert time[1][-3:] == ["1.875", "0.25", "0.00681"]  # 0.32 of 47 s, without proposals
    assert training[1][-3:] == ["20.0", "0.2", "0.113"]  # 9.5 of 84 h
    without = detection_tables({"fast_rcnn": results["fast_rcnn"]})
    assert without[1][1][0][-2] == "-"
    lines = markdown_of(head, training).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4


def test_a_class_that_never_occurs_has_no_figure_and_the_crf_a_row_of_its_own():
    scores = {"mIoU": 0.5, "pixel_accuracy": 0.9, "classes": {"road": 0.5, "sky": -1.0}}
    one = {
        "title": "DeepLab v1", **scores, "parameters": 10**6,
        "milliseconds": {"torch": 10.0, "openvino": 5.0}, "training": {"total": 60.0},
        "CRF": {**scores, "milliseconds": 100.0},
    }  # fmt: skip  # a table
    (head, rows), (_, by_class) = segmentation_tables({"deeplab_v1": one})
    assert [row[0] for row in rows] == ["DeepLab v1", "DeepLab v1 + CRF"]
    assert {len(row) for row in rows} == {len(head)}
    assert by_class[0] == ["DeepLab v1", "50.0", "-"]


def test_a_killed_climb_goes_on_without_doing_anything_twice(tmp_path, monkeypatch):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(ladder_training, "fit_svms", killed)  # features lie on disk by then
        climb(tmp_path, "detection", "--only", "sppnet")
    assert not (tmp_path / "sppnet" / "result.json").exists()
    with monkeypatch.context() as watching:
        for part in ("fit_model", "cache_features"):
            watching.setattr(ladder_training, part, killed)
        climb(tmp_path, "detection", "--only", "sppnet")
    figures = json.loads((tmp_path / "detection.json").read_text())["rungs"]["sppnet"]
    assert set(figures["training"]) >= {"steps", "features", "svms", "regressors", "total"}
    assert not (tmp_path / "sppnet" / "features").exists()
    with monkeypatch.context() as watching:
        watching.setattr(ladder, "train", killed)
        climb(tmp_path, "detection", "--only", "sppnet")
    chart = cv2.imread(str(tmp_path / "detection.png"))
    assert chart is not None and chart.shape[0] > 100


def test_a_semantic_rung_is_timed_in_every_engine(tmp_path):
    climb(tmp_path, "segmentation", "--only", "fcn32s", "--export")
    figures = json.loads((tmp_path / "segmentation.json").read_text())
    one = figures["rungs"]["fcn32s"]
    assert set(one["milliseconds"]) == {"torch", "onnxruntime", "openvino"}
    assert all(ms > 0 for ms in one["milliseconds"].values())
    assert set(one["classes"]) == {"ground", *CLASSES} and 0 <= one["mIoU"] <= 1
    assert figures["about"]["torch"] == torch.__version__.partition("+")[0]
    assert "| FCN-32s |" in (tmp_path / "segmentation.md").read_text()
    written = load_segmenter(str(tmp_path / "fcn32s" / "fcn32s.onnx"))
    picture, _, _ = scene((96, 128), np.random.default_rng(0))
    assert list(written.class_names) == ["ground", *CLASSES]
    assert written.segment(picture).shape == (96, 128)


def test_the_report_has_all_rungs_that_were_climbed_with_these_settings(
    tmp_path, monkeypatch, capsys
):
    def figures(climb: ladder.Climb, *_: object) -> dict[str, object]:
        scores = {"mIoU": 0.5, "pixel_accuracy": 0.9, "classes": dict.fromkeys(CLASSES, 0.5)}
        times = dict.fromkeys(climb.engines, 2.0)
        return {**scores, "parameters": 1, "milliseconds": times, "training": {"total": 60.0}}

    monkeypatch.setattr(ladder, "climb_segmentation", figures)
    climb(tmp_path, "segmentation", "--only", "unet", "fcn16s", "--engines", "torch")
    climb(tmp_path, "segmentation", "--only", "fcn32s", "--engines", "torch", "openvino")
    report = tmp_path / "segmentation.json"
    assert list(json.loads(report.read_text())["rungs"]) == ["fcn32s", "fcn16s", "unet"]
    rows = (tmp_path / "segmentation.md").read_text().splitlines()
    assert rows[2:4] == [  # no time was taken of the second in OpenVINO
        "| FCN-32s | 50.0 | 90.0 | 0.00 | 2.0 | 2.0 | 1.0 |",
        "| FCN-16s | 50.0 | 90.0 | 0.00 | 2.0 | - | 1.0 |",
    ]
    capsys.readouterr()
    climb(tmp_path, "segmentation", "--only", "fcn8s", "--precision", "bf16")
    assert list(json.loads(report.read_text())["rungs"]) == ["fcn8s"]
    assert "other settings: fcn32s, fcn16s, unet" in " ".join(capsys.readouterr().out.split())


def test_a_killed_training_goes_on_with_a_log_without_halves(tmp_path):
    write_scenes(tmp_path / "scenes", 2, (48, 64), seed=1)
    sets = [read_masks(str(tmp_path / "scenes"))]
    rung = replace(small(SEGMENTATION["fcn32s"]), steps=2, size_hw=(48, 64))
    run = Run(sets[0].class_names, None, workers=0, every=1)
    data = MaskBatches(sets, [rung.size_hw], rung.batch, rung.steps)
    train(rung, run, data, tmp_path)
    whole = (tmp_path / "losses.csv").read_text()
    with (tmp_path / "losses.csv").open("a") as killed:
        killed.write("3,1.")
    train(rung, run, data, tmp_path)
    assert (tmp_path / "losses.csv").read_text() == whole


def test_wrong_words_are_told(tmp_path, capsys):
    for words in (["detection"], ["detection", "--data", "a:b"], ["detection", "--only", "vgg"]):
        with pytest.raises(SystemExit):
            ladder.parse_arguments([*words, "--out", str(tmp_path)])
    small_one = ["segmentation", "--small", "--out", str(tmp_path), "--only", "rcnn"]
    with pytest.raises(SystemExit):
        ladder.parse_arguments(small_one)
    assert "no rung 'rcnn'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", LADDERS)
def test_the_whole_small_ladder_is_climbed(which, tmp_path):
    climb(tmp_path, which, "--engines", "torch")
    figures = json.loads((tmp_path / f"{which}.json").read_text())["rungs"]
    assert list(figures) == list(LADDERS[which])
    score = "AP50" if which == "detection" else "mIoU"
    assert all(0 <= one[score] <= 1 for one in figures.values())
