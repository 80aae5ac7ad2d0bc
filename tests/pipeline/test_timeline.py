"""Timestamps that rise, whatever a file says."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.timeline import Timeline

MILLISECOND = Fraction(1, 1000)
HOUR = 3_600_000


def placed(
    given_pts: list[int | None],
    time_base: Fraction = MILLISECOND,
    rate: Fraction | None = Fraction(25),
    origin: int = 0,
    longest_gap: float = 3600.0,
) -> tuple[list[int], dict[str, int]]:
    line = Timeline(time_base, rate, origin=origin, longest_gap=longest_gap)
    return [line.place(pts) for pts in given_pts], dict(line.anomalies)


@pytest.mark.parametrize(
    ("given_pts", "expected", "anomalies"),
    [
        ([0, 40, 80, 120], [0, 40, 80, 120], {}),
        ([0, 33, 67, 1500, 1540], [0, 33, 67, 1500, 1540], {}),  # variable rate, to the tick
        ([80, 120], [80, 120], {}),  # begins after the sound
        ([0, None, 80, None, 160], [0, 40, 80, 120, 160], {"pts_missing": 2}),
        ([None, None, None], [0, 40, 80], {"pts_missing": 3}),
        ([0, 0, 0, 0], [0, 40, 80, 120], {"pts_repeated": 3}),
        ([0, 40, 40, 120], [0, 40, 80, 120], {"pts_repeated": 1}),
        ([9000, 9040, 9080, 0, 40], [9000, 9040, 9080, 9120, 9160], {"pts_jump": 1}),
        ([0, 40, 80, 10, 160, 200], [0, 40, 80, 120, 160, 200], {"pts_jump": 1}),
        ([0, 40, 6 * HOUR, 6 * HOUR + 40], [0, 40, 80, 120], {"pts_jump": 1}),
        ([0, 40, 6 * HOUR, 120, 160], [0, 40, 80, 120, 160], {"pts_jump": 1}),
        ([0, 40, -6 * HOUR, -6 * HOUR + 40], [0, 40, 80, 120], {"pts_jump": 1}),
        ([6 * HOUR, 6 * HOUR + 40], [0, 40], {"pts_jump": 1}),  # far from where the file begins
        ([-40, 0, 40], [0, 40, 80], {"pts_jump": 1}),  # before the file begins
    ],
)
def test_timestamps_are_kept_when_sane_and_put_right_when_not(
    given_pts: list[int | None], expected: list[int], anomalies: dict[str, int]
) -> None:
    assert placed(given_pts) == (expected, anomalies)


def test_the_file_begins_at_zero_whatever_its_first_timestamp_is() -> None:
    assert placed([126_000, 129_600], Fraction(1, 90_000), origin=126_000) == ([0, 3600], {})


def test_a_doubled_timestamp_lies_between_its_neighbours_and_nothing_drifts() -> None:
    doubled = [pts for pts in range(0, 4000, 40) for _ in range(2)]
    result, anomalies = placed(doubled)
    assert anomalies == {"pts_repeated": 100}
    assert max(abs(a - b) for a, b in zip(result, doubled, strict=True)) <= 40


def test_a_33_bit_wrap_goes_on_as_if_nothing_had_happened() -> None:
    step, wrap = 3600, 2**33
    rising = [wrap - 3 * step + n * step for n in range(6)]
    result, anomalies = placed(
        [pts % wrap for pts in rising], Fraction(1, 90_000), origin=rising[0], longest_gap=10.0
    )
    assert result == [n * step for n in range(6)]
    assert anomalies == {"pts_jump": 1}


def test_a_pause_shorter_than_the_longest_gap_is_kept() -> None:
    assert placed([0, 40, 9_000], longest_gap=10.0) == ([0, 40, 9_000], {})
    assert placed([0, 40, 11_000], longest_gap=10.0) == ([0, 40, 80], {"pts_jump": 1})


def test_a_picture_a_minute_is_a_pace_and_not_a_jump() -> None:
    minutes = [n * 60_000 for n in range(5)]
    assert placed(list(minutes), rate=Fraction(1, 60), longest_gap=10.0) == (minutes, {})


def test_the_step_is_never_zero_even_in_a_coarse_time_base() -> None:
    assert placed([None, None, None], Fraction(1, 1), Fraction(30))[0] == [0, 1, 2]


steps = st.integers(min_value=1, max_value=3_000_000)
anything = st.one_of(
    st.none(), st.integers(-(2**40), 2**40), st.integers(0, 400), st.sampled_from([0, 40, 80])
)
time_bases = st.sampled_from(
    [MILLISECOND, Fraction(1, 90_000), Fraction(1, 25), Fraction(1001, 30_000)]
)
rates = st.sampled_from(
    [None, Fraction(25), Fraction(30_000, 1001), Fraction(1, 60), Fraction(1000)]
)


@given(st.lists(anything, min_size=1, max_size=60), time_bases, rates)
def test_whatever_comes_in_what_comes_out_rises_and_is_not_late_for_ever(
    given_pts: list[int | None], time_base: Fraction, rate: Fraction | None
) -> None:
    result, anomalies = placed(given_pts, time_base, rate)
    assert len(result) == len(given_pts)
    assert result[0] >= 0
    assert all(a < b for a, b in pairwise(result))
    assert sum(anomalies.values()) <= len(given_pts)
    assert anomalies.get("pts_missing", 0) == given_pts.count(None)


@given(st.lists(steps, max_size=60), time_bases, rates)
def test_rising_timestamps_pass_untouched(
    gaps: list[int], time_base: Fraction, rate: Fraction | None
) -> None:
    rising: list[int | None] = [0]
    total = 0
    for gap in gaps:
        total += min(gap, int(3600 / time_base))
        rising.append(total)
    assert placed(rising, time_base, rate) == (rising, {})


@given(
    st.lists(st.sampled_from(["sane", "missing", "repeated", "stray", "back"]), max_size=40),
    st.integers(0, 2**32),
)
def test_after_faults_the_clock_comes_home_to_the_file_s_own_time(
    faults: list[str], seed: int
) -> None:
    true = [40 * n for n in range(len(faults) + 42)]
    spoilt: list[int | None] = list(true)
    for n, fault in enumerate(faults, start=1):
        earlier = true[seed % n]
        spoilt[n] = {
            "sane": true[n],
            "missing": None,
            "repeated": true[n - 1],
            "stray": true[n] + 7 * HOUR + seed,
            "back": earlier,
        }[fault]
    result, _ = placed(spoilt)
    assert result[-1] == true[-1]


def test_anomalies_are_counted_where_the_caller_wants_them() -> None:
    counts: Counter[str] = Counter()
    Timeline(MILLISECOND, None, anomalies=counts).place(None)
    assert counts == {"pts_missing": 1}
