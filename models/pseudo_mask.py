"""Label the pixels of clips and pictures with a teacher network, where no hand labels exist.

The teacher (DeepLab of Cityscapes' 19 classes) looks at the whole picture, at overlapping tiles of
it and at their mirror images; its chances are averaged (data distillation: Radosavovic et al. 2018,
arXiv:1712.04440, sec. 3). Pixels on which the looks do not agree, or between two classes, are
unknown.

    python -m models.pseudo_mask --teacher deeplab_cityscapes_361x481.onnx --out OUT \
        --every 10 --clips CLIP.mp4[:CLASS,CLASS...] ... --pictures TRAIN.json:IMAGES[:CLASS...] ...

Names of classes behind a source say what the teacher is believed there: far from Cityscapes it sees
things that are not. A detector (``--witness``) has to bear out vehicles and people.

OUT gets ``images/``, ``labels/`` and ``classes.json`` (:func:`models.data.masks.read_folder`),
``sources.json``: what was used, under which licence: the one that is stated, or else a known one;
and ``origins.csv``: the file that each picture was made of. Several commands may fill one folder,
but not with two pictures of one name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from models.bad_input import told
from models.data.pictures import DataError
from models.data.road_classes import CITYSCAPES_CLASSES, ROAD_NAMES, from_cityscapes
from models.judging.detectors import Detector, load_detector
from models.judging.runners import Runner, onnxruntime_runner
from models.model_file.input_sizes import parse_size
from models.model_file.reading import read_onnx
from models.network import IGNORED
from models.teachers.mask_folder import MaskFolder
from models.teachers.mask_sources import licence_of, parse_source, refuse_equal_names, title_of
from models.teachers.mask_witness import textured, witnessed
from models.teachers.views import agree, look

SMALLEST_TILE = 300
"""Side in pixels of the witness's smallest look."""

Tile = tuple[int, int, int, int]
"""``x1, y1, x2, y2`` in pixels of the picture."""


@dataclass(frozen=True)
class Trust:
    """How much of the teacher to believe."""

    margin: float = 0.25
    """A pixel is unknown if its best class is not so much likelier than the next."""
    agreement: float = 0.65
    """A pixel is unknown if a smaller share of the looks have its class as their best."""
    least_pixels: int = 24
    """Patches of fewer pixels are unknown: at the teacher's size they are a few cells."""


