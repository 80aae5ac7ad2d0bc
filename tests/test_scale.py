"""What the benchmark of many cameras is made of."""

from __future__ import annotations

import av
import pytest

from tests.benchmarks.cameras import Moment, Moments, proportional_mb
from tests.benchmarks.cost import resident_mb
from tests.benchmarks.material import at_rate, count_frames, frame_rate
from tests.benchmarks.scale import in_words, slope


def test_a_clip_at_another_rate_has_the_same_frames_further_apart(make_clip, tmp_path):
    clip = make_clip(frames=10, fps=25)
    slow = at_rate(clip, 2.0, tmp_path / "slow.mp4")
    assert count_frames(slow) == count_frames(clip) == 10
    assert float(frame_rate(slow)) == pytest.approx(2.0, rel=0.01)
    with av.open(str(slow)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx([n / 2 for n in range(10)], abs=0.01)


def test_only_what_happened_after_the_warm_up_is_looked_at():
    seen = Moments()
    seen.moments = [Moment(10.0 + n, float(n), 10 * n, 9 * n, n, 100.0) for n in range(11)]
    begin, end = seen.warm(10.0)
    assert (begin.wall_seconds, end.wall_seconds) == (13.0, 20.0)
    with pytest.raises(SystemExit, match="too short"):
        seen.warm(40.0)


def test_the_share_of_memory_is_not_more_than_what_is_resident():
    assert 0 < proportional_mb() <= 1.05 * resident_mb()


def test_one_more_camera_costs_the_slope():
    assert slope([(4, 120.0), (16, 168.0), (64, 360.0)]) == pytest.approx(4.0)
    assert slope([(4, 120.0)]) is None


def test_a_verdict_is_missed_when_the_forecast_was_wrong_or_many_cost_more():
    good = {
        "name": "street 720p",
        "predicted_cameras": 4.2,
        "carried": True,
        "two_more_are_too_many": True,
        "dearest_over_cheapest": 1.05,
        "mb_for_one_more": 4.0,
    }
    assert in_words(good).startswith("met ")
    for wrong in ({"carried": False}, {"two_more_are_too_many": False}):
        assert in_words(good | wrong).startswith("MISSED")
    assert in_words(good | {"dearest_over_cheapest": 1.5}).startswith("MISSED")
