"""The trainer: it learns, goes on where it stopped, and leaves the right files."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models import train
from models.data.batches import TrainingBatch
from models.data.pictures import DataError
from models.detection.alternating_training import PHASES
from models.detection.architectures import faster_rcnn
from models.detection.joint_training import LOSSES
from models.detection.losses import Truth
from models.model_file.weights_back import load_from_model_file
from models.published import WeightsError
from models.train import main, parse_arguments
from models.training.averaging import Average
from models.training.loop import TIMES, Log
from models.training.run import Precision, Recipe, Training, freeze, train_mode
from models.training.schedules import Schedule
from models.training.starting_weights import SettingsError, load_fitting
from tests.models.detection.test_mask_training import tiny as tiny_mask_rcnn
from tests.models.detection.test_single_map import tiny as tiny_faster_rcnn
from tests.models.test_masks import write_folder
from tests.models.tiny import TinySegmenter


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Tiny tensors; on a busy machine threads would mostly wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def block_batch() -> TrainingBatch:
    """Two pictures with one bright block each."""
    frames = torch.full((2, 96, 128, 3), 70, dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 20, 60, 70], [50, 30, 110, 80]])
    for frame, (x1, y1, x2, y2) in zip(frames, boxes.int().tolist(), strict=True):
        frame[y1:y2, x1:x2] = torch.tensor([230, 40, 40], dtype=torch.uint8)
    nothing = torch.zeros(0, 4)
    truths = [Truth(b[None], torch.tensor([i]), nothing) for i, b in enumerate(boxes)]
    return TrainingBatch(frames, truths)


def new_training(steps: int = 40, half: bool = False) -> Training:
    torch.manual_seed(0)
    model = faster_rcnn("mobilenet_v2_fpn", 2)
    freeze(model, trunk_parts=2)
    train_mode(model)
    precision: Precision = "bf16" if half else "f32"
    return Training(model, Recipe(rate=1e-3), Schedule(steps, warm_up=2), precision)


@pytest.mark.parametrize("half", [False, True])
def test_all_losses_fall_on_a_batch_learned_by_heart(half):
    training, batch = new_training(half=half), block_batch()
    history = [training.advance(batch) for _ in range(9)]  # slow where bf16 is made up of floats
    assert all(np.isfinite(list(parts.values())).all() for parts in history)
    first, last = (sum(sum(p.values()) for p in part) for part in (history[:3], history[-3:]))
    assert last < 0.7 * first
    assert set(history[0]) == set(LOSSES)


def test_a_resumed_run_repeats_an_unbroken_one_bit_by_bit(tmp_path):
    batch = block_batch()
    unbroken = new_training()
    for _ in range(4):
        unbroken.advance(batch)
    broken = new_training()
    for _ in range(2):
        broken.advance(batch)
    broken.save(tmp_path / "last.pt")
    resumed = new_training()
    resumed.load(tmp_path / "last.pt")
    for _ in range(2):
        resumed.advance(batch)
    assert resumed.step == unbroken.step == 4
    for mine, other in (
        (resumed.model, unbroken.model),
        (resumed.average.model, unbroken.average.model),
    ):
        for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_frozen_parts_and_batch_norm_do_not_change():
    training = new_training()
    before = {n: v.clone() for n, v in training.model.state_dict().items()}
    training.advance(block_batch())
    after = training.model.state_dict()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert not any(n.startswith(("backbone.body.0.", "backbone.body.1.")) for n in changed)
    assert not any("running" in n for n in changed)
    assert any(n.startswith("backbone.body.7.") for n in changed)
    assert any(n.startswith("roi_heads.box_predictor") for n in changed)


def test_the_learning_rate_warms_up_and_falls_like_a_cosine():
    schedule = Schedule(steps=100, warm_up=10, floor=0.1)
    assert schedule.factor(0) == pytest.approx(0.1) and schedule.factor(9) == 1.0
    assert schedule.factor(10) == 1.0 and schedule.factor(55) == pytest.approx(0.55)
    assert schedule.factor(100) == schedule.factor(200) == pytest.approx(0.1)
    falling = [schedule.factor(i) for i in range(10, 101)]
    assert falling == sorted(falling, reverse=True)


def test_the_average_lags_behind_and_forgets_its_start_quickly():
    model = faster_rcnn("mobilenet_v2_fpn", 2)
    freeze(model, 0)
    average = Average(model, decay=0.99)
    weight = model.rpn.head.cls_logits.bias
    with torch.no_grad():
        weight.fill_(1.0)
    expected = 0.0
    for update in range(1, 6):
        average.update(model)
        decay = min(0.99, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay)
    assert torch.allclose(average.model.rpn.head.cls_logits.bias, torch.tensor(expected))


def test_weights_of_a_torchvision_detector_are_fine_tuned_to_other_classes(tmp_path):
    torch.manual_seed(1)
    torch.save(faster_rcnn("mobilenet_v3_large_320_fpn", 90).state_dict(), tmp_path / "coco.pt")
    model = faster_rcnn("mobilenet_v3_large_320_fpn", 6)
    left = load_fitting(model, tmp_path / "coco.pt")
    predictor = "roi_heads.box_predictor."
    parts = ("bbox_pred.bias", "bbox_pred.weight", "cls_score.bias", "cls_score.weight")
    assert left == [predictor + part for part in parts]
    torch.save({"something": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="no weights of this architecture"):
        load_fitting(model, tmp_path / "foreign.pt")


def test_fine_tuning_starts_from_a_model_file():
    street = Path("models/zoo/street.onnx")
    model, twin = faster_rcnn("mobilenet_v2_fpn", 6), faster_rcnn("mobilenet_v2_fpn", 6)
    assert load_fitting(model, street) == []
    load_from_model_file(twin, street)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )
    with pytest.raises(ValueError, match="does not hold this architecture"):
        load_fitting(faster_rcnn("mobilenet_v2_fpn", 2), street)


def write_coco(folder: Path) -> Path:
    """Four pictures with one red or green block each."""
    images, annotations = [], []
    for i in range(4):
        picture = np.full((96, 128, 3), 70, np.uint8)
        picture[20:70, 15 * i : 15 * i + 50] = (40, 40, 230) if i % 2 else (40, 230, 40)
        cv2.imwrite(str(folder / f"{i}.png"), picture)
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 96, "width": 128})
        annotations.append(
            {"id": i + 1, "image_id": i + 1, "category_id": 1 + i % 2, "area": 2500,
             "bbox": [15 * i, 20, 50, 50], "iscrowd": 0}
        )  # fmt: skip  # a table
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    file = folder / "set.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content))
    return file


def test_the_command_trains_validates_and_resumes(tmp_path):
    annotations = write_coco(tmp_path)
    words = ["mobilenet_v2_fpn", "--data", f"{annotations}:{tmp_path}:2", "--size", "96x128",
             "--val", f"{annotations}:{tmp_path}", "--classes", "car,bus", "--batch", "2",
             "--every", "2", "--workers", "0", "--warm-up", "1",
             "--out", str(tmp_path / "run")]  # fmt: skip  # a command
    main([*words, "--epochs", "1"])  # 8 pictures, 2.15 a canvas, 2 canvases a batch: two steps
    with pytest.raises(SettingsError, match="holds a training; add --resume"):
        main([*words, "--steps", "4"])
    main([*words, "--steps", "4", "--resume"])
    with (tmp_path / "run" / "losses.csv").open() as lines:
        assert [row["step"] for row in csv.DictReader(lines)] == ["2", "4"]
    with (tmp_path / "run" / "validation.csv").open() as lines:
        assert [row["step"] for row in csv.DictReader(lines)] == ["2", "4"]
    curves = cv2.imread(str(tmp_path / "run" / "losses.png"))
    assert curves is not None and curves.shape[0] > 100
    fresh = faster_rcnn("mobilenet_v2_fpn", 2)
    state = torch.load(tmp_path / "run" / "model_000004.pt", weights_only=True)
    fresh.load_state_dict(state)


@pytest.mark.parametrize(
    ("val", "reason"),
    [
        (["typo.json:."], r"there is no typo\.json"),
        (["set.json"], "expected ANNOTATIONS:IMAGES_DIR, got 'set.json'"),
        (["set.json:.:2"], "expected ANNOTATIONS:IMAGES_DIR, got"),
        (["set.json:.", "set.json:elsewhere"], r"no picture elsewhere/0\.png"),
        (["set.json:.", "--val-regions", "a.npz", "b.npz"], "1 sets need as many files"),
    ],
)
def test_what_cannot_be_judged_by_is_told_before_the_first_step(val, reason, tmp_path, monkeypatch):
    write_coco(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["mobilenet_v2_fpn", "--data", "set.json:.", "--classes", "car,bus", "--size", "96x128"]
    with pytest.raises((DataError, SettingsError), match=reason):
        main([*words, "--workers", "0", "--out", "run", "--val", *val])
    assert not (tmp_path / "run").exists()


def test_masks_that_cannot_be_judged_by_are_told_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setitem(train.PAPERS, "deeplab_v3_plus", TinySegmenter)
    part = write_folder(tmp_path, [np.zeros((33, 48), np.uint8)], ["left", "right"])
    words = ["deeplab_v3_plus", "--data", str(part), "--size", "33x41", "--workers", "0"]
    with pytest.raises(DataError, match="typo"):
        main([*words, "--out", str(tmp_path / "run"), "--val", str(part), str(tmp_path / "typo")])
    assert not (tmp_path / "run").exists()


def test_resuming_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        new_training().load(tmp_path / "last.pt")


def test_what_is_no_checkpoint_of_this_training_is_refused_in_a_line(tmp_path):
    file = tmp_path / "last.pt"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"cannot resume from .*last\.pt"):
        new_training().load(file)
    Training(tiny_faster_rcnn(), Recipe(), Schedule(4, warm_up=1)).save(file)
    with pytest.raises(WeightsError, match="checkpoint of this network") as refusal:
        new_training().load(file)
    assert len(str(refusal.value).splitlines()) == 1


def test_what_was_logged_after_the_last_checkpoint_is_logged_anew(tmp_path):
    log = Log(tmp_path)
    for step in (50, 100, 150):
        log.add("losses.csv", {"step": step, "loss": 1.0})
    for name in ("car", "bus, or coach"):
        log.add("validation.csv", {"step": 100, "class": name})
    with (tmp_path / "losses.csv").open("a") as killed:
        killed.write("15")
    (tmp_path / "empty.csv").touch()
    log.cut(100)
    assert not (tmp_path / "empty.csv").exists()
    log.add("losses.csv", {"step": 150, "loss": 2.0})
    with (tmp_path / "losses.csv").open() as lines:
        rows = [(row["step"], row["loss"]) for row in csv.DictReader(lines)]
    assert rows == [("50", "1.0"), ("100", "1.0"), ("150", "2.0")]
    with (tmp_path / "validation.csv").open() as lines:
        assert [row["class"] for row in csv.DictReader(lines)] == ["car", "bus, or coach"]


def built(*words: str) -> torch.nn.Module:
    arguments = parse_arguments([*words, "--data", "a:b", "--out", "c"])
    return train.build(arguments, train.task_of(arguments.network), ("car", "bus"))


def test_what_starts_at_random_learns_and_what_starts_from_weights_in_part(tmp_path):
    assert all(p.requires_grad for p in built("mobilenet_v2_fpn").parameters())
    torch.save(faster_rcnn("mobilenet_v2_fpn", 2).state_dict(), tmp_path / "weights.pt")
    begun = built("mobilenet_v2_fpn", "--weights", str(tmp_path / "weights.pt"))
    left = [n for n, p in begun.named_parameters() if not p.requires_grad]
    assert any(n.startswith("backbone.body.3.") for n in left)
    assert not any(n.startswith("backbone.body.4.") and "conv.2" in n for n in left)


@pytest.mark.parametrize(
    "words", [("--frozen", "2"), ("--trunk-rate", "0.1"), ("--norms", "heads")]
)
def test_what_concerns_a_trunk_is_refused_where_there_is_none(words):
    with pytest.raises(SettingsError, match="has no trunk"):
        built("ssdlite320_mobilenet_v3_large", *words)


def test_norms_that_a_model_file_has_in_its_convolutions_do_not_learn(monkeypatch):
    """They would divide by a deviation that is in the weights already."""
    monkeypatch.setitem(train.PAPERS, "deeplab_v3_plus", TinySegmenter)
    monkeypatch.setattr(train, "load_fitting", lambda model, file: [])
    words = ("deeplab_v3_plus", "--weights", "tiny.onnx")
    norms = [m for m in built(*words).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(p.requires_grad for norm in norms for p in norm.parameters())
    with pytest.raises(SettingsError, match="has its norms within its convolutions"):
        built(*words, "--norms", "heads")


def test_detectors_learn_from_sides_that_are_multiples_of_32(tmp_path):
    words = ["mobilenet_v2_fpn", "--data", "a.json:b", "--out", str(tmp_path), "--size", "321x576"]
    with pytest.raises(SettingsError, match="multiples of 32"):
        main(words)
    with pytest.raises(SystemExit):
        parse_arguments(["unknown_architecture", "--data", "a:b", "--out", "c"])


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    for name, answer in [("is_torchelastic_launched", True), ("init_process_group", None),
                         ("get_rank", 0), ("get_world_size", 3)]:  # fmt: skip  # a table
        monkeypatch.setattr(train.dist, name, lambda *_, answer=answer: answer)
    with pytest.raises(SettingsError, match="--batch 16 cannot be shared evenly by 3 processes"):
        main(["mobilenet_v2_fpn", "--data", "a:b", "--out", str(tmp_path), "--batch", "16"])


def test_the_four_steps_are_trained_one_after_the_other_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setitem(train.PAPERS, "faster_rcnn", lambda classes: tiny_faster_rcnn())
    annotations = write_coco(tmp_path)
    run = tmp_path / "run"
    words = ["faster_rcnn", "--alternating", "--data", f"{annotations}:{tmp_path}", "--size",
             "96x128", "--val", f"{annotations}:{tmp_path}", "--classes", "car,bus,truck",
             "--batch", "2", "--every", "2", "--workers", "0", "--warm-up", "1", "--frozen", "1",
             "--out", str(run)]  # fmt: skip  # a command
    main([*words, "--steps", "2"])
    assert sorted(file.name for file in run.iterdir()) == [phase.name for phase in PHASES]
    assert losses_of(run / "1_proposals") == (["objectness", "proposal_box"], ["2"])
    assert losses_of(run / "2_detections") == (["class", "box"], ["2"])
    assert [phase.name for phase in PHASES if (run / phase.name / "validation.csv").exists()] == [
        "4_detections"
    ]
    (run / "4_detections" / "finished.pt").unlink()
    main([*words, "--steps", "3", "--resume"])
    assert losses_of(run / "3_proposals") == (["objectness", "proposal_box"], ["2"])
    assert losses_of(run / "4_detections") == (["class", "box"], ["2", "3"])
    state = torch.load(run / "4_detections" / "model_000003.pt", weights_only=True)
    tiny_faster_rcnn().load_state_dict(state)


def losses_of(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the losses that were written down, and the steps."""
    with (folder / "losses.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return list(rows[0])[1 : -len(TIMES)], [row["step"] for row in rows]


def test_four_steps_are_only_for_networks_of_two_stages(tmp_path):
    annotations = write_coco(tmp_path)
    words = ["ssdlite320_mobilenet_v3_large", "--alternating", "--data",
             f"{annotations}:{tmp_path}", "--size", "320x320", "--classes", "car,bus",
             "--out", str(tmp_path / "run")]  # fmt: skip  # a command
    with pytest.raises(SettingsError, match="for a Faster R-CNN"):
        main(words)


def test_a_network_that_draws_masks_learns_and_is_judged_like_any_detector(tmp_path, monkeypatch):
    monkeypatch.setitem(train.PAPERS, "mask_rcnn", lambda classes: tiny_mask_rcnn())
    annotations = write_coco(tmp_path)
    content = json.loads(annotations.read_text())
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    annotations.write_text(json.dumps(content))
    main(["mask_rcnn", "--data", f"{annotations}:{tmp_path}", "--size", "96x128", "--val",
          f"{annotations}:{tmp_path}", "--classes", "car,bus,truck", "--batch", "2", "--steps",
          "1", "--workers", "0", "--frozen", "0",
          "--out", str(tmp_path / "run")])  # fmt: skip  # a command
    with (tmp_path / "run" / "losses.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert float(row["mask"]) > 0.1
    assert (tmp_path / "run" / "validation.csv").exists()
