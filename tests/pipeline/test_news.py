"""What is told of a camera's life, and what is not told again."""

from __future__ import annotations

from pipeline.bookkeeping.metrics import EVENTS_KEPT, SourceStats
from pipeline.bookkeeping.news import News


def told(news: News, stats: SourceStats) -> list[str]:
    """The new lines without their clock."""
    return [line.split(" ", 2)[2] for line in news.of(stats)]


def test_a_camera_that_goes_down_and_comes_back_is_told_once_each():
    news, stats = News(), SourceStats("door", live=True)
    stats.changed("CONNECTING")
    stats.changed("RUNNING")
    assert told(news, stats) == ["door: running"]
    for attempt in range(5):
        stats.changed("BACKOFF", "refused", f"connection refused, attempt {attempt}")
        stats.changed("CONNECTING")
    assert told(news, stats) == ["door: backoff (refused: connection refused, attempt 0)"]
    stats.changed("BACKOFF", "refused", "connection refused, attempt 5")
    assert told(news, stats) == []
    stats.changed("CONNECTING")
    stats.changed("RUNNING")
    assert told(news, stats) == ["door: running"]
    assert told(news, stats) == []


def test_who_wants_to_hear_of_trouble_only_hears_of_its_end_too():
    news, stats = News(trouble_only=True), SourceStats("door", live=True)
    stats.changed("RUNNING")
    assert told(news, stats) == []
    stats.changed("BACKOFF", "refused", "connection refused")
    stats.changed("RUNNING")
    stats.changed("ENDED")
    assert [line.split()[1] for line in told(news, stats)] == ["backoff", "running"]


def test_another_cause_is_news():
    news, stats = News(), SourceStats("door", live=True)
    stats.changed("STALLED", "stalled", "no picture for 2 s")
    stats.changed("BACKOFF", "stalled", "no picture for 10 s")
    stats.changed("BACKOFF", "unauthorised", "the server refuses this password")
    assert told(news, stats) == [
        "door: stalled (stalled: no picture for 2 s)",
        "door: backoff (unauthorised: the server refuses this password)",
    ]


def test_what_was_pushed_out_by_too_many_events_is_not_told_twice():
    news, stats = News(), SourceStats("door", live=True)
    stats.changed("RUNNING")
    assert told(news, stats) == ["door: running"]
    for _ in range(EVENTS_KEPT):
        stats.changed("BACKOFF", "refused", "connection refused")
    assert told(news, stats) == ["door: backoff (refused: connection refused)"]


def test_recordings_make_no_news_and_who_has_left_is_forgotten():
    news, stats = News(), SourceStats("drive")
    stats.changed("ENDED")
    assert told(news, stats) == []
    camera = SourceStats("door", live=True)
    camera.changed("RUNNING")
    assert told(news, camera) == ["door: running"]
    news.forget("door")
    assert told(news, camera) == ["door: running"]
