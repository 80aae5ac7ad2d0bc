"""Our Faster R-CNN against torchvision's, which is the witness for every number in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from models.anchors import AnchorGrid
from models.backbones.features import load_classifier
from models.boxes import clip
from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.faster_rcnn import OUTPUTS
from models.detection.frame_size import Resize, anchors_on
from models.detection.pooling import PyramidRoIAlign
from models.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN
from tests.models.detectors import (
    TORCHVISION,
    by_torchvision,
    found_in,
    frames,
    matched_share,
    small_detector,
    twins,
)

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

SMALL = {
    "mobilenet_v3_large_320_fpn": Resize(320, 640),
    "mobilenet_v3_large_fpn": Resize(256, 512),
    "resnet50_fpn": Resize(128, 256),
    "resnet50_fpn_v2": Resize(128, 256),
}
"""Network sizes at which a test is quick."""


@pytest.mark.parametrize("architecture", TORCHVISION)
def test_torchvision_weights_fit_by_the_same_names(architecture):
    with torch.device("meta"):
        build = getattr(torchvision.models.detection, f"fasterrcnn_{architecture}")
        theirs = build(weights=None, weights_backbone=None).state_dict()
        ours = faster_rcnn(architecture).state_dict()
    assert list(ours) == list(theirs)
    assert [x.shape for x in ours.values()] == [x.shape for x in theirs.values()]


@pytest.fixture(scope="module", params=TORCHVISION)
def pair(request):
    """torchvision's detector and ours."""
    return twins(request.param, SMALL[request.param])


@pytest.mark.parametrize(
    ("frame_hw", "nms_body"),
    [
        ((360, 640), "nonmaxsuppression"),
        ((481, 361), "fixpoint"),
        ((270, 480), "nonmaxsuppression"),
    ],
    ids=str,
)
def test_the_graph_finds_exactly_what_torchvision_finds(pair, frame_hw, nms_body):
    # In float64: what differs cannot be rounding. In float32 a box in some thousand lies so close
    # to a threshold that the order of a sum decides, in torchvision's own hands, too.
    theirs, ours = (model.double() for model in pair)
    ours.normalise.mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64)  # not as float32 has it
    ours.normalise.deviation = torch.tensor(IMAGENET_DEVIATION, dtype=torch.float64)
    pixels = frames(2, frame_hw)
    reference = by_torchvision(theirs, pixels, torch.float64)
    assert min(len(boxes) for boxes, _, _ in reference) > 20
    assert shares_found(ours, pixels, reference, nms_body) == [1.0] * 2


def test_float32_changes_no_more_than_rounding_can(pair):
    theirs, ours = (model.float() for model in pair)
    pixels = frames(3, (360, 640))
    reference = by_torchvision(theirs, pixels)
    assert np.mean(shares_found(ours, pixels, reference, "nonmaxsuppression")) >= 0.99


@pytest.mark.slow
def test_the_graph_finds_what_torchvision_finds_at_its_full_size():
    theirs, ours = twins("mobilenet_v3_large_fpn")  # a twentieth of resnet50's time
    pixels = frames(1, (360, 640))
    (share,) = shares_found(ours, pixels, by_torchvision(theirs, pixels), "nonmaxsuppression")
    assert share >= 0.99


def shares_found(ours, pixels, reference, nms_body) -> list[float]:
    ours.prepare(tuple(pixels.shape[1:3]), nms_body=nms_body, nms_iterations=24)
    with torch.inference_mode():
        outputs = ours(pixels)
    assert outputs[-1].all(), "a bound of the graph was too tight"
    found = found_in(outputs, "detections")
    return [matched_share(*pair) for pair in zip(reference, found, strict=True)]


def test_both_forms_of_suppression_and_of_output_agree():
    model = small_detector((320, 576))
    pixels = frames(2, (320, 576), seed=3)
    found = []
    for nms_body in ("nonmaxsuppression", "fixpoint"):
        for output_form in OUTPUTS:
            model.prepare((320, 576), output_form=output_form, nms_body=nms_body, nms_iterations=24)
            with torch.inference_mode():
                outputs = model(pixels)
            assert outputs[-1].all()
            found.append(found_in(outputs, output_form))
    for other in found[1:]:
        assert [matched_share(*pair) for pair in zip(found[0], other, strict=True)] == [1.0, 1.0]


def test_outputs_are_ranked_and_empty_slots_are_zero():
    model = small_detector((128, 192))
    model.roi_heads.settings = replace(model.roi_heads.settings, min_score=0.7)
    for output_form in OUTPUTS:
        model.prepare((128, 192), output_form=output_form)
        with torch.inference_mode():
            outputs = model(frames(2, (128, 192)))
        named = dict(zip(OUTPUTS[output_form], outputs, strict=True))
        scores, empty = named["scores"], named["scores"] == 0
        assert (scores.diff(dim=1) <= 0).all()
        assert empty.any() and not named["boxes"][empty].any() and not named["labels"][empty].any()
        if output_form == "detections":
            assert named["count"].tolist() == (~empty).sum(1).tolist()


