"""Train any network of the family on labelled pictures.

    python -m models.train mobilenet_v2_fpn --out runs/street --size 320x576 --steps 10000 \
        --trunk mobilenet_v2_imagenet.pth \
        --data TRAIN.json:IMAGES[:REPEAT] ... --val VAL.json:IMAGES ...

Data sets of detectors are COCO's or VOC's (:func:`models.data.labelled.parse_share`), those of
semantic networks COCO's, VOC's or folders of masks (:func:`models.data.masks.read_masks`).

Under ``torchrun --standalone --nproc-per-node N -m models.train`` processes share each batch. The
same command with ``--resume`` goes on exactly where an interrupted one stopped.

OUT receives ``last.pt`` (everything needed to go on), ``model_STEP.pt`` (averaged weights, ready
for ``models.export``), ``losses.csv``, ``losses.png`` and ``validation.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

from models.bad_input import told
from models.data.batches import TrainingBatches
from models.data.class_names import STREET_NAMES
from models.data.mask_batches import MaskBatches
from models.data.masks import MaskSet, read_masks
from models.detection.alternating_training import FINISHED, PHASES, alternate
from models.detection.faster_rcnn import FasterRCNN
from models.model_file.input_sizes import parse_size
from models.network import Network, Task
from models.papers import PAPERS
from models.published import state_in
from models.training.data import (
    check_val,
    detection_data,
    regions_of,
    semantic_data,
    weigh_classes,
)
from models.training.loop import Log, fit_model
from models.training.run import Norms, Recipe, Training, freeze, trunk_of, usual_norms
from models.training.schedules import CURVES, Schedule
from models.training.starting_weights import SettingsError, load_fitting, load_trunk
from models.training.validation import Row, validate_detection, validate_semantic

FROZEN = 4  # parts of a trunk that starts from ImageNet: of what, tells `freeze`
WEIGHT_DECAYS = {"adamw": 0.02, "sgd": 5e-4}


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("network", choices=sorted(PAPERS), metavar="NAME", help=", ".join(sorted(PAPERS)))
    add("--data", nargs="+", required=True, metavar="SET", help="JSON:IMAGES[:REPEAT] or as above")
    add("--regions", type=Path, nargs="*", metavar="NPZ", help="proposals, one file for each SET")
    add("--val", nargs="*", default=[], metavar="SET", help="sets to judge by")
    add("--val-regions", type=Path, nargs="*", metavar="NPZ", help="the same for each of --val")
    add("--out", type=Path, required=True, help="folder for checkpoints and logs")
    add("--classes", help="names, comma separated; default: the street's, or the masks' own")
    add("--trunk", type=Path, help="classifier weights to start the trunk from")
    fine_tune = "weights or model file of the same network to fine-tune (of last.pt the average)"
    add("--weights", type=Path, help=fine_tune)
    add("--resume", action="store_true", help="go on from OUT/last.pt")
    add("--alternating", action="store_true", help="Faster R-CNN: four steps, --steps each")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--precision", choices=("f32", "bf16", "f16"), default="f32", help="f16: on a GPU only")
    add("--workers", type=int, default=1, help="processes that prepare pictures")
    add("--threads", type=int, default=2, help="of torch")
    add("--seed", type=int, default=0)
    add("--every", type=int, default=500, help="steps between checkpoints")
    pictures = parser.add_argument_group("pictures").add_argument
    pictures("--size", type=parse_size, default=(320, 576), help="HxW of evaluation")
    pictures("--sizes", type=parse_size, nargs="*", help="HxW of training; default: --size")
    pictures("--batch", type=int, default=8)
    pictures(
        "--balance",
        type=float,
        default=0.0,
        help="detection: see models.data.batches.repeat_factors; masks: share of crops that hold a "
        "class drawn at random",
    )
    pictures("--scales", type=float, nargs=2, default=(0.5, 2.0), help="of crops with masks")
    pictures("--elastic", type=float, default=0.0, help="pixels of bending, with masks; U-Net: 10")
    pictures(
        "--class-weights",
        choices=("none", "median"),
        default="none",
        help="of the loss of pixels; median: by median frequency",
    )
    learning = parser.add_argument_group("learning").add_argument
    learning("--steps", type=int, default=10_000)
    learning("--epochs", type=float, help="instead of --steps: passes over the data")
    learning("--optimiser", choices=sorted(WEIGHT_DECAYS), default="adamw")
    learning("--rate", type=float, default=4e-4, help="learning rate of the heads")
    learning("--trunk-rate", type=float, help="share of --rate for the trunk; default: 0.3")
    learning("--weight-decay", type=float, help="default: 0.02 for adamw, 5e-4 for sgd")
    learning("--momentum", type=float, default=0.9, help="of sgd")
    learning("--schedule", choices=sorted(CURVES), default="cosine", help="of the rate")
    learning("--floor", type=float, default=0.01, help="least share of the rate")
    learning("--warm-up", type=int, default=200, help="steps")
    learning("--average", type=float, default=0.999, help="decay of the averaged weights; 0: none")
    learning(
        "--frozen",
        type=int,
        help="first parts of the trunk left as they are; default: 4 with --trunk or --weights "
        "(2 convolutions of AlexNet and VGG-16, 1 of ResNet, 9 of a MobileNet, 4 of OverFeat)",
    )
    learning(
        "--norms",
        choices=("frozen", "heads", "learning"),
        help="which batch norms learn; default: all of a network that starts at random, else none; "
        "of a semantic one that starts from no model file, those of the heads",
    )
    return parser.parse_args(words)


def build(arguments: argparse.Namespace, task: Task, class_names: tuple[str, ...]) -> nn.Module:
    """The network with the weights that the command line names, frozen where it says."""
    torch.manual_seed(arguments.seed)
    model = PAPERS[arguments.network](len(class_names))
    if arguments.trunk:
        load_trunk(model, state_in(arguments.trunk))
    if arguments.weights:
        left = load_fitting(model, arguments.weights)
        Console().print(f"left random: {', '.join(left) or 'nothing'}")
    freeze(model, *left_alone(arguments, model, task))
    return model.to(arguments.device).to(memory_format=torch.channels_last)


def left_alone(arguments: argparse.Namespace, model: nn.Module, task: Task) -> tuple[int, Norms]:
    """How many parts of the trunk, and which norms, are not to learn; random ones are all to."""
    of_trunk = {
        "--frozen": bool(arguments.frozen),
        "--trunk-rate": arguments.trunk_rate is not None,
        "--norms heads": arguments.norms == "heads",
    }
    if trunk_of(model) is None:
        for option in (option for option, given in of_trunk.items() if given):
            raise SettingsError(f"{option}: {arguments.network} has no trunk apart from its heads")
    is_file = arguments.weights is not None and arguments.weights.suffix == ".onnx"
    if is_file and arguments.norms not in (None, "frozen"):
        raise SettingsError(
            f"--norms {arguments.norms}: a model file has its norms within its convolutions, which "
            "learning norms would undo; start from a checkpoint, or leave them frozen"
        )
    begun = bool(arguments.trunk or arguments.weights)
    parts = (FROZEN if begun else 0) if arguments.frozen is None else arguments.frozen
    usual = "frozen" if is_file else usual_norms(task, begun=begun)
    return parts, arguments.norms or usual


def task_of(name: str) -> Task:
    """What comes out of the network of that name."""
    return cast(Network, PAPERS[name](2)).task


def main(words: list[str] | None = None) -> None:
    """Train as the command line says."""
    arguments = parse_arguments(words)
    torch.set_num_threads(arguments.threads)
    rank, processes = 0, 1
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
        rank, processes = dist.get_rank(), dist.get_world_size()
    if arguments.batch % processes:
        raise SettingsError(
            f"--batch {arguments.batch} cannot be shared evenly by {processes} processes"
        )
    given = tuple(arguments.classes.split(",")) if arguments.classes else None
    data: TrainingBatches | MaskBatches
    sets: list[MaskSet] = []
    task = task_of(arguments.network)
    if task == "semantic":
        first = read_masks(arguments.data[0], given)
        sets = [first, *(read_masks(w, first.class_names) for w in arguments.data[1:])]
        class_names = first.class_names
        data = semantic_data(arguments, sets, rank, processes)
    else:
        class_names = given or STREET_NAMES
        data = detection_data(arguments, class_names, task, rank, processes)
    check_val(arguments, task, class_names)
    model = build(arguments, task, class_names)
    if not hasattr(model, "losses"):
        raise SettingsError(f"{arguments.network} is not trained here, only run with given weights")
    if cast(Network, model).proposer and not arguments.regions:
        raise SettingsError(
            f"{arguments.network} learns from proposals; make them with python -m models.proposals "
            f"--proposer {cast(Network, model).proposer}, and give them as --regions"
        )
    if arguments.class_weights == "median":
        weigh_classes(model, sets)

    def fit(
        data: TrainingBatches | MaskBatches, out: Path, resume: bool, judged: bool = True
    ) -> nn.Module:
        training = Training(
            model,
            recipe_of(arguments),
            Schedule(data.steps, arguments.warm_up, arguments.floor, CURVES[arguments.schedule]),
            arguments.precision,
        )
        out.mkdir(parents=True, exist_ok=True)
        log = Log(out, writes=rank == 0)
        if resume:
            training.load(out / "last.pt")
            log.cut(training.step)

        def validate() -> None:
            if not judged:
                return
            # Of all sets or of none: see the resuming below.
            for row in list(figures(arguments, task, training.average.model, class_names)):
                log.add("validation.csv", {"step": training.step, **row})
                Console().print(f"step {training.step} {row}")

        # The checkpoint comes first, so one that was killed while validating has no rows of it.
        if resume and log.writes and not log.has("validation.csv", training.step):
            validate()
        fit_model(training, data, log, arguments.every, arguments.workers, validate)
        return training.average.model

    if not arguments.resume and holds_training(arguments.out):
        raise SettingsError(
            f"{arguments.out} holds a training; add --resume, or name another --out"
        )
    if not arguments.alternating:
        fit(data, arguments.out, arguments.resume)
    elif isinstance(model, FasterRCNN) and isinstance(data, TrainingBatches) and processes == 1:
        alternate(model, data, arguments.size, arguments.out, fit, resume=arguments.resume)
    else:
        raise SettingsError("--alternating is for a Faster R-CNN, in one process")


def holds_training(out: Path) -> bool:
    """Whether a training, or a step of an alternating one, has left a checkpoint there."""
    folders = (out, *(out / phase.name for phase in PHASES))
    return any((folder / name).exists() for folder in folders for name in ("last.pt", FINISHED))


def figures(
    arguments: argparse.Namespace, task: Task, network: nn.Module, class_names: tuple[str, ...]
) -> Iterator[Row]:
    """A row of figures for each set of ``--val``."""
    if task == "semantic":
        return validate_semantic(network, class_names, arguments.val)
    regions = regions_of(arguments.val_regions, arguments.val)
    return validate_detection(network, class_names, arguments.size, arguments.val, regions)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The optimiser that the command line describes."""
    decay = arguments.weight_decay
    return Recipe(
        kind=arguments.optimiser,
        rate=arguments.rate,
        trunk_share=Recipe.trunk_share if arguments.trunk_rate is None else arguments.trunk_rate,
        weight_decay=WEIGHT_DECAYS[arguments.optimiser] if decay is None else decay,
        momentum=arguments.momentum,
        average_decay=arguments.average,
    )


if __name__ == "__main__":
    with told():
        main()
