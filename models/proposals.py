"""Propose regions for a whole COCO set once, keep them, and say how many objects they hit.

    python -m models.proposals --annotations val.json --images images \
        --proposer selective_search_fast --out val.npz

Run again, it goes on where it was stopped. Training reads the file with :func:`read_proposals`.
Recall asks only whether some box covers the object, whatever its class; crowds are left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.bad_input import ends_in, told
from models.boxes import iou
from models.data.json_files import corners, read_truth
from models.data.pictures import DataError, read_picture
from models.detection.proposers import PROPOSERS, propose

COUNTS = (10, 30, 100, 300, 1000, 2000)
IOUS = (0.5, 0.7)
SAVE_EVERY = 20


@dataclass(frozen=True)
class Settings:
    """What decides which boxes come out."""

    proposer: str
    most: int
    largest_side: int | None


@dataclass
class Cache:
    """Proposals of pictures by file name, as named in the COCO json."""

    settings: Settings
    boxes: dict[str, np.ndarray] = field(default_factory=dict)
    """(R, 4) float32 ``x1, y1, x2, y2`` in pixels of the picture, best first."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Processor time of one core that each picture took, without reading it."""

    def save(self, file: Path) -> None:
        """Replace `file` at once, so that an interruption leaves the old one or the new one."""
        part = file.with_name(file.name + ".part")
        about = json.dumps({**asdict(self.settings), "seconds": self.seconds})
        pictures: dict[str, Any] = {f"pictures/{n}": b for n, b in self.boxes.items()}
        with part.open("wb") as stream:
            np.savez_compressed(stream, about=np.array(about), **pictures)
        os.replace(part, file)


