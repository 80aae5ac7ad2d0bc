"""A camera that comes back with another picture, seen through a whole line and its outputs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.live.kit.line import Line, adds_up
from tests.pipeline.model_files import HEIGHT, WIDTH, write_model
from tests.waiting import until

OLD, NEW = (320, 180), (240, 320)  # width and height


@pytest.mark.slow
def test_another_size_in_mid_run_is_in_the_records_and_in_files_that_play(cameras, tmp_path):
    camera = cameras.add(size=OLD, fps=10, keyframe_every=10)
    model = write_frame_finder(tmp_path / "frame.onnx")
    out = [str(tmp_path / "whole.mp4"), str(tmp_path / "rec" / "{source}" / "%H%M%S.mp4")]
    settings = ["recording.segment_seconds=3"]
    with Line([f"{camera.url}#name=cam"], tmp_path, model, out=out, settings=settings) as line:
        line.wait_records(60)
        camera.change(size=NEW)
        cameras.hang_up()
        until(lambda: line.records()[-1]["width"] == NEW[0], 60, "a picture of the new size")
        line.wait_records(60)
        line.stop()
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    assert source["connections"] >= 2 and source["failures"]
    lost = sink(line, "lines-cam.jsonl").get("frames_dropped", 0)  # by the file, if it was slow
    assert len(line.records()) == source["frames_inferred"] - lost
    check_records(line.records())
    check_whole(line, tmp_path / "whole.mp4", source["frames_inferred"])
    check_pieces(line, tmp_path / "rec" / "cam", source["frames_inferred"])


def write_frame_finder(path: Path) -> Path:
    """A model that finds one object in every picture, as large as what it is given to see."""
    model = onnx.load(write_model(path))
    (second,) = (node for node in model.graph.node if "c2" in node.output)
    second.input.append("bias")
    always = [0.0, 0.0, WIDTH, HEIGHT, 3.0, -3.0, -3.0]  # a box, and three classes
    for weights in model.graph.initializer:
        if weights.name == "second":
            nothing = np.zeros_like(numpy_helper.to_array(weights))
            weights.CopyFrom(numpy_helper.from_array(nothing, "second"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(always), "bias"))
    onnx.save(model, path)
    return path


def check_records(records: list[dict[str, Any]]) -> None:
    """Frames in order, each with the box of the picture that it had."""
    for key in ("frame", "pts_seconds"):
        assert all(later[key] > entry[key] for entry, later in itertools.pairwise(records))
    sizes = [(entry["width"], entry["height"]) for entry in records]
    assert [size for size, _ in itertools.groupby(sizes)] == [OLD, NEW]
    for entry, (width, height) in zip(records, sizes, strict=True):
        (found,) = entry["detections"]
        assert found["box"] == pytest.approx([0, 0, width, height], abs=0.1)


def check_whole(line: Line, path: Path, inferred: int) -> None:
    """One file holds all, in the size of its first picture."""
    told = sink(line, path.name)
    pictures = played(path)
    assert set(pictures) == {OLD}
    assert len(pictures) == told["frames"] == inferred - told.get("frames_dropped", 0)
    assert told["frames_resized"] >= 50


def check_pieces(line: Line, folder: Path, inferred: int) -> None:
    """Of several files each has one size, and together they hold all."""
    told = sink(line, folder.name)
    pieces = [played(path) for path in sorted(folder.glob("*.mp4"))]
    assert all(len(set(pictures)) == 1 for pictures in pieces)
    assert {pictures[0] for pictures in pieces} == {OLD, NEW} and len(pieces) >= 4
    assert sum(map(len, pieces)) == told["frames"] == inferred - told.get("frames_dropped", 0)


def sink(line: Line, words: str) -> dict[str, Any]:
    """The report's entry on the output whose name contains `words`."""
    (found,) = (entry for name, entry in line.report["sinks"].items() if words in Path(name).parts)
    assert found["error"] is None
    return dict(found)


def played(path: Path) -> list[tuple[int, int]]:
    """Width and height of every picture that a player shows."""
    with av.open(str(path)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]
