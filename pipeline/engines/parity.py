"""How far two answers to the same input are apart, and how far they may be.

Whoever makes machine code of a graph, TensorRT or torch, chooses among ways of computing that
differ in the last digits, or by more where it has a fault; which ones it took, nobody sees. So what
it has made is shown pictures whose answer is known before it may work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.engines.contract import Engine, Outputs, Regions, Size
from pipeline.errors import EngineUnavailable
from pipeline.frame import Detections
from pipeline.gpu.images import HostImages
from pipeline.model_file.reading import ModelFile
from pipeline.nms import class_aware, overlaps
from pipeline.settings import EngineSettings
from pipeline.sources.street import Street

FRAMES = 2
SEED = 905
SECONDS_APART = 2
MOST_AP_LOST = 0.005
HIGHEST_THRESHOLD = 0.3  # detections are compared from the file's threshold on, or from this


class Golden(NamedTuple):
    """Input that what was made is tried with: (G, H, W, 3) images and (G, R, 4) regions, if any."""

    images: HostImages
    regions: Regions | None

    def repeated(self, n: int) -> Golden:
        """The first n of them, over and over."""
        rows = np.arange(n) % len(self.images)
        return Golden(self.images[rows], None if self.regions is None else self.regions[rows])


def golden_input(model: ModelFile, size_hw: Size) -> Golden:
    """Drawn streets, the same ones every time, and for a model with a proposer boxes all over."""
    drawn_hw = max(size_hw[0], 64), max(size_hw[1], 64)
    street = Street(seed=SEED, size_hw=drawn_hw, fps=1.0, seconds=FRAMES * SECONDS_APART)
    frames = (street.frame(index * SECONDS_APART).image for index in range(FRAMES))
    images = np.stack([cv2.resize(frame, (size_hw[1], size_hw[0])) for frame in frames])
    if not model.proposer:
        return Golden(images.astype(np.uint8, copy=False), None)
    corners = np.random.default_rng(SEED).random((FRAMES, model.regions, 2, 2))
    ordered = np.sort(corners, axis=2).reshape(FRAMES, model.regions, 4)
    scale = np.array([size_hw[1], size_hw[0]] * 2)
    return Golden(images.astype(np.uint8, copy=False), (ordered * scale).astype(np.float32))


class Bounds(NamedTuple):
    """How far two answers may be apart.

    Attributes:
        iou: At least so much overlap of boxes of the same object.
        score: At most so much between their scores.
        mask: At most so much between their masks, on average over a mask.
        pixels: At least such a share of pixels with the same class.
        share: At least such a share of the detections must be so near.
    """

    iou: float
    score: float
    mask: float
    pixels: float
    share: float = 1.0

    def __str__(self) -> str:
        most = "" if self.share == 1 else f" for {self.share:.0%} of the boxes"
        return (
            f"IoU of at least {self.iou}, scores within {self.score}, masks within {self.mask}"
            f"{most}, {self.pixels:.1%} of the pixels"
        )


BY_CPU = Bounds(iou=0.9, score=0.02, mask=0.05, pixels=0.99)
BY_CPU_INT8 = Bounds(iou=0.8, score=0.1, mask=0.1, pixels=0.95, share=0.9)
"""A number that is halfway between two steps of int8 falls to either side by its last digit, and
goes on from there a whole step apart. OpenVINO and ONNX Runtime, both right, have 98 % of the boxes
within these bounds, and 79 % within the others."""
AS_BUILT = Bounds(iou=0.99, score=0.005, mask=0.01, pixels=0.999)
"""The same plan on the same GPU: only the order of sums may differ."""


@dataclass(frozen=True)
class Parity:
    """How far apart two answers are.

    Attributes:
        compared: Detections; none of a semantic model.
        unmatched: Of them, those that only one side has.
        lowest_iou, score_difference, mask_difference: The worst of those that both have.
        pixels: Share with the same class; None of a model that finds objects.
        beyond: Detections that are further apart than the bounds.
    """

    compared: int = 0
    unmatched: int = 0
    lowest_iou: float = 1.0
    score_difference: float = 0.0
    mask_difference: float = 0.0
    pixels: float | None = None
    beyond: int = 0

    def within(self, bounds: Bounds) -> bool:
        """Whether that is near enough."""
        if bounds.share < 1 and self.pixels is None:
            return self.beyond <= (1 - bounds.share) * self.compared
        return self._worst_within(bounds)

    def counted(self, bounds: Bounds) -> Parity:
        """The same of one detection, with the word whether it is beyond the bounds."""
        return replace(self, beyond=0 if self._worst_within(bounds) else 1)

    def _worst_within(self, bounds: Bounds) -> bool:
        return (
            not self.unmatched
            and self.lowest_iou >= bounds.iou
            and self.score_difference <= bounds.score
            and self.mask_difference <= bounds.mask
            and (self.pixels is None or self.pixels >= bounds.pixels)
        )

    def __str__(self) -> str:
        if self.pixels is not None:
            return f"{self.pixels:.2%} of the pixels alike"
        if not self.compared:
            return "neither finds anything in the pictures"
        unmatched = f", {self.unmatched} of them without a partner" if self.unmatched else ""
        return (
            f"{self.compared} boxes{unmatched}, lowest IoU {self.lowest_iou:.3f}, "
            f"largest score difference {self.score_difference:.4f}"
        )

    def worst(self, other: Parity) -> Parity:
        """Both as one."""
        return Parity(
            self.compared + other.compared,
            self.unmatched + other.unmatched,
            min(self.lowest_iou, other.lowest_iou),
            max(self.score_difference, other.score_difference),
            max(self.mask_difference, other.mask_difference),
            min((p.pixels for p in (self, other) if p.pixels is not None), default=None),
            self.beyond + other.beyond,
        )


def bounds_by_cpu(model: ModelFile) -> Bounds:
    """How far a plan's answer may be from that of a CPU engine."""
    return BY_CPU_INT8 if model.arithmetic in ("int8", "f8") else BY_CPU