def read_cache(file: Path) -> Cache:
    """A file of :meth:`Cache.save`.

    Raises:
        DataError: it is missing, or no such file.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            about = json.loads(str(stored["about"]))
            boxes = {n[9:]: stored[n] for n in stored.files if n.startswith("pictures/")}
    except FileNotFoundError:
        raise DataError(f"no proposals {file}; make them with python -m models.proposals") from None
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"{file} holds no proposals: {error!r}") from error
    seconds = about.pop("seconds")
    return Cache(Settings(**about), boxes, seconds)


def read_proposals(file: Path) -> dict[str, np.ndarray]:
    """Proposals by the picture's file name in the COCO json: (R, 4) float32, pixels, best first.

    Raises:
        DataError: the file is missing, or holds no proposals.
    """
    return read_cache(file).boxes


def propose_for(file: Path, settings: Settings) -> tuple[np.ndarray, float]:
    """Boxes of one picture file, and the processor time of one core that they took, in seconds.

    Raises:
        DataError: the file is missing or no picture.
    """
    cv2.setNumThreads(1)
    image = read_picture(file)
    started = time.thread_time()  # other processes on the machine do not count
    boxes = propose(settings.proposer, image, settings.most, settings.largest_side)
    return boxes, time.thread_time() - started


def over(
    files: Sequence[Path], settings: Settings, processes: int
) -> Iterator[tuple[np.ndarray, float]]:
    """:func:`propose_for` of each file, in order, in so many processes."""
    work = partial(propose_for, settings=settings)
    if processes == 1:
        yield from map(work, files)
        return
    fresh = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, fresh) as pool:
        yield from pool.map(work, files)


def fill(
    names: Sequence[str],
    images: Path,
    settings: Settings,
    out: Path,
    processes: int = 1,
    progress: bool = False,
) -> Cache:
    """Proposals for all pictures of these names; those already in `out` stay.

    Raises:
        DataError: a picture cannot be read, or `out` was made with other settings.
    """
    cache = read_cache(out) if out.exists() else Cache(settings)
    if cache.settings != settings:
        raise DataError(f"{out} was made with {cache.settings}, not {settings}; name another file")
    missing = [n for n in names if n not in cache.boxes]
    found = over([images / n for n in missing], settings, processes)
    shown = track(found, "proposing", total=len(missing), disable=not progress)
    for number, (name, (boxes, seconds)) in enumerate(zip(missing, shown, strict=True), 1):
        cache.boxes[name], cache.seconds[name] = boxes, seconds
        if number % SAVE_EVERY == 0 or number == len(missing):
            cache.save(out)
    return cache


def best_overlaps(truth: np.ndarray, boxes: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """How well the first n boxes cover each object at best.

    truth (T, 4), boxes (R, 4) float32 -> (T, len(counts)) float32 IoU, 0 where there is no box.
    """
    best = np.zeros((len(truth), len(counts)), np.float32)
    if len(truth) and len(boxes):
        overlap = iou(torch.from_numpy(truth), torch.from_numpy(boxes)).numpy()
        so_far = np.maximum.accumulate(overlap, axis=1)
        best[:] = so_far[:, np.minimum(counts, len(boxes)) - 1]
    return best


def recall(
    content: dict[str, Any], proposals: dict[str, np.ndarray], counts: Sequence[int] = COUNTS
) -> dict[str, Any]:
    """Shares of objects covered, of the pictures of a COCO json that have proposals.

    Returns:
        ``objects`` and ``pictures`` (counts), ``boxes_per_picture`` (mean of all there are) and
        ``rows``: of each count of boxes ``boxes``, ``recall_50``, ``recall_70`` and
        ``mean_best_overlap``.
    """
    truths: dict[int, list[dict[str, Any]]] = {i["id"]: [] for i in content["images"]}
    for a in content["annotations"]:
        if not a.get("iscrowd") and min(a["bbox"][2:]) > 0:
            truths[a["image_id"]].append(a)
    known = [i for i in content["images"] if i["file_name"] in proposals]
    best = [
        best_overlaps(corners(truths[i["id"]]), proposals[i["file_name"]], counts) for i in known
    ]
    overlaps = np.concatenate([np.zeros((0, len(counts)), np.float32), *best])
    rows = []
    for column, count in zip(overlaps.T, counts, strict=True):
        shares = {f"recall_{100 * t:.0f}": float((column >= t).mean()) for t in IOUS if len(column)}
        mean = {"mean_best_overlap": float(column.mean())} if len(column) else {}
        rows.append({"boxes": count, **shares, **mean})
    total = sum(len(proposals[i["file_name"]]) for i in known)
    return {
        "pictures": len(known),
        "objects": len(overlaps),
        "boxes_per_picture": total / max(len(known), 1),
        "rows": rows,
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.proposals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances json")
    parser.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--proposer", choices=PROPOSERS, default="selective_search_fast")
    parser.add_argument(
        "--out", type=ends_in(".npz"), required=True, metavar="CACHE.npz", help="the cache"
    )
    parser.add_argument("--most", type=int, default=2000, help="boxes kept of each picture")
    parser.add_argument("--largest-side", type=int, help="shrink larger pictures first")
    parser.add_argument("--pictures", type=int, help="only so many, spread over the set")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def show(figures: dict[str, Any]) -> None:
    """Print a table, one row per number of boxes."""
    table = Table("boxes", "recall at IoU 0.5", "at 0.7", "mean best overlap")
    for row in figures["rows"]:
        values = [row.get(k) for k in ("recall_50", "recall_70", "mean_best_overlap")]
        table.add_row(str(row["boxes"]), *("-" if v is None else f"{v:.3f}" for v in values))
    Console().print(table)
    print(
        f"{figures['objects']} objects in {figures['pictures']} pictures, "
        f"{figures['boxes_per_picture']:.0f} boxes and {figures['seconds_per_picture']:.2f} s "
        "(median) a picture"
    )


def main() -> None:
    """Propose, keep and judge what the command line names."""
    arguments = parse_arguments()
    content = read_truth(arguments.annotations)
    names = [i["file_name"] for i in content["images"]]
    if arguments.pictures and arguments.pictures < len(names):
        spread = np.linspace(0, len(names) - 1, arguments.pictures).round().astype(int)
        names = [names[i] for i in spread]
    settings = Settings(arguments.proposer, arguments.most, arguments.largest_side)
    cache = fill(
        names, arguments.images, settings, arguments.out, arguments.processes, progress=True
    )
    wanted = {n: cache.boxes[n] for n in names}
    figures = {
        **asdict(settings),
        **recall(content, wanted),
        "seconds_per_picture": float(np.median([cache.seconds[n] for n in names])) if names else 0,
    }
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    with told():
        main()
