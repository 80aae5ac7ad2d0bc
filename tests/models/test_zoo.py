"""The shipped model file: every engine gives what torch gives from the same weights."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.detection.architectures import faster_rcnn
from models.detection.faster_rcnn import FasterRCNN
from models.model_file.reading import description
from models.model_file.weights_back import load_from_model_file
from models.quantization.origin import is_made_from
from pipeline.bookkeeping.score import TruthScore
from pipeline.engines import Engine, load_engine
from pipeline.engines.int8_form import choose_form
from pipeline.errors import EngineUnavailable
from pipeline.frame import Boxes, Detections, Truth
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.nms import class_aware
from pipeline.settings import EngineSettings
from pipeline.sources.street import STREET_CLASSES, Street
from tests.models.detectors import matched_share

STREET = Path(__file__).parents[2] / "models" / "zoo" / "street.onnx"
SEEDS, FRAMES_EACH = range(900, 910), 3
SCORE_FLOOR = 0.05

Images = npt.NDArray[np.uint8]


@lru_cache(maxsize=1)
def in_torch() -> FasterRCNN:
    model = faster_rcnn("mobilenet_v2_fpn").eval()
    load_from_model_file(model, STREET)
    return model.prepare((320, 576), output_form="candidates", nms_body="fixpoint")


@lru_cache(maxsize=1)
def drawn() -> tuple[list[Images], list[Truth]]:
    """Streets that training never saw, drawn at the network's own size, and their truth."""
    images, truths = [], []
    for seed in SEEDS:
        street = Street(seed=seed, size_hw=(320, 576), fps=25, seconds=8)
        for index in range(FRAMES_EACH):
            frame = street.frame(index * 45)
            images.append(frame.image)
            truth = Truth(frame.boxes, frame.class_ids, frame.ignored, STREET_CLASSES)
            truths.append(truth)
    return images, truths


