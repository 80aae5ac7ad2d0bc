"""Faster R-CNN on one map: the paper's anchors, odd sizes, every engine, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch.hub import tqdm

from models import export, papers
from models.anchors import AnchorGrid
from models.backbones.features import SingleMap
from models.backbones.resnet import resnet18
from models.detection.faster_rcnn import FasterRCNN
from models.detection.joint_training import inside
from models.detection.region_pooling import RoIMaxPool
from models.detection.roi import TwoLayerHead
from models.detection.rpn import ProposalSettings
from models.detection.single_map import ANCHOR_PIXELS, assemble, faster_rcnn_c4
from models.model_file.onnx_file import to_onnx
from models.onnx_lint import lint
from tests.models.detection import toys
from tests.models.detectors import enliven, found_in, frames, matched_share


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More are slower on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(pool: RoIMaxPool | None = None) -> FasterRCNN:
    """Four convolutions, 4x4 bins, anchors for toys of 20 to 60 pixels."""
    torch.manual_seed(0)
    pool = pool or RoIMaxPool(16, 4)
    network = assemble(
        SingleMap(toys.tiny_trunk()),
        TwoLayerHead(64 * 16, 64),
        64,
        pool,
        num_classes=len(toys.COLOURS),
        anchor_pixels=(20, 34, 56),
        resize=None,
        proposals=ProposalSettings(pre_nms=150, post_nms=60),
    )
    network.proposing = replace(network.proposing, pre_nms=150, post_nms=60)
    return network


def test_the_nine_anchors_have_the_areas_and_ratios_of_the_paper():
    cell = AnchorGrid((ANCHOR_PIXELS,)).cell(0)
    wide, high = (cell[:, 2] - cell[:, 0]).tolist(), (cell[:, 3] - cell[:, 1]).tolist()
    found = {
        (round((w * h) ** 0.5 / 128) * 128, round(2 * h / w) / 2 if h > w / 1.5 else 0.5)
        for w, h in zip(wide, high, strict=True)
    }
    assert found == {(side, ratio) for side in (128, 256, 512) for ratio in (0.5, 1.0, 2.0)}
    for w, h in zip(wide, high, strict=True):
        assert min(abs(w * h / side**2 - 1) for side in (128, 256, 512)) < 0.02


def test_one_anchor_set_lies_on_every_sixteenth_pixel():
    network = faster_rcnn_c4("mobilenet_v2", 3, resize=None).eval()
    network.prepare((70, 100))
    (anchors,) = network.size.anchors
    middles = ((anchors[:, :2] + anchors[:, 2:]) / 2).reshape(96 // 16, 128 // 16, 9, 2)
    assert torch.equal(middles[2, 3].mean(0), torch.tensor([48.0, 32.0]))


@pytest.mark.parametrize(
    ("backbone", "pooling"), [("resnet50", "max"), ("mobilenet_v2", "max"), ("resnet50", "align")]
)
def test_frames_of_odd_sizes_give_slots_within_them(backbone, pooling):
    torch.manual_seed(0)
    settings = ProposalSettings(pre_nms=100, post_nms=8)
    network = faster_rcnn_c4(backbone, 5, resize=None, pooling=pooling, proposals=settings).eval()
    network.prepare((75, 101), output_form="candidates")
    with torch.inference_mode():
        boxes, scores, labels, exact = network(frames(2, (75, 101)))
    assert boxes.shape == (2, 40, 4)
    assert scores.shape == labels.shape == (2, 40)
    assert exact.shape == (2,)
    assert bool((boxes[..., 2] <= 101).all())
    assert bool((boxes[..., 3] <= 75).all())


def test_vgg_has_the_layers_of_the_paper():
    with torch.device("meta"):
        state = faster_rcnn_c4("vgg16", 20).state_dict()
    assert state["rpn.head.conv.0.0.weight"].shape == (512, 512, 3, 3)
    assert state["rpn.head.cls_logits.weight"].shape[0] == 9
    assert state["roi_heads.box_head.layers.fc6.weight"].shape == (4096, 512 * 49)
    assert state["roi_heads.box_predictor.bbox_pred.weight"].shape == (84, 4096)


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2"])
def test_trunk_and_head_together_are_the_classifier(backbone):
    torch.manual_seed(1)
    classifier = getattr(torchvision.models, backbone)(weights=None).eval()
    network = faster_rcnn_c4(backbone, 3).eval()
    network.load_classifier(classifier.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        hidden = network.roi_heads.box_head(network.backbone(image)[0])
        if backbone == "resnet50":
            wanted = classifier.fc(hidden)
            assert torch.allclose(classifier(image), wanted, atol=1e-4)
        else:
            for layer in classifier.features[:18]:
                image = layer(image)
            assert torch.allclose(image.mean((2, 3)), hidden, atol=1e-5)


def test_a_trunk_of_several_maps_is_no_single_map():
    with pytest.raises(ValueError, match="trunk has 2"):
        SingleMap(resnet18((8, 16)))


def test_both_ways_to_pool_say_the_same():
    torch.manual_seed(0)
    pool, cells = RoIMaxPool(16, 7), torch.randn(2, 5, 6, 9)
    corner = torch.rand(2, 20, 2) * torch.tensor([100.0, 60.0])
    boxes = torch.cat([corner, corner + torch.rand(2, 20, 2) * 40], -1)
    bins, sound = pool.atlas([cells], boxes)
    assert torch.equal(bins, pool([cells], boxes))
    assert sound.tolist() == [True, True]


def test_anchors_across_the_border_learn_only_where_there_are_no_others():
    anchors = torch.tensor([[0.0, 0, 9, 9], [-1, 0, 9, 9], [0, 0, 9, 11], [1, 1, 10, 10]])
    assert inside(anchors, (10, 10)).tolist() == [True, False, False, True]
    assert inside(anchors, (5, 5)).tolist() == [True] * 4


def test_every_engine_finds_what_torch_finds(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # it would start a thread
    network = enliven(tiny().eval(), (70, 101))
    network.prepare((70, 101), output_form="candidates", nms_body="fixpoint")
    pixels = frames(3, (70, 101))
    with torch.inference_mode():
        ours = network(pixels)
    assert int((ours[1] > 0).sum()) > 20
    file = tmp_path / "tiny.onnx"
    onnx.save(to_onnx(network, (70, 101), network.outputs), file)
    for engine in toys.ENGINES.values():
        theirs = [torch.from_numpy(np.array(x)) for x in engine(file, pixels)]
        assert theirs[3].all()
        pairs = zip(found_in(ours, "candidates"), found_in(theirs, "candidates"), strict=True)
        # Corners halfway between two cells are rounded to either side, by the last bit.
        assert np.mean([matched_share(one, other) for one, other in pairs]) > 0.95


def test_the_command_writes_a_file_in_the_forms_of_any_faster_rcnn(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    monkeypatch.setitem(papers.PAPERS, "faster_rcnn", lambda classes: tiny())
    torch.save(tiny().state_dict(), tmp_path / "tiny.pt")
    words = ["faster_rcnn", "--weights", str(tmp_path / "tiny.pt"), "--size", "64x96",
             "--out", str(tmp_path / "tiny.onnx")]  # fmt: skip  # a command
    assert export.main(words) == export.EXIT_ARGUMENTS, "its classes have no names"
    assert export.main([*words, "--names", "a,b,c"]) == 0
    entries = {p.key: p.value for p in onnx.load(tmp_path / "tiny.onnx").metadata_props}
    about = json.loads(entries["boxstream"])
    assert about["output_form"] == "candidates"
    assert about["nms_body"] == "fixpoint"
    assert lint(tmp_path / "tiny.onnx") == []


def test_it_learns_four_pictures_by_heart():
    network, batch = tiny(), toys.painted(4, (96, 128), 2)
    toys.learn(network, batch, 120)
    # At one rate to the end, the last step's rounding, the processor's, decides on a box in nine.
    toys.learn(network, batch, 40, rate=3e-4)
    assert toys.ap50(found(network, batch.frames), batch.truths) > 0.9


def test_a_picture_without_objects_teaches_background():
    batch = toys.painted(1, (64, 64), 1)
    empty = replace(batch, truths=[toys.truth([], [])])
    losses = {name: float(loss.detach()) for name, loss in tiny().losses(empty).items()}
    assert losses["box"] == losses["proposal_box"] == 0
    assert losses["class"] > 0


def found(network: FasterRCNN, pixels: torch.Tensor) -> list[toys.Found]:
    """What is left after suppression."""
    network.eval().prepare((pixels.shape[1], pixels.shape[2]))
    with torch.inference_mode():
        per_frame = found_in(network(pixels), "detections")
    return [
        toys.Found(boxes.numpy(), scores.numpy(), labels.numpy())
        for boxes, labels, scores in per_frame
    ]
