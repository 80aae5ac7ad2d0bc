"""Four steps to one Faster R-CNN: what learns when, what stays, and that it finds things after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models.data.augment import Labelled
from models.data.batches import TrainingBatches
from models.data.labelled import Entry, Share
from models.detection.alternating_training import PHASES, alternate, in_picture
from models.detection.faster_rcnn import FasterRCNN
from models.training.run import Recipe, Training, train_mode
from models.training.schedules import Schedule
from tests.models.detection import toys
from tests.models.detection.test_single_map import found, tiny

SIZE = (96, 128)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """More are slower on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Whole(TrainingBatches):
    """Every batch is all pictures, as they are."""

    def __getitem__(self, step):
        items = [entry.read() for entry in self.entries]
        regions = [torch.from_numpy(i.regions) for i in items] if self.with_regions else None
        truths = [toys.truth(i.boxes, i.class_ids) for i in items]
        frames = torch.from_numpy(np.stack([i.image for i in items]))
        return toys.TrainingBatch(frames, truths, regions)


def stored(folder: Path) -> Whole:
    """Four painted pictures as files."""
    batch, entries = toys.painted(4, SIZE, 2), []
    for i, (frame, truth) in enumerate(zip(batch.frames, batch.truths, strict=True)):
        file = folder / f"{i}.png"
        cv2.imwrite(str(file), frame.numpy()[:, :, ::-1])
        none = np.zeros((0, 4), np.float32)
        entries.append(Entry(file, truth.boxes.numpy(), truth.class_ids.numpy(), none))
    return Whole([Share(entries)], [SIZE], 4, steps=0)


class Fitting:
    """As many steps as each phase is said to have; remembers the weights before and after."""

    def __init__(self, network: FasterRCNN, steps: int) -> None:
        self.network, self.steps = network, steps
        self.seen: dict[str, tuple[dict, dict, dict[str, float]]] = {}
        self.regions: dict[str, list[np.ndarray]] = {}
        self.judged: list[bool] = []

    def __call__(self, data, out: Path, resume: bool, judged: bool) -> nn.Module:
        assert not resume
        out.mkdir(parents=True)
        train_mode(self.network)
        before = {n: v.clone() for n, v in self.network.state_dict().items()}
        recipe = Recipe(rate=3e-3, trunk_share=1.0, weight_decay=0.0, average_decay=0.0)
        training = Training(self.network, recipe, Schedule(self.steps, 1, floor=0.3))
        batch, losses = data[0], {}
        for _ in range(self.steps):
            losses = training.advance(batch)
        self.seen[out.name] = (before, dict(training.average.model.state_dict()), losses)
        self.judged.append(judged)
        self.regions[out.name] = [entry.regions for entry in data.entries]
        return training.average.model


def changed(before: dict, after: dict) -> set[str]:
    """The parts of which something is another."""
    return {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}


def test_each_step_changes_its_own_parts_and_the_trunk_stays_in_the_last_two(tmp_path):
    network = tiny()
    start = {n: v.clone() for n, v in network.state_dict().items()}
    fitting = Fitting(network, 2)
    alternate(network, stored(tmp_path), SIZE, tmp_path / "run", fitting)
    assert [changed(before, after) for before, after, _ in fitting.seen.values()] == [
        {"backbone", "rpn"},
        {"backbone", "roi_heads"},
        {"rpn"},
        {"roi_heads"},
    ]
    assert [set(losses) for *_, losses in fitting.seen.values()] == [
        {"objectness", "proposal_box"},
        {"class", "box"},
    ] * 2
    # The detector's trunk starts where the proposal network's did, and then is everybody's.
    second, third = (fitting.seen[phase.name][0] for phase in PHASES[1:3])
    assert changed(start, second) == {"rpn"}
    assert changed(start, third) == {"backbone", "roi_heads"}
    assert changed(network.state_dict(), fitting.seen["4_detections"][1]) == set()
    assert fitting.judged == [False, False, False, True]
    assert network.learning == "jointly"
    assert all(p.requires_grad for p in network.parameters())


def test_detectors_learn_from_the_proposals_of_the_step_before(tmp_path):
    network = tiny()
    fitting = Fitting(network, 2)
    alternate(network, stored(tmp_path), SIZE, tmp_path / "run", fitting)
    assert fitting.regions["1_proposals"] == [None] * 4
    second, fourth = fitting.regions["2_detections"], fitting.regions["4_detections"]
    assert all(len(boxes) > 5 for boxes in (*second, *fourth))
    assert not np.array_equal(second[0], fourth[0])


def test_frozen_parts_stay_frozen_throughout(tmp_path):
    network = tiny()
    network.backbone.body["0"].requires_grad_(False)
    before = network.backbone.body["0"][0].weight.clone()
    alternate(network, stored(tmp_path), SIZE, tmp_path / "run", Fitting(network, 1))
    assert torch.equal(before, network.backbone.body["0"][0].weight)
    assert not network.backbone.body["0"][0].weight.requires_grad
    assert network.backbone.body["1"][0].weight.requires_grad


def test_a_resumed_run_skips_what_is_finished_and_ends_alike(tmp_path):
    unbroken, broken = tiny(), tiny()
    data = stored(tmp_path)
    alternate(unbroken, data, SIZE, tmp_path / "a", Fitting(unbroken, 2))
    alternate(broken, data, SIZE, tmp_path / "b", Fitting(broken, 2), phases=PHASES[:2])
    again = tiny()
    fitting = Fitting(again, 2)
    alternate(again, data, SIZE, tmp_path / "b", fitting, resume=True)
    assert list(fitting.seen) == ["3_proposals", "4_detections"]
    assert changed(unbroken.state_dict(), again.state_dict()) == set()


def test_four_pictures_are_learned_by_heart_in_four_steps(tmp_path):
    network, data = tiny(), stored(tmp_path)
    alternate(network, data, SIZE, tmp_path / "run", Fitting(network, 70))
    batch = data[0]
    assert toys.ap50(found(network, batch.frames), batch.truths) > 0.9


def test_proposals_come_back_to_the_pixels_of_their_picture():
    none = np.zeros((0, 4), np.float32)
    picture = Labelled(np.zeros((50, 100, 3), np.uint8), none, np.zeros(0, np.int64), none)
    boxes = np.array([[20, 40, 60, 80], [0, 0, 128, 96], [3, 0, 9, 15]], np.float32)
    # 1.28 times as large in 96x128, 16 pixels from the top; the last lies on the grey bar.
    moved = in_picture(boxes, picture, SIZE)
    assert moved == pytest.approx(
        np.array([[15.625, 18.75, 46.875, 50], [0, 0, 100, 50]]), abs=1e-4
    )


def test_the_second_stage_alone_wants_proposals():
    network = tiny()
    network.learning = "detections"
    batch = replace(toys.painted(1, SIZE, 2), regions=None)
    with pytest.raises(ValueError, match="batch has none"):
        network.losses(batch)
