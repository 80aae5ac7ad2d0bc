"""The chart and the table of the README say what was measured, and nothing else."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmarks import chart
from tests.benchmarks.full import RIVALS, Rival, believed

SVG = "{http://www.w3.org/2000/svg}"


def entry(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": "a clip <1>",
        "date": "2026-11-29T23:00:00+00:00",
        "rounds": 3,
        "machine": {"cpu": "AMD EPYC", "cores_usable": 2, "instructions": {"avx2": True}},
        "rows": list(rows),
        "missing": {"gstreamer": "not installed"},
    }


def row(name: str, fps: float, **more: Any) -> dict[str, Any]:
    finds = {"finds": True, "believed": True, "agreement": 0.99, "program": name}
    costs = {"spread": 0.1, "cpu_ms": 25.0, "peak_mb": 300.0, "objects": 7.0}
    return {"name": name, "fps": fps, **costs, **finds, **more}


def test_the_readme_shows_the_figures_that_were_written_last():
    found = chart.in_readme(chart.README.read_text(encoding="utf-8"))
    figures = chart.figures()
    if figures is None:
        assert found == "" and not chart.CHART.exists()
    else:
        again = "run `python -m tests.benchmarks.chart`"
        assert found == chart.markdown(figures), again
        assert chart.CHART.read_text(encoding="utf-8") == chart.svg(figures), again


def test_bars_are_as_long_as_programs_are_fast():
    drawn = ElementTree.fromstring(chart.svg(entry(row("ours", 80.0), row("a & b", 20.0))))
    widths = [float(bar.get("width", "0")) for bar in drawn.iter(f"{SVG}rect")][1:]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    words = [text.text for text in drawn.iter(f"{SVG}text")]
    assert "a & b" in words and "80.0" in words


def test_what_decodes_only_stays_inside_the_picture_however_fast_it_is():
    floor = row("ffmpeg", 4000.0, finds=False, agreement=None, objects=None)
    drawn = ElementTree.fromstring(chart.svg(entry(row("ours", 80.0), floor)))
    ends = [float(b.get("x", "0")) + float(b.get("width", "0")) for b in drawn.iter(f"{SVG}rect")]
    assert max(ends) <= chart.WIDTH


def test_a_time_that_is_not_believed_is_marked_in_chart_and_table():
    figures = entry(row("ours", 80.0), row("theirs", 90.0, believed=False, agreement=0.1))
    assert "90.0 (not believed)" in chart.svg(figures)
    (line,) = re.findall(r"\| theirs.*", chart.markdown(figures))
    assert "not believed" in line and "| 0.10 |" in line
    assert "Left out: gstreamer (not installed)." in chart.markdown(figures)


def test_what_boxstream_has_in_common_is_shown_of_both_models():
    ours = row("ours", 80.0, agreement=0.66, agreement_on_street=0.98)
    assert "| 7.0 | 0.66; 0.98 on `street` |" in chart.markdown(entry(ours))


def test_the_table_takes_the_place_of_the_one_before_and_leaves_the_rest_alone():
    readme = f"above\n{chart.BEGIN}\n{chart.END}\nbelow\n"
    once = chart.with_table(readme, entry(row("ours", 80.0)))
    figures = entry(row("ours", 90.0))
    twice = chart.with_table(once, figures)
    assert chart.in_readme(readme) == "" and chart.in_readme(twice) == chart.markdown(figures)
    assert twice.startswith("above\n") and twice.endswith("\nbelow\n") and "80.0" not in twice


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="put them back"):
        chart.in_readme("# boxstream")


@pytest.mark.parametrize(
    ("figures", "wanted"),
    [
        ({"frames": 12, "agreement": 0.97}, True),
        ({"frames": 11, "agreement": 0.97}, False),
        ({"frames": 12, "agreement": 0.5}, False),
        ({"frames": 12, "agreement": 0.6, "agreement_on_street": 0.97}, True),
    ],
)
def test_a_time_is_believed_when_every_frame_was_done_and_the_objects_are_the_same(figures, wanted):
    assert believed(RIVALS[1], figures, 12)["believed"] is wanted


def test_who_finds_nothing_is_believed_for_its_frames_alone():
    floor = Rival("ffmpeg", "ffmpeg", "FFmpeg", finds=False)
    assert believed(floor, {"frames": 12, "agreement": 0.0}, 12)["believed"] is True
    assert believed(floor, {"frames": 13, "agreement": 0.0}, 12)["believed"] is False
