"""The watchdog on times that are given to it: it gives up when it should, and not a moment off."""

from __future__ import annotations

import threading

import pytest

from pipeline.network.causes import Trouble
from pipeline.settings import LiveSettings
from pipeline.sources.live.mailbox import Mailbox
from pipeline.sources.live.watchdog import Verdict, Watchdog

BEGIN = 1000.0  # monotonic seconds
GRACE = 0.3  # for a reader to report its own deadline
MOMENT = 0.01


def mailbox(
    opened: float | None = None,
    good: float | None = None,
    sign: float | None = None,
    fps: float | None = None,
) -> Mailbox:
    """One in which those things happened so many seconds after the begin."""
    box = Mailbox(threading.Condition())
    if opened is not None:
        box.opened_at = box.last_sign = BEGIN + opened
    if good is not None:
        box.first_good = box.last_good = box.last_sign = BEGIN + good
    if sign is not None:
        box.last_sign = BEGIN + sign
    box.offered_fps = fps
    return box


def watchdog(box: Mailbox, **live: float) -> Watchdog:
    return Watchdog(box, LiveSettings(**live), BEGIN)


def gives_up(dog: Watchdog, after: float) -> str | None:
    """For what cause it gives up so many seconds after the begin; None if it does not."""
    try:
        dog.judge(BEGIN + after)
    except Trouble as trouble:
        return trouble.cause.value
    return None


@pytest.mark.parametrize("open_seconds", [0.2, 1.5, 10.0, 300.0])
def test_what_does_not_open_is_given_up_at_the_deadline(open_seconds):
    dog = watchdog(mailbox(), open_seconds=open_seconds)
    assert dog.judge(BEGIN) is Verdict.OPENING
    assert gives_up(dog, open_seconds) is None, "its reader can tell more, if it is let"
    assert gives_up(dog, open_seconds + GRACE - MOMENT) is None
    assert gives_up(dog, open_seconds + GRACE + MOMENT) == "timeout"
    assert open_seconds + GRACE + MOMENT < open_seconds + 0.5, "as is promised"


@pytest.mark.parametrize("stall_seconds", [2.5, 4.0, 10.0, 3600.0])
@pytest.mark.parametrize("good", [None, 7.0])
def test_who_falls_silent_is_given_up_at_the_deadline(stall_seconds, good):
    last = 5.0 if good is None else good
    dog = watchdog(mailbox(opened=5.0, good=good), stall_seconds=stall_seconds)
    assert gives_up(dog, last + stall_seconds - MOMENT) is None
    assert gives_up(dog, last + stall_seconds + MOMENT) == "stalled"


def test_who_falls_silent_is_called_stalled_after_two_seconds():
    dog = watchdog(mailbox(opened=1.0, good=3.0))
    assert dog.judge(BEGIN + 5.0 - MOMENT) is Verdict.GOOD
    assert dog.judge(BEGIN + 5.0 + MOMENT) is Verdict.STALLED


def test_who_has_not_shown_a_picture_yet_is_waited_for_but_not_called_stalled():
    dog = watchdog(mailbox(opened=1.0), stall_seconds=10.0)
    assert dog.judge(BEGIN + 2.0) is dog.judge(BEGIN + 10.0) is Verdict.WAITING


def test_a_stream_that_goes_on_without_pictures_as_it_was_told_is_not_silent():
    dog = watchdog(mailbox(opened=1.0, good=2.0, sign=20.0), stall_seconds=4.0)
    assert dog.judge(BEGIN + 21.0) is Verdict.GOOD
    assert gives_up(dog, 24.0 + MOMENT) == "stalled"


def test_a_camera_of_a_picture_every_four_seconds_is_given_the_time_for_two():
    dog = watchdog(mailbox(opened=1.0, good=2.0, fps=0.25), stall_seconds=3.0)
    assert dog.judge(BEGIN + 10.0 - MOMENT) is Verdict.GOOD
    assert gives_up(dog, 10.0 + MOMENT) == "stalled"


def test_if_all_pictures_were_damaged_that_is_why():
    box = mailbox(opened=1.0, good=2.0)
    box.damaged_since_good = 3
    assert gives_up(watchdog(box, stall_seconds=4.0), 6.0 + MOMENT) == "corrupt"


@pytest.mark.parametrize(
    ("box", "turns"),
    [
        (mailbox(), [4.0 + GRACE]),
        (mailbox(opened=1.0), [3.0, 6.0]),
        (mailbox(opened=1.0, good=2.0), [4.0, 7.0]),
        (mailbox(opened=1.0, good=2.0, fps=0.5), [6.0, 7.0]),
    ],
    ids=["opening", "opened", "good", "slow"],
)
def test_it_looks_again_just_when_the_verdict_may_change(box, turns):
    dog = watchdog(box, open_seconds=4.0, stall_seconds=5.0)
    for begin, turn in zip([2.0, *turns], turns, strict=False):
        assert dog.looks_again_in(BEGIN + begin) == pytest.approx(turn - begin)
    assert gives_up(dog, turns[-1] + MOMENT), "then at the latest it gives up"
