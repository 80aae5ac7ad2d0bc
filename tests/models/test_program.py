"""Networks as programs of torch: they compute the same, and nothing in them waits for the host."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.hub import tqdm

from models import program as programs
from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.faster_rcnn import FasterRCNN
from models.detection.mask_rcnn import mask_rcnn
from models.export import main
from models.model_file.program_operators import roi_align_by_rows
from models.model_file.writing import Objects, description
from models.network import SEMANTIC_OUTPUTS
from models.papers import PAPERS
from models.pixels import Normalise
from models.program import to_program, what_waits, write_program
from pipeline.engines import load_engine
from pipeline.engines.program_graph import in_precision, on_device, read_program
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from tests.models.detectors import found_in, frames, matched_share, small_detector

pytestmark = pytest.mark.timeout(600)  # torch.export is slow where others compute

STREET = Path(__file__).parents[2] / "models" / "zoo" / "street.onnx"
SIZE_HW = (96, 128)
FEW_PASSES = 2  # of the fixpoint: each is traced, and all are alike


@pytest.fixture(scope="module", autouse=True)
def _no_progress_monitor():
    """torch.export makes progress bars, unseen ones; each starts a thread to watch over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)
        yield


@pytest.fixture(scope="module")
def detector():
    network = small_detector(SIZE_HW)
    return network.prepare(
        SIZE_HW, output_form="candidates", nms_body="fixpoint", nms_iterations=FEW_PASSES
    )


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory) -> ModelFile:
    """The detector as a program on disk."""
    path = tmp_path_factory.mktemp("program") / "detector.pt2"
    names = [f"class {i}" for i in range(detector.num_classes)]
    about = description(
        "detection", detector.outputs, SIZE_HW, names, "letterbox", {}, objects=Objects(0.05, 0.5)
    )
    write_program(to_program(detector, SIZE_HW), about, path)
    return read_model_file(path)


# RoIAlign


def loop_align(maps, boxes, image, output, sampling):
    rois = torch.cat([image[:, None].to(boxes), boxes], 1)
    return torchvision.ops.roi_align(maps, rois, output, 1.0, sampling, False)


@pytest.mark.parametrize(("output", "sampling"), [(7, 2), (14, 1), (3, 4)])
def test_roi_align_by_rows_is_torchvisions(output: int, sampling: int) -> None:
    chance = torch.Generator().manual_seed(4)
    maps = torch.randn(2, 5, 9, 13, generator=chance)
    corners = torch.rand(60, 2, 2, generator=chance).sort(1).values.reshape(60, 4)
    inside = corners * torch.tensor([13.0, 9.0, 13.0, 9.0])
    beyond = (corners - 0.3) * 30  # far outside of the map on every side
    thin = torch.tensor([[13.0, 9, 13, 9], [12.9, 0, 12.95, 9], [-1, -1, -1, -1], [0, 8.99, 13, 9]])
    boxes = torch.cat([inside, beyond, thin])
    image = torch.arange(len(boxes)) % 2
    wanted = loop_align(maps, boxes, image, output, sampling)
    found = roi_align_by_rows(maps, boxes, image, output, sampling)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_roi_align_of_no_boxes_is_empty() -> None:
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert roi_align_by_rows(torch.zeros(1, 5, 9, 13), *none, 7, 2).shape == (0, 5, 7, 7)


# The graph


def operators(graph) -> set[str]:
    return {str(node.target) for node in graph.nodes if node.op == "call_function"}


def test_the_programs_graph_is_free_of_our_operators_norms_and_waiting(file: ModelFile) -> None:
    program = torch.export.load(file.path)
    assert list(what_waits(program)) == []
    assert not [name for name in operators(program.graph) if "boxstream" in name or "norm" in name]


# Each takes half a minute, so one network stands for those made of the same parts.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("mobilenet_v3_large_320_fpn", "resnet50_fpn_v2"),
        *("ssdlite320_mobilenet_v3_large", "yolo_v2"),
    ],
)
def test_no_detector_waits_for_the_host(name: str) -> None:
    if name in ARCHITECTURES:
        network = faster_rcnn(name, 3).eval()
        network.prepare(SIZE_HW, nms_body="fixpoint", nms_iterations=FEW_PASSES)
    else:
        network = PAPERS[name](3).eval().prepare(SIZE_HW)
    program = to_program(network, SIZE_HW)  # refuses what waits
    assert not [name for name in operators(program.graph) if "boxstream" in name]


