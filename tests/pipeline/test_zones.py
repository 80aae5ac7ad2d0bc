"""Zones: which polygons are accepted, what lies in them, and how they look."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipeline.configuration.reading import load_settings
from pipeline.drawing.plane_canvas import PlaneCanvas
from pipeline.drawing.render import render, words
from pipeline.errors import ConfigError
from pipeline.frame import Detections, Result
from pipeline.polygon import contains, fault
from pipeline.settings import RenderSettings
from pipeline.sinks.records import record
from pipeline.yuv import own_yuv420p, planes
from pipeline.zones import Zone, count_in_zones, zones_of
from tests.pipeline.drawing import draw
from tests.pipeline.frames import blank, frame_of

NAMES = ("person", "bicycle", "car")
SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
LOWER_HALF = ((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0))


def found(*rows: tuple[float, ...]) -> Detections:
    """Detections from rows of x1, y1, x2, y2, class id."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], np.full(len(table), 0.9, np.float32), table[:, 4].astype(int))


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, words)
    return str(caught.value)


# Which polygons are areas


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([(0, 0), (1, 1)], "3 to 100 corners, found 2"),
        ([(0, 0)] * 101, "3 to 100 corners, found 101"),
        ([(0, 0), (1, 0), (1, 1), (0, 0)], "corners 1 and 4 are the same"),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], "from corner 1 to 2 meets the one from 3 to 4"),
        ([(0, 0), (1, 0), (1, 1), (0.5, 0), (0, 1)], "meets"),  # a corner on another edge
        ([(0, 0), (1, 0), (0.5, 0)], "turns back on itself at corner 2"),
        ([(0, 0), (0.5, 0.5), (1, 1)], "turns back on itself"),
    ],
)
def test_corners_that_enclose_no_simple_area_are_refused(corners, expected) -> None:
    assert expected in (fault(corners) or "no fault")


@pytest.mark.parametrize(
    "corners",
    [
        SQUARE,
        SQUARE[::-1],
        ((0, 0), (0.5, 0), (1, 0), (1, 1)),  # three in line
        ((0, 0), (1, 0), (1, 1), (0.5, 0.1), (0, 1)),  # not convex
    ],
)
def test_every_simple_polygon_is_accepted(corners) -> None:
    assert fault(corners) is None


eighths = st.integers(0, 8).map(lambda n: n / 8)
corner = st.tuples(eighths, eighths)


@given(st.lists(corner, min_size=3, max_size=6))
def test_a_polygon_is_accepted_in_whichever_order_it_is_written_or_in_none(corners) -> None:
    verdict = fault(corners) is None
    assert (fault(corners[::-1]) is None) == verdict
    assert (fault(corners[1:] + corners[:1]) is None) == verdict


@given(st.lists(corner, min_size=3, max_size=6))
def test_an_accepted_polygon_has_an_area(corners) -> None:
    assume(fault(corners) is None)
    assert cv2.contourArea(np.array(corners, np.float32)) > 0


# What lies inside


def contains_slowly(polygon: list[tuple[float, float]], x: Fraction, y: Fraction) -> bool:
    """The slow twin, in fractions: on an edge, or left of an odd number of edges."""
    odd = False
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        ax, ay, bx, by = map(Fraction, (ax, ay, bx, by))
        in_line = (bx - ax) * (y - ay) == (by - ay) * (x - ax)
        if in_line and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
            return True
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            odd = not odd
    return odd


