"""Tell a model where to look: a station of its own, so that its time is seen.

Before Faster R-CNN the regions came from outside of the network, and took longer than it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.frame import Batch, Boxes
from pipeline.gpu.images import host_images
from pipeline.placement import Placement

Propose = Callable[[npt.NDArray[np.uint8]], Boxes]
"""(H, W, 3) uint8 RGB -> (R, 4) float32 xyxy in its pixels, the best first."""


def propose(batches: Iterable[Batch], proposer: Propose, most: int) -> Iterator[Batch]:
    """Add to every batch the regions of its images.

    Args:
        batches: From `preprocess`.
        proposer: Looks at one image; the bars of the letterbox are not shown to it.
        most: Regions that the model takes; fewer are filled up with empty ones, of more the
            last ones are left out.
    """
    for batch in batches:
        images = host_images(batch.images)
        regions = np.zeros((len(batch.frames), most, 4), np.float32)
        for slots, image, placement in zip(regions, images, batch.placements, strict=True):
            found = _regions(image, placement, proposer)[:most]
            slots[: len(found)] = found
        yield replace(batch, regions=regions)


def _regions(image: npt.NDArray[np.uint8], placement: Placement, proposer: Propose) -> Boxes:
    """(R, 4) in pixels of the whole image."""
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    picture = np.ascontiguousarray(image[top : top + height, left : left + width])
    found = np.asarray(proposer(picture), np.float32)
    if found.ndim != 2 or found.shape[1] != 4:
        raise ValueError(f"a proposer gives (R, 4) boxes, this one {found.shape}")
    return found + np.array([left, top, left, top], np.float32)
