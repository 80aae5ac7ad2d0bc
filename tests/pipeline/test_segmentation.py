"""Classes of pixels: from the answer to the frame, over the picture, and as PNG."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from onnx import TensorProto

from pipeline.drawing.overlay import Tables, lay_over
from pipeline.engines import load_engine
from pipeline.errors import ModelMismatch
from pipeline.frame import Detections, PixelClasses, SegmentationMap
from pipeline.instances import patch
from pipeline.model_file.reading import read_model_file
from pipeline.placement import Placement
from pipeline.png import palette_png
from pipeline.segment import pixel_classes
from pipeline.settings import EngineSettings, OverlaySettings, RenderSettings
from pipeline.yuv import Colours, planes
from tests.pipeline.drawing import draw
from tests.pipeline.model_files import ENGINES
from tests.pipeline.task_files import (
    REGIONS,
    write_instance,
    write_regional,
    write_semantic,
)

MEANING = PixelClasses(
    ("road", "car", "sky", "background"),
    ((120, 60, 130), (10, 20, 150), (70, 200, 220), (255, 255, 0)),
)


def segmentation(
    frame_hw: tuple[int, int], input_hw: tuple[int, int] = (40, 60), seed: int = 0, classes: int = 3
) -> SegmentationMap:
    """Blocks of classes, letterboxed; the bars are of a class that is nowhere else."""
    blocks = np.random.default_rng(seed).integers(0, classes, (8, 12), np.uint8)
    numbers = np.repeat(np.repeat(blocks, 5, 0), 5, 1)[: input_hw[0], : input_hw[1]].copy()
    placement = Placement.letterbox(frame_hw, input_hw)
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    bars = np.full(input_hw, 3, np.uint8)
    bars[top : top + height, left : left + width] = numbers[:height, :width]
    return SegmentationMap(bars, placement, MEANING)


def at_frame_by_hand(found: SegmentationMap) -> np.ndarray:
    """Each pixel of the frame, where `Placement` puts its centre; -1 on the border of two."""
    height, width = found.placement.frame_hw
    result = np.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            centre = np.array([[x + 0.5, y + 0.5, x + 0.5, y + 0.5]], np.float32)
            place = found.placement.to_input(centre)[0, :2]
            if np.abs(place - np.rint(place)).min() > 1e-4:
                result[y, x] = found.classes[int(place[1]), int(place[0])]
    return result


# On the way to the frame


@pytest.mark.parametrize("frame_hw", [(40, 60), (64, 96), (63, 51), (20, 97), (110, 30)])
def test_a_pixel_of_the_frame_has_the_class_that_lies_where_it_lies(
    frame_hw: tuple[int, int],
) -> None:
    found = segmentation(frame_hw)
    expected = at_frame_by_hand(found)
    assert (expected >= 0).mean() > 0.9
    np.testing.assert_array_equal(found.at_frame()[expected >= 0], expected[expected >= 0])


def test_shares_leave_the_bars_out_and_add_up_to_one() -> None:
    found = segmentation((64, 30))
    assert set(found.shares) <= {"road", "car", "sky"}
    assert sum(found.shares.values()) == pytest.approx(1)
    inner = found.of_frame
    for i, name in enumerate(MEANING.names[:3]):
        assert found.shares[name] == np.mean(inner == i)


def test_a_map_of_another_size_than_the_input_is_refused() -> None:
    placement = Placement.stretch((10, 10), (20, 30))
    with pytest.raises(ValueError, match="uint8"):
        SegmentationMap(np.zeros((20, 31), np.uint8), placement, MEANING)
    with pytest.raises(ValueError, match="int64"):
        SegmentationMap(np.zeros((20, 30), np.int64), placement, MEANING)


def test_a_model_without_a_palette_gets_colours_that_differ(tmp_path: Path) -> None:
    path = write_semantic(tmp_path / "m.onnx", {"palette": None, "class_names": list("abcdefgh")})
    colours = np.array(pixel_classes(read_model_file(path)).colours)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(8)
    assert apart.min() > 60


# Over the picture


def picture_of(rgb: np.ndarray, name: str = "yuv420p") -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
        format=name, dst_colorspace=1, dst_color_range=1
    )
    picture.colorspace, picture.color_range = 1, 1
    return picture


def as_rgb(picture: av.VideoFrame) -> np.ndarray:
    return picture.to_ndarray(format="rgb24", src_colorspace=1, src_color_range=1)


SMOOTH = np.stack(
    np.broadcast_arrays(
        np.linspace(40, 200, 96)[None], np.linspace(60, 180, 64)[:, None], np.full((64, 96), 120.0)
    ),
    axis=-1,
).astype(np.uint8)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
def test_the_blend_on_the_planes_is_that_of_red_green_and_blue(alpha: float) -> None:
    found = segmentation((64, 96))
    bare = RenderSettings(segmentation=OverlaySettings(alpha, edges=False, legend=False))
    picture = picture_of(SMOOTH)
    drawn = as_rgb(draw(picture, Detections.none(), (), bare, segmentation=found)).astype(float)
    colours = np.array(MEANING.colours, float)[found.at_frame()]
    expected = (1 - alpha) * as_rgb(picture) + alpha * colours
    # Chroma is shared by four pixels, so borders of classes are left out.
    classes = found.at_frame()
    inner = cv2.erode(classes, np.ones((5, 5))) == cv2.dilate(classes, np.ones((5, 5)))
    difference = np.abs(drawn - np.clip(expected, 0, 255))[inner]
    assert inner.mean() > 0.2
    assert difference.max() <= 6 and difference.mean() < 2


def test_edges_have_the_full_colour_and_the_ground_does_not() -> None:
    found = segmentation((64, 96))
    picture = picture_of(SMOOTH)
    settings = RenderSettings(segmentation=OverlaySettings(0.2, edges=True, legend=False))
    luma = planes(draw(picture, Detections.none(), (), settings, segmentation=found))[0]
    classes = found.at_frame()
    full = np.array([Colours.of(picture).yuv(colour)[0] for colour in MEANING.colours])[classes]
    padded = np.pad(classes, 1, mode="edge")
    steps = ((0, 1), (0, -1), (1, 0), (-1, 0))
    neighbours = [padded[1 + dy : 65 + dy, 1 + dx : 97 + dx] for dy, dx in steps]
    edge = np.any([other != classes for other in neighbours], axis=0)
    assert 0.05 < edge.mean() < 0.9
    np.testing.assert_array_equal(luma[edge], full[edge])
    blended = 0.8 * planes(picture)[0][~edge] + 0.2 * full[~edge]
    assert np.abs(luma[~edge] - blended).max() <= 0.5


def test_what_is_called_background_stays_as_it_is() -> None:
    found = segmentation((64, 96), classes=4)
    picture = picture_of(SMOOTH)
    settings = RenderSettings(segmentation=OverlaySettings(1.0, edges=True, legend=False))
    drawn = draw(picture, Detections.none(), (), settings, segmentation=found)
    ground = found.at_frame() == 3
    assert 0.1 < ground.mean() < 0.9
    np.testing.assert_array_equal(planes(drawn)[0][ground], planes(picture)[0][ground])


@pytest.mark.parametrize("size_wh", [(96, 64), (95, 63), (33, 2), (2, 2)])
def test_pictures_of_any_size_are_drawn_on_and_the_given_one_is_not(
    size_wh: tuple[int, int],
) -> None:
    width, height = size_wh
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
    before = [plane.copy() for plane in planes(picture)]
    found = segmentation((height, width))
    drawn = draw(picture, Detections.none(), (), RenderSettings(), segmentation=found)
    assert drawn.width % 2 == drawn.height % 2 == 0
    for plane, was in zip(planes(picture), before, strict=True):
        np.testing.assert_array_equal(plane, was)


def test_the_legend_names_the_classes_that_are_there_in_the_lower_left_corner() -> None:
    frame_hw = (360, 640)
    numbers = np.zeros((40, 60), np.uint8)
    numbers[:, 30:] = 2
    found = SegmentationMap(numbers, Placement.stretch(frame_hw, (40, 60)), MEANING)
    picture = picture_of(np.full((*frame_hw, 3), 128, np.uint8))
    plain = RenderSettings(segmentation=OverlaySettings(0.0, edges=False, legend=False))
    named = replace(plain, segmentation=replace(plain.segmentation, legend=True))
    a, b = (
        planes(draw(picture, Detections.none(), (), s, segmentation=found))[0]
        for s in (plain, named)
    )
    rows, columns = np.nonzero(a != b)
    assert rows.min() > 300 and columns.max() < 160
    colours = Colours.of(picture)
    road, car, sky = (colours.yuv(colour)[0] for colour in MEANING.colours[:3])
    shown = b[rows.min() : rows.max(), columns.min() : columns.max()]
    assert (
        (shown == road).mean() > 0.2
        and (shown == sky).mean() > 0.2
        and (shown == car).mean() < 0.01
    )


def test_the_legend_leaves_out_what_is_not_laid_over_the_picture() -> None:
    frame_hw, numbers = (360, 640), np.zeros((40, 60), np.uint8)
    numbers[:, 30:] = 3  # background
    picture = picture_of(np.full((*frame_hw, 3), 128, np.uint8))
    settings = RenderSettings(segmentation=OverlaySettings(0.0, edges=False))
    found = SegmentationMap(numbers, Placement.stretch(frame_hw, (40, 60)), MEANING)
    luma = planes(draw(picture, Detections.none(), (), settings, segmentation=found))[0]
    road, background = (Colours.of(picture).yuv(MEANING.colours[i])[0] for i in (0, 3))
    assert (luma == road).sum() > 200 and (luma == background).sum() < 20  # edges of letters
    ground = SegmentationMap(np.full_like(numbers, 3), found.placement, MEANING)
    untouched = draw(picture, Detections.none(), (), settings, segmentation=ground)
    np.testing.assert_array_equal(planes(untouched)[0], planes(picture)[0])


def test_tables_hold_the_colours_of_the_picture_at_hand() -> None:
    for matrix, full_range in ((1, False), (6, True)):
        colours = Colours(matrix, full_range)
        tables = Tables.of(MEANING, colours)
        for i, rgb in enumerate(MEANING.colours):
            assert tuple(int(plane[i]) for plane in tables.planes) == colours.yuv(rgb)


def test_a_class_that_the_table_does_not_know_cannot_crash_the_drawing() -> None:
    found = SegmentationMap(
        np.full((40, 60), 250, np.uint8), Placement.stretch((64, 96), (40, 60)), MEANING
    )
    picture = picture_of(SMOOTH)
    lay_over(planes(picture), found, Tables.of(MEANING, Colours.of(picture)), OverlaySettings())


# Masks of objects


def test_a_mask_covers_the_pixels_whose_centres_it_covers() -> None:
    half = np.zeros((28, 28), np.float32)
    half[:, :14] = 1
    found = patch(half, np.array([10.2, 5.0, 30.2, 9.0], np.float32), (64, 96))
    assert found is not None and (found.top, found.left) == (5, 10)
    assert found.inside.shape == (4, 20)
    np.testing.assert_array_equal(found.inside[0] > 0, np.arange(20) + 10.5 < 20.2)


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (-9, -9, -1, -1), (float("nan"), 0, 9, 9), (3.6, 3.6, 3.9, 3.9)]
)
def test_a_box_without_a_pixel_has_no_patch(box: tuple[float, ...]) -> None:
    assert patch(np.ones((28, 28), np.float32), np.array(box, np.float32), (20, 20)) is None


def test_a_patch_reaches_no_further_than_the_picture() -> None:
    found = patch(np.ones((28, 28), np.float32), np.array([-5, -5, 99, 99], np.float32), (20, 30))
    assert found is not None and found.inside.shape == (20, 30) and found.inside.all()


# As PNG


@pytest.mark.parametrize("shape", [(1, 1), (31, 45), (288, 512)])
def test_a_palette_png_keeps_numbers_and_shows_colours(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    numbers = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    path = tmp_path / "m.png"
    path.write_bytes(palette_png(numbers, MEANING.colours))
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(shown, np.array(MEANING.colours, np.uint8)[numbers])
    image = pytest.importorskip("PIL.Image", reason="no Pillow here")
    with image.open(path) as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read), numbers)


# Files that are not what they say


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"palette": [[1, 2, 3]]}, "palette has 1 colours for 3 classes"),
        ({"palette": [[1, 2, 300]] * 3}, "0 to 255"),
        ({"palette": [[1, 2]] * 3}, "cannot be read"),
        ({"outputs": ["boxes"]}, "needs outputs ['classes']"),
        ({"class_names": ["x"] * 256}, "more than 255 classes"),
    ],
)
def test_a_wrong_entry_of_pixels_is_named(
    tmp_path: Path, entry: dict[str, object], says: str
) -> None:
    with pytest.raises(ModelMismatch) as caught:
        read_model_file(write_semantic(tmp_path / "m.onnx", entry))
    assert says in str(caught.value) and caught.value.exit_code == 4


def test_masks_and_regions_must_be_promised_whole(tmp_path: Path) -> None:
    boxes = ["boxes", "scores", "labels", "exact"]
    with pytest.raises(ModelMismatch, match="masks"):
        read_model_file(write_instance(tmp_path / "m.onnx", {"outputs": boxes}))
    for entry in ({"regions": 0}, {"proposer": None}, {"regions": -1}, {"regions": 10**9}):
        with pytest.raises(ModelMismatch, match="regions"):
            read_model_file(write_regional(tmp_path / "r.onnx", entry))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_that_is_not_what_its_entry_says_is_refused(tmp_path: Path, engine: str) -> None:
    wrong_type = write_semantic(tmp_path / "a.onnx", kind=TensorProto.INT32)
    no_regions = write_instance(tmp_path / "b.onnx", {"proposer": "x", "regions": REGIONS})
    more = write_regional(tmp_path / "c.onnx", {"proposer": None, "regions": 0})
    for path in (wrong_type, no_regions, more):
        with pytest.raises(ModelMismatch, match="export it again") as caught:
            load_engine(read_model_file(path), EngineSettings(name=engine, precision="f32"))
        assert caught.value.exit_code == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_regions_are_asked_for_and_padded_with_the_images(tmp_path: Path, engine: str) -> None:
    model = read_model_file(write_regional(tmp_path / "r.onnx"))
    settings = EngineSettings(name=engine, precision="f32", batch=3)
    with load_engine(model, settings) as loaded:
        images = np.zeros((2, *model.input_size_hw, 3), np.uint8)
        regions = np.zeros((2, REGIONS, 4), np.float32)
        regions[1, 2] = 1, 2, 30, 20
        found = loaded.infer(images, regions)
        assert found["scores"].tolist() == [[0] * 6, [0, 0, pytest.approx(0.9), 0, 0, 0]]
        assert found["boxes"][1, 2].tolist() == [1, 2, 30, 20]
        for wrong in (None, regions[:1], regions[:, :5]):
            with pytest.raises(ValueError, match="regions"):
                loaded.infer(images, wrong)
