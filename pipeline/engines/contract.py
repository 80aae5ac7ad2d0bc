"""What every engine promises, and the checks that hold it and its model file to it.

Frames go in as (N, H, W, 3) uint8 RGB, in main memory or, for an engine that says so, on its GPU;
for a model that is told where to look with regions as
(N, R, 4) float32; arrays named as in the model file come out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelMismatch
from pipeline.gpu.images import HostImages
from pipeline.gpu.images import Images as Images
from pipeline.model_file.reading import ModelFile

REGIONS = "regions"
MASK_HW = (28, 28)

Regions = npt.NDArray[np.float32]
Size = tuple[int, int]  # height and width in pixels
Outputs = dict[str, npt.NDArray[Any]]


class Pending(Protocol):
    """An answer that may still be on its way."""

    def result(self) -> Outputs:
        """Wait for the answer; the arrays belong to the caller."""
        ...


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer that is there already."""

    outputs: Outputs

    def result(self) -> Outputs:
        """The arrays, at once."""
        return self.outputs


class Awaited:
    """An answer that a GPU is still at, waited for once.

    Args:
        answer: Waits; gives the arrays, and the seconds that the GPU worked on them.
        answered: Is told those seconds.
    """

    def __init__(
        self, answer: Callable[[], tuple[Outputs, float]], answered: Callable[[float], None]
    ) -> None:
        self._answer, self._answered = answer, answered
        self._outputs: Outputs | None = None

    def result(self) -> Outputs:
        """Wait, if nobody has; the arrays."""
        if self._outputs is None:
            self._outputs, seconds = self._answer()
            self._answered(seconds)
        return self._outputs


class Submits(Protocol):
    """As much of an engine as inference needs."""

    def submit(self, images: Images, regions: Regions | None = None) -> Pending:
        """Start on (n, H, W, 3) images; they are kept until answered."""
        ...


class Engine(Protocol):
    """Runs one model file.

    Attributes:
        name: ``"openvino"``, ``"onnxruntime"``, ``"tensorrt"`` or ``"program"``.
        model: The file that it runs: the one that it was given, or that one's form in int8.
        precision: In which it computes, ``"f32"``, ``"bf16"`` or ``"f16"``; ``"tf32"`` is a
            GPU's f32 with rounded products, ``"int8+bf16"`` says in what the rest of the graph is
            where most layers are in int8.
        reason: A sentence that says why this engine and this precision.
        sizes_hw: Sizes of the images that it takes, the model file's usual one first.
        batch: Images per call that suit it; a call may bring fewer, never more.
        on_gpu: Whether it runs on CUDA's first device, and takes images that lie there.
        in_flight: Calls that keep all its cores busy when they are under way at once.
        load_seconds: Time from opening the file to the first answer.
        busy_seconds: Time during which at least one call was under way.
        calls: Calls answered so far.
    """

    name: str
    model: ModelFile
    precision: str
    reason: str
    sizes_hw: tuple[Size, ...]
    batch: int
    on_gpu: bool
    in_flight: int
    load_seconds: float
    busy_seconds: float
    calls: int

    def submit(self, images: Images, regions: Regions | None = None) -> Pending:
        """Start on (n, H, W, 3) images of one of its sizes, n at most `batch`.

        They are kept until answered. A model with a proposer also takes its (n, R, 4) regions in
        pixels of the images.
        """
        ...

    def infer(self, images: Images, regions: Regions | None = None) -> Outputs:
        """Start, wait, and return the answer."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *ended: object) -> None:
        """Wait for what is under way and let go of the model."""
        ...


def check_images(
    images: Images,
    model: ModelFile,
    sizes_hw: Sequence[Size],
    batch: int,
    regions: Regions | None = None,
) -> None:
    """`ValueError` unless `images` and `regions` are what an engine takes."""
    shape = images.shape
    if images.dtype != np.uint8 or images.ndim != 4 or shape[1:] not in [(*s, 3) for s in sizes_hw]:
        sizes = " or ".join("{}x{}".format(*size) for size in sizes_hw)
        raise ValueError(
            f"an engine for {model.path.name} takes uint8 (N, H, W, 3) of {sizes}, "
            f"got {images.dtype} {shape}"
        )
    if not 1 <= len(images) <= batch:
        raise ValueError(f"a call takes 1 to {batch} images, got {len(images)}")
    wanted = (len(images), model.regions, 4) if model.proposer else None
    found = None if regions is None else regions.shape
    if found != wanted:
        raise ValueError(f"{model.path.name} takes regions of shape {wanted}, got {found}")


def no_images(model: ModelFile, size_hw: Size, n: int) -> tuple[HostImages, Regions | None]:
    """Black images and empty regions, as many as a first call takes."""
    regions = np.zeros((n, model.regions, 4), np.float32) if model.proposer else None
    return np.zeros((n, *size_hw, 3), np.uint8), regions


def check_names(model: ModelFile, inputs: list[str], outputs: list[str]) -> None:
    """`ModelMismatch` unless the graph has the inputs and outputs that its metadata promises.

    The images come first; ``regions``, if the model has a proposer, second.
    """
    missing = [name for name in model.outputs if name not in outputs]
    if inputs[1:] != ([REGIONS] if model.proposer else []) or not inputs or missing:
        promised = f"inputs frames and {REGIONS}" if model.proposer else "one input"
        raise ModelMismatch(
            f"{str(model.path)!r} promises {promised} and outputs {', '.join(model.outputs)}, but "
            f"its graph has {', '.join(inputs)} and {', '.join(outputs)}; export it again"
        )


def check_outputs(model: ModelFile, outputs: Outputs, n: int) -> None:
    """`ModelMismatch` unless a first answer for `n` images has the shapes of the contract."""
    for name, shape in _shapes(model, outputs, n).items():
        if outputs[name].shape != shape:
            raise ModelMismatch(
                f"{str(model.path)!r}: output {name!r} has shape {outputs[name].shape} for {n} "
                f"images, expected {shape}; export it again"
            )
    if model.is_semantic and outputs["classes"].dtype != np.uint8:
        raise ModelMismatch(
            f"{str(model.path)!r}: output 'classes' is {outputs['classes'].dtype}, expected uint8; "
            "export it again"
        )


def _shapes(model: ModelFile, outputs: Outputs, n: int) -> dict[str, tuple[int, ...]]:
    """What each output must be like; S slots are as many as there are scores, at least none."""
    if model.is_semantic:
        return {"classes": (n, *model.input_size_hw)}
    slots = (outputs["scores"].shape[1:2] or (0,))[0]
    wanted = {"boxes": (n, slots, 4), "scores": (n, slots), "labels": (n, slots)}
    if model.task == "instance":
        wanted["masks"] = (n, slots, *MASK_HW)
    return wanted | {name: (n,) for name in ("count", "exact") if name in outputs}
