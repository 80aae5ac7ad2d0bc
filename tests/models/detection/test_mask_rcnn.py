"""Our Mask R-CNN against torchvision's, which is the witness for every number in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from torchvision.models.detection.roi_heads import maskrcnn_loss

from models.detection.frame_size import Resize
from models.detection.losses import RoiSample, Truth
from models.detection.mask_rcnn import (
    MaskRCNN,
    mask_loss,
    mask_rcnn,
    masks_in_boxes,
    with_present_names,
)
from tests.models.detectors import enliven, frames, limit_proposals, weaken_residuals

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

ARCHITECTURES = ("resnet50_fpn", "resnet50_fpn_v2")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_torchvision_weights_fit_by_the_same_names(architecture):
    with torch.device("meta"):
        build = getattr(torchvision.models.detection, f"maskrcnn_{architecture}")
        theirs = build(weights=None, weights_backbone=None).state_dict()
        ours = mask_rcnn(architecture).state_dict()
    assert {name: x.shape for name, x in ours.items()} == {n: x.shape for n, x in theirs.items()}


def test_the_names_of_an_older_file_are_understood():
    with torch.device("meta"):
        state = mask_rcnn("resnet50_fpn").state_dict()
    old = {}
    for name, value in state.items():
        for number in range(4):
            name = name.replace(f"mask_head.{number}.0.", f"mask_head.mask_fcn{number + 1}.")
        old[name] = value
    assert any("mask_fcn4" in name for name in old)
    assert with_present_names(old).keys() == state.keys()


@pytest.fixture(scope="module")
def twins() -> tuple[torch.nn.Module, MaskRCNN]:
    """torchvision's Mask R-CNN and ours, equal weights, float64, a size that is quick."""
    torch.manual_seed(0)
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=128, max_size=256
    ).eval()
    ours = mask_rcnn("resnet50_fpn").eval()
    ours.resize = Resize(128, 256)
    limit_proposals(theirs, ours, 60)
    weaken_residuals(theirs)
    ours.load_state_dict(theirs.state_dict())
    enliven(ours, (180, 320))
    with torch.no_grad():
        ours.roi_heads.mask_predictor.mask_fcn_logits.weight.mul_(30)
    theirs.load_state_dict(ours.state_dict())
    theirs.roi_heads.detections_per_img = 30  # each costs a mask, in float64
    ours.roi_heads.settings = replace(ours.roi_heads.settings, detections=30)
    return theirs.double(), ours.double()


def test_each_box_of_torchvision_has_its_mask(twins):
    theirs, ours = twins
    pixels = frames(2, (180, 320))
    heard = []
    theirs.roi_heads.mask_predictor.register_forward_hook(lambda *words: heard.append(words[2]))
    with torch.inference_mode():
        reference = theirs([frame.permute(2, 0, 1).double() / 255 for frame in pixels])
        found = ours.prepare((180, 320))(pixels)
    boxes, scores, labels, count, exact, masks = found
    assert exact.all()
    of_frame = heard[0].sigmoid().split([len(r["boxes"]) for r in reference])
    for i, r in enumerate(reference):
        n = int(count[i])
        assert n == len(r["boxes"]) > 10
        # torchvision carries the ratio of the sizes in float32.
        torch.testing.assert_close(boxes[i, :n], r["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(scores[i, :n], r["scores"], rtol=0, atol=1e-5)
        assert torch.equal(labels[i, :n] + 1, r["labels"])
        own = of_frame[i][torch.arange(n), r["labels"]]
        assert own.std() > 0.05, "these masks are too flat to tell apart"
        torch.testing.assert_close(masks[i, :n], own, rtol=0, atol=1e-4)
        assert not scores[i, n:].any()


def test_a_frame_without_objects_has_no_mask(twins):
    _, ours = twins
    ours.prepare((180, 320))
    before = ours.roi_heads.box_predictor.cls_score.bias.clone()
    with torch.inference_mode():
        ours.roi_heads.box_predictor.cls_score.bias[0] = 1e4
        _, scores, _, count, exact, masks = ours(frames(1, (180, 320)))
        ours.roi_heads.box_predictor.cls_score.bias.copy_(before)
    assert count.tolist() == [0]
    assert not scores.any()
    assert exact.all()
    assert masks.isfinite().all()


def drawn_for(boxes, labels, matches) -> RoiSample:
    one = [torch.as_tensor(x)[None] for x in (boxes, labels, matches)]
    return RoiSample(one[0].float(), one[1], torch.zeros(1, len(labels), 4), one[2])


def test_the_mask_loss_is_that_of_torchvision():
    torch.manual_seed(1)
    masks = torch.zeros(2, 40, 60, dtype=torch.uint8)
    masks[0, 5:25, 8:30] = 1
    masks[1, 20:38, 33:57] = 1
    truth = Truth(
        torch.tensor([[8.0, 5, 30, 25], [33, 20, 57, 38]]),
        torch.tensor([2, 0]),
        torch.zeros(0, 4),
        masks,
    )
    boxes = torch.tensor([[6.0, 4, 31, 24], [30, 18, 58, 39], [0, 0, 10, 10], [0, 0, 1, 1]])
    drawn = drawn_for(boxes, [3, 1, 0, -1], [0, 1, 0, 0])
    logits = torch.randn(4, 4, 28, 28)
    objects = [boxes[:2]]
    labels = [truth.class_ids + 1]
    theirs = maskrcnn_loss(logits[:2], objects, [masks], labels, [torch.tensor([0, 1])])
    torch.testing.assert_close(mask_loss(logits, drawn, [truth]), theirs)


def test_without_masks_or_objects_the_mask_loss_is_nothing_but_can_be_differentiated():
    logits = torch.randn(2, 4, 28, 28, requires_grad=True)
    unknown = Truth(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), torch.zeros(0, 4))
    loss = mask_loss(logits, drawn_for([[0, 0, 9, 9], [0, 0, 1, 1]], [1, -1], [0, 0]), [unknown])
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_a_box_that_fits_its_object_sees_a_full_mask():
    masks = torch.zeros(1, 50, 50, dtype=torch.uint8)
    masks[0, 10:40, 5:45] = 1
    seen = masks_in_boxes(masks, torch.tensor([[5.0, 10, 45, 40]]), torch.tensor([0]), 28)
    assert seen.shape == (1, 28, 28)
    assert (seen[0, 2:-2, 2:-2] == 1).all()
    outside = masks_in_boxes(masks, torch.tensor([[46.0, 42, 49, 49]]), torch.tensor([0]), 28)
    assert not outside.any()
