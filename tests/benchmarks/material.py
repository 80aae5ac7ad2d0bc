"""What is measured on: clips, frames, and models that find something."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("BOXSTREAM_SHARED", REPOSITORY.parent / "shared"))
SHARED_VIDEOS = SHARED / "data" / "videos"
WORKSHOP = REPOSITORY / "build" / "benchmarks"
"""What took long to make is kept here; delete it at will."""

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recording:
    """A clip to be measured on: a file of ours if it is there, else a synthetic street."""

    file: str
    size_hw: tuple[int, int]
    frames: int


CLIPS = {
    "540p": Recording("highway_day_960x540_25fps.mp4", (540, 960), 221),
    "720p": Recording("drive_concat_1280x720_25fps_hevc.mp4", (720, 1280), 180),
}
ROAD = Recording("cam_road_640x352_24fps.mp4", (360, 640), 200)


def clip(recording: Recording, frames: int | None = None) -> Path:
    """The file; a synthetic one of the same size where the recordings are not at hand."""
    path = SHARED_VIDEOS / recording.file
    if path.exists():
        return path
    return synthetic_clip(recording.size_hw, frames or recording.frames)


def hd_clip() -> Path:
    """1080p at 25 frames/s in H.264, 150 frames: a night drive, or the street; made once."""
    recorded = SHARED_VIDEOS / "rural_night_1920x1080_30fps_hevc.mp4"
    if not recorded.exists():
        return synthetic_clip((1080, 1920), 150)
    path = WORKSHOP / "night_1920x1080_25fps_h264.mp4"
    if not path.exists():
        _encode(islice(pictures(recorded), 150), (1080, 1920), path)
    return path


def synthetic_clip(size_hw: tuple[int, int], frames: int) -> Path:
    """A drawn street in H.264, made once."""
    height, width = size_hw
    path = WORKSHOP / f"street_{width}x{height}_{frames}.mp4"
    if path.exists():
        return path
    from pipeline.sources.street import Street

    street = Street(seed=7, size_hw=size_hw, fps=25, seconds=frames / 25)
    return _encode((street.frame(index).image for index in range(frames)), size_hw, path)


def _encode(images: Iterable[Images], size_hw: tuple[int, int], path: Path) -> Path:
    """RGB pictures as H.264 at 25 frames/s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part.mp4")  # somebody else may make it, too
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return unfinished.rename(path)


def over_and_over(path: Path, frames: int, target: Path) -> Path:
    """The clip's packets again and again, without encoding, until there are `frames` or more."""
    with av.open(str(target), "w") as out:
        stream, written, shift = None, 0, 0
        while written < frames:
            with av.open(str(path)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                last = 0
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
                    written += 1
                shift += last
    return target


def at_rate(path: Path, fps: float, target: Path) -> Path:
    """The clip's packets at another frame rate, without encoding."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        video = source.streams.video[0]
        slower = float(video.average_rate or 25) / fps
        stream = out.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is None:
                continue
            packet.pts, packet.dts = round(packet.pts * slower), round(packet.dts * slower)
            packet.duration = round((packet.duration or 0) * slower)
            packet.stream = stream
            out.mux(packet)
    return target


def pictures(path: Path) -> Iterator[Images]:
    """Every frame as (H, W, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            yield picture.to_ndarray(format="rgb24")


def spread_frames(path: Path, count: int, size_hw: tuple[int, int], every: int = 20) -> Images:
    """(count, H, W, 3) uint8 RGB of `size_hw`, taken some frames apart."""
    height, width = size_hw
    chosen = islice(pictures(path), 0, count * every, every)
    return np.stack([cv2.resize(image, (width, height)) for image in chosen])


def fingerprint(paths: Iterable[Path], *words: object) -> str:
    """Short name for the contents of some files and some words: a new one when they change."""
    digest = hashlib.sha256(repr(words).encode())
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def frame_rate(path: Path) -> Fraction:
    """Frames for each second, as the file declares it."""
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate or Fraction(25)


def count_frames(path: Path) -> int:
    """Pictures in the file, counted without decoding them."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))
