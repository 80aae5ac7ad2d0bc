"""Mask R-CNN learns boxes and masks from one drawn sample."""

from __future__ import annotations

from dataclasses import replace

import cv2
import pytest
import torch
from torch import Tensor

from models.backbones.features import SingleMap
from models.data.batches import TrainingBatch
from models.detection.losses import RoiSample
from models.detection.mask_rcnn import (
    MaskHeads,
    MaskPredictor,
    MaskRCNN,
    leading_objects,
    mask_head,
    mask_loss,
)
from models.detection.pooling import PyramidRoIAlign
from models.detection.region_pooling import RoIMaxPool
from models.detection.roi import TwoLayerHead
from models.detection.rpn import ProposalSettings
from models.detection.single_map import assemble
from tests.models.detection import toys

SIZE = (64, 96)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More are slower on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny() -> MaskRCNN:
    """Three convolutions, one in the mask head."""
    torch.manual_seed(0)
    classes, trunk = len(toys.COLOURS), SingleMap(toys.tiny_trunk((16, 32, 48)))
    boxes = assemble(
        trunk,
        TwoLayerHead(48 * 16, 64),
        64,
        RoIMaxPool(8, 4),
        num_classes=classes,
        anchor_pixels=(18, 28, 44),
        resize=None,
        proposals=ProposalSettings(pre_nms=150, post_nms=60),
    )
    pool, predictor = PyramidRoIAlign((8,), output=14), MaskPredictor(48, classes)
    network = MaskRCNN(
        trunk,
        boxes.anchor_grid,
        boxes.rpn,
        MaskHeads(boxes.roi_heads, pool, mask_head(48, depth=1), predictor),
        num_classes=classes,
        resize=None,
    )
    network.proposing = replace(boxes.proposing, pre_nms=150, post_nms=60, rois=32)
    return network


def ellipses() -> TrainingBatch:
    """Two pictures whose objects fill the ellipses in their boxes."""
    batch, truths = toys.painted(2, SIZE, 2, seed=3), []
    for frame, truth in zip(batch.frames, batch.truths, strict=True):
        masks = []
        for box in truth.boxes.long().tolist():
            x, y = torch.meshgrid(torch.arange(SIZE[1]), torch.arange(SIZE[0]), indexing="xy")
            width, height = box[2] - box[0], box[3] - box[1]
            across = (2 * x + 1 - box[0] - box[2]) / width
            down = (2 * y + 1 - box[1] - box[3]) / height
            masks.append(across**2 + down**2 <= 1)
            block = torch.zeros(SIZE, dtype=torch.bool)
            block[box[1] : box[3], box[0] : box[2]] = True
            frame[block & ~masks[-1]] = 95
        truths.append(replace(truth, masks=torch.stack(masks).to(torch.uint8)))
    return TrainingBatch(batch.frames, truths)


def test_two_pictures_are_learned_by_heart_to_the_outline():
    network, batch = tiny(), ellipses()
    assert set(network.losses(batch)) == {"objectness", "proposal_box", "class", "box", "mask"}
    toys.learn(network, batch, 150)
    toys.learn(network, batch, 60, rate=3e-4)
    network.prepare(SIZE)
    with torch.inference_mode():
        outputs = network(batch.frames)
    shares = []
    for truth, boxes, scores, labels, count, exact, masks in zip(
        batch.truths, *outputs, strict=True
    ):
        assert exact
        assert count == (scores > 0).sum()
        for own, label, mask in zip(truth.boxes, truth.class_ids, truth.masks, strict=True):
            slots = [slot for slot in range(int(count)) if labels[slot] == label]
            overlaps = [toys.overlap(boxes[slot].tolist(), own.tolist()) for slot in slots]
            assert max(overlaps, default=0) > 0.5, "an object that was learned is found"
            nearest = slots[overlaps.index(max(overlaps))]
            drawn = on_frame(masks[nearest], boxes[nearest])
            both, either = (drawn & mask.bool()).sum(), (drawn | mask.bool()).sum()
            shares.append(float(both / either))
    assert sum(shares) / len(shares) > 0.85  # the whole box would have 0.785


def on_frame(mask: Tensor, box: Tensor) -> Tensor:
    """(28, 28) in [0, 1] stretched over its box -> (H, W) bool."""
    x1, y1, x2, y2 = (round(side) for side in box.tolist())
    drawn = torch.zeros(SIZE, dtype=torch.bool)
    drawn[y1:y2, x1:x2] = torch.from_numpy(cv2.resize(mask.numpy(), (x2 - x1, y2 - y1)) > 0.5)
    return drawn


def test_objects_alone_give_the_loss_of_all_that_was_drawn():
    torch.manual_seed(0)
    (truth,) = ellipses().truths[:1]
    labels = torch.tensor([[1, 2, 1, 0, 0, -1]])
    boxes = truth.boxes[torch.tensor([0, 1, 0, 1, 0, 1])][None] + 1.0
    drawn = RoiSample(boxes, labels, torch.zeros_like(boxes), torch.zeros_like(labels))
    logits = torch.randn(6, 4, 28, 28)
    front = leading_objects(drawn)
    assert front.labels.shape == (1, 3)
    torch.testing.assert_close(
        mask_loss(logits[:3], front, [truth]), mask_loss(logits, drawn, [truth])
    )


def test_a_batch_without_masks_still_teaches_boxes():
    batch = ellipses()
    bare = replace(batch, truths=[replace(truth, masks=None) for truth in batch.truths])
    losses = {name: float(loss.detach()) for name, loss in tiny().losses(bare).items()}
    assert losses["mask"] == 0
    assert losses["class"] > 0