def test_too_few_candidate_slots_are_confessed():
    model = small_detector((128, 192))
    model.roi_heads.settings = replace(model.roi_heads.settings, candidates=10)
    with torch.inference_mode():
        outputs = model.prepare((128, 192), output_form="candidates")(frames(1, (128, 192)))
    assert outputs[-1].tolist() == [False]


def test_a_frame_finds_the_same_alone_and_in_a_batch():
    model = small_detector((128, 192)).prepare((128, 192))
    pixels = frames(3, (128, 192))
    with torch.inference_mode():
        together = found_in(model(pixels), "detections")
        alone = [found_in(model(pixels[i : i + 1]), "detections")[0] for i in range(3)]
    assert [matched_share(*pair) for pair in zip(together, alone, strict=True)] == [1.0] * 3


def test_frames_of_another_size_are_refused():
    model = faster_rcnn("mobilenet_v2_fpn").eval()
    with pytest.raises(ValueError, match=r"prepared for frames of None, got \(64, 96\)"):
        model(frames(1, (64, 96)))


def test_a_model_in_training_is_not_prepared_lest_its_batch_norms_learn_from_nothing():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        faster_rcnn("mobilenet_v2_fpn").prepare((64, 96))


def test_an_unknown_architecture_names_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(ARCHITECTURES)):
        faster_rcnn("resnet51")


def test_proposals_for_training_are_those_of_the_graph():
    model = small_detector((128, 192)).prepare((128, 192))
    images = model.normalise(frames(2, (128, 192)))
    features = model.backbone(images)
    logits, deltas = model.rpn.flatten(*model.rpn.head(features))
    anchors = anchors_on(model.anchor_grid, features, (128, 192))
    assert [x.shape[1] for x in logits] == [len(x) for x in anchors]
    expected = model.rpn(features, anchors, (128, 192), model.nms)
    for sizes in ((128, 192), torch.tensor([[128, 192], [128, 192]])):
        boxes, valid = model.rpn.propose(logits, deltas, anchors, sizes, 250, 100, 0.7)
        assert not boxes.requires_grad
        torch.testing.assert_close(boxes, expected.boxes)
        assert torch.equal(valid, expected.valid)


@pytest.mark.parametrize("pool", [(4, 8, 16, 32), (8, 16, 32), (32,)], ids=str)
def test_pooling_equals_torchvision_also_beyond_the_border(pool):
    torch.manual_seed(0)
    height, width = 256, 416
    features = [torch.randn(2, 3, height // s, width // s, requires_grad=True) for s in pool]
    boxes = torch.rand(2, 60, 2).repeat(1, 1, 2) * torch.tensor([width, height] * 2)
    boxes[..., 2:] += torch.exp(torch.randn(2, 60, 2) + 3.5)
    boxes[:, :10, 0::2] = torch.tensor([width - 0.5, width])  # less than a cell, at the border
    boxes[:, 10:20, 1::2] = torch.tensor([height - 0.3, height])
    boxes[:, 20, :] = torch.tensor([0, 0, 112, 112])  # just on the bound between two levels
    boxes = clip(boxes, (height, width))
    names = [str(i) for i in range(len(pool))]
    reference = MultiScaleRoIAlign(names, 7, 2)
    maps = dict(zip(names, features, strict=True))
    expected = reference(maps, list(boxes), [(height, width)] * 2)
    align = PyramidRoIAlign(pool)
    torch.testing.assert_close(align(features, boxes), expected, atol=1e-4, rtol=1e-4)
    bins, sound = align.atlas(features, boxes)
    torch.testing.assert_close(bins, expected, atol=1e-4, rtol=1e-4)
    assert sound.all()
    weights = torch.randn_like(expected)
    ours = torch.autograd.grad((align(features, boxes) * weights).sum(), features)
    theirs = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_a_box_that_was_not_clipped_is_confessed():
    boxes = torch.tensor([[[0.0, 0.0, 64.0, 64.0]], [[0.0, 0.0, 90.0, 64.0]]])
    _, sound = PyramidRoIAlign((8, 16)).atlas(
        [torch.ones(2, 1, 8, 8), torch.ones(2, 1, 4, 4)], boxes
    )
    assert sound.tolist() == [True, False]


def test_anchors_are_torchvisions():
    theirs = AnchorGenerator(((12, 20), (32, 48), (72, 112)), ((0.5, 1.0, 2.0),) * 3)
    maps = [torch.zeros(1, 1, 20, 36), torch.zeros(1, 1, 10, 18), torch.zeros(1, 1, 5, 9)]
    images = ImageList(torch.zeros(1, 3, 320, 576), [(320, 576)])
    ours = AnchorGrid(theirs.sizes)([(20, 36), (10, 18), (5, 9)], (320, 576))
    assert torch.equal(torch.cat(ours), theirs(images, maps)[0])


def test_a_classifier_starts_the_small_trunk(shared_data):
    state = torch.load(shared_data / "weights" / "mobilenet_v2_imagenet_torchvision.pth")
    model = faster_rcnn("mobilenet_v2_fpn")
    load_classifier(model.backbone, state)
    first = model.backbone.state_dict()["body.0.0.weight"]
    assert torch.equal(first, state["features.0.0.weight"])
    del state["features.0.0.weight"]
    with pytest.raises(RuntimeError, match=r"0\.0\.weight"):
        load_classifier(model.backbone, state)
