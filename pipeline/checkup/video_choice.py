"""What ``auto`` takes for decoding and encoding, and whether a GPU's decoder tells the truth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.checkup.anonymous import anonymous
from pipeline.checkup.isolation import Finding
from pipeline.checkup.staying import look_at_staying
from pipeline.drawn_clip import draw_clip
from pipeline.sinks.encoder_choice import choose_encoder, why_encoder
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding, trouble_of_gpu
from pipeline.sources.recorded import RecordedSource
from pipeline.yuv import own_yuv420p, planes


def look_at_video_choice(*, test: bool) -> Finding:
    """What ``auto`` takes here, and why.

    Args:
        test: Decode a drawn street on the GPU and compare, where there is one. H.264 leaves no
            freedom: every decoder must give the same pictures.
    """
    trouble = trouble_of_gpu()
    decoder: dict[str, Any] = {"auto": "software" if trouble else "gpu", "why": trouble or "opens"}
    if test and not trouble:
        decoder |= _tried()
    why = anonymous(why_encoder("auto"))
    return {"decoder": decoder, "encoder": {"auto": choose_encoder("auto"), "why": why}}


def _tried() -> dict[str, Any]:
    """Whether the GPU's pictures are those of software, and what is measured of a 720p stream."""
    with tempfile.TemporaryDirectory() as folder:
        clip = draw_clip("1280x720", 50, Path(folder) / "street.mp4")
        on_gpu = _played(clip, GpuDecoding("cuda"))
        pairs = zip_longest(_planes(on_gpu), _planes(_played(clip, None)))  # none may be missing
        same = all(np.array_equal(ours, theirs) for ours, theirs in pairs)
        used = on_gpu.stats.decoded_by
        auto = _played(clip, GpuDecoding("auto", shortest=0))
        for _ in _planes(auto):
            pass  # played, so that it has made its choice
        staying = look_at_staying(clip, GpuDecoding("cuda"))
    stayed = used is not None and used.where == "gpu"
    chosen = auto.stats.decoded_by
    return {
        "auto": "gpu" if chosen is not None and chosen.where == "gpu" else "software",
        "why": anonymous(chosen.why if chosen else ""),
        "same_pictures": same if stayed else None,
        "trouble": None if stayed or used is None else anonymous(used.why),
        **staying,
    }


def _played(path: Path, gpu: GpuDecoding | None) -> RecordedSource:
    return RecordedSource(path, name="street", url="street", limits=Limits(), gpu=gpu)


def _planes(source: RecordedSource) -> Iterator[Any]:
    for frame in source.frames():
        picture: av.VideoFrame = own_yuv420p(frame.picture)
        yield np.concatenate([plane.ravel() for plane in planes(picture)])