@pytest.mark.slow
def test_no_mask_rcnn_waits_for_the_host() -> None:
    network = mask_rcnn("mobilenet_v2_fpn", 3).eval()
    fixpoint = programs.NMS_BODIES["fixpoint"](FEW_PASSES)
    assert list(what_waits(to_program(network.prepare(SIZE_HW, nms=fixpoint), SIZE_HW))) == []


class Suppresses(nn.Module):
    """A network of nothing but suppression, in the form for CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()

    def forward(self, frames):
        boxes = self.normalise(frames).flatten(2).transpose(1, 2)[..., [0, 1, 2, 0]]
        return programs.NMS_BODIES["nonmaxsuppression"](1)(boxes, boxes[..., 0] > 0, None, 1, 0.5)


def test_suppression_by_a_loop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ranked_nms cannot be captured.*--nms fixpoint"):
        to_program(Suppresses(), (4, 6))


@pytest.mark.slow
def test_no_segmentation_network_waits_for_the_host() -> None:
    network = PAPERS["deeplab_v3_plus_slim"](5).eval().prepare(SIZE_HW)
    program = to_program(network, SIZE_HW)
    assert list(what_waits(program)) == []
    pixels = frames(1, SIZE_HW)
    with torch.no_grad():
        wanted, found = network(pixels)[0], program.module()(pixels)[0]
    assert (wanted == found).float().mean() > 0.999


class Asks(nn.Module):
    """Looks at its picture, and goes on by what it sees."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x):
        if self.how == "nonzero":
            return (torch.nonzero(x),)
        count = x.sum().item()
        torch._check(count >= 0)
        return (x * count,)


@pytest.mark.parametrize(("how", "name"), [("nonzero", "aten.nonzero"), ("item", "aten.item")])
def test_what_waits_for_the_host_is_found(how: str, name: str) -> None:
    program = torch.export.export(Asks(how), (torch.ones(2, 3, dtype=torch.int64),))
    assert name in set(what_waits(program.run_decompositions({})))


# What it finds


def engine(file: ModelFile, precision: str = "f32", **settings):
    asked = {"precision": precision, "threads": 1, "build": False} | settings
    return load_engine(file, EngineSettings(name="program", **asked))


def test_the_engine_finds_what_the_network_finds(detector, file: ModelFile) -> None:
    pixels = frames(3, SIZE_HW)
    with torch.no_grad():
        wanted = found_in(detector(pixels), "candidates")
    with engine(file, batch=3) as loaded:
        answer = loaded.infer(pixels.numpy())
        alone = loaded.infer(pixels[1:2].numpy())
    outputs = [torch.from_numpy(answer[name]) for name in detector.outputs]
    assert len(wanted[0][0]) > 5
    for one, other in zip(wanted, found_in(outputs, "candidates"), strict=True):
        assert matched_share(one, other) == 1.0
    np.testing.assert_allclose(alone["scores"][0], answer["scores"][1], atol=1e-5)


class Watch(torch.fx.Interpreter):
    """Runs a graph and writes down the types that each operator is given."""

    def __init__(self, module) -> None:
        super().__init__(module)
        self.given: dict[str, set[torch.dtype]] = {}

    def call_function(self, target, args, kwargs):
        types = {a.dtype for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()}
        name = getattr(target, "overloadpacket", target).__name__
        self.given.setdefault(name, set()).update(types)
        return super().call_function(target, args, kwargs)


