"""The folder that pictures and their labels by a teacher are written into."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.data.json_files import read_json
from models.data.pictures import DataError
from models.data.road_classes import ROAD_NAMES
from models.network import IGNORED
from models.pseudo_label import jpeg


class MaskFolder:
    """A folder as :func:`models.data.masks.read_folder` reads it, which several commands may fill.

    Beside the pictures lie ``sources.json`` (what was used, under which licence) and
    ``origins.csv`` (name of each picture, and the file that it was made of, seen from the folder).
    Both are written with every picture, so that none lies there without its licence, whatever ends
    the program.
    """

    def __init__(self, folder: Path, teacher: str) -> None:
        self.folder, self.teacher = folder, teacher
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        classes = [{"id": number, "name": name} for number, name in enumerate(ROAD_NAMES)]
        about = {"classes": classes, "ignore_id": IGNORED}
        (folder / "classes.json").write_text(json.dumps(about, indent=1))
        sources, origins = folder / "sources.json", folder / "origins.csv"
        self.sources: list[dict[str, Any]] = (
            list(read_json(sources)["sources"]) if sources.is_file() else []
        )
        self.origins: dict[str, str] = {}
        if origins.is_file():
            with origins.open(newline="") as lines:  # the last may be half a one
                rows = [row for row in csv.reader(lines) if len(row) == 2]
            self.origins = {name: self._seen(folder / made_of) for name, made_of in rows}

    def begin(self, title: str, licence: str) -> None:
        """What is added from now on is of this source."""
        self.sources.append({"source": title, "licence": licence, "pictures": 0})
        self._describe()

    def add(self, name: str, origin: Path, image: np.ndarray, labels: np.ndarray) -> None:
        """Write a picture and its labels; an earlier result of the same file is replaced.

        Args:
            origin: the clip, or the picture's own file.
            image: (H, W, 3) uint8 RGB.
            labels: (H, W) uint8 classes.

        Raises:
            DataError: a picture of another file has the name.
        """
        made_of = self._seen(origin)
        if (other := self.origins.get(name, made_of)) != made_of:
            raise DataError(
                f"{self.folder} has a picture {name} already, made of {other} and not of "
                f"{made_of}; label this source into an --out of its own"
            )
        if name not in self.origins:
            self.origins[name] = made_of
            with (self.folder / "origins.csv").open("a", newline="") as out:
                csv.writer(out).writerow((name, made_of))
        (self.folder / "images" / f"{name}.jpg").write_bytes(jpeg(image))
        cv2.imwrite(str(self.folder / "labels" / f"{name}.png"), labels)
        self.sources[-1]["pictures"] += 1
        self._describe()

    def _seen(self, file: Path) -> str:
        """The way to a file from this folder: the same wherever the command is given."""
        return os.path.relpath(file.resolve(), self.folder.resolve())

    def _describe(self) -> None:
        described = {"labelled_by": self.teacher, "sources": self.sources}
        (self.folder / "sources.json").write_text(json.dumps(described, indent=1))
