"""Frames of the user's own to calibrate on: some of every recording, evenly spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from models.data.json_files import read_truth
from models.data.pictures import DataError, read_picture

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def read_frames(sources: Sequence[str], most: int) -> Iterator[np.ndarray]:
    """At most so many frames, (H, W, 3) uint8 RGB, the same number of each source if it has them.

    sources: videos, pictures, folders of pictures, and ``JSON:IMAGES``, the pictures that COCO
        annotations name.

    Raises:
        DataError: a source is not there, or nothing can be read from it.
    """
    each = max(1, most // len(sources))
    for source in sources:
        yield from _frames_of(source, each)


def _frames_of(words: str, most: int) -> Iterator[np.ndarray]:
    annotations, _, images = words.partition(":")
    source = Path(words)
    if images and not source.exists():
        named = read_truth(Path(annotations))["images"]
        return _pictures([Path(images) / one["file_name"] for one in named], most)
    if not source.exists():
        raise DataError(f"there is no {source}; name a video, a picture or a folder of pictures")
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in PICTURES)
        return _pictures(files, most)
    return _pictures([source], 1) if source.suffix.lower() in PICTURES else _of_video(source, most)


def _pictures(files: Sequence[Path], most: int) -> Iterator[np.ndarray]:
    if not files:
        raise DataError("a folder to calibrate on holds no pictures")
    return (read_picture(files[i]) for i in _spread(len(files), most))


def _of_video(file: Path, most: int) -> Iterator[np.ndarray]:
    """Every so many-th frame; read twice, because what a file says of its length may be wrong."""
    length = sum(1 for _ in _grabbed(file))
    if not length:
        raise DataError(f"{file}: no frame can be read from it")
    chosen = set(_spread(length, most))
    for index, video in enumerate(_grabbed(file)):
        if index in chosen:
            read, image = video.retrieve()
            if read:
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _grabbed(file: Path) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(str(file))
    try:
        while video.grab():
            yield video
    finally:
        video.release()


def _spread(length: int, most: int) -> list[int]:
    """Indices from the middle of each of `most` equal parts.

    >>> _spread(10, 3), _spread(2, 3)
    ([1, 5, 8], [0, 1])
    """
    parts = min(length, most)
    return [(2 * i + 1) * length // (2 * parts) for i in range(parts)]
