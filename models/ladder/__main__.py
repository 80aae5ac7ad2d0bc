"""Climb the ladder: train the family on the same data with the same trunk, and compare.

    python -m models.ladder detection --data train.json:images --val val.json:images \
        --trunk mobilenet_v2_imagenet.pth --out runs/ladder
    python -m models.ladder segmentation --data camvid/train --val camvid/val \
        --trunk mobilenet_v2_imagenet.pth --out runs/ladder
    python -m models.ladder detection --small --out runs/small      # minutes, on drawn blocks

Detection: OverFeat, R-CNN, SPPnet, Fast R-CNN, Faster R-CNN. Segmentation: FCN, Hypercolumns,
U-Net, DeepLab. How each learns stands in :mod:`models.ladder.rungs`; what is measured, in
:mod:`models.ladder.timing` and :mod:`models.ladder.judging`.

Each rung has a folder of its own in OUT, and nothing that lies there is done again: the same
command goes on where an interrupted one stopped. OUT receives ``detection.json``, ``.md`` and
``.png``, or ``segmentation.*``, anew after every rung, with all rungs that lie there.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console

from models.bad_input import told
from models.data.batches import TrainingBatches
from models.data.class_names import COCO_NAMES, class_of
from models.data.json_files import read_truth
from models.data.labelled import Entry, parse_share
from models.data.mask_batches import MaskBatches
from models.data.masks import read_masks
from models.ladder.export import export_rung
from models.ladder.judging import ENGINES, Engine, judge_detection, judge_segmentation
from models.ladder.report import write_report
from models.ladder.rungs import LADDERS, SMALL_HW, Ladder, Rung, small
from models.ladder.scenes import write_scenes
from models.ladder.timing import machine
from models.ladder.training import (
    Run,
    claim,
    fit_stages,
    is_of,
    is_staged,
    train,
    training_seconds,
    write_whole,
)
from models.network import Network
from models.proposals import Settings, fill

RESULT = "result.json"
SMALL_PICTURES = 6
TIMED, SMALL_TIMED = 10, 2


@dataclass(frozen=True)
class Climb:
    """What one command asks for."""

    ladder: Ladder
    data: tuple[str, ...]
    val: str
    out: Path
    run: Run
    timed: int
    """Pictures, or repetitions, that time is taken of."""
    engines: tuple[Engine, ...]
    processes: int
    """That make proposals."""
    export: bool
    """Write each rung as a model file, too."""


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.ladder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ladder", choices=sorted(LADDERS))
    add("--data", nargs="+", metavar="SET", help="to learn from, as for models.train")
    add("--val", metavar="SET", help="to judge by")
    add("--trunk", type=Path, help="weights of torchvision's mobilenet_v2; default: random")
    add("--out", type=Path, required=True, help="folder of all rungs")
    add("--classes", help="names, comma separated; default: the data's own")
    add("--small", action="store_true", help="a few steps each; drawn blocks unless --data is set")
    add("--only", nargs="+", metavar="RUNG", help="some rungs; default: all")
    add("--resume", action="store_true", help="what happens anyway: go on with what lies in OUT")
    add("--export", action="store_true", help="write each rung as a model file, OUT/RUNG/RUNG.onnx")
    add("--engines", nargs="+", choices=ENGINES, default=ENGINES, help="that frames are timed in")
    add("--workers", type=int, default=1, help="processes that prepare pictures, and proposals")
    add("--threads", type=int, default=2, help="of torch in training; time is taken on one")
    add("--precision", choices=("f32", "bf16"), default="f32", help="of learning; time is f32's")
    add("--every", type=int, default=500, help="steps between checkpoints")
    arguments = parser.parse_args(words)
    if not arguments.small and not (arguments.data and arguments.val):
        parser.error("give --data and --val, or --small")
    if bool(arguments.data) != bool(arguments.val):
        parser.error("--data and --val belong together")
    known = LADDERS[arguments.ladder]
    if unknown := sorted(set(arguments.only or ()) - set(known)):
        parser.error(f"no rung {unknown[0]!r}; there are {', '.join(known)}")
    return arguments


def climb_of(arguments: argparse.Namespace) -> Climb:
    """What the command line asks for; draws the small scenes where they are wanted."""
    data, val = arguments.data, arguments.val
    if not data:
        scenes = arguments.out / "scenes"
        for seed, part in enumerate(("train", "val")):
            write_scenes(scenes / part, SMALL_PICTURES, SMALL_HW, seed)
        data, val = [str(scenes / "train")], str(scenes / "val")
        if arguments.ladder == "detection":
            data, val = ([f"{s}/instances.json:{s}/images"] for s in (*data, val))
            val = val[0]
    given = tuple(arguments.classes.split(",")) if arguments.classes else None
    names = given or own_names(arguments.ladder, data)
    return Climb(
        arguments.ladder,
        tuple(data),
        val,
        arguments.out,
        Run(names, arguments.trunk, arguments.workers, arguments.every, arguments.precision),
        SMALL_TIMED if arguments.small else TIMED,
        tuple(arguments.engines),
        max(1, arguments.workers),
        arguments.export,
    )


def own_names(ladder: Ladder, data: Sequence[str]) -> tuple[str, ...]:
    """The classes of the first set, by the names that all sets are read by."""
    if ladder == "segmentation":
        return read_masks(data[0]).class_names
    categories = read_truth(Path(data[0].split(":")[0]))["categories"]
    known = tuple(dict.fromkeys([*(c["name"] for c in categories), *COCO_NAMES]))
    numbers = [class_of(category, known) for category in categories]
    return tuple(dict.fromkeys(known[n] for n in numbers if n is not None))


def proposals(climb: Climb, words: str, network: Network) -> dict[str, np.ndarray]:
    """Regions of a whole set by file name, from the cache in OUT, which is made where missing."""
    assert network.proposer is not None
    annotations, images = words.split(":")[:2]
    names = [image["file_name"] for image in read_truth(Path(annotations))["images"]]
    folder = climb.out / "proposals"
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(network.proposer, network.regions, None)
    mark = zlib.crc32(f"{annotations}:{images} {settings}".encode())
    file = folder / f"{Path(annotations).stem}_{mark:08x}.npz"
    return fill(names, Path(images), settings, file, climb.processes, progress=True).boxes


def climb_detection(climb: Climb, rung: Rung, folder: Path) -> dict[str, Any]:
    """Train and judge one detector."""
    names = climb.run.class_names
    blank = cast(Network, rung.network(len(names)))
    regions = {words: proposals(climb, words, blank) for words in climb.data if blank.proposer}
    val_regions = proposals(climb, climb.val, blank) if blank.proposer else None
    shares = [parse_share(words, names, regions.get(words)) for words in climb.data]
    data = TrainingBatches(shares, [rung.size_hw], rung.batch, rung.steps, balance=rung.balance)
    network = train(rung, climb.run, data, folder)
    seconds = {"steps": training_seconds(folder)}
    if is_staged(network):
        entries: list[Entry] = [entry for share in shares for entry in share.entries]
        seconds |= fit_stages(network, rung, climb.run, entries, folder)
    judged = judge_detection(network, rung, climb.run, climb.val, val_regions, climb.timed)
    total = sum(value for part, value in seconds.items() if part != "megabytes")
    return {**judged, "training": {**seconds, "total": total}}


def climb_segmentation(climb: Climb, rung: Rung, folder: Path) -> dict[str, Any]:
    """Train and judge one semantic network."""
    names = climb.run.class_names
    sets = [read_masks(words, names) for words in climb.data]
    data = MaskBatches(sets, [rung.size_hw], rung.batch, rung.steps, balance=rung.balance)
    network = train(rung, climb.run, data, folder)
    seconds = training_seconds(folder)
    entries = read_masks(climb.val, names).entries
    judged = judge_segmentation(network, climb.run, entries, climb.timed, climb.engines)
    return {**judged, "training": {"steps": seconds, "total": seconds}}


def about(climb: Climb, rung: Rung) -> dict[str, Any]:
    """All that a rung's figures depend on."""
    return {
        "rung": rung.about(),
        "data": climb.data,
        "val": climb.val,
        "classes": climb.run.class_names,
        "precision": climb.run.precision,
        "trunk": climb.run.trunk and zlib.crc32(climb.run.trunk.read_bytes()),
    }


