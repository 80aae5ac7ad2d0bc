"""From decoded pictures to the network's input, against a reference in floating point."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest

from pipeline.frame import Frame
from pipeline.placement import PADDING, Placement
from pipeline.preprocess import preprocess
from tests.pipeline.frames import blank, frame_of, rgb_frame

KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
LIMITED, FULL, UNTAGGED = 1, 2, 0

# Y, U, V as 8-bit numbers: greys, saturated and pale colours that stay inside the RGB cube.
COLOURS = [(16, 128, 128), (126, 128, 128), (235, 128, 128), (81, 100, 190), (120, 150, 100)]


def to_rgb(yuv: tuple[int, int, int], matrix: int, full: bool) -> np.ndarray:
    """One colour by the definition of ITU-R BT.601/709/2020, in floating point."""
    kr, kb = KR_KB[matrix]
    y, u, v = (float(value) for value in yuv)
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in (u, v))
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.array([red, green, blue]) * 255, 0, 255)


def plain(
    pixel_format: str,
    yuv: tuple[int, int, int],
    size_hw: tuple[int, int] = (48, 64),
    matrix: int = 2,
    colour_range: int = UNTAGGED,
) -> Frame:
    """A picture of one colour; 10-bit formats get the same colour times four."""
    picture = av.VideoFrame(size_hw[1], size_hw[0], pixel_format)
    kind, factor = (np.uint16, 4) if "10le" in pixel_format else (np.uint8, 1)
    for plane, value in zip(picture.planes, (*yuv, 255), strict=False):
        np.frombuffer(memoryview(plane), kind)[:] = value * factor
    picture.colorspace, picture.color_range = matrix, colour_range
    return frame_of(picture)


def shrink(
    frame: Frame, input_hw: tuple[int, int] = (24, 32), fit: str = "letterbox"
) -> np.ndarray:
    """(H, W, 3) image of one frame."""
    (batch,) = preprocess([[frame]], input_hw, fit)
    return batch.images[0]


def assert_one_colour(image: np.ndarray, expected: np.ndarray, tolerance: float = 3.0) -> None:
    assert np.abs(image.reshape(-1, 3) - expected).max() <= tolerance, (image[0, 0], expected)


@pytest.mark.parametrize("yuv", COLOURS)
@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_colours_follow_the_matrix_and_range_of_the_frame(
    yuv: tuple[int, int, int], matrix: int, colour_range: int
) -> None:
    image = shrink(plain("yuv420p", yuv, matrix=matrix, colour_range=colour_range))
    assert_one_colour(image, to_rgb(yuv, matrix, colour_range == FULL))


@pytest.mark.parametrize("yuv", COLOURS)
@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le", "yuva420p"]
)
def test_every_planar_format_gives_the_same_colour(
    pixel_format: str, yuv: tuple[int, int, int]
) -> None:
    image = shrink(plain(pixel_format, yuv, matrix=1, colour_range=LIMITED))
    assert_one_colour(image, to_rgb(yuv, 1, full=False))


@pytest.mark.parametrize("yuv", COLOURS)
def test_the_old_full_range_formats_are_full_range_untagged(yuv: tuple[int, int, int]) -> None:
    assert_one_colour(shrink(plain("yuvj420p", yuv, matrix=5)), to_rgb(yuv, 5, full=True))


@pytest.mark.parametrize(("height", "matrix"), [(480, 5), (576, 5), (720, 1), (1080, 1)])
def test_untagged_video_is_bt709_from_720_lines_on_and_limited(height: int, matrix: int) -> None:
    yuv = (81, 100, 190)
    image = shrink(plain("yuv420p", yuv, (height, height)), (32, 32))
    assert_one_colour(image, to_rgb(yuv, matrix, full=False))


@pytest.mark.parametrize("matrix", [0, 3, 8, 14])
def test_a_matrix_that_nobody_can_convert_is_guessed(matrix: int) -> None:
    yuv = (81, 100, 190)
    assert_one_colour(shrink(plain("yuv420p", yuv, matrix=matrix)), to_rgb(yuv, 5, full=False))


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "ya8"])
def test_grey_stays_grey(pixel_format: str) -> None:
    # FFmpeg takes grey formats as full range.
    image = shrink(plain(pixel_format, (90, 90, 90)))
    if pixel_format == "ya8":
        assert (image == image[..., :1]).all()
    else:
        assert_one_colour(image, np.array([90, 90, 90]), 1)


@pytest.mark.parametrize(("pixel_format", "channels"), [("rgb24", 3), ("rgba", 4), ("bgr24", 3)])
def test_rgb_passes_unchanged(pixel_format: str, channels: int) -> None:
    pixel = [200, 30, 90, 128][:channels]
    array = np.tile(np.array(pixel, np.uint8), (48, 64, 1))
    picture = av.VideoFrame.from_ndarray(array, pixel_format)
    wanted = np.array(pixel[:3] if pixel_format != "bgr24" else pixel[2::-1])
    assert_one_colour(shrink(frame_of(picture)), wanted, 1)


def test_shrinking_is_an_average_over_the_area() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    expected = image.reshape(24, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(shrink(rgb_frame(image)) - expected).max() <= 2


def test_the_picture_is_not_shifted() -> None:
    y, x = np.mgrid[:360, :640]
    ramp = np.stack([x * 255 / 639, y * 255 / 359, 0 * x + 50], 2).round().astype(np.uint8)
    image = shrink(rgb_frame(ramp), (180, 320))
    expected = ramp.reshape(180, 2, 320, 2, 3).mean((1, 3))
    assert np.abs(image - expected).max() <= 1.5
    assert abs((image - expected).mean()) < 0.6


def test_a_letterbox_has_grey_bars_around_the_picture() -> None:
    image = shrink(rgb_frame(np.full((100, 100, 3), 200, np.uint8)), (40, 80))
    assert (image[:, :20] == PADDING).all()
    assert (image[:, 60:] == PADDING).all()
    assert_one_colour(image[:, 20:60], np.array([200, 200, 200]), 1)


def test_a_stretched_picture_has_no_bars() -> None:
    image = shrink(rgb_frame(np.full((100, 100, 3), 200, np.uint8)), (40, 80), "stretch")
    assert_one_colour(image, np.array([200, 200, 200]), 1)


def test_a_picture_whose_pixels_are_not_square_is_shown_in_its_shape() -> None:
    y, x = np.mgrid[:288, :512]
    ramp = np.stack([x * 255 / 511, y * 255 / 287, 0 * x + 50], 2).round().astype(np.uint8)
    squeezed = ramp.reshape(288, 256, 2, 3).mean(2).round().astype(np.uint8)
    wide = replace(rgb_frame(squeezed), pixel_hw=(1, 2))
    (batch,) = preprocess([[wide, rgb_frame(ramp), rgb_frame(squeezed)]], (90, 200), "letterbox")
    shown, wanted, narrow = batch.images.astype(int)
    assert np.abs(shown - wanted).max() <= 2
    assert batch.placements[0].scaled_hw == batch.placements[1].scaled_hw == (90, 160)
    assert (narrow[:, :60] == PADDING).all(), "another frame of that size has another place"
    stretched = shrink(wide, (90, 160), "stretch")
    np.testing.assert_array_equal(stretched, shrink(rgb_frame(squeezed), (90, 160), "stretch"))


SIZES = [(1, 1), (1, 2), (2, 1), (3, 3), (361, 641), (2, 4096), (4096, 2), (17, 1921)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_any_size_fits(size_hw: tuple[int, int], pixel_format: str) -> None:
    yuv = (81, 100, 190)
    frame = plain(pixel_format, yuv, size_hw, matrix=5, colour_range=LIMITED)
    image = shrink(frame, (320, 576))
    where = Placement.letterbox(size_hw, (320, 576))
    (top, left), (height, width) = where.top_left, where.scaled_hw
    inside = image[top : top + height, left : left + width]
    assert_one_colour(inside, to_rgb(yuv, 5, full=False), 4)
    assert (image.reshape(-1, 3) == PADDING).all(1).sum() == 320 * 576 - height * width


def test_the_frame_keeps_its_pixels_and_its_tags() -> None:
    frame = plain("yuv420p", (81, 100, 190), matrix=8, colour_range=UNTAGGED)
    before = [bytes(plane) for plane in frame.picture.planes]
    shrink(frame)
    assert [bytes(plane) for plane in frame.picture.planes] == before
    assert int(frame.picture.colorspace) == 8
    assert int(frame.picture.color_range) == UNTAGGED
    assert frame.size_hw == (48, 64)


def test_frames_of_several_sources_stay_in_order_with_their_own_placements() -> None:
    group = [
        rgb_frame(np.full((height, width, 3), value, np.uint8), source, index)
        for source, index, height, width, value in [
            ("a", 0, 90, 160, 10),
            ("b", 0, 160, 90, 60),
            ("a", 1, 90, 160, 110),
            ("b", 1, 300, 100, 160),  # another size in mid-stream
        ]
    ]
    (batch,) = preprocess([group], (36, 64), "letterbox")
    assert batch.frames == tuple(group)
    for image, frame, placement, value in zip(
        batch.images, group, batch.placements, (10, 60, 110, 160), strict=True
    ):
        assert placement.frame_hw == frame.size_hw
        assert image[18, 32].tolist() == [value] * 3
        (top, left), (height, width) = placement.top_left, placement.scaled_hw
        assert (image[top : top + height, left : left + width] == value).all()


def test_every_batch_has_an_array_of_its_own() -> None:
    frames = [[rgb_frame(np.full((24, 32, 3), value, np.uint8))] for value in (10, 20)]
    first, second = preprocess(frames, (24, 32), "letterbox")
    assert not np.shares_memory(first.images, second.images)
    assert (first.images == 10).all()
    assert first.images.flags.c_contiguous


def test_no_groups_give_no_batches() -> None:
    assert list(preprocess([], (24, 32), "letterbox")) == []


def test_preprocessing_takes_one_group_at_a_time() -> None:
    taken = []

    def groups():
        for index in range(3):
            taken.append(index)
            yield [blank(4, 4)]

    batches = preprocess(groups(), (24, 32), "letterbox")
    next(batches)
    assert taken == [0]


def test_another_size_applies_from_the_next_batch_on_and_boxes_find_home_all_the_same() -> None:
    usual, small = (320, 576), (224, 416)
    asked: list[tuple[int, int] | None] = [None, small, small, None]
    frame = plain("yuv420p", (81, 100, 190), (360, 640), matrix=5, colour_range=LIMITED)
    found = list(preprocess([[frame]] * 4, usual, "letterbox", lambda: asked.pop(0)))
    assert [batch.images.shape[1:3] for batch in found] == [usual, small, small, usual]
    box = np.array([[100, 50, 300, 200]], np.float32)
    for batch in found:
        (where,) = batch.placements
        assert where == Placement.letterbox((360, 640), (batch.images.shape[1:3]))
        inside = where.to_input(box)
        assert (inside[:, 2:] <= batch.images.shape[2:0:-1]).all()
        np.testing.assert_allclose(where.to_frame(inside), box, atol=1e-3)
