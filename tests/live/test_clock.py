"""Timestamps of cameras on a clock that rises, and pictures that were held up on the way."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import pytest

from pipeline.sources.live.clock import TIME_BASE, DueTimes, Lateness, LiveClock

EPOCH = 5000.0
STEP = 0.04


def clock(after: int = -1) -> tuple[LiveClock, Counter[str]]:
    counts: Counter[str] = Counter()
    return LiveClock(EPOCH, after, lambda kind: counts.update([kind])), counts


def placed(pairs, after: int = -1) -> tuple[list[float], Counter[str]]:
    """Seconds on the source's clock of pictures given as (timestamp, seconds after the epoch)."""
    live, counts = clock(after)
    ticks = [live.place(given, EPOCH + arrival) for given, arrival in pairs]
    assert all(a < b for a, b in pairwise(ticks)), "pts must rise"
    return [float(tick * TIME_BASE) for tick in ticks], counts


def test_the_first_picture_lands_where_real_time_is():
    seconds, counts = placed([(777.0, 3.0), (777.04, 3.05)])
    assert seconds == pytest.approx([3.0, 3.04], abs=1e-4)
    assert not counts


def test_distances_are_the_cameras_not_those_of_the_arrivals():
    chance = random.Random(3)
    pairs = [(9 + STEP * n, STEP * n + chance.uniform(0, 0.03)) for n in range(100)]
    seconds, counts = placed(pairs)
    assert [b - a for a, b in pairwise(seconds)] == pytest.approx([STEP] * 99, abs=1e-4)
    assert not counts


@pytest.mark.parametrize("jump", [-6 * 3600, -100, -1, 5, 100, 6 * 3600, -(2**33) / 90_000])
def test_a_jump_of_the_timestamps_moves_nothing_and_is_counted(jump):
    pairs = [(50 + STEP * n + (jump if n >= 50 else 0), STEP * n) for n in range(100)]
    seconds, counts = placed(pairs)
    assert counts == {"pts_jump": 1}
    assert [b - a for a, b in pairwise(seconds)] == pytest.approx([STEP] * 99, abs=1e-3)


@pytest.mark.parametrize(
    "given",
    [
        lambda n: 1.001 * STEP * n,  # a clock that runs fast
        lambda n: 4 * STEP * n,  # pictures more often than announced
        lambda n: STEP * (n + n % 2 * 2),  # every second picture handed out before its turn
        lambda n: STEP * (n % 25),  # begins anew every second
    ],
    ids=["fast", "too many", "out of order", "in circles"],
)
def test_whatever_the_timestamps_do_the_clock_does_not_run_away(given):
    pairs = [(given(n), STEP * n) for n in range(100_000)]
    seconds, counts = placed(pairs)
    assert all(-0.1 < at - arrival <= 2.2 for at, (_, arrival) in zip(seconds, pairs, strict=True))
    assert counts["pts_jump"] or counts["clock_fast"]


def test_a_clock_that_is_a_little_fast_is_followed_nearly_always():
    pairs = [(1.001 * STEP * n, STEP * n) for n in range(100_000)]
    seconds, counts = placed(pairs)
    distances = [b - a for a, b in pairwise(seconds)]
    assert min(distances) > STEP / 3
    assert sum(abs(distance - 1.001 * STEP) < 1e-4 for distance in distances) > 99_500
    assert set(counts) == {"clock_fast"} and counts["clock_fast"] < 500


def test_a_silence_is_no_jump_when_the_timestamps_agree():
    seconds, counts = placed([(0.0, 0.0), (45.0, 45.0), (45.04, 45.04)])
    assert seconds == pytest.approx([0, 45, 45.04], abs=1e-3)
    assert not counts


def test_missing_and_repeated_timestamps_are_replaced_by_the_arrival():
    seconds, counts = placed([(0.0, 0.0), (None, 0.04), (0.08, 0.08), (0.08, 0.12), (0.16, 0.16)])
    assert seconds == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=1e-3)
    assert counts == {"pts_missing": 1, "pts_repeated": 1}


def test_a_new_connection_goes_on_behind_the_last_picture():
    last = round(20 / TIME_BASE)
    assert placed([(0.0, 25.0)], after=last)[0] == pytest.approx([25.0], abs=1e-3)
    assert placed([(0.0, 19.0)], after=last)[0][0] > 20


@hypothesis.given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0])),
            st.floats(0, 10),
        ),
        max_size=60,
    )
)
def test_whatever_the_camera_sends_the_clock_rises(steps):
    arrival, pairs = 0.0, []
    for given, wait in steps:
        arrival += wait
        pairs.append((given, arrival))
    placed(pairs)


# Held up on the way ------------------------------------------------------------------------------


def lateness_of(pairs) -> list[float]:
    late = Lateness(1.0)
    found = []
    for time, arrival in pairs:
        by = late.of(time, arrival, setting=1)
        found.append(0.0 if by and late.has_become_the_norm(by, arrival) else by)
    return found


def test_jitter_is_not_late():
    chance = random.Random(5)
    pairs = [(STEP * n, STEP * n + chance.uniform(0, 0.9)) for n in range(2000)]
    assert not any(lateness_of(sorted(pairs, key=lambda pair: pair[1])))


def test_what_a_silent_server_kept_is_late_until_it_has_caught_up():
    usual = [(STEP * n, STEP * n) for n in range(250)]
    begin = usual[-1][0]
    burst = [(begin + STEP * n, begin + 45 + 0.004 * n) for n in range(1, 1250)]
    late = lateness_of(usual + burst)
    fresh = [time for (time, arrival) in burst if arrival - time <= 1.0]
    assert not any(late[:250])
    assert sum(by == 0 for by in late[250:]) == len(fresh)
    assert late[-1] == 0


def test_a_clock_that_slipped_is_not_late_for_ever():
    usual = [(STEP * n, STEP * n) for n in range(250)]
    slipped = [(STEP * n, STEP * n + 20) for n in range(250, 500)]
    late = lateness_of(usual + slipped)
    assert late[251] > 19
    assert not any(late[300:])
    assert 20 < sum(by > 0 for by in late) < 40, "about a second's worth"


def test_a_clock_that_runs_slow_by_a_thousandth_is_never_late():
    pairs = [(STEP * n * 0.999, STEP * n) for n in range(0, 500_000, 5)]  # for five hours
    assert not any(lateness_of(pairs))


def test_a_new_setting_of_the_clock_measures_anew():
    late = Lateness(1.0)
    assert late.of(0.0, 0.0, setting=1) == 0
    assert late.of(0.04, 9.0, setting=1) > 8
    assert late.of(0.08, 9.1, setting=2) == 0


# When pictures that can be had at any time are due -----------------------------------------------


def test_pictures_are_due_at_their_own_pace_from_the_first_on():
    due = DueTimes()
    assert [due.of(7 + STEP * n, 100.0) for n in range(4)] == pytest.approx(
        [100, 100.04, 100.08, 100.12]
    )


def test_a_jump_of_the_timestamps_is_due_at_once():
    due = DueTimes(longest_pause=10.0)
    due.of(0.0, 100.0)
    assert due.of(500.0, 101.0) == pytest.approx(101.0)
    assert due.of(3.0, 102.0) == pytest.approx(102.0)


def test_what_is_behind_is_made_up_or_forgiven():
    patient, strict = DueTimes(may_be_behind=1.0), DueTimes()
    for due in (patient, strict):
        due.of(0.0, 100.0)
    assert patient.of(0.04, 105.0) == pytest.approx(105.0)
    assert strict.of(0.04, 105.0) == pytest.approx(100.04)
