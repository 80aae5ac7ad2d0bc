"""Our SSD against torchvision's, which is the witness for every number in it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from models.data.batches import TrainingBatch
from models.detection.default_boxes import DefaultBoxes, linear_scales
from models.detection.losses import Truth
from models.detection.ssd import (
    match_default_boxes,
    multibox_loss,
    ssd300_vgg16,
    ssdlite320_mobilenet_v3_large,
)
from tests.models.detectors import frames, matched_share

BUILDERS = {
    "ssd300_vgg16": ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": ssdlite320_mobilenet_v3_large,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_torchvision_weights_fit_by_the_same_names(name):
    theirs = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None)
    ours = BUILDERS[name]()
    assert {n: x.shape for n, x in ours.state_dict().items()} == {
        n: x.shape for n, x in theirs.state_dict().items()
    }


@pytest.fixture(scope="module", params=BUILDERS)
def twins(request):
    """torchvision's network and ours, equal weights, scores spread as in a trained one."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, request.param)
    # As many candidates as slots: what is cut is another question.
    theirs = build(weights=None, weights_backbone=None, score_thresh=0.3, topk_candidates=9000)
    theirs.eval()
    ours = BUILDERS[request.param]().eval()
    ours.load_state_dict(theirs.state_dict())
    ours.settings = type(ours.settings)(0.3, theirs.nms_thresh, candidates=9000)
    images = ours.fit(ours.normalise(frames(2, (240, 400), seed=5)))
    with torch.no_grad():
        for norm in (m for m in ours.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        maps = ours.backbone(images)
        for kind, deviation in (("classification_head", 2.0), ("regression_head", 0.5)):
            for layer, x in zip(ours.head[kind].module_list, maps, strict=True):
                out = layer(x)
                last = layer[1] if isinstance(layer, torch.nn.Sequential) else layer
                # A map of one cell and a batch of two has next to no deviation.
                last.weight.mul_(deviation / out.std().clamp(min=0.05))
    ours.eval()
    theirs.load_state_dict(ours.state_dict())
    return theirs.double(), ours.double()


@pytest.mark.parametrize("frame_hw", [(240, 400), (331, 287)], ids=str)
def test_the_graph_finds_exactly_what_torchvision_finds(twins, frame_hw):
    theirs, ours = twins
    pixels = frames(1 if ours.side == 300 else 2, frame_hw)  # VGG-16 takes its time
    with torch.inference_mode():
        reference = theirs([frame.permute(2, 0, 1).double() / 255 for frame in pixels])
        boxes, scores, labels, exact = ours.prepare(frame_hw)(pixels)
    assert exact.all()
    for i, r in enumerate(reference):
        filled = scores[i] > 0
        parts = (boxes[i][filled], scores[i][filled], labels[i][filled])
        keep = torchvision.ops.batched_nms(*parts, ours.settings.iou)
        keep = keep[: theirs.detections_per_img]
        found = (parts[0][keep], parts[2][keep], parts[1][keep])
        assert len(keep) > 20
        assert matched_share((r["boxes"], r["labels"] - 1, r["scores"]), found) == 1.0


def test_more_pairs_than_slots_are_not_called_exact(twins):
    _, ours = twins
    before = ours.settings
    ours.settings = type(before)(before.min_score, before.iou, candidates=5)
    with torch.inference_mode():
        boxes, _, _, exact = ours.prepare((240, 400))(frames(1, (240, 400)))
    ours.settings = before
    assert boxes.shape == (1, 5, 4)
    assert not exact.any()


@pytest.mark.parametrize(
    ("grid", "generator"),
    [
        (
            DefaultBoxes((0.1, 0.3, 0.9), ((2,), (2, 3)), (8, 16)),
            DefaultBoxGenerator([[2], [2, 3]], scales=[0.1, 0.3, 0.9], steps=[8, 16]),
        ),
        (
            DefaultBoxes(linear_scales(0.2, 0.95, 2), ((2, 3),) * 2),
            DefaultBoxGenerator([[2, 3]] * 2, min_ratio=0.2, max_ratio=0.95),
        ),
    ],
    ids=["steps", "map"],
)
def test_default_boxes_are_torchvisions(grid, generator):
    maps_hw, image_hw = [(8, 8), (4, 4)], (64, 64)
    images = ImageList(torch.zeros(1, 3, *image_hw), [image_hw])
    (theirs,) = generator(images, [torch.zeros(1, 1, *hw) for hw in maps_hw])
    torch.testing.assert_close(grid(maps_hw, image_hw), theirs)


def some_truth() -> Truth:
    boxes = torch.tensor([[20.0, 30, 140, 200], [150, 60, 290, 280], [10, 10, 25, 24]])
    return Truth(boxes, torch.tensor([1, 0, 2]), torch.zeros(0, 4))


def test_the_loss_is_that_of_torchvision():
    torch.manual_seed(2)
    theirs = torchvision.models.detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=4
    )
    boxes = ssd300_vgg16(3).default_boxes
    logits, deltas = torch.randn(2, len(boxes), 4), torch.randn(2, len(boxes), 4)
    truths = [some_truth(), Truth(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0, 4))]
    matched = []
    for truth in truths:
        if len(truth.boxes):
            overlap = torchvision.ops.box_iou(truth.boxes, boxes)
            matched.append(theirs.proposal_matcher(overlap))
        else:
            matched.append(torch.full((len(boxes),), -1))
    wanted = theirs.compute_loss(
        [{"boxes": t.boxes, "labels": t.class_ids + 1} for t in truths],
        {"bbox_regression": deltas, "cls_logits": logits},
        [boxes, boxes],
        matched,
    )
    classification, box = multibox_loss(boxes, logits, deltas, truths)
    torch.testing.assert_close(classification, wanted["classification"])
    torch.testing.assert_close(box, wanted["bbox_regression"])


