"""Drawing by the kernels of a GPU, run by Triton's interpreter, against drawing on planes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.drawing.blur import mosaics
from pipeline.drawing.canvas import Canvas, Label, Rect
from pipeline.drawing.plane_canvas import PlaneCanvas
from pipeline.drawing.render import Sign, draw_on
from pipeline.frame import Detections, PixelClasses, SegmentationMap
from pipeline.gpu.canvas import GpuCanvas, _apart
from pipeline.placement import Placement
from pipeline.settings import OverlaySettings, RenderSettings
from pipeline.yuv import Colours, planes

WIDTH, HEIGHT = 96, 64
RED, GREY, DARK = (82, 90, 240), (160, 128, 128), (40, 200, 90)
MEANING = PixelClasses(("background", "road", "car"), ((0, 0, 0), (128, 64, 128), (0, 0, 142)))

Painting = Callable[[Canvas], None]
pytestmark = pytest.mark.usefixtures("drawing")


def nv12(
    size_wh: tuple[int, int] = (WIDTH, HEIGHT), full_range: bool = False, seed: int = 0
) -> av.VideoFrame:
    """Noise, in the layout of a GPU's decoder."""
    width, height = size_wh
    noise = np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), np.uint8)
    picture = av.VideoFrame.from_ndarray(noise, "nv12")
    picture.pts, picture.time_base, picture.duration = 3, Fraction(1, 25), 1
    Colours(1, full_range).tag(picture)
    return picture


def assert_alike(ours: av.VideoFrame, theirs: av.VideoFrame) -> None:
    """The same numbers, in NV12 and in yuv420p."""
    luma, chroma = planes(ours)[0], planes(ours)[1]
    chroma = np.asarray(memoryview(ours.planes[1])).reshape(ours.height // 2, -1)
    wanted = planes(theirs)
    np.testing.assert_array_equal(luma, wanted[0])
    np.testing.assert_array_equal(chroma[:, 0 : ours.width : 2], wanted[1])
    np.testing.assert_array_equal(chroma[:, 1 : ours.width : 2], wanted[2])


def assert_same(
    painting: Painting, picture: av.VideoFrame, tile: tuple[int, int] = (64, 128)
) -> None:
    """Both canvases make the same of a picture, and something."""
    ours, theirs = GpuCanvas(picture, tile, block=(8, 16)), PlaneCanvas(picture)
    for canvas in (ours, theirs):
        painting(canvas)
    drawn = ours.picture()
    assert_alike(drawn, theirs.picture())
    assert (planes(drawn)[0] != planes(picture)[0]).any()
    assert (drawn.pts, drawn.time_base, drawn.duration) == (3, Fraction(1, 25), 1)
    assert Colours.of(drawn) == Colours.of(picture)


def filled(canvas: Canvas) -> None:
    canvas.fill(Rect(3, 5, 20, 21), RED)
    canvas.fill(Rect(8, 10, 31, 40), GREY)  # over the first
    canvas.fill(Rect(90, 60, 96, 64), RED)
    canvas.fill(Rect(50, 50, 51, 51), DARK)


def framed(canvas: Canvas) -> None:
    canvas.frame(Rect(0, 0, WIDTH, HEIGHT), 2, RED)
    canvas.frame(Rect(10, 8, 50, 40), 2, GREY)
    canvas.frame(Rect(30, 20, 70, 63), 3, RED)  # odd, and over the one before
    canvas.frame(Rect(92, 1, WIDTH, 30), 2, DARK)
    canvas.frame(Rect(0, 50, 3, HEIGHT), 2, DARK)  # all of it is line
    canvas.frame(Rect(60, 10, 61, 11), 4, GREY)
    canvas.frame(Rect(75, 40, 80, 46), 2, GREY)  # its inner edges meet


def outlined(canvas: Canvas) -> None:
    canvas.polygon(((0.1, 0.2), (0.9, 0.1), (0.6, 0.95)), 2, GREY)
    canvas.polygon(((0, 0), (1, 0), (1, 1), (0, 1)), 3, RED)


def lettered(canvas: Canvas) -> None:
    canvas.label(Label("car 0.87", Rect(11, 7, 75, 22)), 11, GREY)
    canvas.label(Label("dark", Rect(12, 20, 60, 36)), 11, DARK)
    canvas.label(Label("a plate that is cut off", Rect(40, 50, WIDTH, HEIGHT)), 13, RED)
    canvas.label(Label("narrow", Rect(2, 40, 9, 43)), 11, RED)


def informed(canvas: Canvas) -> None:
    canvas.hud(("25.0 fps", "a line that is longer than the picture"), 11)


def informed_at_length(canvas: Canvas) -> None:
    canvas.hud(tuple("abcdefgh"), 11)


def hidden(canvas: Canvas) -> None:
    rows = [(3, 5, 40, 50), (20, 20, 96, 64), (70, 2, 96, 10), (-5, -5, 10.5, 9), (50, 3, 52, 4)]
    canvas.conceal(np.array([*rows, (0, 0, np.nan, 4), (0, 60, 96, 64)], np.float32))


def masked(canvas: Canvas, edges: bool = True) -> None:
    y, x = np.mgrid[:28, :28] - 13.5
    disc = (np.hypot(x, y) < 12).astype(np.float32)
    boxes = np.array(
        [[3.2, 4.7, 40.1, 50], [20, 20, 96, 64], [60.4, 0, 90, 20], [9, 9, 9, 9]], np.float32
    )
    found = Detections(
        boxes, np.ones(4, np.float32), np.arange(4), np.stack([disc, 1 - disc, disc, disc])
    )
    colours = {2: (255, 0, 0), 0: (0, 255, 0), 1: (90, 90, 255), 3: (1, 2, 3)}
    canvas.masks(found, colours, OverlaySettings(alpha=0.45, edges=edges))


def classed(canvas: Canvas, edges: bool = True, alpha: float = 0.45) -> None:
    ids = np.random.default_rng(4).integers(0, 3, (6, 9), np.uint8).repeat(5, 0).repeat(5, 1)
    placement = Placement.letterbox((HEIGHT, WIDTH), ids.shape)
    canvas.classes(SegmentationMap(ids, placement, MEANING), OverlaySettings(alpha, edges))


def everything(canvas: Canvas) -> None:
    for each in (hidden, classed, masked, outlined, filled, framed, lettered, informed):
        each(canvas)


PAINTINGS = [filled, framed, outlined, lettered, informed, informed_at_length, hidden, masked]


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    "painting", [*PAINTINGS, classed, everything], ids=lambda each: each.__name__
)
def test_what_is_drawn_has_the_numbers_that_the_cpu_writes(
    painting: Painting, full_range: bool
) -> None:
    assert_same(painting, nv12(full_range=full_range))


