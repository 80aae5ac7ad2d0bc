"""Networks of every task as model files, run by the line's own engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.hub import tqdm

from models import papers
from models.detection.roi import DetectionSettings
from models.export import main
from models.model_file.reading import description
from models.model_file.writing import Objects, export_network
from models.network import DETECTION_OUTPUTS, INSTANCE_OUTPUTS
from models.onnx_lint import lint
from models.pixels import Normalise
from models.segmentation.semantic import SemanticNetwork
from pipeline.engines import load_engine
from pipeline.engines.trt_graph import operators, static_graph
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings
from tests.models.detection.test_mask_training import SIZE as MASKS_HW
from tests.models.detection.test_mask_training import tiny as tiny_mask_rcnn
from tests.pipeline.model_files import ENGINES

SIZE_HW = (33, 41)
REGIONS = 5


@pytest.fixture(scope="module", autouse=True)
def _no_progress_monitor():
    """torch.export makes progress bars, unseen ones; each starts a thread to watch over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)
        yield


class Pixels(SemanticNetwork):
    """One convolution of stride 2."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.convolution = nn.Conv2d(3, num_classes, 3, stride=2, padding=1)

    def scores(self, images: Tensor) -> Tensor:
        return self.convolution(images)


class Regional(nn.Module):
    """Finds whatever it is told of, surer in bright pictures."""

    task = "detection"
    outputs = DETECTION_OUTPUTS
    num_classes = 2
    proposer = "grid"
    regions = REGIONS
    settings = DetectionSettings(iou=0.3)

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()

    def prepare(self, frame_hw: Any) -> Regional:
        return self

    def forward(self, frames: Tensor, regions: Tensor) -> tuple[Tensor, ...]:
        filled = (regions[..., 2:] > regions[..., :2]).all(-1)
        bright = frames.float().mean((1, 2, 3)) / 255
        scores = torch.where(filled, bright[:, None], 0.0)
        return regions * 1.0, scores, filled.long(), bright < 2


class RegionalByStar(Regional):
    """The same, with its arguments written as `models.network.Network` writes them."""

    def forward(self, frames: Tensor, *regions: Tensor) -> tuple[Tensor, ...]:
        return super().forward(frames, regions[0])


class Masked(Regional):
    """The whole frame, with a mask."""

    task = "instance"
    outputs = INSTANCE_OUTPUTS
    proposer = None
    regions = 0

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        bright = frames.float().mean((1, 2, 3))[:, None] / 255
        boxes = torch.tensor([0.0, 0.0, 41.0, 33.0]) + 0 * bright[..., None]
        masks = bright[..., None, None] + torch.zeros(1, 1, 28, 28)
        found = (bright > 0).long()
        return boxes, bright, 0 * found, found[:, 0], bright[:, 0] < 2, masks


def frames(n: int) -> Tensor:
    return torch.randint(
        0, 256, (n, *SIZE_HW, 3), dtype=torch.uint8, generator=torch.manual_seed(3)
    )


def answers(path: Path, engine: str, *given: Tensor) -> dict[str, np.ndarray]:
    settings = EngineSettings(name=engine, precision="f32", batch=len(given[0]))
    with load_engine(read_model_file(path), settings) as loaded:
        return loaded.infer(*(array.numpy() for array in given))


@pytest.mark.parametrize("half", [False, True])
def test_a_semantic_network_says_in_the_line_what_it_says_in_torch(
    tmp_path: Path, half: bool
) -> None:
    torch.manual_seed(0)
    network, path = Pixels(), tmp_path / "pixels.onnx"
    palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    export_network(network, path, SIZE_HW, list("abc"), palette=palette, half_weights=half)
    with torch.no_grad():
        expected = network(frames(3))[0].numpy()
    assert len(np.unique(expected)) == 3
    for engine in ENGINES:
        found = answers(path, engine, frames(3))
        assert list(found) == ["classes"] and found["classes"].dtype == np.uint8
        assert np.mean(found["classes"] == expected) > (0.97 if half else 0.999)
    model = read_model_file(path)
    assert (model.task, model.output_form) == ("semantic", "classes")
    assert lint(path) == []
    assert model.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


@pytest.mark.parametrize("kind", [Regional, RegionalByStar])
def test_a_network_with_a_proposer_takes_its_regions(tmp_path: Path, kind: type[Regional]) -> None:
    network, path = kind(), tmp_path / "regions.onnx"
    export_network(network, path, SIZE_HW, ["a", "b"], objects=Objects(score_threshold=0.2))
    model = read_model_file(path)
    assert (model.proposer, model.regions, model.score_threshold) == ("grid", REGIONS, 0.2)
    assert (model.output_form, model.nms_iou) == ("candidates", 0.3)
    regions = torch.rand(2, REGIONS, 4) * 10
    for engine in ENGINES:
        found = answers(path, engine, frames(2), regions)
        for name, expected in zip(network.outputs, network(frames(2), regions), strict=True):
            np.testing.assert_allclose(found[name], expected.numpy(), rtol=1e-5)


def test_a_network_of_masks_gives_them_after_suppression(tmp_path: Path) -> None:
    network, path = Masked(), tmp_path / "masks.onnx"
    export_network(network, path, SIZE_HW, ["a", "b"])
    assert read_model_file(path).output_form == "detections"
    for engine in ENGINES:
        found = answers(path, engine, frames(2))
        for name, expected in zip(network.outputs, network(frames(2)), strict=True):
            np.testing.assert_allclose(found[name], expected.numpy(), rtol=1e-5)


@pytest.mark.timeout(600)  # exports take long on busy machines
def test_a_mask_rcnn_for_tensorrt_has_no_shapes_that_depend_on_data(tmp_path: Path) -> None:
    network, path = tiny_mask_rcnn(), tmp_path / "masks.onnx"
    export_network(network, path, MASKS_HW, list("abc"), nms_body="fixpoint")
    model = read_model_file(path)
    assert description(path)["nms_body"] == "fixpoint"
    assert "NonMaxSuppression" not in set(operators(static_graph(model, MASKS_HW)))
    assert lint(path) == []
    given = torch.randint(0, 256, (2, *MASKS_HW, 3), dtype=torch.uint8)
    with torch.inference_mode():
        static = network(given)
        greedy = network.prepare(MASKS_HW)(given)
    assert static[3].min() > 5
    for one, other in zip(static, greedy, strict=True):
        assert torch.equal(one, other)
    found = answers(path, "onnxruntime", given)
    best = found["scores"][:, :20]  # an untrained network is sure of nothing: many are nearly equal
    np.testing.assert_allclose(best, static[1][:, :20].numpy(), atol=1e-4)


def test_names_and_colours_must_be_as_many_as_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 classes need names"):
        export_network(Pixels(), tmp_path / "m.onnx", SIZE_HW, ["a"])
    with pytest.raises(ValueError, match="3 classes need colours"):
        export_network(Pixels(), tmp_path / "m.onnx", SIZE_HW, list("abc"), palette=[[0, 0, 0]])
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_any_paper_from_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(papers.PAPERS, "pixels", Pixels)
    torch.manual_seed(0)
    weights, out = tmp_path / "weights.pt", tmp_path / "m.onnx"
    torch.save({"model": Pixels(2).state_dict()}, weights)
    words = ["pixels", "--weights", str(weights), "--size", "33x41", "--out", str(out)]
    assert main([*words, "--names", "road,sky", "--palette", "128,64,128/70,130,180"]) == 0
    model = read_model_file(out)
    assert model.class_names == ("road", "sky")
    assert model.palette == ((128, 64, 128), (70, 130, 180))
    assert description(out)["provenance"]["architecture"] == "pixels"
    capsys.readouterr()
    for more, code, says in (
        ([], 2, "--names is needed"),
        (["--names", "road,sky", "--palette", "1,2,3"], 2, "--palette gives 1 colours"),
        (["--names", "road,sky", "--nms", "fixpoint"], 2, "a pixels suppresses nothing"),
        (["--names", "road,sky,car"], 4, "does not hold a pixels of 3 classes"),
    ):
        assert main([*words, *more]) == code
        assert says in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--names", "road,sky", "--palette", "1,2,300/1,2,3"])
    assert "colours are R,G,B" in capsys.readouterr().err
