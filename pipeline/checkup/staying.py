"""Whether pictures can stay on a GPU, and whether what it makes of them is what the CPU makes.

That is images for an engine, and drawings for NVENC.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.checkup.anonymous import anonymous
from pipeline.frame import Frame
from pipeline.gpu.images import DeviceImages
from pipeline.gpu.preprocess import trouble_of_kernels
from pipeline.gpu.trial import trouble_of_drawing
from pipeline.preprocess import preprocess
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.recorded import RecordedSource

_INPUT_HW = (320, 576)
_GROUP = 4
# Rounding moves a few numbers by 1; pictures that are cut up or shifted differ by far more.
_MEAN_APART, _MOST_APART = 0.5, 8


def look_at_staying(clip: Path, gpu: GpuDecoding) -> dict[str, Any]:
    """Decode a clip with pictures that stay, and make images of them at once.

    Args:
        clip: As a GPU decodes it.
        gpu: Opens decoders there.
    """
    trouble = trouble_of_kernels()
    if trouble:
        nothing = dict.fromkeys(("same_images", "draws", "why_drawn_here"))
        return {"stay": False, "why_copied": anonymous(trouble), **nothing}
    gpu.keep_pictures(lambda: None)
    ours, theirs = (_images(clip, decoding) for decoding in (gpu, None))
    has_stayed = same = True
    for made, wanted in zip_longest(ours, theirs):  # none may be missing
        has_stayed &= isinstance(made, DeviceImages)
        same &= made is not None and wanted is not None and _alike(_array(made), _array(wanted))
    why = None if has_stayed else "its decoder did not leave them there"
    drawing = trouble_of_drawing() if has_stayed else None
    return {
        "stay": has_stayed,
        "why_copied": why,
        "same_images": same if has_stayed else None,
        "draws": drawing is None if has_stayed else None,
        "why_drawn_here": anonymous(drawing) if drawing else None,
    }


def _images(clip: Path, gpu: GpuDecoding | None) -> Iterator[Any]:
    """Batches of images, where they were made."""
    source = RecordedSource(clip, name="street", url="street", limits=Limits(), gpu=gpu)
    batches = preprocess(_groups(source.frames()), _INPUT_HW, "letterbox")
    return (batch.images for batch in batches)


def _groups(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    while group := list(islice(frames, _GROUP)):
        yield group


def _array(images: Any) -> npt.NDArray[np.uint8]:
    return np.asarray(images.tensor.cpu() if isinstance(images, DeviceImages) else images)


def _alike(ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8]) -> bool:
    if ours.shape != theirs.shape:
        return False
    apart = np.abs(ours.astype(np.int16) - theirs)
    return bool(apart.mean() <= _MEAN_APART and apart.max() <= _MOST_APART)
