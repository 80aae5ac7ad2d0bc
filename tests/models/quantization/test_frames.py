"""Frames to calibrate on."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from models.data.pictures import DataError
from models.quantization.frames import read_frames
from tests.clips import write_clip


def write_pictures(folder, count):
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:02}.png"), np.full((8, 12, 3), 10 * i, np.uint8))
    return folder


def test_a_folder_gives_pictures_evenly_spread(tmp_path):
    frames = list(read_frames([str(write_pictures(tmp_path / "a", 10))], 5))
    assert [int(frame[0, 0, 0]) for frame in frames] == [10, 30, 50, 70, 90]


def test_every_source_gives_the_same_number_if_it_has_them(tmp_path):
    folders = [str(write_pictures(tmp_path / name, n)) for name, n in (("a", 10), ("b", 2))]
    assert len(list(read_frames(folders, 8))) == 4 + 2


def test_a_video_gives_frames_in_rgb(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    frames = list(read_frames([str(clip)], 4))
    assert len(frames) == 4
    assert all(f.dtype == np.uint8 and f.ndim == 3 and f.shape[2] == 3 for f in frames)


def test_annotations_name_the_pictures_that_are_meant(tmp_path):
    folder = write_pictures(tmp_path / "a", 4)
    content = {"images": [{"id": 1, "file_name": "03.png"}], "annotations": [], "categories": []}
    (tmp_path / "train.json").write_text(json.dumps(content))
    (frame,) = read_frames([f"{tmp_path / 'train.json'}:{folder}"], 10)
    assert (frame == 30).all()


@pytest.mark.parametrize("name", ["gone.mp4", "empty", "text.mp4"])
def test_what_gives_no_frame_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"there is no|holds no pictures|no frame"):
        list(read_frames([str(tmp_path / name)], 4))