def climbed(climb: Climb, rungs: Mapping[str, Rung]) -> tuple[dict[str, Any], list[str]]:
    """Figures of all rungs that OUT has, whichever command made them, and the names of those that
    were made with other settings, whose figures do not compare."""
    found, others = dict[str, Any](), []
    for name, rung in rungs.items():
        result = climb.out / name / RESULT
        if not result.is_file():
            continue
        if is_of(result.parent, about(climb, rung)):
            found[name] = json.loads(result.read_text())
        else:
            others.append(name)
    return found, others


def step_up(climb: Climb, name: str, rung: Rung) -> None:
    """One rung: its figures end in its folder, unless they are there.

    Raises:
        SettingsError: the folder was made with other settings or data.
    """
    folder = climb.out / name
    claim(folder, about(climb, rung))
    result = folder / RESULT
    if not result.is_file():
        work = climb_detection if climb.ladder == "detection" else climb_segmentation
        found = {"title": rung.title, **work(climb, rung, folder)}
        write_whole(result, json.dumps(found, indent=1))
    if climb.export:
        height, width = json.loads(result.read_text()).get("frame_hw", rung.size_hw)
        export_rung(rung, climb.run, folder, (height, width))


def main(words: list[str] | None = None) -> None:
    """Climb as the command line says."""
    arguments = parse_arguments(words)
    torch.set_num_threads(arguments.threads)
    climb = climb_of(arguments)
    console, ladder = Console(), LADDERS[climb.ladder]
    rungs = {name: small(rung) if arguments.small else rung for name, rung in ladder.items()}
    for name in [name for name in rungs if name in (arguments.only or rungs)]:
        console.rule(rungs[name].title)
        step_up(climb, name, rungs[name])
        results, others = climbed(climb, rungs)
        tables = write_report(climb.out, climb.ladder, results, machine())
    console.print(*tables)
    if others:
        console.print(f"not in the report, made with other settings: {', '.join(others)}")
    console.print(f"{climb.out / climb.ladder}.json, .md and .png")


if __name__ == "__main__":
    with told():
        main()