def compare(model: ModelFile, wanted: Outputs, found: Outputs, bounds: Bounds) -> Parity:
    """How far `found` is from `wanted`, of the same images.

    What one side is sure to have found must be among the other's candidates, before suppression:
    of two of those that overlap, either may win by the last digit of its score.
    """
    if model.is_semantic:
        alike = float((wanted["classes"] == found["classes"]).mean())
        return Parity(pixels=alike)
    parity = Parity()
    for row in range(len(wanted["scores"])):
        for one, other in ((wanted, found), (found, wanted)):
            parity = parity.worst(_one_way(model, one, other, row, bounds))
    return parity


class LabelledAp(NamedTuple):
    """Average precision on labelled pictures, of what was made and of a CPU engine in f32.

    Attributes:
        found, expected: Means over the sets, 0 to 1.
        judge: Name of the CPU engine.
        sets: How the sets are called.
    """

    found: float
    expected: float
    judge: str
    sets: tuple[str, ...]

    @property
    def is_near(self) -> bool:
        """Whether no more is lost than may be."""
        return self.found >= self.expected - MOST_AP_LOST

    def __str__(self) -> str:
        of_sets = "1 set" if len(self.sets) == 1 else f"{len(self.sets)} sets"
        return f"AP {self.found:.4f} of {self.expected:.4f} on {of_sets}"


def by_cpu(model: ModelFile, size_hw: Size, golden: Golden) -> tuple[Outputs, str]:
    """The answer of a CPU engine in f32, and that engine's name; errors as in `cpu_engine`."""
    with cpu_engine(model, size_hw) as engine:
        return _one_by_one(engine, golden), engine.name


@contextmanager
def cpu_engine(model: ModelFile, size_hw: Size) -> Iterator[Engine]:
    """An engine that knows what is right: on the CPU, in f32, one image at a time.

    Raises:
        EngineUnavailable: Neither ONNX Runtime nor OpenVINO is installed.
        ModelMismatch: The file is no good.
    """
    from pipeline.engines import load_engine

    other_size = size_hw != model.input_size_hw
    reasons = []
    for name in ("onnxruntime", "openvino"):
        settings = EngineSettings(name=name, precision="f32", batch=1)
        try:
            engine = load_engine(model, settings, all_sizes=other_size)
        except EngineUnavailable as error:
            reasons.append(str(error))
            continue
        with engine:
            yield engine
        return
    raise EngineUnavailable(
        f"no CPU engine can say what a plan should answer: {'; '.join(reasons)}"
    )


def _one_by_one(engine: Engine, golden: Golden) -> Outputs:
    answers = [
        engine.infer(
            golden.images[i : i + 1], None if golden.regions is None else golden.regions[i : i + 1]
        )
        for i in range(len(golden.images))
    ]
    return {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}


def _one_way(model: ModelFile, one: Outputs, other: Outputs, row: int, bounds: Bounds) -> Parity:
    sure = min(model.score_threshold, HIGHEST_THRESHOLD)
    detections = _objects(model, one, row, sure)
    if model.output_form == "candidates":
        detections = class_aware(detections, model.nms_iou, model.max_detections)
    candidates = _objects(model, other, row, sure - 2 * bounds.score)
    parity = Parity()
    for match in _matches(detections, candidates):
        parity = parity.worst(match.counted(bounds))
    return parity


def _matches(detections: Detections, candidates: Detections) -> Iterator[Parity]:
    """For each detection how far its nearest candidate is."""
    for i in range(len(detections)):
        rivals = np.flatnonzero(candidates.class_ids == detections.class_ids[i])
        if not len(rivals):
            yield Parity(compared=1, unmatched=1)
            continue
        iou = overlaps(detections.boxes[i], candidates.boxes[rivals])
        apart = np.abs(candidates.scores[rivals] - detections.scores[i])
        nearest = int(np.argmax(iou - apart))
        yield Parity(
            compared=1,
            lowest_iou=float(iou[nearest]),
            score_difference=float(apart[nearest]),
            mask_difference=_mask_difference(detections, i, candidates, int(rivals[nearest])),
        )


def _mask_difference(one: Detections, i: int, other: Detections, j: int) -> float:
    if one.masks is None or other.masks is None:
        return 0.0
    return float(np.abs(one.masks[i] - other.masks[j]).mean())


def _objects(model: ModelFile, outputs: Outputs, row: int, least: float) -> Detections:
    """What reaches a score in one image, boxes of no area included."""
    count = int(outputs["count"][row]) if "count" in outputs else None
    boxes, scores, labels = (outputs[name][row][:count] for name in ("boxes", "scores", "labels"))
    keep: npt.NDArray[np.bool_] = (scores >= least) & (scores > 0)
    masks = outputs["masks"][row][:count][keep] if model.task == "instance" else None
    return Detections(boxes[keep], scores[keep], labels[keep].astype(np.int64), masks)
