"""Clips and pictures that a teacher may label: where they lie, and what licence allows it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.data.json_files import PICTURES, read_coco_json
from models.data.pictures import DataError, read_picture
from models.data.road_classes import ROAD_NAMES
from models.pseudo_label import clip_frames, frames_to_keep_out, looks_like_one, thumbnails

LICENCES = {
    "highway_day_960x540_25fps.mp4": "MIT (Udacity)",
    "highway_day_1280x720_25fps_editlist.mp4": "MIT (Udacity)",
    "highway_day_1280x720_25fps_mpeg4.mp4": "MIT (Udacity)",
    "rural_night_1920x1080_30fps_hevc.mp4": "MIT (Udacity)",
    "rural_night_1920x1080_30fps_mpeg4.mp4": "MIT (Udacity)",
    "drive_concat_1280x720_25fps_hevc.mp4": "MIT (Udacity)",
    "cam_road_640x352_24fps.mp4": "MIT",
    "crowd_1280x720_25fps.mp4": "MIT",
    "cam_overhead_768x432_12.5fps.mp4": "CC BY 4.0 (Intel)",
    "det_trafficcam": "CC BY 4.0",
    "det_vehicles": "CC BY 2.0 (Open Images)",
}
"""Of the recordings that the bundled models learned from, and others used with them: by the name of
the file, of pictures by that of the folder."""

NON_COMMERCIAL = frozenset({"city_day_480x360_15fps.mp4", "seg_camvid"})
"""CamVid's recordings, which lie among them."""


def licence_of(source: Path, stated: str | None) -> str:
    """The licence of a clip or a folder of pictures: what is stated, or else what is known.

    Raises:
        DataError: nothing is stated, and it is CamVid's or unknown.
    """
    if stated is not None:
        return stated
    if NON_COMMERCIAL.intersection(source.parts):
        raise DataError(f"{source} is CamVid's: its terms are non-commercial, leave it out")
    if (title := title_of(source)) not in LICENCES:
        raise DataError(f"the licence of {source} is not known; state it with --licence")
    return LICENCES[title]


Picture = tuple[str, Path, np.ndarray]
"""What it is called in the folder that is written, the file it comes from, and (H, W, 3) uint8
RGB."""


@dataclass(frozen=True)
class Source:
    """A clip, or pictures that a COCO json lists, and what to believe of it."""

    place: Path
    """The clip, or the folder of the pictures."""
    listing: Path | None
    believed: tuple[str, ...]
    """Names of road classes; others become unknown."""

    def read(self, options: argparse.Namespace) -> Iterator[Picture]:
        """All that is to be labelled."""
        if self.listing is None:
            return clip_pictures(self.place, options)
        return listed_pictures(self.listing, self.place, options)

    def stems(self, options: argparse.Namespace) -> list[str]:
        """What files are named after: the clip, or each of the pictures."""
        if self.listing is None:
            return [self.place.stem]
        return [Path(name).stem for name in listed_names(self.listing, options)]


def refuse_equal_names(sources: Sequence[Source], options: argparse.Namespace) -> None:
    """One folder holds what becomes of all sources, under the stems of their files' names.

    Raises:
        DataError: two clips or two pictures have the same.
    """
    for listed, kind in ((False, "clips"), (True, "pictures")):
        chosen = [source for source in sources if (source.listing is not None) == listed]
        counts = Counter(stem for source in chosen for stem in source.stems(options))
        if same := [stem for stem, count in counts.items() if count > 1]:
            raise DataError(
                f"{counts[same[0]]} {kind} are called {same[0]}, and what is written is named "
                "after them; label each into an --out of its own"
            )


def parse_source(words: str, listed: bool) -> Source:
    """``CLIP[:CLASSES]``, or ``JSON:IMAGES[:CLASSES]`` if listed.

    Raises:
        DataError: the words do not have this form, or name a class that is not ours.
    """
    *files, names = words.split(":") if words.count(":") > listed else (*words.split(":"), "")
    if len(files) != 1 + listed:
        form = "JSON:IMAGES[:CLASSES]" if listed else "CLIP[:CLASSES]"
        raise DataError(f"expected {form}, got {words!r}")
    believed = tuple(names.split(",")) if names else ROAD_NAMES
    if unknown := set(believed) - set(ROAD_NAMES):
        raise DataError(f"no road class {min(unknown)!r}; there are {', '.join(ROAD_NAMES)}")
    return Source(Path(files[-1]), Path(files[0]) if listed else None, believed)


def clip_pictures(clip: Path, options: argparse.Namespace) -> Iterator[Picture]:
    """Every n-th frame, without look-alikes of pictures held out."""
    skip = frames_to_keep_out(clip, thumbnails(options.hold_out), options.around)
    for index, image in clip_frames(clip):
        if index % options.every == 0 and index not in skip:
            yield f"{clip.stem}_{index:05d}", clip, image


def listed_pictures(file: Path, folder: Path, options: argparse.Namespace) -> Iterator[Picture]:
    """The same of every n-th picture of a folder that a COCO json lists."""
    held_out = thumbnails(options.hold_out)
    for name in listed_names(file, options):
        image = read_picture(folder / name)
        if not looks_like_one(image, held_out):
            yield Path(name).stem, folder / name, image


def listed_names(file: Path, options: argparse.Namespace) -> list[str]:
    """File names of every n-th picture of a COCO json."""
    images = read_coco_json(file, PICTURES)["images"]
    return [image["file_name"] for image in images[:: options.every_picture]]


def title_of(place: Path) -> str:
    """The name of a clip; of pictures that of their set, not "images"."""
    return place.parent.name if place.name == "images" else place.name