def from_arrays(
    boxes: Boxes, scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Detections:
    found = Detections(boxes, scores, labels)
    return class_aware(found[scores >= SCORE_FLOOR], 0.5, 100)


def by_torch(image: Images) -> Detections:
    with torch.inference_mode():
        boxes, scores, labels, exact = in_torch()(torch.from_numpy(image[None]))
    assert bool(exact.all())
    return from_arrays(boxes[0].numpy(), scores[0].numpy(), labels[0].numpy())


@lru_cache(maxsize=1)
def reference() -> list[Detections]:
    return [by_torch(image) for image in drawn()[0]]


def by_engine(name: str, precision: str, images: list[Images]) -> list[Detections]:
    settings = EngineSettings(name=name, precision=precision)
    found = []
    with load_engine(bundled(), settings) as engine:
        for image in images:
            found.append(from_arrays(*answer(engine, image)))
    return found


def answer(engine: Engine, image: Images) -> list[npt.NDArray[Any]]:
    """Boxes, scores and labels of one image."""
    outputs = engine.infer(image[None])
    return [outputs[key][0] for key in ("boxes", "scores", "labels")]


def bundled() -> ModelFile:
    return read_model_file(STREET)


def share_matched(expected: list[Detections], found: list[Detections]) -> float:
    """Share of all detections with a partner: DESIGN's metric, weighted by their number."""
    shares, counts = [], []
    for a, b in zip(expected, found, strict=True):
        pair = [
            tuple(torch.from_numpy(array) for array in (d.boxes, d.class_ids, d.scores))
            for d in (a, b)
        ]
        shares.append(matched_share(*pair))
        counts.append(max(len(a), len(b)))
    return float(np.average(shares, weights=counts))


def ap50(found: list[Detections]) -> float:
    score = TruthScore()
    for detections, truth in zip(found, drawn()[1], strict=True):
        score.add(detections, truth, STREET_CLASSES)
    return float(score.report()["ap50"])


def test_the_bundled_model_says_what_it_is() -> None:
    model = bundled()
    assert model.class_names == STREET_CLASSES
    assert model.input_sizes_hw == ((320, 576), (224, 416))
    assert STREET.stat().st_size < 14e6
    provenance = description(STREET)["provenance"]
    assert {"architecture", "training_data", "date"} <= set(provenance)


def test_it_finds_its_way_in_streets_it_never_saw() -> None:
    assert ap50(reference()) > 0.5


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_finds_what_torch_finds_in_drawn_streets(engine: str) -> None:
    found = by_engine(engine, "f32", drawn()[0])
    assert share_matched(reference(), found) >= 0.99
    assert abs(ap50(found) - ap50(reference())) <= 0.001


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_finds_what_torch_finds_in_real_pictures(engine: str, shared_data: Path) -> None:
    pictures = sorted((shared_data / "det_highway_hand" / "images").glob("*.jpg"))
    assert len(pictures) == 15
    images = [cv2.resize(cv2.imread(str(p)), (576, 320))[..., ::-1].copy() for p in pictures]
    assert share_matched([by_torch(i) for i in images], by_engine(engine, "f32", images)) >= 0.99


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_finds_what_torch_finds_at_the_smaller_size(engine: str) -> None:
    images = [cv2.resize(image, (416, 224)) for image in drawn()[0][::3]]
    model = faster_rcnn("mobilenet_v2_fpn").eval()
    load_from_model_file(model, STREET)
    model.prepare((224, 416), output_form="candidates", nms_body="fixpoint")
    settings = EngineSettings(name=engine, precision="f32")
    with load_engine(bundled(), settings, all_sizes=True) as loaded:
        found = [from_arrays(*answer(loaded, image)) for image in images]
    with torch.inference_mode():
        wanted = [model(torch.from_numpy(image[None]))[:3] for image in images]
    reference = [from_arrays(*(part[0].numpy() for part in parts)) for parts in wanted]
    assert sum(map(len, reference)) > 20
    assert share_matched(reference, found) >= 0.99


def test_bf16_costs_at_most_half_a_point_of_average_precision() -> None:
    check = bundled().precision_check
    assert check is not None
    assert check["f32"] - check["bf16"] <= 0.005


def test_the_int8_file_finds_as_much_in_the_drawn_streets() -> None:
    model = read_model_file(STREET.with_name("street_int8.onnx"))
    assert model.arithmetic == "int8" and model.path.stat().st_size < 8e6
    assert model.input_sizes_hw == bundled().input_sizes_hw
    check = model.precision_check
    assert check is not None and check["original"] - check["f32"] <= 0.005
    # Where sums overflow in OpenVINO, that leaves it to ONNX Runtime.
    with load_engine(model, EngineSettings(precision="f32")) as engine:
        found = [from_arrays(*answer(engine, image)) for image in drawn()[0]]
    assert abs(ap50(found) - ap50(reference())) < 0.03


def test_where_sums_of_integers_overflow_another_engine_runs_the_int8_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.engines.ov.processor_flags", lambda: "avx2 sse2")
    model = read_model_file(STREET.with_name("street_int8.onnx"))
    with pytest.raises(
        EngineUnavailable, match=r"overflow in OpenVINO on this CPU .* its original"
    ):
        load_engine(model, EngineSettings(name="openvino"))
    with load_engine(model, EngineSettings()) as engine:
        assert (engine.name, engine.precision) == ("onnxruntime", "f32")
        assert "its 8-bit integers are multiplied in f32" in engine.reason
        found = [from_arrays(*answer(engine, image)) for image in drawn()[0]]
    assert abs(ap50(found) - ap50(reference())) < 0.03


@pytest.mark.parametrize("name", ["street", "road_segmentation"])
def test_the_int8_form_that_ships_belongs_to_the_file_beside_it(name: str) -> None:
    original, rounded = (STREET.with_name(f"{name}{end}.onnx") for end in ("", "_int8"))
    assert is_made_from(original, rounded)
    form = choose_form(read_model_file(original), "auto", "avx512_vnni", cpu_has_bf16=True)
    assert form.model.path == rounded, form.told


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(ValueError, match="does not hold this architecture"):
        load_from_model_file(faster_rcnn("mobilenet_v3_large_320_fpn"), STREET)
