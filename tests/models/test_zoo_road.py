"""The shipped model of road scenes: what it is, what it finds, and that engines agree on it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.data.masks import read_masks
from models.data.road_classes import ROAD_CLASSES, ROAD_NAMES
from models.judging.segmentation_scores import evaluate_segmentation
from models.judging.segmenters import InWordsOf, load_segmenter
from models.model_file.reading import description
from models.model_file.weights_back import load_from_model_file
from models.papers import PAPERS
from pipeline.engines import load_engine
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from pipeline.sources.street import Street
from pipeline.sources.street.pixel_classes import PIXEL_CLASSES

FILE = Path(__file__).parents[2] / "models" / "zoo" / "road_segmentation.onnx"
SIZE_HW = (288, 512)
SEEDS = range(900, 906)

Images = npt.NDArray[np.uint8]


@lru_cache(maxsize=1)
def drawn() -> tuple[list[Images], list[Images]]:
    """Pictures and classes of streets that training never saw, at the network's own size."""
    frames = [Street(s, SIZE_HW, 5.0, 4.0).frame(7, labelled=True) for s in SEEDS]
    return [f.image for f in frames], [f.classes for f in frames]


@lru_cache(maxsize=1)
def in_torch() -> Any:
    network = PAPERS["deeplab_v3_plus_slim"](len(ROAD_NAMES)).eval()
    load_from_model_file(network, FILE)
    return network.prepare(SIZE_HW)


def bundled() -> ModelFile:
    return read_model_file(FILE)


def by_engine(name: str, precision: str) -> Images:
    """(N, H, W) classes of the drawn streets."""
    with load_engine(bundled(), EngineSettings(name=name, precision=precision)) as engine:
        return np.concatenate([engine.infer(image[None])["classes"] for image in drawn()[0]])


def test_it_says_what_it_is_and_is_small() -> None:
    model = bundled()
    assert model.is_semantic and model.input_sizes_hw == (SIZE_HW,)
    assert tuple(model.class_names) == ROAD_NAMES == PIXEL_CLASSES
    assert FILE.stat().st_size < 15e6
    provenance = description(FILE)["provenance"]
    assert {"architecture", "training_data", "date"} <= set(provenance)
    assert "camvid" not in str(provenance).lower()  # its terms are non-commercial


def test_it_knows_the_ground_the_sky_and_the_cars_of_streets_it_never_saw() -> None:
    found, known = by_engine("onnxruntime", "f32"), np.stack(drawn()[1])
    for name, least in (("road", 0.9), ("sky", 0.9), ("building", 0.7), ("car", 0.7)):
        is_it, should = (classes == ROAD_NAMES.index(name) for classes in (found, known))
        assert (is_it & should).sum() / (is_it | should)[known != 255].sum() > least, name


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_gives_the_classes_that_torch_gives(engine: str) -> None:
    with torch.inference_mode():
        (expected,) = in_torch()(torch.from_numpy(np.stack(drawn()[0])))
    assert (by_engine(engine, "f32") == expected.numpy()).mean() > 0.999


def test_on_a_real_highway_it_sees_road_below_and_sky_above(shared_data: Path) -> None:
    with av.open(str(shared_data / "videos" / "highway_day_1280x720_25fps_mpeg4.mp4")) as clip:
        frame = next(clip.decode(video=0)).to_ndarray(format="rgb24")
    classes = load_segmenter(str(FILE)).segment(frame)
    height, width = classes.shape
    road, sky = (ROAD_NAMES.index(name) for name in ("road", "sky"))
    lane = classes[int(0.75 * height) : int(0.85 * height), int(0.4 * width) : int(0.6 * width)]
    assert (lane == road).mean() > 0.95
    assert (classes[: int(0.2 * height)] == sky).mean() > 0.5
    assert (classes[int(0.7 * height) :] == sky).mean() < 0.01


def test_it_does_well_on_a_city_that_it_never_saw(shared_data: Path) -> None:
    entries = read_masks(str(shared_data / "seg_camvid" / "val"))
    merge: dict[str, list[str]] = {}
    for one in ROAD_CLASSES:
        if one.camvid not in (None, one.name):
            merge.setdefault(str(one.camvid), []).append(one.name)
    judged = InWordsOf(load_segmenter(str(FILE), "openvino"), entries.class_names, merge)
    figures = evaluate_segmentation(judged, entries.entries[::10])
    classes = {name: row["IoU"] for name, row in figures["classes"].items()}
    assert figures["pixel_accuracy"] > 0.75
    assert classes["road"] > 0.75 and classes["sky"] > 0.8 and classes["car"] > 0.4


@pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(), reason="this processor has no bf16"
)
def test_bf16_changes_few_pixels() -> None:
    assert (by_engine("openvino", "bf16") == by_engine("openvino", "f32")).mean() > 0.98


def test_its_palette_tells_its_classes_apart() -> None:
    colours = cv2.cvtColor(np.array([bundled().palette], np.uint8), cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(colours[:, None].astype(int) - colours[None].astype(int), axis=-1)
    assert (apart + 1000 * np.eye(len(colours))).min() > 8
