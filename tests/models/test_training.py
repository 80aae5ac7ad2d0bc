"""The trainer with any network: optimisers, schedules, frozen and learning norms, resuming."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from models import papers, train
from models.data.batches import MaskBatch, TrainingBatch
from models.network import DETECTION_OUTPUTS, IGNORED, Task
from models.proposals import Cache, Settings
from models.train import main
from models.training.data import weigh_classes
from models.training.loop import TIMES
from models.training.run import (
    Norms,
    Precision,
    Recipe,
    Training,
    freeze,
    train_mode,
    trunk_of,
)
from models.training.schedules import CURVES, Schedule
from models.training.starting_weights import SettingsError
from models.training.validation import Row, validate_semantic
from tests.models.test_masks import write_folder
from tests.models.test_train import write_coco
from tests.models.tiny import TinySegmenter


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def halves() -> MaskBatch:
    """Two pictures, red on the left and green on the right, or the other way round."""
    labels = torch.zeros(2, 17, 22, dtype=torch.uint8)
    labels[0, :, 11:], labels[1, :, :11] = 1, 1
    colours = torch.tensor([[220, 40, 40], [40, 220, 40]], dtype=torch.uint8)
    frames = colours[labels.long()]
    labels[:, :2] = IGNORED
    return MaskBatch(frames, labels)


def new_training(
    kind: str = "sgd",
    norms: Norms = "learning",
    precision: Precision = "f32",
    average_decay: float = 0.999,
    trunk_parts: int = 0,
) -> Training:
    torch.manual_seed(0)
    network = TinySegmenter(2)
    freeze(network, trunk_parts, norms)
    train_mode(network)
    recipe = Recipe(kind, rate=0.05, trunk_share=0.5, average_decay=average_decay)
    return Training(network, recipe, Schedule(40, warm_up=2, curve=CURVES["poly"]), precision)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_any_network_learns_a_batch_by_heart(kind, precision):
    training, batch = new_training(kind, precision=precision), halves()
    history = [training.advance(batch)["pixel"] for _ in range(25)]
    assert history[-1] < 0.2 * history[0]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("norms", ["frozen", "heads", "learning"])
def test_a_resumed_run_repeats_an_unbroken_one_bit_by_bit(kind, norms, tmp_path):
    batch = halves()
    unbroken, broken = new_training(kind, norms), new_training(kind, norms)
    for _ in range(6):
        unbroken.advance(batch)
    for _ in range(3):
        broken.advance(batch)
    broken.save(tmp_path / "last.pt")
    resumed = new_training(kind, norms)
    resumed.load(tmp_path / "last.pt")
    for _ in range(3):
        resumed.advance(batch)
    assert resumed.step == 6
    for mine, other in (
        (resumed.model, unbroken.model),
        (resumed.average.model, unbroken.average.model),
    ):
        for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    first = new_training(kind, norms).model.state_dict()
    assert not torch.equal(first["head.1.weight"], resumed.model.state_dict()["head.1.weight"])


@pytest.mark.parametrize(
    ("norms", "learn"), [("frozen", set()), ("heads", {"head"}), ("learning", {"head", "backbone"})]
)
def test_the_norms_that_learn_are_those_that_were_asked_for(norms, learn):
    training = new_training(norms=norms)
    before = {n: v.clone() for n, v in training.model.state_dict().items()}
    training.advance(halves())
    after = training.model.state_dict()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert {n.split(".")[0] for n in changed if "running_mean" in n} == learn
    norm_weights = {n for n in changed if n.endswith(("0.1.weight", "1.1.weight"))}
    assert {n.split(".")[0] for n in norm_weights} == learn
    assert "backbone.body.0.0.weight" in changed  # the convolutions learn all the same


def test_what_a_network_freezes_by_itself_does_not_decay_in_a_run_of_several_processes():
    training = new_training("adamw")
    weight = training.model.backbone.body["0"][0].weight
    weight.requires_grad_(False)  # SPPnet does so whenever it is put into training mode
    before = weight.clone()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        training.advance(halves())
    finally:
        dist.destroy_process_group()
    assert torch.equal(weight, before)


def test_frozen_parts_of_the_trunk_do_not_change():
    training = new_training(trunk_parts=1)
    before = training.model.backbone.body["0"][0].weight.clone()
    second = training.model.backbone.body["1"][0].weight.clone()
    training.advance(halves())
    assert torch.equal(before, training.model.backbone.body["0"][0].weight)
    assert not torch.equal(second, training.model.backbone.body["1"][0].weight)


def test_the_trunk_learns_at_its_own_rate_and_all_rates_follow_the_schedule():
    training = new_training()
    heads, trunk = training.optimiser.param_groups
    names = {id(p): n for n, p in training.model.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in trunk["params"]} == {"backbone"}
    assert {names[id(p)].split(".")[0] for p in heads["params"]} == {"head"}
    rates = []
    for _ in range(3):
        training.advance(halves())
        rates.append((heads["lr"], trunk["lr"]))
    assert rates == [pytest.approx(r) for r in [(0.025, 0.0125), (0.05, 0.025), (0.05, 0.025)]]


def test_sgd_with_momentum_takes_the_step_of_its_definition():
    training = new_training(norms="frozen")
    weight = training.model.head[1].weight
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for _ in range(2):
        before = weight.detach().clone()
        training.advance(halves())
        assert weight.grad is not None
        seen.append((before, weight.grad.clone()))
    # v = m v + (g + w decay), w -= rate v; the gradients were too short to be clipped.
    velocity = torch.zeros_like(weight)
    value = seen[0][0]
    for (_, gradient), rate in zip(seen, (0.025, 0.05), strict=True):
        velocity = 0.9 * velocity + gradient + 0.02 * value
        value = value - rate * velocity
    assert torch.allclose(value, weight, atol=1e-6)


def test_the_average_of_learning_norms_carries_their_statistics():
    training = new_training(average_decay=0.9)
    norm = training.model.head[0][1]
    own = training.average.model.head[0][1]
    expected = norm.running_mean.clone(), norm.running_var.clone()
    for update in range(1, 5):
        training.advance(halves())
        decay = min(0.9, (1 + update) / (10 + update))
        expected = tuple(
            decay * e + (1 - decay) * latest
            for e, latest in zip(expected, (norm.running_mean, norm.running_var), strict=True)
        )
    assert torch.allclose(own.running_mean, expected[0])
    assert torch.allclose(own.running_var, expected[1])
    assert not torch.allclose(own.running_mean, torch.zeros(8), atol=1e-3)


def test_the_averaged_network_gives_what_the_trained_one_gives_once_both_stand_still():
    training, batch = new_training(average_decay=0.5), halves()
    for _ in range(30):
        training.advance(batch)
    averaged = training.average.model.prepare((17, 22))
    found = averaged(batch.frames)[0]
    known = batch.labels != IGNORED
    assert (found == batch.labels)[known].float().mean() > 0.97


def test_without_an_average_the_latest_weights_are_kept():
    training = new_training(average_decay=0.0)
    for _ in range(3):
        training.advance(halves())
    latest, kept = training.model.state_dict(), training.average.model.state_dict()
    assert all(torch.equal(latest[n], kept[n]) for n in latest if "tracked" not in n)


def test_the_papers_schedules_fall_as_they_should():
    for floor, least in ((0.0, 0.1), (0.01, 0.1), (0.2, 0.2)):
        steps = Schedule(100, warm_up=0, floor=floor, curve=CURVES["steps"])
        assert [steps.factor(s) for s in (0, 74, 75, 99)] == pytest.approx([1, 1, least, least])
    poly = Schedule(100, warm_up=0, floor=0.0, curve=CURVES["poly"])
    assert poly.factor(0) == 1 and poly.factor(50) == pytest.approx(0.5**0.9)
    assert poly.factor(100) == 0
    lifted = Schedule(100, warm_up=0, floor=0.2, curve=CURVES["poly"])
    assert lifted.factor(50) == pytest.approx(0.2 + 0.8 * 0.5**0.9)


@pytest.mark.parametrize(
    ("name", "parts", "left", "of"),
    [
        ("fast_rcnn_alexnet", 4, 2, 5),
        ("fast_rcnn_vgg16", 4, 2, 13),
        ("fast_rcnn_vgg16", 10, 4, 13),  # Fast R-CNN, sec. 4.5
        ("yolo_v2_resnet50", 4, 1, 53),
        ("overfeat_fast", 4, 4, 5),
        ("overfeat_accurate", 4, 4, 6),
        ("mobilenet_v2_fpn", 4, 9, 51),
        ("mobilenet_v3_large_fpn", 4, 9, 62),
    ],
)
def test_so_many_parts_are_so_many_convolutions_of_each_trunk(name, parts, left, of):
    with torch.device("meta"):  # without the weights of fc6
        network = papers.PAPERS[name](2)
    freeze(network, parts, "learning")
    weights = [p for p in trunk_of(network).parameters() if p.dim() == 4]
    assert [p.requires_grad for p in weights] == [False] * left + [True] * (of - left)


def write_halves(folder: Path) -> Path:
    """Four pictures whose colour tells the class, as a folder of masks."""
    rng = np.random.default_rng(0)
    labels = [np.where(np.arange(48) < rng.integers(15, 33), 0, 1) for _ in range(4)]
    labels = [one.astype(np.uint8)[None].repeat(33, 0) for one in labels]
    part = write_folder(folder, labels, ["left", "right"])
    for i, one in enumerate(labels):
        colours = np.array([[40, 40, 220], [40, 220, 40]], np.uint8)[one]
        cv2.imwrite(str(part / "images" / f"{i}.jpg"), colours)
    return part


def test_the_command_trains_a_semantic_network_by_name_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setitem(papers.PAPERS, "tiny", TinySegmenter)
    part = write_halves(tmp_path)
    words = ["tiny", "--data", str(part), "--val", str(part), "--size", "33x41", "--batch", "2",
             "--every", "30", "--workers", "0", "--threads", "1", "--warm-up", "1", "--rate", "0.1",
             "--frozen", "0", "--norms", "learning", "--optimiser", "sgd", "--schedule", "poly",
             "--balance", "0.5", "--class-weights", "median", "--elastic", "2",
             "--average", "0.9", "--out", str(tmp_path / "run")]  # fmt: skip  # a command
    main([*words, "--steps", "30"])
    main([*words, "--epochs", "30", "--resume"])  # 4 pictures, batch 2: 60 steps
    with (tmp_path / "run" / "losses.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["step"] for row in rows] == ["30", "50", "60"]
    assert list(rows[0]) == ["step", "pixel", *TIMES]
    assert float(rows[-1]["pixel"]) < 0.5 * float(rows[0]["pixel"])
    with (tmp_path / "run" / "validation.csv").open() as lines:
        scores = [float(row["mIoU"]) for row in csv.DictReader(lines)]
    assert len(scores) == 2 and scores[1] > 0.7
    curves = cv2.imread(str(tmp_path / "run" / "losses.png"))
    assert curves is not None and curves.shape[0] > 100


def test_a_validation_that_was_cut_off_is_made_up_for_on_resume(tmp_path, monkeypatch):
    monkeypatch.setitem(papers.PAPERS, "tiny", TinySegmenter)
    part = write_halves(tmp_path)
    words = ["tiny", "--data", str(part), "--val", str(part), f"{part}:2", "--size", "33x41",
             "--batch", "2", "--every", "2", "--workers", "0", "--threads", "1", "--frozen", "0",
             "--out", str(tmp_path / "run")]  # fmt: skip  # a command

    def cut_off(*given: Any) -> Iterator[Row]:
        yield next(validate_semantic(*given))
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(train, "validate_semantic", cut_off)
        main([*words, "--steps", "4"])
    for last in ("2", "4", "4"):  # the same again, on to the end, and nothing more to do
        main([*words, "--steps", last, "--resume"])
    with (tmp_path / "run" / "validation.csv").open() as lines:
        rows = [(row["step"], row["set"]) for row in csv.DictReader(lines)]
    assert rows == [(step, words) for step in "24" for words in (str(part), f"{part}:2")]


def test_class_weights_go_to_networks_that_have_them(tmp_path):
    from models.data.masks import read_masks

    masks = read_masks(str(write_halves(tmp_path)))
    network = TinySegmenter(2)
    weigh_classes(network, [masks])
    weights = network.pixel_loss.weights
    assert weights is not None and weights.min() > 0 and weights.unique().numel() == 2
    with pytest.raises(SettingsError, match="no loss of pixels"):
        weigh_classes(torch.nn.Linear(1, 1), [masks])


def test_a_network_that_cannot_learn_is_refused(tmp_path, monkeypatch):
    class OnlyRuns(torch.nn.Linear):
        task: Task = "detection"

    monkeypatch.setitem(papers.PAPERS, "fixed", lambda classes: OnlyRuns(1, classes))
    annotations = write_coco(tmp_path)
    words = ["fixed", "--data", f"{annotations}:{tmp_path}", "--size", "64x96",
             "--classes", "car,bus", "--out", str(tmp_path / "run")]  # fmt: skip  # a command
    with pytest.raises(SettingsError, match="not trained here"):
        main(words)


def test_a_trunk_for_classifier_weights_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(papers.PAPERS, "tiny", TinySegmenter)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "trunk.pth")
    words = ["tiny", "--data", str(write_halves(tmp_path)), "--size", "33x41",
             "--out", str(tmp_path / "run"),
             "--trunk", str(tmp_path / "trunk.pth")]  # fmt: skip  # a command
    with pytest.raises(SettingsError, match="no trunk"):
        main(words)


class TinyRegionNetwork(torch.nn.Module):
    """Learns how many regions a picture has, so that it must be shown them."""

    task: Task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer: str | None = "grid"
    regions = 20

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.guess = torch.nn.Linear(1, 1)

    def losses(self, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        if batch.regions is None:
            raise ValueError("no regions")
        count = torch.tensor([[float(len(r))] for r in batch.regions])
        return {"count": (self.guess(torch.ones_like(count)) - count).abs().mean()}


def test_a_region_network_is_given_the_proposals_of_each_set(tmp_path, monkeypatch):
    monkeypatch.setitem(papers.PAPERS, "regions", TinyRegionNetwork)
    annotations = write_coco(tmp_path)
    words = ["regions", "--data", f"{annotations}:{tmp_path}", "--size", "64x96", "--batch", "2",
             "--classes", "car,bus", "--steps", "3", "--workers", "0", "--threads", "1",
             "--out", str(tmp_path / "run")]  # fmt: skip  # a command
    with pytest.raises(SettingsError, match="--proposer grid"):
        main(words)
    boxes = {f"{i}.png": np.array([[0, 0, 128, 96]], np.float32) for i in range(4)}
    Cache(Settings("grid", 20, None), boxes).save(tmp_path / "regions.npz")
    with pytest.raises(SettingsError, match="1 sets need as many"):
        main([*words, "--regions", *[str(tmp_path / "regions.npz")] * 2])
    main([*words, "--regions", str(tmp_path / "regions.npz")])
    with (tmp_path / "run" / "losses.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    # One region for each of one, two or four pictures of a canvas; the guess begins near 0.
    assert 0.5 < float(row["count"]) < 4.5