@pytest.mark.parametrize("tile", [(16, 32), (8, 128)])
def test_tiles_may_have_any_size(tile: tuple[int, int]) -> None:
    assert_same(everything, nv12(), tile)


@pytest.mark.parametrize("size_wh", [(2, 2), (130, 34), (34, 130)])
def test_pictures_may_have_any_even_size(size_wh: tuple[int, int]) -> None:
    width, height = size_wh

    def painting(canvas: Canvas) -> None:
        canvas.conceal(np.array([(0, 0, width, height)], np.float32))
        canvas.frame(Rect(0, 0, width, height), 2, RED)
        canvas.polygon(((0.1, 0.2), (0.9, 0.1), (0.6, 0.95)), 2, GREY)
        canvas.hud(("fps",), 11)

    assert_same(painting, nv12(size_wh))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("edges", [False, True])
def test_tints_are_as_strong_and_have_edges_as_on_the_cpu(edges: bool, alpha: float) -> None:
    def painting(canvas: Canvas) -> None:
        canvas.fill(Rect(0, 0, 4, 4), RED)
        classed(canvas, edges, alpha)
        masked(canvas, edges)

    assert_same(painting, nv12())


def test_boxes_by_chance_have_the_numbers_that_the_cpu_writes() -> None:
    chance = np.random.default_rng(7)

    def painting(canvas: Canvas) -> None:
        for _ in range(40):
            (x1, x2), (y1, y2) = (sorted(chance.choice(n + 1, 2, False)) for n in (WIDTH, HEIGHT))
            canvas.frame(Rect(x1, y1, x2, y2), int(chance.integers(1, 6)), RED)
            canvas.fill(Rect(x1, y1, min(x1 + 3, x2), y2), GREY)

    state = chance.bit_generator.state
    ours, theirs = GpuCanvas(nv12(), (64, 128)), PlaneCanvas(nv12())
    for canvas in (ours, theirs):
        chance.bit_generator.state = state
        painting(canvas)
    assert_alike(ours.picture(), theirs.picture())


