"""How long a failed camera is left alone."""

from __future__ import annotations

import random

import pytest

from pipeline.network.backoff import Backoff
from pipeline.network.causes import Cause

SLOW = [Cause.UNAUTHORISED, Cause.NOT_FOUND, Cause.UNSUPPORTED_CODEC, Cause.NO_VIDEO]
QUICK = [cause for cause in Cause if cause not in SLOW]


def waits(backoff: Backoff, cause: Cause, count: int, begin: float = 1000.0) -> list[float]:
    """Of so many failures in a row, none of which gave a picture."""
    now, found = begin, []
    for _ in range(count):
        found.append(backoff.wait_after(cause, now, good_seconds=0.0))
        now += found[-1]
    return found


@pytest.mark.parametrize("cause", QUICK)
def test_the_waits_double_from_one_second_to_thirty(cause):
    found = waits(Backoff(chance=random.Random(1)), cause, 12)
    for wait, nominal in zip(found, [1, 2, 4, 8, 16, *[30] * 7], strict=True):
        assert 0.75 * nominal <= wait <= min(1.25 * nominal, 30)


@pytest.mark.parametrize("cause", SLOW)
def test_what_trying_does_not_mend_is_tried_every_fifteen_to_sixty_seconds(cause):
    found = waits(Backoff(chance=random.Random(1)), cause, 8)
    for wait, nominal in zip(found, [15, 30, *[60] * 6], strict=True):
        assert 0.75 * nominal <= wait <= min(1.25 * nominal, 60)


def test_cameras_that_fail_together_do_not_come_back_together():
    firsts = {waits(Backoff(chance=random.Random(seed)), Cause.REFUSED, 1)[0] for seed in range(20)}
    assert len(firsts) == 20


def test_a_camera_that_was_there_a_moment_ago_is_tried_at_once_and_then_every_second():
    backoff = Backoff()
    assert backoff.wait_after(Cause.ENDED, 1000.0, good_seconds=60.0) < 0.5
    found = waits(backoff, Cause.REFUSED, 20, begin=1000.3)
    assert all(wait <= 1.25 for wait in found)


def test_after_half_a_minute_the_waits_grow():
    backoff = Backoff()
    backoff.wait_after(Cause.ENDED, 1000.0, good_seconds=60.0)
    found = waits(backoff, Cause.REFUSED, 50, begin=1000.3)
    assert max(found) > 20
    assert max(found) <= 30


def test_a_stream_that_is_not_yet_there_after_a_restart_is_not_left_alone_for_long():
    backoff = Backoff()
    backoff.wait_after(Cause.ENDED, 1000.0, good_seconds=60.0)
    assert backoff.wait_after(Cause.NOT_FOUND, 1001.0, good_seconds=0.0) <= 1.25
    assert backoff.wait_after(Cause.UNAUTHORISED, 1002.0, good_seconds=0.0) >= 10


def test_short_lives_are_failures_and_only_a_stable_one_is_forgiven():
    backoff = Backoff(stable_seconds=10.0, fresh_seconds=30.0)
    now, found = 1000.0, []
    for _ in range(12):  # two seconds of pictures, then it breaks
        found.append(backoff.wait_after(Cause.ENDED, now, good_seconds=2.0))
        now += 2.0 + found[-1]
    assert found[0] < 0.5
    assert backoff.failures == 11
    waits(backoff, Cause.REFUSED, 8, begin=now)
    assert waits(backoff, Cause.REFUSED, 1, begin=now + 200)[0] > 20
    assert backoff.wait_after(Cause.ENDED, now + 400, good_seconds=10.0) < 0.5
    assert backoff.failures == 0
