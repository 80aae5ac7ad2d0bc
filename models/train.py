"""Train a Faster R-CNN on COCO-format data.

    python -m models.train mobilenet_v2_fpn --out runs/street --size 320x576 --steps 10000 \
        --trunk mobilenet_v2_imagenet.pth \
        --data TRAIN.json:IMAGES[:REPEAT] ... --val VAL.json:IMAGES ...

Under ``torchrun --standalone --nproc-per-node N -m models.train`` processes share each batch. The
same command with ``--resume`` goes on exactly where an interrupted one stopped.

OUT receives ``last.pt`` (everything needed to go on), ``model_STEP.pt`` (averaged weights, ready
for ``models.export``), ``losses.csv``, ``losses.png`` and ``validation.csv``.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from models.backbones.mobilenet import load_classifier
from models.class_names import STREET_NAMES
from models.data import Share, TrainingBatch, TrainingBatches, parse_share
from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.faster_rcnn import FasterRCNN
from models.detectors import ModelFile
from models.evaluate import evaluate
from models.training import LOSSES, Schedule, Training, freeze, train_mode


def load_fitting(model: FasterRCNN, file: Path) -> list[str]:
    """Start from a detector's weights; parts of another shape (other classes) stay random.

    Returns:
        names of the parts that were not in the file or did not fit.
    """
    given = torch.load(file, weights_only=True)
    own = model.state_dict()
    fitting = {n: v for n, v in given.items() if n in own and v.shape == own[n].shape}
    if not fitting:
        raise ValueError(f"{file} holds no weights of this architecture")
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def detector(
    model: FasterRCNN, class_names: tuple[str, ...], size_hw: tuple[int, int]
) -> ModelFile:
    """The model as :mod:`models.evaluate` wants it, run by torch."""
    model.prepare(size_hw, output_form="candidates")
    about = {
        "class_names": class_names,
        "input_size_hw": size_hw,
        "fit": "letterbox",
        "outputs": ["boxes", "scores", "labels", "exact"],
        "output_form": "candidates",
        "nms_iou": 0.5,
    }

    @torch.inference_mode()
    def run(frames: np.ndarray) -> list[np.ndarray]:
        return [out.numpy() for out in model(torch.from_numpy(frames))]

    return ModelFile(run, about)


@dataclass(frozen=True)
class Log:
    """The files that tell how a run goes."""

    folder: Path
    writes: bool = True
    """Of several processes only the first writes."""

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Append a row to a CSV file, with a header if it is new."""
        file = self.folder / name
        new = not file.exists()
        with file.open("a", newline="") as out:
            writer = csv.DictWriter(out, row.keys())
            if new:
                writer.writeheader()
            writer.writerow(row)

    def draw(self) -> None:
        """Loss curves as a picture."""
        from matplotlib.figure import Figure

        with (self.folder / "losses.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
        for name in LOSSES:
            axes.plot([int(r["step"]) for r in rows], [float(r[name]) for r in rows], label=name)
        axes.legend()
        figure.savefig(self.folder / "losses.png", dpi=100)


def loader(data: TrainingBatches, start: int, workers: int) -> Iterator[TrainingBatch]:
    """Batches from ``start`` on, made ready by ``workers`` processes."""
    order = range(start, len(data))
    return iter(DataLoader(data, batch_size=None, sampler=order, num_workers=workers))


def fit_model(
    training: Training,
    data: TrainingBatches,
    log: Log,
    every: int,
    workers: int,
    validate: Callable[[], None],
) -> None:
    """The loop: steps, and every so often a row in the log, a checkpoint and a validation."""
    train_mode(training.model)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not log.writes) as progress:
        task = progress.add_task("training", total=len(data), completed=training.step)
        recent: list[dict[str, float]] = []
        began = time.monotonic()
        for batch in loader(data, training.step, workers):
            recent.append(training.advance(batch))
            progress.advance(task)
            if not log.writes:
                continue
            if training.step % 50 == 0 or training.step == len(data):
                mean = {n: round(sum(r[n] for r in recent) / len(recent), 5) for n in LOSSES}
                seconds = round((time.monotonic() - began) / len(recent), 4)
                log.add("losses.csv", {"step": training.step, **mean, "seconds_per_step": seconds})
                progress.update(task, description=f"loss {sum(mean.values()):.3f}")
                recent, began = [], time.monotonic()
            if training.step % every == 0 or training.step == len(data):
                training.save(log.folder / "last.pt")
                torch.save(
                    training.average.model.state_dict(),
                    log.folder / f"model_{training.step:06d}.pt",
                )
                log.draw()
                validate()
                began = time.monotonic()


