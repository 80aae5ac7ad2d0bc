"""Drawing on the planes against drawing the same on an RGB picture."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread

import av
import numpy as np
import pytest

from pipeline.drawing.canvas import Rect
from pipeline.drawing.plane_canvas import PlaneCanvas
from pipeline.drawing.render import PALETTE, Style, render
from pipeline.drawing.text import line_height, plate, rasterise
from pipeline.frame import Detections, Frame, Result
from pipeline.preprocess import preprocess
from pipeline.settings import RenderSettings
from pipeline.yuv import Colours, own_yuv420p, planes, to_bgr
from tests.pipeline.drawing import draw

NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
PLAIN = RenderSettings(labels=False, scores=False)
LIMITED, FULL = 1, 2
BT709, BT601, BT2020 = 1, 6, 9


def found(*rows: tuple[float, ...]) -> Detections:
    """Detections from rows of x1, y1, x2, y2, score, class id."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(int)
    )


def scene(height: int = 180, width: int = 320) -> np.ndarray:
    """(H, W, 3) uint8 RGB without edges, so that subsampled chroma loses nothing."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(60, 190, width)
    rgb[..., 1] = np.linspace(80, 170, height)[:, None]
    rgb[..., 2] = 110
    return rgb


def picture(
    form: str = "yuv420p", matrix: int = BT601, range_: int = LIMITED, rgb: np.ndarray | None = None
) -> av.VideoFrame:
    """The scene as a decoder might give it."""
    base = av.VideoFrame.from_ndarray(scene() if rgb is None else rgb, "rgb24")
    if form == "rgb24":
        converted = base
    else:
        converted = base.reformat(
            format=form,
            dst_colorspace=5 if matrix == BT601 else matrix,
            src_color_range=FULL,
            dst_color_range=range_,
        )
        converted.colorspace, converted.color_range = matrix, range_
    converted.pts, converted.time_base = 7, Fraction(1, 30)
    return converted


def shrunk(source: av.VideoFrame) -> np.ndarray:
    """(90, 160, 3) uint8 RGB as the network sees a picture."""
    frame = Frame(source, "a", 0, 0, Fraction(1, 25), 0.0)
    (batch,) = preprocess([[frame]], (90, 160), "stretch")
    return batch.images[0]


def rgb_of(drawn: av.VideoFrame) -> np.ndarray:
    return to_bgr(drawn)[..., ::-1].astype(int)


def drawn_on_rgb(rgb: np.ndarray, box: tuple[int, ...], line: int, colour: tuple[int, ...]):
    """The slow twin: the outline around a box on even pixels, painted on an RGB picture."""
    x1, y1, x2, y2 = box
    painted = rgb.copy()
    painted[y1 - line : y2 + line, x1 - line : x2 + line] = colour
    painted[y1:y2, x1:x2] = rgb[y1:y2, x1:x2]
    return painted


def shadow(shape: tuple[int, int], box: tuple[int, ...], line: int) -> np.ndarray:
    """Where the soft dark edges lie: one pixel inside and one outside of the outline."""
    mask = np.zeros(shape, bool)
    x1, y1, x2, y2 = box
    mask[y1 - line - 1 : y2 + line + 1, x1 - line - 1 : x2 + line + 1] = True
    mask[y1 - line : y2 + line, x1 - line : x2 + line] = False
    mask[y1:y2, x1:x2] = True
    mask[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = False
    return mask


@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
def test_an_outline_looks_like_one_drawn_in_rgb(matrix: int, range_: int) -> None:
    form = "yuvj420p" if range_ == FULL else "yuv420p"
    source, box = picture(form, matrix, range_), (100, 40, 220, 130)
    drawn = rgb_of(draw(source, found((*box, 0.9, 2)), NAMES, PLAIN))
    expected = drawn_on_rgb(rgb_of(source), box, line=2, colour=PALETTE[2])
    # swscale interpolates chroma, which softens colour by a pixel on both sides of an edge.
    line_core = np.zeros((180, 320), bool)
    line_core[39, 102:218] = line_core[130, 102:218] = True
    assert np.abs(drawn - expected)[line_core].max() <= 48
    away = ~dilated(expected != rgb_of(source)) & ~shadow((180, 320), box, 2)
    assert np.abs(drawn - expected)[away].max() <= 1


def dilated(changed: np.ndarray) -> np.ndarray:
    """Where something within 4 pixels changed."""
    mask = changed.any(axis=2)
    grown = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        grown[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = True
    return grown


@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("range_", [LIMITED, FULL])
def test_a_filled_area_has_exactly_the_colour_asked_for(matrix: int, range_: int) -> None:
    canvas = PlaneCanvas(picture("yuvj420p" if range_ == FULL else "yuv420p", matrix, range_))
    for number, colour in enumerate(PALETTE):
        canvas.fill(Rect(number * 40, 20, number * 40 + 40, 60), canvas.colour(colour))
    seen = rgb_of(canvas.picture())
    for number, colour in enumerate(PALETTE):
        inner = seen[24:56, number * 40 + 4 : number * 40 + 36]
        assert np.abs(inner - colour).max() <= 3


def test_the_outline_runs_around_the_object_and_not_over_it() -> None:
    source, box = picture(), (100, 40, 220, 130)
    before, after = (
        planes(own_yuv420p(source))[0],
        planes(draw(source, found((*box, 0.9, 2)), NAMES, PLAIN))[0],
    )
    x1, y1, x2, y2 = box
    np.testing.assert_array_equal(
        after[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1], before[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
    )
    luma = Colours.of(source).yuv(PALETTE[2])[0]
    assert (after[y1 - 2 : y1, x1 - 2 : x2 + 2] == luma).all()
    assert (after[y1 - 2 : y2 + 2, x2 : x2 + 2] == luma).all()


def test_without_detections_the_picture_stays_as_it_is() -> None:
    source = picture()
    drawn = draw(source, Detections.none(), NAMES, RenderSettings())
    for before, after in zip(planes(source), planes(drawn), strict=True):
        np.testing.assert_array_equal(before, after)


def test_drawing_never_writes_into_the_decoders_pictures(make_clip) -> None:
    clip = make_clip("b.mp4", size=(320, 180), frames=30, keyframe_every=30)
    boxes = found((20, 20, 200, 150, 0.9, 0), (0, 0, 320, 180, 0.8, 1))

    def decoded(touch: bool) -> list[list[np.ndarray]]:
        with av.open(str(clip)) as container:
            pictures = []
            for frame in container.decode(video=0):
                if touch:
                    draw(frame, boxes, NAMES, RenderSettings(), ["30 fps"])
                pictures.append([plane.copy() for plane in planes(frame)])
            return pictures

    for with_drawing, without in zip(decoded(True), decoded(False), strict=True):
        for a, b in zip(with_drawing, without, strict=True):
            np.testing.assert_array_equal(a, b)


def test_drawing_twice_gives_the_same_picture() -> None:
    boxes = found((20, 20, 200, 150, 0.9, 0), (50, 30, 300, 170, 0.9, 1))
    first, second = (
        draw(picture(), boxes, NAMES, RenderSettings(), ["30 fps", "20 ms"]) for _ in range(2)
    )
    for a, b in zip(planes(first), planes(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_time_colours_and_size_are_those_of_the_frame() -> None:
    source = picture(matrix=BT709)
    source.duration = 3
    frame = Frame(source, "a", 0, pts=123, time_base=Fraction(1, 600), arrival=0.0)
    result = Result(frame, found((20, 20, 200, 150, 0.9, 0)))
    (rendered,) = render([result], NAMES, RenderSettings())
    drawn = rendered.annotated
    assert drawn is not None
    assert (drawn.pts, drawn.time_base, drawn.duration) == (123, Fraction(1, 600), 60)
    assert (drawn.width, drawn.height, drawn.format.name) == (320, 180, "yuv420p")
    assert (drawn.colorspace, drawn.color_range) == (BT709, LIMITED)
    assert rendered.frame is frame and rendered.detections is result.detections


@pytest.mark.parametrize("matrix", [5, BT2020])
@pytest.mark.parametrize("convert", [to_bgr, own_yuv420p, shrunk])
def test_a_picture_keeps_its_tags_while_it_is_converted(
    convert: Callable[[av.VideoFrame], object], matrix: int
) -> None:
    shared, seen, done = av.VideoFrame(1920, 1080, "yuv444p"), set(), Event()
    shared.colorspace, shared.color_range = matrix, LIMITED
    shared.color_primaries, shared.color_trc = 9, 18  # BT.2020 and HLG

    def watch() -> None:
        while not done.is_set():
            seen.add((shared.colorspace, shared.color_primaries, shared.color_trc))

    watcher = Thread(target=watch)
    watcher.start()
    for _ in range(5):
        convert(shared)
    done.set()
    watcher.join()
    assert seen == {(matrix, 9, 18)}


@pytest.mark.parametrize("form", ["yuv420p", "yuv444p", "nv12", "p010le", "gray", "gbrp"])
def test_tags_of_light_change_no_pixel_and_are_handed_on(form: str) -> None:
    tagged, plain = picture(form, BT709), picture(form, BT709)
    for transfer, primaries in [*((n, 9) for n in range(20)), *((18, n) for n in range(24))]:
        tagged.color_trc, tagged.color_primaries = transfer, primaries
        for convert in (to_bgr, shrunk):
            np.testing.assert_array_equal(convert(tagged), convert(plain))
        copy = own_yuv420p(tagged)
        for ours, theirs in zip(planes(copy), planes(own_yuv420p(plain)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for each in (tagged, copy):
            assert (each.color_trc, each.color_primaries) == (transfer, primaries)


def test_rendering_that_is_switched_off_passes_results_on() -> None:
    result = Result(Frame(picture(), "a", 0, 0, Fraction(1, 25), 0.0), Detections.none())
    assert list(render([result], NAMES, RenderSettings(enabled=False))) == [result]


FORMATS = [
    *("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le"),
    *("nv12", "p010le", "gray", "gray10le", "rgb24", "bgr24", "rgba", "gbrp", "rgb48le"),
    *("yuva420p", "yuyv422"),
]


@pytest.mark.parametrize("form", FORMATS)
def test_every_pixel_format_becomes_the_same_picture(form: str) -> None:
    source = picture(form, BT709, FULL if form.startswith(("yuvj", "gray")) else LIMITED)
    drawn = draw(source, found((100, 40, 220, 130, 0.9, 2)), NAMES, RenderSettings())
    expected = scene().astype(int)
    if form.startswith("gray"):
        expected = np.repeat(planes(picture("gray", BT709, FULL))[0][..., None], 3, axis=2)
    assert drawn.format.name == "yuv420p"
    assert np.abs(rgb_of(drawn) - expected)[50:120, 110:210].mean() < 4
    assert np.abs(rgb_of(drawn) - expected)[:, :80].mean() < 4


@pytest.mark.parametrize("rgb", [(255, 255, 255), (128, 128, 128), (200, 30, 90), (0, 0, 0)])
def test_bgr_is_drawn_on_as_exactly_as_rgb(rgb: tuple[int, int, int]) -> None:
    plain = np.tile(np.array(rgb, np.uint8), (16, 16, 1))
    forms = {"rgb24": plain, "bgr24": np.ascontiguousarray(plain[..., ::-1])}
    copies = [own_yuv420p(av.VideoFrame.from_ndarray(a, form)) for form, a in forms.items()]
    ours, theirs = ([int(plane[0, 0]) for plane in planes(copy)] for copy in copies)
    assert ours == theirs
    np.testing.assert_allclose(ours, Colours.of(copies[0]).yuv(rgb), atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5), (361, 641), (2, 2), (180, 321)])
@pytest.mark.parametrize("form", ["yuv420p", "yuv444p", "rgb24"])
def test_odd_sizes_grow_by_the_last_row_and_column(size: tuple[int, int], form: str) -> None:
    height, width = size
    source = picture(form, rgb=scene(height, width))
    drawn = draw(source, found((0, 0, width, height, 0.9, 2)), NAMES, PLAIN)
    plain = draw(source, Detections.none(), NAMES, PLAIN)
    assert (drawn.height, drawn.width) == (height + height % 2, width + width % 2)
    luma = planes(plain)[0]
    np.testing.assert_array_equal(luma[height:], luma[height - 1 : height][: height % 2])
    np.testing.assert_array_equal(luma[:, width:], luma[:, width - 1 : width][:, : width % 2])


def test_untagged_pictures_are_read_as_players_read_them() -> None:
    def matrix(width: int, height: int) -> int:
        return Colours.of(av.VideoFrame(width, height, "yuv420p")).matrix

    assert [matrix(640, 480), matrix(720, 576)] == [BT601, BT601]
    assert [matrix(1280, 720), matrix(1280, 536), matrix(1080, 1920)] == [BT709] * 3


@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, -10, -10),
        (400, 20, 500, 60),
        (50, 50, 50, 90),
        (60, 90, 50, 80),
        (np.nan, 0, 10, 10),
    ],
)
def test_boxes_that_show_nothing_are_left_out(box: tuple[float, ...]) -> None:
    source = picture()
    drawn = draw(source, found((*box, 0.9, 0)), NAMES, RenderSettings())
    for before, after in zip(planes(source), planes(drawn), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (20, 320), (180, 320), (480, 64)])
def test_any_box_can_be_drawn_on_any_picture(size: tuple[int, int]) -> None:
    height, width = size
    random = np.random.default_rng(5)
    source = picture(rgb=scene(height, width))
    corners = random.uniform(-30, max(size) + 30, (200, 4)).astype(np.float32)
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), corners[:, 2:]], axis=1)
    boxes[0] = [-np.inf, -np.inf, np.inf, np.inf]
    ids = random.integers(0, 6, 200)
    everything = Detections(boxes, random.uniform(0, 1, 200).astype(np.float32), ids)
    drawn = draw(source, everything, NAMES, RenderSettings(line_width=3), ["a long line of text"])
    assert (drawn.height, drawn.width) == size


def test_labels_stay_inside_and_apart_while_there_is_room() -> None:
    style, random = Style(1280, 720, line=2, letters=17), np.random.default_rng(1)
    taken: list[Rect] = []
    for _ in range(12):
        x, y = random.uniform(0, 1240), random.uniform(0, 680)
        box = style.outline(np.array([x, y, x + 40, y + 40], np.float32))
        assert box is not None
        place = style.place(box, (90, 24), taken)
        assert min(place) >= 0 and place.x2 <= 1280 and place.y2 <= 720
        assert not any(place.overlaps(other) for other in taken)
        taken.append(place)


def test_of_two_labels_in_one_place_the_better_one_keeps_it() -> None:
    style, box = Style(640, 360, line=2, letters=12), Rect(100, 100, 200, 200)
    first = style.place(box, (80, 16), [])
    assert first == Rect(100, 84, 180, 100)  # on top of the box
    second = style.place(box, (80, 16), [first])
    assert second == Rect(100, 100, 180, 116)  # inside
    assert style.place(box, (80, 16), [first, second]) == Rect(100, 200, 180, 216)  # below


def test_a_label_says_class_and_score_as_the_settings_want() -> None:
    def label_of(**settings: bool) -> np.ndarray:
        options = RenderSettings(**settings)
        return planes(draw(picture(), found((100, 60, 220, 150, 0.873, 2)), NAMES, options))[0]

    ground = Colours.of(picture()).yuv(PALETTE[2])[0]
    ink = Colours.of(picture()).yuv((18, 18, 20))[0]
    for text, settings in (
        ("car 0.87", {}),
        ("car", {"scores": False}),
        ("0.87", {"labels": False}),
    ):
        expected = plate(text, 11, ground, ink)
        height, width = expected.shape
        # The outline is 2 wide, so the label ends at row 58 and begins in column 98.
        shown = label_of(**settings)[58 - height : 58, 98 : 98 + width]
        np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(("height", "letters"), [(360, 10), (480, 12), (1080, 20), (2160, 38)])
def test_letters_and_lines_grow_with_the_picture(height: int, letters: int) -> None:
    canvas = PlaneCanvas(av.VideoFrame(height * 16 // 9 // 2 * 2, height, "yuv420p"))
    style = Style.of(canvas, RenderSettings())
    assert style.letters >= letters
    assert style.line >= max(2, height // 500) and style.line % 2 == 0
    mask = rasterise("car 0.87", style.letters)
    rows = np.flatnonzero(mask.max(axis=1) > 128)
    assert rows[-1] - rows[0] + 1 >= 0.6 * style.letters  # letters are as high as promised
    assert rows[0] > 0 and rows[-1] < line_height(style.letters) - 1  # and whole


def test_figures_go_into_the_corner_and_nowhere_else() -> None:
    source = picture()
    drawn = draw(source, Detections.none(), NAMES, RenderSettings(hud=True), ["41.3 fps", "23 ms"])
    changed = planes(drawn)[0] != planes(source)[0]
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] > 0 and rows[-1] < 60 and columns[-1] < 110
    corner = planes(drawn)[0][rows[0] : rows[-1], columns[0] : columns[-1]]
    assert corner.max() > 220 and np.median(corner) < 80  # light letters on a dark ground


def test_figures_are_asked_for_only_when_they_are_wanted() -> None:
    result = Result(Frame(picture(), "a", 0, 0, Fraction(1, 25), 0.0), Detections.none())
    asked = []

    def hud(result: Result) -> list[str]:
        asked.append(result)
        return ["1 fps"]

    list(render([result], NAMES, RenderSettings(hud=False), hud))
    assert not asked
    list(render([result], NAMES, RenderSettings(hud=True), hud))
    assert asked == [result]


def test_real_recordings_are_drawn_on_in_their_own_colours(shared_data: Path) -> None:
    with av.open(str(shared_data / "videos" / "highway_day_960x540_25fps.mp4")) as container:
        source = next(container.decode(video=0))
    drawn = draw(source, found((612, 300, 680, 346, 0.9, 2)), NAMES, PLAIN)
    assert planes(source)[0].shape == (540, 960)  # although its lines are 1024 bytes apart
    assert np.abs(rgb_of(drawn) - rgb_of(source))[:280].max() == 0
    assert (planes(drawn)[0][298:300, 620:670] == Colours.of(source).yuv(PALETTE[2])[0]).all()