def test_in_bf16_products_are_rounded_and_boxes_and_scores_are_not(
    detector, file: ModelFile
) -> None:
    watch = Watch(in_precision(torch, read_program(torch, file), "bf16"))
    pixels = frames(2, SIZE_HW)
    with torch.no_grad():
        boxes, scores, labels, _ = watch.run(pixels)
        exact = detector(pixels)
    for name in ("conv2d", "linear"):
        assert watch.given[name] == {torch.bfloat16}
    for name in ("sigmoid", "softmax", "exp", "embedding_bag", "gt", "minimum"):
        assert watch.given[name] == {torch.float32}, name
    assert boxes.dtype == scores.dtype == torch.float32 and labels.dtype == torch.int64
    best = exact[1][0, 0]
    assert 0 < (scores[0, 0] - best).abs() < 0.1  # rounded, and not by much


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_on_a_gpu_nothing_of_the_graph_is_left_on_the_host(file: ModelFile, precision: str) -> None:
    """On tensors without numbers, which torch lets be on a GPU that is not there."""
    module = in_precision(torch, read_program(torch, file), precision)
    stays = next(n for n in module.graph.nodes if str(n.target) == "aten.arange.start_step")
    assert stays.kwargs["device"] == torch.device("cpu")
    module.to = lambda device: module
    module = on_device(torch, module, "cuda")
    with FakeTensorMode(), torch.no_grad():
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        there = {
            name: torch.empty(one.shape, dtype=one.dtype, device="cuda")
            for name, one in state.items()
        }
        pixels = torch.empty(2, *SIZE_HW, 3, dtype=torch.uint8, device="cuda")
        outputs = torch.func.functional_call(module, there, (pixels,))
    # Two devices in one operator, or a number that the host would have to see, are errors above.
    assert {one.device.type for one in outputs} == {"cuda"}


# Files


def test_a_program_says_what_an_onnx_file_says(file: ModelFile, detector) -> None:
    assert file.is_program and file.outputs == detector.outputs
    assert (file.task, file.output_form, file.score_threshold) == ("detection", "candidates", 0.05)
    assert file.input_size_hw == SIZE_HW
    assert not list(file.path.parent.glob("*.part*"))


def test_what_a_program_has_not_is_told_before_anything_is_loaded(capsys) -> None:
    words = ["mobilenet_v2_fpn", "--weights", "none.pt", "--out", "x.pt2", "--size", "64x64"]
    for more, said in (
        (["--size", "32x32"], "--size: a program"),
        (["--half"], "--half: the weights of a program"),
        (["--nms", "nonmaxsuppression"], "--nms: a program"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err


def test_a_file_that_does_not_name_its_network_is_refused(tmp_path: Path, capsys) -> None:
    from tests.pipeline.model_files import write_model

    onnx_file = write_model(tmp_path / "m.onnx")
    assert programs.main([str(onnx_file), "--out", str(tmp_path / "m.pt2")]) == 4
    assert "does not say which network it is" in capsys.readouterr().err
    assert programs.main([str(tmp_path / "none.onnx"), "--out", str(tmp_path / "m.pt2")]) == 4


@pytest.mark.slow
def test_the_bundled_detector_as_a_program_finds_what_its_onnx_file_finds(tmp_path: Path) -> None:
    from pipeline.sources.street import Street

    out = tmp_path / "street.pt2"
    assert programs.main(["street", "--out", str(out)]) == 0
    street = Street(seed=905, size_hw=(320, 576), fps=1.0, seconds=8.0)
    images = np.stack([street.frame(i * 2).image for i in range(3)])
    with engine(read_model_file(out)) as ours:
        mine = [ours.infer(images[i : i + 1]) for i in range(3)]
    asked = EngineSettings(name="onnxruntime", threads=1)
    with load_engine(read_model_file(STREET), asked) as theirs:
        for i, found in enumerate(mine):
            wanted = theirs.infer(images[i : i + 1])
            sides = [
                found_in([torch.from_numpy(one[n]) for n in theirs.model.outputs], "candidates")
                for one in (wanted, found)
            ]
            assert len(sides[0][0][0]) > 10
            assert matched_share(sides[0][0], sides[1][0]) == 1.0


def test_a_program_of_a_model_file_looks_at_as_many_boxes_as_that() -> None:
    (entry,) = onnx.load(STREET).metadata_props
    network = programs.network_of(STREET, json.loads(entry.value))
    assert isinstance(network, FasterRCNN)
    assert (network.rpn.settings.pre_nms, network.rpn.settings.post_nms) == (150, 100)


def test_a_semantic_program_needs_no_numbers_of_objects(tmp_path: Path) -> None:
    from tests.models.tiny import TinySegmenter

    network = TinySegmenter(3).eval().prepare((16, 24))
    about = description(
        "semantic", SEMANTIC_OUTPUTS, (16, 24), ["a", "b", "c"], "stretch", {}, objects=None
    )
    path = tmp_path / "tiny.pt2"
    write_program(to_program(network, (16, 24)), about, path)
    pixels = frames(2, (16, 24))
    with engine(read_model_file(path), batch=2) as loaded:
        found = loaded.infer(pixels.numpy())["classes"]
    with torch.no_grad():
        assert (found == network(pixels)[0].numpy()).mean() > 0.99
