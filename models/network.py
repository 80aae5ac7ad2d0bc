"""What every system of the family can do, whatever its paper.

The trainer, the exporter and the judge know no more of it than this:

    network = fast_rcnn("mobilenet_v2", num_classes=6)   # a builder in the paper's own file
    network.losses(batch)["box"]                          # training mode: what it learns from
    network.eval().prepare((360, 640))                    # from here on a graph of static shapes
    boxes, scores, labels, exact = network(frames, regions)
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor, nn

from models.boxes import SizeHW

Task = Literal["detection", "instance", "semantic"]

IGNORED = 255
"""Label of a pixel of which nothing is known."""

DETECTION_OUTPUTS = ("boxes", "scores", "labels", "exact")
"""Of every detector, S slots a frame, best first, before the last suppression:

boxes (N, S, 4) float32 ``x1, y1, x2, y2`` in pixels of the frame; scores (N, S) float32 in [0, 1],
0 in an empty slot; labels (N, S) int64, 0 for the first class (the background is not counted);
exact (N,) bool: no bound of the graph was too tight for this frame.
"""
INSTANCE_OUTPUTS = ("boxes", "scores", "labels", "count", "exact", "masks")
"""After suppression, since a mask is made for each box that is left: count (N,) int64 filled slots,
masks (N, S, 28, 28) float32 in [0, 1], each stretched over its box."""
SEMANTIC_OUTPUTS = ("classes",)
"""classes (N, H, W) uint8, the most likely class of each pixel of the frame."""


class Network(Protocol):
    """An ``nn.Module`` that can be trained, exported and judged.

    Attributes:
        task: what comes out.
        outputs: names of the tensors that the graph returns, in order.
        num_classes: detection: without the background; semantic: every class a pixel may have.
        proposer: who finds the regions it needs, a key of
            :data:`models.detection.proposers.PROPOSERS`; None when it finds them itself.
        regions: most regions a frame (R below); 0 without a proposer.
    """

    task: Task
    outputs: tuple[str, ...]
    num_classes: int
    proposer: str | None
    regions: int

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """In training mode: scalars by name, each already weighted; their sum is what is minimised.

        batch: a ``TrainingBatch`` of :mod:`models.data.batches`, or a ``MaskBatch`` for "semantic".
        May run under ``torch.autocast``: what becomes a coordinate or a loss is float32.
        """
        ...

    def prepare(self, frame_hw: SizeHW) -> Any:
        """Fix the size of the frames, in eval mode; returns the network itself.

        Afterwards shapes depend on nothing but N, so that ``torch.export`` takes it.
        Raises ValueError in training mode.
        """
        ...

    def __call__(self, frames: Tensor, *regions: Tensor) -> tuple[Tensor, ...]:
        """frames (N, H, W, 3) uint8 RGB -> the tensors named in ``outputs``.

        With a proposer also regions (N, R, 4) float32 ``x1, y1, x2, y2`` in pixels of the frame;
        rows without area are empty slots, which nothing comes of.
        """
        ...


def prepared_size(frames: Tensor, prepared: SizeHW | None) -> SizeHW:
    """(height, width) of frames (N, H, W, 3), if it is the one that a network was prepared for.

    Raises:
        ValueError: it is another, or the network was not prepared at all.
    """
    if prepared is None or tuple(frames.shape[1:3]) != prepared:
        raise ValueError(
            f"prepared for frames of {prepared}, got {tuple(frames.shape[1:3])}; "
            "call prepare(frame_hw) first"
        )
    return prepared


def check_eval_mode(network: nn.Module) -> None:
    """Raise ValueError in training mode, in which nothing may be prepared."""
    if network.training:
        raise ValueError("prepare() is for eval mode; call eval() first")
