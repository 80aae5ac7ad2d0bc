"""What every engine promises, and the checks that hold it and its model file to it.

Frames go in as (N, H, W, 3) uint8 RGB; arrays named as in the model file come out.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelMismatch
from pipeline.model_file import ModelFile

Images = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[Any]]


class Pending(Protocol):
    """An answer that may still be on its way."""

    def result(self) -> Outputs:
        """Wait for the answer; the arrays belong to the caller."""
        ...


class Submits(Protocol):
    """As much of an engine as inference needs."""

    def submit(self, images: Images) -> Pending:
        """Start on (n, H, W, 3) images; they are kept until answered."""
        ...


class Engine(Protocol):
    """Runs one model file.

    Attributes:
        name: ``"openvino"`` or ``"onnxruntime"``.
        precision: In which it computes, ``"f32"`` or ``"bf16"``.
        reason: A sentence that says why this engine and this precision.
        batch: Images per call that suit it; a call may bring fewer, never more.
        in_flight: Calls that keep all its cores busy when they are under way at once.
        load_seconds: Time from opening the file to the first answer.
        busy_seconds: Time during which at least one call was under way.
        calls: Calls answered so far.
    """

    name: str
    precision: str
    reason: str
    batch: int
    in_flight: int
    load_seconds: float
    busy_seconds: float
    calls: int

    def submit(self, images: Images) -> Pending:
        """Start on (n, H, W, 3) images, n at most `batch`; they are kept until answered."""
        ...

    def infer(self, images: Images) -> Outputs:
        """Start, wait, and return the answer."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is under way and let go of the model."""
        ...


def check_images(images: Images, model: ModelFile, batch: int) -> None:
    """`ValueError` unless `images` is what an engine takes."""
    expected = (*model.input_size_hw, 3)
    if images.dtype != np.uint8 or images.shape[1:] != expected:
        raise ValueError(
            f"an engine for {model.path.name} takes uint8 (N, {expected[0]}, {expected[1]}, 3), "
            f"got {images.dtype} {images.shape}"
        )
    if not 1 <= len(images) <= batch:
        raise ValueError(f"a call takes 1 to {batch} images, got {len(images)}")


def check_names(model: ModelFile, inputs: list[str], outputs: list[str]) -> None:
    """`ModelMismatch` unless the graph has one input and the outputs that its metadata names."""
    missing = [name for name in model.outputs if name not in outputs]
    if len(inputs) != 1 or missing:
        raise ModelMismatch(
            f"{str(model.path)!r} promises one input and outputs {', '.join(model.outputs)}, but "
            f"its graph has {', '.join(inputs)} and {', '.join(outputs)}; export it again"
        )


def check_outputs(model: ModelFile, outputs: Outputs, n: int) -> None:
    """`ModelMismatch` unless a first answer for `n` images has the shapes of the contract."""
    slots = outputs["scores"].shape[1:2]
    wanted = {"boxes": (n, *slots, 4), "scores": (n, *slots), "labels": (n, *slots)}
    wanted |= {name: (n,) for name in ("count", "exact") if name in outputs}
    for name, shape in wanted.items():
        if outputs[name].shape != shape or len(slots) != 1:
            raise ModelMismatch(
                f"{str(model.path)!r}: output {name!r} has shape {outputs[name].shape} for {n} "
                f"images, expected {shape}; export it again"
            )