class RoadTeacher:
    """A network of Cityscapes' classes behind ``look``.

    Args:
        run: (1, 3, h, w) float32 RGB from -1 to 1 in, logits (1, 19, h, w) out.
        size_hw: the size of its input.
    """

    def __init__(self, run: Runner, size_hw: tuple[int, int]) -> None:
        self.run, self.size_hw = run, size_hw
        known = from_cityscapes()
        self.joins = np.zeros((CITYSCAPES_CLASSES, len(ROAD_NAMES)), np.float32)
        self.joins[known != IGNORED, known[known != IGNORED]] = 1.0

    def look(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size -> (h, w, C) float32 chances of the road classes."""
        height, width = self.size_hw
        smaller = image.shape[0] > height or image.shape[1] > width
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        fitted = cv2.resize(image, (width, height), interpolation=how)
        blob = fitted.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1.0
        logits = self.run(np.ascontiguousarray(blob))[0][0].transpose(1, 2, 0)
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        return np.asarray(chances @ self.joins, np.float32)


def load_teacher(file: Path, size_hw: tuple[int, int]) -> RoadTeacher:
    """The network in an ONNX file.

    Raises:
        OSError, ModelFileError: the file cannot be read.
        DataError: the network takes another input, or knows other classes.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    run = onnxruntime_runner(read_onnx(file).SerializeToString())
    wanted = (1, 3, *size_hw)
    try:
        answers = run(np.zeros(wanted, np.float32))
    except (ValueError, raised.InvalidArgument, raised.RuntimeException, raised.Fail) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{file} takes no {wanted} float32 (see --teacher-size): {why}") from error
    known = answers[0].shape[:2]
    if answers[0].ndim != 4 or known != (1, CITYSCAPES_CLASSES):
        raise DataError(
            f"{file} answers {answers[0].shape}, not (1, {CITYSCAPES_CLASSES}, h, w): logits of "
            "Cityscapes' classes are wanted"
        )
    return RoadTeacher(run, size_hw)


def origins(length: int, side: int) -> list[int]:
    """First pixels of evenly spread tiles of ``side`` that overlap by a fifth or more."""
    if side >= length:
        return [0]
    count = int(np.ceil((length - side) / (0.8 * side))) + 1
    return [round(x) for x in np.linspace(0, length - side, count)]


def tiles(
    size_hw: tuple[int, int], shape_hw: tuple[int, int], shares: Sequence[float]
) -> set[Tile]:
    """The looks at a picture: all of it, and tiles of the network's shape.

    Args:
        shape_hw: the network's input.
        shares: heights of the tiles over the height of the picture.
    """
    height, width = size_hw
    found = {(0, 0, width, height)}
    for share in shares:
        high = min(share * height, width * shape_hw[0] / shape_hw[1])
        side_hw = round(high), round(high * shape_hw[1] / shape_hw[0])
        for y in origins(height, side_hw[0]):
            for x in origins(width, side_hw[1]):
                found.add((x, y, x + side_hw[1], y + side_hw[0]))
    return found


def opinions(
    teacher: RoadTeacher, image: np.ndarray, shares: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """What all looks at a picture say of each of its pixels.

    Returns:
        (H, W, C) float32 mean chances, and (H, W, C) float32 share of the looks at a pixel whose
        best class it is.
    """
    height, width = image.shape[:2]
    chances = np.zeros((height, width, len(ROAD_NAMES)), np.float32)
    votes, looks = np.zeros_like(chances), np.zeros((height, width, 1), np.float32)
    for x1, y1, x2, y2 in sorted(tiles((height, width), teacher.size_hw, shares)):
        crop = image[y1:y2, x1:x2]
        for mirrored in (False, True):
            seen = teacher.look(np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop)
            seen = np.ascontiguousarray(seen[:, ::-1]) if mirrored else seen
            seen = cv2.resize(seen, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
            chances[y1:y2, x1:x2] += seen
            best = seen.argmax(-1)[..., None]
            part = votes[y1:y2, x1:x2]
            np.put_along_axis(part, best, np.take_along_axis(part, best, -1) + 1, -1)
            looks[y1:y2, x1:x2] += 1
    return chances / looks, votes / looks


def labels_of(chances: np.ndarray, votes: np.ndarray, trust: Trust) -> np.ndarray:
    """(H, W) uint8 class of each pixel, ``IGNORED`` where the teacher is not to be believed."""
    best = chances.argmax(-1)
    top = np.partition(chances, -2, -1)
    sure = top[..., -1] - top[..., -2] >= trust.margin
    sure &= np.take_along_axis(votes, best[..., None], -1)[..., 0] >= trust.agreement
    labels = np.where(sure, best, IGNORED).astype(np.uint8)
    for class_id in np.unique(labels[sure]):
        _, patches, stats, _ = cv2.connectedComponentsWithStats(
            (labels == class_id).astype(np.uint8)
        )
        small = stats[:, cv2.CC_STAT_AREA] < trust.least_pixels
        small[0] = False  # what is not of this class
        labels[small[patches]] = IGNORED
    return labels


def believing(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The labels of these classes; others become unknown."""
    table = np.full(256, IGNORED, np.uint8)
    for name in names:
        table[ROAD_NAMES.index(name)] = ROAD_NAMES.index(name)
    return table[labels]


def limited(image: np.ndarray, most_pixels: int) -> np.ndarray:
    """The picture with no side above so many pixels."""
    scale = most_pixels / max(image.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def label_all(teacher: RoadTeacher, witness: Detector | None, options: argparse.Namespace) -> None:
    """Write what the command line names.

    Raises:
        DataError: a licence is not known, or two pictures would get one name.
    """
    sources = [parse_source(words, listed=False) for words in options.clips]
    sources += [parse_source(words, listed=True) for words in options.pictures]
    licences = [licence_of(source.place, options.licence) for source in sources]
    refuse_equal_names(sources, options)
    out = MaskFolder(options.out, options.teacher.name)
    for source, licence in zip(sources, licences, strict=True):
        title = title_of(source.place)
        out.begin(title, licence)
        for name, origin, picture in track(source.read(options), title):
            image = limited(picture, options.longest)
            labels = labels_of(*opinions(teacher, image, options.tiles), options.trust)
            labels = textured(labels, image)
            if witness is not None:
                labels = witnessed(labels, agree(look(witness, image, SMALLEST_TILE)))
            labels = believing(labels, source.believed)
            if (labels != IGNORED).mean() < options.least_known:
                continue
            out.add(name, origin, image, labels)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.pseudo_mask", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--teacher", type=Path, required=True, help="ONNX file of Cityscapes' 19 classes")
    add("--teacher-size", type=parse_size, default=(361, 481), help="HxW of its input")
    add("--witness", help="YOLOX or model file that has to bear out vehicles and people")
    add("--clips", nargs="*", default=[], metavar="CLIP[:CLASSES]", help="videos to label")
    add("--pictures", nargs="*", default=[], metavar="JSON:IMAGES[:CLASSES]", help="COCO sets")
    add("--out", type=Path, required=True, help="folder to write")
    add(
        "--licence", help="of all these; may be left out if models.teachers.mask_sources knows them"
    )
    add("--every", type=int, default=10, help="use every n-th frame of a clip")
    add("--every-picture", type=int, default=1, help="use every n-th picture of a set")
    add("--longest", type=int, default=768, help="most pixels of a side of what is written")
    add("--tiles", type=float, nargs="*", default=(1.0,), help="heights over the picture's")
    add("--margin", type=float, default=Trust().margin, help="least lead of a label")
    add("--agreement", type=float, default=Trust().agreement, help="least share of looks")
    add("--least-known", type=float, default=0.4, help="of a picture; others are left out")
    add("--hold-out", type=Path, help="folder of pictures whose look-alikes stay out")
    add("--around", type=int, default=25, help="frames kept out around a look-alike")
    options = parser.parse_args(words)
    if not (options.clips or options.pictures):
        parser.error("give --clips or --pictures to label")
    options.trust = Trust(options.margin, options.agreement)
    return options


def main(words: list[str] | None = None) -> None:
    """Label what the command line names."""
    options = parse_arguments(words)
    teacher = load_teacher(options.teacher, options.teacher_size)
    witness = load_detector(options.witness, "openvino") if options.witness else None
    label_all(teacher, witness, options)


if __name__ == "__main__":
    with told():
        main()
