"""YOLO v1 and v2: what each cell learns, against slow twins, and by heart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou

from models.data.batches import TrainingBatch
from models.detection.losses import Truth
from models.detection.yolo import yolo_v1, yolo_v2
from models.detection.yolo_cells import Cells, cluster_priors, paired_iou, shape_iou
from models.training.starting_weights import load_fitting
from tests.models.detectors import frames

BUILDERS = {"v1": yolo_v1, "v2": yolo_v2}


@pytest.fixture(params=BUILDERS)
def network(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]("mobilenet_v2", 3, width=32)


def truth_of(boxes, class_ids, ignored=()) -> Truth:
    return Truth(
        torch.tensor(boxes).reshape(-1, 4).float(),
        torch.tensor(class_ids, dtype=torch.int64),
        torch.tensor(ignored).reshape(-1, 4).float(),
    )


def test_a_cell_gives_back_the_centre_that_it_was_given():
    cells = Cells((3, 5))
    boxes = torch.tensor([[0.1, 0.2, 0.3, 0.6], [0.9, 0.9, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    number, within = cells.of(boxes)
    assert number.tolist() == [1 * 5 + 1, 2 * 5 + 4, 2 * 5 + 4]  # the last corner is in the grid
    everywhere = torch.zeros(1, 15, 1, 2)
    everywhere[0, number[0], 0] = within[0]
    centre = cells.place(everywhere)[0, number[0], 0]
    torch.testing.assert_close(centre, torch.tensor([0.2, 0.4]))


def test_paired_iou_is_the_diagonal_of_box_iou():
    torch.manual_seed(1)
    corner = torch.rand(20, 2, 2)
    a, b = (torch.cat([c, c + torch.rand(20, 2)], 1) for c in corner.unbind(1))
    torch.testing.assert_close(paired_iou(a, b), box_iou(a, b).diagonal())
    still = torch.zeros(1, 4)
    assert paired_iou(still, still).item() == 0


def test_shape_iou_is_the_iou_of_boxes_on_one_corner():
    sizes = torch.tensor([[2.0, 3.0], [1.0, 1.0], [5.0, 0.5]])
    boxes = torch.cat([torch.zeros(3, 2), sizes], 1)
    torch.testing.assert_close(shape_iou(sizes, sizes), box_iou(boxes, boxes))


def test_priors_are_found_where_the_boxes_are():
    torch.manual_seed(2)
    true = torch.tensor([[0.05, 0.1], [0.2, 0.15], [0.5, 0.7]])
    sizes = (true[torch.arange(300) % 3] * (0.95 + 0.1 * torch.rand(300, 2))).contiguous()
    found = max(
        (cluster_priors(sizes, 3, seed=seed) for seed in range(5)),
        key=lambda priors: shape_iou(sizes, priors).amax(1).mean(),
    )
    torch.testing.assert_close(found, true, rtol=0.03, atol=0)


def test_fewer_boxes_than_priors_are_refused():
    with pytest.raises(ValueError, match="5 priors need as many boxes, got 2"):
        cluster_priors(torch.rand(2, 2), 5)


@pytest.mark.parametrize("size_hw", [(64, 96), (95, 161)], ids=str)
def test_what_it_offers_has_one_form_at_every_size(network, size_hw):
    network.eval().prepare(size_hw)
    with torch.inference_mode():
        boxes, scores, labels, exact = network(frames(2, size_hw))
    assert boxes.shape == (*scores.shape, 4)
    assert labels.shape == scores.shape
    assert exact.shape == (2,)
    assert (scores.diff(dim=1) <= 0).all()
    limits = torch.tensor([size_hw[1], size_hw[0]] * 2)
    assert ((boxes >= 0) & (boxes <= limits)).all()
    assert not boxes[scores == 0].any()


def test_frames_of_another_size_are_refused(network):
    network.eval().prepare((64, 96))
    with pytest.raises(ValueError, match="prepared for frames of"):
        network(frames(1, (64, 64)))
    with pytest.raises(ValueError, match="eval"):
        network.train().prepare((64, 96))


def slow_v1_loss(offers, rows, truth: Truth, grid_hw) -> list[float]:
    """Eq. 3, cell by cell, box by box."""
    height, width = grid_hw
    box = sees = nothing = kind = 0.0
    responsible = {}
    for b, k in zip(truth.boxes.tolist(), truth.class_ids.tolist(), strict=True):
        x, y = (b[0] + b[2]) / 2 * width, (b[1] + b[3]) / 2 * height
        cell = int(y) * width + int(x)
        overlaps = [box_iou(offers.boxes[cell, p][None], torch.tensor([b])).item() for p in (0, 1)]
        p = overlaps.index(max(overlaps))
        responsible[cell, p] = True
        said = rows[cell]
        tx, ty, tw, th, c = said[p * 5 : p * 5 + 5].tolist()
        box += (tx - x % 1) ** 2 + (ty - y % 1) ** 2
        box += (tw - (b[2] - b[0]) ** 0.5) ** 2 + (th - (b[3] - b[1]) ** 0.5) ** 2
        sees += (c - max(overlaps)) ** 2
        kind += sum((said[10 + j].item() - (j == k)) ** 2 for j in range(3))
    for cell in range(height * width):
        for p in (0, 1):
            if (cell, p) not in responsible:
                nothing += rows[cell, p * 5 + 4].item() ** 2
    return [5 * box, sees, 0.5 * nothing, kind]


def test_the_loss_of_v1_is_the_papers_summed_cell_by_cell():
    torch.manual_seed(3)
    network = yolo_v1("mobilenet_v2", 3, width=32)
    truth = truth_of([[0.1, 0.2, 0.45, 0.5], [0.55, 0.6, 0.95, 0.9]], [2, 0])
    maps = {32: torch.randn(1, 320, 3, 4)}
    with torch.no_grad():
        losses = network.head.losses(maps, [truth])
        offers = network.head(maps)
        rows, _ = network.head._rows(maps)
    one = type(offers)(offers.boxes[0], offers.confidence[0], offers.classes[0])
    wanted = slow_v1_loss(one, rows[0], truth, (3, 4))
    torch.testing.assert_close([x.item() for x in losses.values()], wanted, rtol=1e-4, atol=1e-5)


def test_the_prior_of_the_most_similar_shape_is_responsible():
    torch.manual_seed(4)
    network = yolo_v2("mobilenet_v2", 3, priors=[(0.1, 0.1), (0.6, 0.3)], width=32)
    maps = {16: torch.randn(1, 96, 6, 8), 32: torch.randn(1, 320, 3, 4)}
    rows, cells = network.head._rows(maps)
    rows = rows.detach().requires_grad_()
    network.head._rows = lambda _: (rows, cells)
    network.head.losses(maps, [truth_of([[0.1, 0.4, 0.65, 0.65]], [1])])["class"].backward()
    taught = rows.grad.abs().sum(-1)[0].nonzero().tolist()
    assert taught == [[1 * 4 + 1, 1]]


def test_v2_goes_down_the_published_gradients_with_twice_the_weight_of_objects_and_boxes():
    torch.manual_seed(6)
    network = yolo_v2("mobilenet_v2", 3, priors=[(0.1, 0.1), (0.6, 0.3)], width=32)
    maps = {16: torch.randn(1, 96, 6, 8), 32: torch.randn(1, 320, 3, 4)}
    truth = truth_of([[0.1, 0.4, 0.65, 0.65]], [1])
    rows, cells = network.head._rows(maps)
    rows = rows.detach().requires_grad_()
    network.head._rows = lambda _: (rows, cells)
    sum(network.head.losses(maps, [truth]).values()).backward()

    with torch.no_grad():
        offered = network.head(maps).boxes[0]
        at = (cells.of(truth.boxes)[0].item(), 1)
        said = rows[0].sigmoid()
        published = torch.zeros_like(rows[0])
        free = box_iou(offered.flatten(0, 1), truth.boxes).view(said.shape[:2]) <= 0.6
        published[..., 4] = free * said[..., 4] ** 2 * (1 - said[..., 4])
        fit = box_iou(offered[at][None], truth.boxes)[0, 0]
        published[at][4] = 2 * 5 * (said[at][4] - fit) * said[at][4] * (1 - said[at][4])
        size = torch.tensor([0.55, 0.25])
        centre = torch.tensor([0.375 * 4 % 1, 0.525 * 3 % 1])
        scale = 2 - size.prod()  # small boxes count more
        slope = said[at][:2] * (1 - said[at][:2])
        published[at][:2] = 2 * scale * (said[at][:2] - centre) * slope
        priors = torch.log(size / network.head.priors[1])
        published[at][2:4] = 2 * scale * (rows[0][at][2:4] - priors)
        published[at][5:] = rows[0][at][5:].softmax(0) - F.one_hot(torch.tensor(1), 3)
    torch.testing.assert_close(rows.grad[0], published)


def test_a_training_begins_with_priors_of_its_own(tmp_path):
    own = cluster_priors(torch.rand(30, 2), 5)
    torch.save({"head.priors": own}, tmp_path / "priors.pt")
    network = yolo_v2("mobilenet_v2", 3, width=32)
    left_random = load_fitting(network, tmp_path / "priors.pt")
    assert torch.equal(network.head.priors, own)
    assert "head.priors" not in left_random


def test_an_empty_picture_teaches_that_there_is_nothing(network):
    batch = TrainingBatch(frames(2, (64, 96)), [truth_of([], [])] * 2)
    losses = network.losses(batch)
    assert losses["no_object"] > 0
    assert [losses[name].item() for name in ("box", "object", "class")] == [0, 0, 0]


def test_boxes_in_an_unknown_region_are_not_told_that_they_see_nothing(network):
    torch.manual_seed(5)
    whole = [[-100.0, -100, 200, 200]]
    batch = TrainingBatch(frames(1, (64, 96)), [truth_of([], [], whole)])
    assert network.losses(batch)["no_object"] == 0


def test_it_learns_four_pictures_by_heart(network):
    pixels, truths = [], []
    for seed in range(4):
        frame = frames(1, (96, 128), seed=seed)[0] // 3
        x, y, size = 12 + 15 * seed, 36 - 10 * seed, 30 + 6 * seed
        frame[y : y + size, x : x + size, seed % 3] = 250
        pixels.append(frame)
        truths.append(truth_of([[x, y, x + size, y + size]], [seed % 3]))
    batch = TrainingBatch(torch.stack(pixels), truths)
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        loss = sum(network.losses(batch).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimiser.step()
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = None
        norm.reset_running_stats()
    with torch.inference_mode():
        network.losses(batch)  # the statistics of the finished weights
        boxes, scores, labels, _ = network.eval().prepare((96, 128))(batch.frames)
    for i, truth in enumerate(truths):
        assert labels[i, 0] == truth.class_ids[0]
        assert scores[i, 0] > 0.4
        assert box_iou(boxes[i, :1], truth.boxes).item() > 0.6


def test_odd_maps_are_brought_in_by_padding():
    network = yolo_v2("mobilenet_v2", 3, width=32).eval()
    maps = {16: torch.rand(1, 96, 5, 7), 32: torch.rand(1, 320, 3, 4)}
    with torch.inference_mode():
        offers = network.head(maps)
        padded = network.head({**maps, 16: F.pad(maps[16], (0, 1, 0, 1))})
    assert offers.boxes.shape == (1, 12, 5, 4)
    # The padding comes behind a bias, so only the cells at the rim may differ.
    torch.testing.assert_close(offers.boxes[0, 0], padded.boxes[0, 0])