def size_of(words: str) -> tuple[int, int]:
    """``320x576`` -> (320, 576), height first; multiples of 32."""
    height, _, width = words.partition("x")
    size = int(height), int(width)
    if any(side % 32 or side <= 0 for side in size):
        raise argparse.ArgumentTypeError(f"sides must be multiples of 32, got {words}")
    return size


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a Faster R-CNN on COCO-format data.")
    parser.add_argument("architecture", choices=sorted(ARCHITECTURES))
    parser.add_argument("--data", nargs="+", required=True, metavar="JSON:IMAGES[:REPEAT]")
    parser.add_argument("--val", nargs="*", default=[], metavar="JSON:IMAGES")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--classes", default=",".join(STREET_NAMES), help="names, comma separated")
    parser.add_argument(
        "--trunk", type=Path, help="classifier weights to start a MobileNet trunk from"
    )
    parser.add_argument("--weights", type=Path, help="detector weights to fine-tune")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    parser.add_argument("--size", type=size_of, default=(320, 576), help="HxW of evaluation")
    parser.add_argument("--sizes", type=size_of, nargs="*", help="HxW of training; default: --size")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--epochs", type=float, help="instead of --steps: passes over the data")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4e-4, help="learning rate of the heads")
    parser.add_argument(
        "--trunk-rate", type=float, default=0.3, help="share of --rate for the trunk"
    )
    parser.add_argument("--warm-up", type=int, default=200, help="steps")
    parser.add_argument(
        "--frozen", type=int, default=4, help="first parts of the trunk left as they are"
    )
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--balance", type=float, default=0.0, help="see models.data.repeat_factors")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare pictures")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def build(arguments: argparse.Namespace, class_names: tuple[str, ...]) -> FasterRCNN:
    """The model with the weights that the command line names."""
    torch.manual_seed(arguments.seed)
    model = faster_rcnn(arguments.architecture, len(class_names))
    if arguments.trunk:
        load_classifier(model.backbone, torch.load(arguments.trunk, weights_only=True))
    if arguments.weights:
        left = load_fitting(model, arguments.weights)
        Console().print(f"left random: {', '.join(left) or 'nothing'}")
    freeze(model, arguments.frozen)
    return model


def main(words: list[str] | None = None) -> None:
    """Train as the command line says."""
    arguments = parse_arguments(words)
    torch.set_num_threads(arguments.threads)
    class_names = tuple(arguments.classes.split(","))
    rank, processes = 0, 1
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
        rank, processes = dist.get_rank(), dist.get_world_size()
    shares: list[Share] = [parse_share(w, class_names) for w in arguments.data]
    steps = arguments.steps
    if arguments.epochs:
        pictures = sum(len(s.entries) * s.repeat for s in shares)
        steps = math.ceil(arguments.epochs * pictures / arguments.batch)
    data = TrainingBatches(
        shares,
        arguments.sizes or [arguments.size],
        arguments.batch // processes,
        steps,
        arguments.seed,
        balance=arguments.balance,
        share_of_run=rank,
    )
    schedule = Schedule(steps, arguments.warm_up)
    model = build(arguments, class_names).to(memory_format=torch.channels_last)
    training = Training(
        model, arguments.rate, arguments.trunk_rate, schedule, arguments.precision == "bf16"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    log = Log(arguments.out, writes=rank == 0)
    if arguments.resume:
        training.load(arguments.out / "last.pt")

    def validate() -> None:
        judge = detector(training.average.model, class_names, arguments.size)
        for words in arguments.val:
            annotations, _, images = words.partition(":")
            figures = evaluate(judge, Path(annotations), Path(images))
            row = {"step": training.step, "set": annotations}
            per_class = {n: round(c["AP50"], 4) for n, c in figures["classes"].items()}
            log.add(
                "validation.csv", {**row, "AP50": round(figures["AP50"], 4), "classes": per_class}
            )
            Console().print(f"step {training.step} {annotations}: {per_class}")

    fit_model(training, data, log, arguments.every, arguments.workers, validate)


if __name__ == "__main__":
    main()