def test_every_true_box_has_a_default_box_however_small_it_is():
    boxes = ssd300_vgg16(3).default_boxes
    tiny = torch.tensor([[100.0, 100, 103, 102]])
    index, matched = match_default_boxes(boxes, tiny)
    assert matched.sum() == 1
    assert index[matched].tolist() == [0]


def test_default_boxes_in_an_unknown_region_teach_nothing():
    torch.manual_seed(3)
    boxes = ssd300_vgg16(3).default_boxes
    truth = some_truth()
    everything = torch.tensor([[0.0, 0, 300, 300]])
    logits = torch.randn(1, len(boxes), 4, requires_grad=True)
    known, unknown = truth, Truth(truth.boxes, truth.class_ids, everything)
    deltas = torch.zeros(1, len(boxes), 4)
    multibox_loss(boxes, logits, deltas, [unknown])[0].backward()
    _, matched = match_default_boxes(boxes, known.boxes)
    assert logits.grad[0, matched].abs().sum() > 0
    # Only what reaches far over the picture's edge may still count as background.
    quiet = ~matched & ((boxes >= 0) & (boxes <= 300)).all(1)
    assert not logits.grad[0, quiet].any()


def test_it_learns_four_pictures_by_heart():
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(3, side=160)
    pixels, truths = [], []
    for seed in range(4):
        frame = frames(1, (160, 160), seed=seed)[0] // 3
        x, y, size = 20 + 15 * seed, 70 - 12 * seed, 50 + 8 * seed
        frame[y : y + size, x : x + size, seed % 3] = 250
        box = torch.tensor([[x, y, x + size, y + size]]).float()
        truths.append(Truth(box, torch.tensor([seed % 3]), torch.zeros(0, 4)))
        pixels.append(frame)
    batch = TrainingBatch(torch.stack(pixels), truths)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    first = None
    for _ in range(40):
        loss = sum(model.losses(batch).values())
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = None
        norm.reset_running_stats()
    with torch.inference_mode():
        model.losses(batch)  # the statistics of the finished weights
        boxes, scores, labels, _ = model.eval().prepare((160, 160))(batch.frames)
    assert loss.item() < first / 10
    for i, truth in enumerate(truths):
        assert labels[i, 0] == truth.class_ids[0]
        assert scores[i, 0] > 0.5
        assert torchvision.ops.box_iou(boxes[i, :1], truth.boxes).item() > 0.7