@given(st.lists(corner, min_size=3, max_size=7), st.lists(corner, min_size=1, max_size=20))
@example([(0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)], [(0.5, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_vectorised_rule_agrees_with_the_slow_one_also_on_edges(polygon, points) -> None:
    fast = contains(np.array(polygon), np.array(points))
    slow = [contains_slowly(polygon, Fraction(x), Fraction(y)) for x, y in points]
    assert fast.tolist() == slow


@given(st.lists(corner, min_size=3, max_size=6), st.integers(0, 2**32 - 1))
def test_the_rule_agrees_with_opencv_away_from_edges(polygon, seed) -> None:
    assume(fault(polygon) is None)
    contour = (np.array(polygon) * 800).astype(np.float32)
    for point in np.random.default_rng(seed).uniform(-50, 850, (20, 2)):
        distance = cv2.pointPolygonTest(contour, point.tolist(), True)
        if abs(distance) > 0.01:
            assert contains(np.array(polygon), point[None] / 800).tolist() == [distance > 0]


def test_no_points_are_nowhere() -> None:
    assert contains(np.array(SQUARE), np.zeros((0, 2))).shape == (0,)


# Counting


def test_a_box_is_where_it_stands_unless_its_centre_is_asked_for() -> None:
    standing = found((80, 10, 120, 120, 0))  # in a picture of 200x200: centre above the line
    assert Zone("z", LOWER_HALF).holds(standing, (200, 200)).tolist() == [True]
    assert Zone("z", LOWER_HALF, anchor="centre").holds(standing, (200, 200)).tolist() == [False]


def test_a_box_cut_by_the_lower_edge_of_the_picture_stands_in_a_zone_that_reaches_there() -> None:
    for height in (360, 361, 1080, 2161):
        cut = found((10, height - 50, 40, height, 0))
        assert Zone("z", LOWER_HALF).holds(cut, (height, 640)).all()


@pytest.mark.parametrize("size_hw", [(360, 640), (1080, 1920), (361, 641)])
def test_a_zone_stays_where_it_is_when_the_resolution_changes(size_hw) -> None:
    height, width = size_hw
    boxes = [(w - 0.01, h - 0.2, w + 0.01, h, 0) for w, h in [(0.5, 0.5), (0.2, 0.5), (0.5, 0.8)]]
    scaled = [(a * width, b * height, c * width, d * height, i) for a, b, c, d, i in boxes]
    assert Zone("z", SQUARE).holds(found(*scaled), size_hw).tolist() == [True, False, False]


def test_chosen_classes_are_counted_also_when_there_are_none_and_others_never() -> None:
    detections = found((90, 80, 110, 120, 0), (92, 80, 112, 120, 0), (90, 80, 110, 120, 2))
    assert Zone("z", SQUARE, class_ids=(1, 0)).count(detections, (200, 200), NAMES) == {
        "bicycle": 0,
        "person": 2,
    }


def test_without_chosen_classes_what_is_found_is_counted() -> None:
    detections = found((90, 80, 110, 120, 0), (90, 80, 110, 120, 2), (0, 0, 5, 5, 1))
    zone = Zone("z", SQUARE)
    assert zone.count(detections, (200, 200), NAMES) == {"person": 1, "car": 1}
    assert zone.count(Detections.none(), (200, 200), NAMES) == {}


def test_each_source_has_its_own_zones_in_results_and_records() -> None:
    zones = [Zone("both", SQUARE, (0,)), Zone("front", LOWER_HALF, (0,), sources=("front",))]
    detections = found((90, 80, 110, 120, 0))
    front, rear = count_in_zones(
        [Result(blank(200, 200, name), detections) for name in ("front", "rear")], zones, NAMES
    )
    assert front.zones == {"both": {"person": 1}, "front": {"person": 1}}
    assert rear.zones == {"both": {"person": 1}}
    assert record(front, NAMES)["zones"] == front.zones
    assert record(front, NAMES)["detections"] == record(rear, NAMES)["detections"]


def test_without_zones_results_and_records_stay_as_they_were() -> None:
    result = Result(blank(200, 200), Detections.none())
    assert list(count_in_zones([result], [], NAMES)) == [result]
    assert "zones" not in record(result, NAMES)


@given(st.integers(0, 2**32 - 1))
def test_every_object_is_counted_in_exactly_the_zones_that_hold_it(seed) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 150, (12, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 50, (12, 2))], axis=1)
    detections = found(*np.column_stack([boxes, random.integers(0, 3, 12)]).tolist())
    for zone in (Zone("a", SQUARE), Zone("b", LOWER_HALF, anchor="centre")):
        expected = dict.fromkeys(NAMES, 0)
        for (x1, y1, x2, y2), i in zip(
            detections.boxes.tolist(), detections.class_ids.tolist(), strict=True
        ):
            y = y2 if zone.anchor == "bottom" else (y1 + y2) / 2
            point = Fraction((x1 + x2) / 2 / 200), Fraction(y / 200)
            expected[NAMES[i]] += contains_slowly(list(zone.corners), *point)
        counted = zone.count(detections, (200, 200), NAMES)
        assert {**dict.fromkeys(NAMES, 0), **counted} == expected


# Settings


def test_zones_are_read_from_settings_and_merged_key_by_key() -> None:
    words = [f"zones.crossing.polygon={[list(c) for c in SQUARE]}", "zones.crossing.classes=person"]
    settings = load_settings(None, ["zones={yard: {polygon: [[0,0],[1,0],[1,1]]}}", words[0]])
    assert list(settings.zones) == ["yard", "crossing"]
    settings = load_settings(None, words)
    assert settings.zones["crossing"].classes == ("person",)
    assert zones_of(settings.zones, NAMES) == (Zone("crossing", SQUARE, (0,)),)


def test_a_wrong_polygon_is_refused_with_its_place_and_the_reason() -> None:
    assert "zones.a.polygon: missing" in refused("zones.a={classes: [person]}")
    assert "zones.a.polygon: expected 3 to 100" in refused("zones.a.polygon=[[0, 0], [1, 1]]")
    assert "zones.a.polygon[0]: expected a list of 2 numbers" in refused("zones.a.polygon=[[1]]")
    outside = refused("zones.a.polygon=[[0, 0], [640, 0], [640, 360]]")
    assert "zones.a.polygon[1][0]: expected a number from 0 to 1" in outside
    assert "share of the picture's width or height, not pixels" in outside
    crossed = refused("zones.a.polygon=[[0, 0], [1, 1], [1, 0], [0, 1]]")
    assert "zones.a.polygon: the edge from corner 1 to 2 meets" in crossed
    assert "did you mean 'zones.a.polygon'" in refused("zones.a.polygone=[]")
    assert "expected a number" in refused("zones.a.polygon=[[0, .nan], [1, 0], [1, 1]]")


def test_an_unknown_class_or_source_is_refused_with_the_nearest_known() -> None:
    settings = load_settings(
        None, ["zones={a: {polygon: [[0,0],[1,0],[1,1]], classes: [persn], sources: [frnt]}}"]
    ).zones
    with pytest.raises(ConfigError, match=r"zones\.a\.classes: unknown 'persn'.* 'person'"):
        zones_of(settings, NAMES)
    with pytest.raises(ConfigError, match=r"zones\.a\.sources: unknown 'frnt'.* 'front'"):
        zones_of(settings, ("persn",), ["front", "rear"])
    assert zones_of(settings, ("persn",))[0].sources == ("frnt",)  # it may come later


def test_zones_are_refused_where_no_objects_are_found_to_be_counted() -> None:
    settings = load_settings(None, ["zones.a.polygon=[[0, 0], [1, 0], [1, 1]]"]).zones
    with pytest.raises(ConfigError, match="zones: the model knows the classes of pixels only"):
        zones_of(settings, ())
    assert zones_of({}, ()) == ()


# Drawing


def luma_of(picture) -> np.ndarray:
    return planes(picture)[0].astype(int)


def grey(width: int, height: int):
    picture = own_yuv420p(blank(width, height).picture)
    for plane in planes(picture):
        plane[:] = 100
    return picture


def test_a_zone_is_outlined_where_its_edges_lie_and_nowhere_else() -> None:
    canvas = PlaneCanvas(grey(320, 180))
    canvas.polygon(SQUARE, 2, (200, 128, 128))
    picture = canvas.picture()
    luma, changed = luma_of(picture), luma_of(picture) != 100
    for x in (80, 240):
        assert (luma[50:130, x - 1 : x + 1] > 190).all()
    for y in (45, 135):
        assert (luma[y, 90:230] > 140).all()
    assert not changed[50:130, 84:236].any()  # inside
    assert not changed[:, :76].any() and not changed[:, 244:].any()
    assert not changed[:41].any() and not changed[139:].any()


def test_an_outline_along_the_edge_of_the_picture_is_seen_whole() -> None:
    canvas = PlaneCanvas(grey(64, 48))
    canvas.polygon(((0, 0), (1, 0), (1, 1), (0, 1)), 2, (200, 128, 128))
    picture = canvas.picture()
    luma = luma_of(picture)
    for edge in (luma[0], luma[1], luma[-1], luma[-2], luma[:, 0], luma[:, -1]):
        assert edge[1:-1].min() > 180 and edge.min() > 150  # corners are a little round


@pytest.mark.parametrize("size", [(2, 2), (4, 300), (300, 4), (64, 48)])
def test_zones_can_be_drawn_on_any_picture(size) -> None:
    width, height = size
    zones = [Zone(f"zone {n}", corners) for n, corners in enumerate((SQUARE, LOWER_HALF))]
    results = [Result(blank(width, height), Detections.none(), zones={"zone 0": {"car": 12}})]
    (result,) = render(results, NAMES, RenderSettings(), zones=zones)
    assert (result.annotated.width, result.annotated.height) == size


def test_a_zone_says_its_name_and_what_is_in_it() -> None:
    assert words("crossing", {"person": 2, "bicycle": 1, "car": 0}) == (
        "crossing: 2 person, 1 bicycle"
    )
    assert words("crossing", {"person": 0}) == words("crossing", {}) == "crossing: 0"


def test_counts_change_the_picture_and_labels_of_boxes_make_room_for_them() -> None:
    zone, box = Zone("z", SQUARE), found((80, 60, 160, 110, 0))

    def rendered(counts, zones) -> np.ndarray:
        result = Result(frame_of(grey(320, 180)), box, zones={"z": counts})
        (drawn,) = render([result], NAMES, RenderSettings(), zones=zones)
        return luma_of(drawn.annotated)

    empty, two = rendered({"person": 0}, [zone]), rendered({"person": 2}, [zone])
    assert (empty != two).any()
    plain = luma_of(draw(grey(320, 180), box, NAMES, RenderSettings()))
    assert (rendered({"person": 0}, []) == plain).all()


def test_a_zone_of_another_source_is_not_drawn() -> None:
    result = Result(frame_of(grey(320, 180), "rear"), Detections.none(), zones={})
    zone = Zone("z", SQUARE, sources=("front",))
    (with_zone,) = render([result], NAMES, RenderSettings(), zones=[zone])
    (without,) = render([result], NAMES, RenderSettings())
    assert (luma_of(with_zone.annotated) == luma_of(without.annotated)).all()
