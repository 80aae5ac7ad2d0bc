"""What a trunk sees in each frame of a video, as a file of numbers.

    python -m models.features drive.mp4 --backbone mobilenet_v2 --stride 32 \
        --weights mobilenet_v2_imagenet.pth --out features.npz

Instead of a video also pictures, or a folder of them. The file (``numpy.load``) holds
``features`` (T, C) float32, the mean over each frame's map; or with ``--maps`` the ``maps``
(T, C, h, w) themselves; ``seconds`` (T,) float64, the times of a video's frames; or the ``names``
(T,) of the pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.error import FFmpegError
from torch import Tensor

from models.backbones.build import BACKBONES, backbone
from models.backbones.features import FeatureMaps, load_classifier
from models.bad_input import ends_in
from models.boxes import SizeHW
from models.data.pictures import DataError, read_picture
from models.model_file.input_sizes import parse_size
from models.pixels import Normalise
from models.published import WeightsError, state_of

EXIT_ARGUMENTS, EXIT_SOURCE, EXIT_MODEL = 2, 3, 4
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Seen:
    """One picture."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    origin: float | str
    """Seconds in the video, or the name of the picture's file."""


def is_video(paths: Sequence[Path]) -> bool:
    """Whether this is one video and not pictures.

    Raises:
        DataError: a path does not exist, or they are several videos, or both.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise DataError(f"no such file: {missing[0]}")
    videos = [path for path in paths if path.is_file() and path.suffix.lower() not in PICTURES]
    if videos and len(paths) > 1:
        raise DataError(f"give one video, or pictures; {videos[0]} is no picture")
    return bool(videos)


def pictures(paths: Sequence[Path]) -> Iterator[Seen]:
    """Pictures as they are given; those of a folder by their names.

    Raises:
        DataError: a folder holds none, or a file is no picture.
    """
    for path in paths:
        inside = sorted(p for p in path.iterdir()) if path.is_dir() else [path]
        files = [file for file in inside if file.suffix.lower() in PICTURES]
        if not files:
            raise DataError(f"no pictures in the folder {path}")
        yield from (Seen(read_picture(file), file.name) for file in files)


def video(path: Path) -> Iterator[Seen]:
    """The frames of a video file, upright.

    Raises:
        DataError: it cannot be opened or decoded, or holds no frames.
    """
    frame = None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no video in it")
            for frame in container.decode(video=0):
                # The display matrix says how far to turn it, counter-clockwise.
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                yield Seen(pixels, float("nan") if frame.time is None else frame.time)
    except FFmpegError as error:
        raise DataError(f"cannot read video {path}: {error.strerror}") from error
    if frame is None:
        raise DataError(f"{path} has no frames")


def batches(seen: Iterable[Seen], most: int) -> Iterator[list[Seen]]:
    """Groups of neighbours of one size."""
    group: list[Seen] = []
    for one in seen:
        if group and (len(group) == most or group[0].pixels.shape != one.pixels.shape):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


class Features(torch.nn.Module):
    """Pixels in, one map out."""

    def __init__(self, trunk: FeatureMaps, image_hw: SizeHW | None) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.trunk = trunk
        self.image_hw = image_hw

    def forward(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB -> (N, C, about H/stride, W/stride)."""
        images = self.normalise(frames)
        if self.image_hw is not None and images.shape[-2:] != self.image_hw:
            images = F.interpolate(images, size=self.image_hw, mode="bilinear", antialias=True)
        (maps,) = self.trunk(images).values()
        return maps


@torch.inference_mode()
def extract(
    features: Features, seen: Iterable[Seen], *, maps: bool, batch: int
) -> tuple[np.ndarray, list[float | str]]:
    """Numbers (T, C), or (T, C, h, w) with ``maps``, and where each row is from.

    Raises:
        DataError: a picture is too small for the trunk, or maps of pictures of different sizes do
            not fit in one array.
    """
    rows: list[np.ndarray] = []
    origins: list[float | str] = []
    for group in batches(seen, batch):
        pixels = torch.from_numpy(np.stack([one.pixels for one in group]))
        try:
            found = features(pixels)
        except RuntimeError as error:
            height, width = pixels.shape[1:3]
            raise DataError(
                f"{group[0].origin}: {width}x{height} pixels are too few for this trunk ({error}); "
                "give --size HxW"
            ) from error
        rows.append((found if maps else found.mean((2, 3))).numpy())
        origins += [one.origin for one in group]
        if rows[-1].shape[1:] != rows[0].shape[1:]:
            raise DataError(f"{origins[-1]} has another size than {origins[0]}; give --size HxW")
    return np.concatenate(rows), origins


def write(path: Path, **arrays: Any) -> None:
    """Write an .npz file, which appears whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(unfinished, path)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m models.features", description="Features of a video's frames, or pictures'."
    )
    words.add_argument("source", nargs="+", type=Path, metavar="VIDEO|PICTURE|FOLDER")
    words.add_argument("--backbone", choices=list(BACKBONES), default="mobilenet_v2")
    words.add_argument("--stride", type=positive, default=32, help="of the map, in pixels")
    words.add_argument("--weights", required=True, metavar="FILE|DEFAULT", help="a classifier's")
    words.add_argument("--out", required=True, type=ends_in(".npz"), metavar="FILE.npz")
    words.add_argument("--maps", action="store_true", help="whole maps, not their means")
    words.add_argument("--size", type=parse_size, metavar="HxW", help="to stretch frames to")
    words.add_argument("--every", type=positive, default=1, metavar="N", help="only each Nth frame")
    words.add_argument("--batch", type=positive, default=8, help="frames at a time")
    return words


def start(trunk: FeatureMaps, name: str, weights: str) -> None:
    """Put a classifier's weights into a trunk.

    Raises:
        WeightsError: they cannot be had or do not fit.
    """
    try:
        load_classifier(trunk, state_of(name, weights))
    except RuntimeError as error:
        raise WeightsError(f"{weights} does not hold a {name}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for bad arguments, 3 for the source, 4 for weights."""
    options = parser().parse_args(arguments)
    if not options.out.parent.is_dir():
        return _failed(EXIT_ARGUMENTS, f"no folder {options.out.parent} to write to")
    try:
        trunk = backbone(options.backbone, (options.stride,))
    except ValueError as error:
        return _failed(EXIT_ARGUMENTS, f"--stride: {error}")
    try:
        start(trunk, options.backbone, options.weights)
        features = Features(trunk, options.size).eval()
        of_video = is_video(options.source)
        seen = video(options.source[0]) if of_video else pictures(options.source)
        wanted = islice(seen, 0, None, options.every)
        rows, origins = extract(features, wanted, maps=options.maps, batch=options.batch)
    except DataError as error:
        return _failed(EXIT_SOURCE, error)
    except WeightsError as error:
        return _failed(EXIT_MODEL, error)
    write(
        options.out,
        **{"maps" if options.maps else "features": rows},
        **{"seconds" if of_video else "names": np.array(origins)},
    )
    print(f"{options.out}: {' x '.join(map(str, rows.shape))} of {options.backbone}")
    return 0


def _failed(code: int, reason: object) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