def test_a_street_has_the_numbers_that_the_cpu_writes(shared_data: Path) -> None:
    """Boxes, labels, a zone and figures, as a line draws them on a recording."""
    with av.open(str(shared_data / "videos/cam_road_640x352_24fps.mp4")) as container:
        picture = next(container.decode(video=0)).reformat(format="nv12", threads=1)
    chance = np.random.default_rng(3)
    corners = chance.uniform(-20, 560, (12, 2))
    boxes = np.concatenate([corners, corners + chance.uniform(4, 160, (12, 2))], 1)
    found = Detections(
        boxes.astype(np.float32), chance.random(12, np.float32), chance.integers(0, 3, 12)
    )
    ours, theirs = GpuCanvas(picture, (128, 256)), PlaneCanvas(picture)
    for canvas in (ours, theirs):
        canvas.conceal(found.boxes[:3])
        signs = [Sign(((0.1, 0.2), (0.9, 0.3), (0.5, 0.9)), "crossing: 2 car")]
        draw_on(canvas, found, MEANING.names, RenderSettings(), ("24.0 fps", "31 ms"), signs)
    assert_alike(ours.picture(), theirs.picture())


def test_the_decoders_picture_is_left_alone() -> None:
    picture = nv12()
    before = [bytes(plane) for plane in picture.planes]
    canvas = GpuCanvas(picture, (64, 128))
    everything(canvas)
    canvas.picture()
    assert [bytes(plane) for plane in picture.planes] == before


def test_luma_and_chroma_lie_in_one_piece_as_nvenc_wants_them() -> None:
    drawn = GpuCanvas(nv12(), (64, 128)).picture()
    luma, chroma = (np.asarray(memoryview(plane)) for plane in drawn.planes)
    assert {plane.line_size for plane in drawn.planes} == {256}
    assert chroma.ctypes.data - luma.ctypes.data == HEIGHT * 256


def test_areas_that_overlap_are_blurred_in_their_order() -> None:
    boxes = np.array([(0, 0, 20, 20), (30, 0, 50, 20), (10, 10, 40, 30), (0, 40, 9, 50)])
    areas = mosaics(boxes.astype(np.float32), (HEIGHT, WIDTH))
    assert _apart(areas) == [[areas[0], areas[1], areas[3]], [areas[2]]]


COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from pipeline.gpu.canvas import BLOCK, TILE
from pipeline.gpu.painting import kernels

def size(shape, **more):
    return {"ROWS": shape[0], "COLUMNS": shape[1], **more}

of = {"picture": "*u8", "pitch": "i32"}
sides = {"height": "i32", "width": "i32"}
drawing = of | sides | {"orders": "*i64", "count": "i32"}
ids = {"ids": "*u8", "ids_pitch": "i32", "rows": "*i32", "columns": "*i32"}
classing = of | sides | ids | {"tables": "*u8", "mixtures": "*u8"}
for kernel, given, fixed in (
    (kernels().draw, drawing, size(TILE)),
    (kernels().classes, classing, size(TILE, EDGES=True)),
    (kernels().classes, classing, size(TILE, EDGES=False)),
    (kernels().mosaic, of | {"blocks": "*i32"}, size(BLOCK)),
):
    for chip in (75, 90, 100):
        source = ASTSource(kernel, given | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
        done = compile(source, target=GPUTarget("cuda", chip, 32))
        print(len(done.asm["cubin"]) > 1000)
"""


def test_the_kernels_are_compiled_for_turing_hopper_and_blackwell(tmp_path: Path) -> None:
    """Without a GPU, to machine code; in a process where Triton does not interpret."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True"] * 12
