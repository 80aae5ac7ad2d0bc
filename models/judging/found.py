"""What a detector says about one picture."""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import batched_nms


@dataclass(frozen=True)
class Found:
    """Detections of one picture."""

    boxes: np.ndarray
    """(N, 4) float32 ``x1, y1, x2, y2`` in pixels of the picture that was given."""
    scores: np.ndarray
    """(N,) float32 in 0..1, descending."""
    class_ids: np.ndarray
    """(N,) int64, index into the detector's ``class_names``."""

    @staticmethod
    def none() -> "Found":
        """No detection at all."""
        return Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def suppress(found: Found, iou_threshold: float, most: int) -> Found:
    """Greedy suppression within each class; keeps at most ``most`` boxes, best first."""
    keep = batched_nms(
        torch.from_numpy(found.boxes),
        torch.from_numpy(found.scores),
        torch.from_numpy(found.class_ids),
        iou_threshold,
    )[:most].numpy()
    return Found(found.boxes[keep], found.scores[keep], found.class_ids[keep])
