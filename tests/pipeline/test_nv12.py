"""Pictures as a GPU's decoder gives them (NV12, P010): the line makes the same of them."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.frame import Detections, Frame
from pipeline.model_file.reading import Fit
from pipeline.preprocess import preprocess
from pipeline.settings import RenderSettings
from pipeline.sources.painted import paint, read_picture
from pipeline.sources.upright import Upright
from pipeline.yuv import Colours, fitted, own_yuv420p, planes, to_bgr
from tests.clips import write_clip
from tests.pipeline.drawing import draw
from tests.pipeline.stand_in_chip import as_downloaded

SIZES = [(96, 64), (97, 65), (640, 360)]
ALL_SIZES = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
# Ten bits of odd size do not come from a chip, and swscale makes their last chroma column wrong.
PICTURES = pytest.mark.parametrize(
    ("size", "layout"),
    [
        *((size, "yuv420p") for size in SIZES),
        ((96, 64), "yuv420p10le"),
        ((640, 360), "yuv420p10le"),
    ],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)


def pair(
    size: tuple[int, int], layout: str = "yuv420p", colours: Colours | None = None
) -> tuple[av.VideoFrame, av.VideoFrame]:
    """A colourful picture as software decodes it, and the same as it comes from a GPU."""
    width, height = size
    noise = np.random.default_rng(1).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8
    )
    rgb = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    planar = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=layout, threads=1)
    planar.pts, planar.time_base = 7, Fraction(1, 25)
    (colours or Colours(1, full_range=False)).tag(planar)
    return planar, as_downloaded(planar)


def assert_same_planes(ours: av.VideoFrame, theirs: av.VideoFrame, atol: int = 0) -> None:
    assert (ours.width, ours.height, ours.format.name) == (theirs.width, theirs.height, "yuv420p")
    assert (ours.pts, ours.colorspace, ours.color_range) == (
        *(theirs.pts, theirs.colorspace, theirs.color_range),
    )
    for a, b in zip(planes(ours), planes(theirs), strict=True):
        np.testing.assert_allclose(a.astype(int), b.astype(int), rtol=0, atol=atol)


def model_input(picture: av.VideoFrame, fit: Fit) -> npt.NDArray[np.uint8]:
    frame = Frame(picture, "a", 0, 0, Fraction(1, 25), 0.0)
    (batch,) = preprocess([[frame]], (48, 80), fit)
    return batch.images


@PICTURES
def test_the_stand_in_is_really_in_the_other_layout(size: tuple[int, int], layout: str) -> None:
    planar, packed = pair(size, layout)
    assert (len(planar.planes), len(packed.planes)) == (3, 2)
    assert packed.format.name == ("p010le" if layout.endswith("10le") else "nv12")


@PICTURES
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("colours", [Colours(1, False), Colours(6, True)], ids=["bt709", "full"])
def test_the_network_sees_the_same(
    size: tuple[int, int], layout: str, fit: Fit, colours: Colours
) -> None:
    planar, packed = pair(size, layout, colours)
    assert np.array_equal(model_input(packed, fit), model_input(planar, fit))


@PICTURES
@pytest.mark.parametrize("colours", [Colours(1, False), Colours(6, True)], ids=["bt709", "full"])
def test_a_copy_to_draw_on_is_the_same(
    size: tuple[int, int], layout: str, colours: Colours
) -> None:
    planar, packed = pair(size, layout, colours)
    eight_bits = layout == "yuv420p"  # swscale rounds ten bits differently in the two layouts
    assert_same_planes(own_yuv420p(packed), own_yuv420p(planar), atol=0 if eight_bits else 1)


def test_boxes_are_drawn_the_same() -> None:
    planar, packed = pair((640, 360))
    found = Detections(
        np.array([[10, 20, 200, 180], [300, 100, 640, 360]], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([0, 1]),
    )
    drawn = [
        draw(p, found, ("car", "person"), RenderSettings(), ("hud",)) for p in (packed, planar)
    ]
    assert_same_planes(*drawn)
    assert not np.array_equal(planes(drawn[0])[0], planes(own_yuv420p(planar))[0])


@ALL_SIZES
def test_pictures_for_people_and_files_are_the_same(size: tuple[int, int]) -> None:
    planar, packed = pair(size)
    assert np.array_equal(to_bgr(packed), to_bgr(planar))
    colours = Colours.of(planar)
    assert_same_planes(fitted(packed, (100, 100), colours), fitted(planar, (100, 100), colours))


def test_a_painted_clock_is_read_from_luma_that_has_its_chroma_woven() -> None:
    planar = own_yuv420p(pair((640, 360))[0])
    paint(planar, 12, 3456)
    assert read_picture(as_downloaded(planar)) == read_picture(planar)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_turned_pictures_are_turned_the_same(
    tmp_path_factory: pytest.TempPathFactory, rotation: int, pix_fmt: str
) -> None:
    path = write_clip(
        tmp_path_factory.mktemp("turned") / "a.mp4",
        frames=2,
        rotation=rotation,
        pix_fmt=pix_fmt,
        size=(96, 64),
    )
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    turned, theirs = Upright()(as_downloaded(picture)), Upright()(picture)
    assert turned.format.name in ("nv12", "p010le")
    assert_same_planes(own_yuv420p(turned), own_yuv420p(theirs), atol=int(pix_fmt != "yuv420p"))
