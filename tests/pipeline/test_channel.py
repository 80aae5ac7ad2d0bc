"""The bounded queue: order, capacity, ends, cancellation, drops, lanes and fairness."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.channel import Cancelled, Channel, Slots, idle_seconds
from tests.waiting import until

PATIENCE_SECONDS = 20  # only ever reached by a bug


@contextmanager
def running(work: Callable[[], object]):
    """Run `work` on a thread beside the block; it must end on its own."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # raised again in the thread of the test
            failures.append(error)

    thread = threading.Thread(target=body, daemon=True)  # a failing test must not hang the run
    thread.start()
    yield failures
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "the thread is blocked for ever"


def fill(channel: Channel, items: Iterable, lane: int = 0) -> None:
    for item in items:
        channel.put(item, lane)
    channel.close(lane)


def test_items_arrive_once_and_in_order():
    for capacity in (1, 2, 7, 1000):
        channel = Channel[int](capacity)
        with running(lambda channel=channel: fill(channel, range(500))):
            assert list(channel) == list(range(500))


def test_a_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Channel(0)


def test_a_full_channel_blocks_its_producer_until_there_is_room():
    channel = Channel[int](2)
    done = threading.Event()

    def work() -> None:
        fill(channel, range(3))
        done.set()

    with running(work):
        assert not done.wait(0.05)
        assert channel.take(1) == [0]
        assert done.wait(PATIENCE_SECONDS)
    assert list(channel) == [1, 2]


@pytest.mark.parametrize("in_bursts", [False, True])
def test_an_item_has_not_arrived_while_its_producer_waits(in_bursts):
    """Who counts arrivals to know when all are there would close the lane before the last."""
    channel = Channel[int](2, in_bursts=in_bursts)
    with running(lambda: fill(channel, range(3))):
        until(lambda: channel.puts == 2)
        never = threading.Event()
        assert not never.wait(0.05) and channel.puts == 2
        assert channel.take(1) == [0]
        until(lambda: channel.puts == 3)
        channel.close()
        assert list(channel) == [1, 2]


@pytest.mark.parametrize("in_bursts", [False, True])
def test_something_else_is_done_now_and_then_while_items_come_and_while_none_does(in_bursts):
    channel, done, taken = Channel[int](2, in_bursts=in_bursts), list[int](), list[int]()

    def take_all() -> None:
        taken.extend(channel.each(lambda: done.append(len(taken)), 0.01))

    with running(take_all) as failures:
        until(lambda: len(done) > 3)
        while len(done) < 10:
            channel.put(1)
        fill(channel, [2, 3, 4])
    assert taken[-3:] == [2, 3, 4] and not failures


def test_what_was_queued_before_the_end_is_still_delivered():
    channel = Channel[int](5)
    fill(channel, range(3))
    assert channel.take(2) == [0, 1]
    assert channel.take(2) == [2]
    assert channel.take(2) == []
    assert channel.take(2) == [], "an end stays an end"


def test_cancelling_wakes_a_blocked_producer():
    for _ in range(50):
        channel = Channel[int](1)
        with running(lambda channel=channel: fill(channel, range(9))) as failures:
            assert channel.take(1) == [0]
            channel.cancel()
        assert [type(failure) for failure in failures] == [Cancelled]


def test_cancelling_wakes_a_blocked_consumer():
    for _ in range(50):
        channel = Channel[int](1)
        with running(lambda channel=channel: channel.take(1)) as failures:
            channel.cancel()
        assert [type(failure) for failure in failures] == [Cancelled]


def test_cancelling_wakes_a_consumer_that_waits_for_the_rest_of_a_group():
    channel = Channel[int](4)
    channel.put(1)
    with running(lambda: channel.take(4, within=1000)) as failures:
        channel.cancel()
    assert [type(failure) for failure in failures] == [Cancelled]


def test_a_cancelled_channel_forgets_its_items_and_takes_no_more():
    channel = Channel[int](4)
    channel.put(1)
    channel.cancel()
    with pytest.raises(Cancelled):
        channel.put(2)
    with pytest.raises(Cancelled):
        channel.take(1)


def test_drop_oldest_never_blocks_and_keeps_the_newest():
    dropped: list[int] = []
    channel = Channel[int](3, "drop_oldest", on_drop=dropped.append)
    fill(channel, range(10))
    assert dropped == [0, 1, 2, 3, 4, 5, 6]
    assert list(channel) == [7, 8, 9]


def test_every_item_is_either_delivered_or_reported_as_dropped():
    for _ in range(50):
        dropped: list[int] = []
        channel = Channel[int](2, "drop_oldest", on_drop=dropped.append)
        with running(lambda channel=channel: fill(channel, range(200))):
            delivered = list(channel)
        assert sorted(delivered + dropped) == list(range(200))
        assert delivered == sorted(delivered)


def test_a_lane_drops_only_its_own_items():
    dropped: list[str] = []
    channel = Channel[str](1, "drop_oldest", lanes=2, on_drop=dropped.append)
    channel.put("calm", lane=1)
    for n in range(4):
        channel.put(f"flood {n}", lane=0)
    assert dropped == ["flood 0", "flood 1", "flood 2"]
    assert channel.take(5) == ["flood 3", "calm"]


def test_take_gives_at_most_the_limit():
    channel = Channel[int](9)
    fill(channel, range(7))
    assert [channel.take(3), channel.take(3), channel.take(3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_take_does_not_wait_for_more_unless_told_to():
    channel = Channel[int](9)
    channel.put(1)
    assert channel.take(5) == [1]


def test_take_waits_for_the_rest_of_a_group():
    channel = Channel[int](9)
    channel.put(0)
    with running(lambda: fill(channel, [1, 2])):
        assert channel.take(3, within=PATIENCE_SECONDS) == [0, 1, 2]


def test_take_gives_a_part_of_the_group_when_the_time_is_over():
    channel = Channel[int](9)
    channel.put(0)
    assert channel.take(3, within=0.01) == [0]


def test_take_does_not_wait_for_what_can_never_come():
    closed = Channel[int](9)
    fill(closed, [0])
    assert closed.take(3, within=1000) == [0]
    full = Channel[int](2)
    full.put(0)
    full.put(1)
    assert full.take(3, within=1000) == [0, 1]
    ends_meanwhile = Channel[int](9)
    ends_meanwhile.put(0)
    with running(ends_meanwhile.close):
        assert ends_meanwhile.take(3, within=1000) == [0]


def test_a_flooding_producer_delays_nobody_else():
    channel = Channel[str](100, lanes=3)
    for _ in range(100):
        channel.put("flood", lane=0)
    channel.put("calm", lane=1)
    channel.put("calmer", lane=2)
    assert channel.take(3) == ["flood", "calm", "calmer"]


def test_lanes_that_all_have_items_are_served_in_turn():
    channel = Channel[int](30, lanes=3)
    for lane in range(3):
        fill(channel, [lane] * 30, lane)
    assert [channel.take(3) for _ in range(30)] == [[0, 1, 2]] * 30


def test_a_channel_with_lanes_ends_when_all_of_them_have():
    channel = Channel[str](4, lanes=2)
    channel.put("a", 0)
    channel.close(0)
    channel.put("b", 1)
    assert channel.take(9) == ["a", "b"]
    with running(lambda: channel.close(1)):
        assert channel.take(9) == []


def test_a_channel_without_lanes_has_ended():
    assert Channel[int](4, lanes=0).take(1) == []


@given(
    lanes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    capacity=st.integers(1, 5),
    limit=st.integers(1, 9),
    within=st.sampled_from([0.0, 0.001]),
)
def test_every_lane_keeps_its_order_and_loses_nothing(lanes, capacity, limit, within):
    channel = Channel[tuple[int, int]](capacity, lanes=len(lanes))
    producers = [
        threading.Thread(target=fill, args=(channel, [(lane, n) for n in range(count)], lane))
        for lane, count in enumerate(lanes)
    ]
    for producer in producers:
        producer.start()
    taken = []
    while group := channel.take(limit, within):
        assert len(group) <= limit
        taken += group
    for producer in producers:
        producer.join()
    for lane, count in enumerate(lanes):
        assert [n for which, n in taken if which == lane] == list(range(count))


def test_waiting_is_counted_as_idle_and_only_for_the_thread_that_waits():
    channel = Channel[int](1)
    waited: list[float] = []

    def work() -> None:
        channel.take(1)
        waited.append(idle_seconds())

    before = idle_seconds()
    with running(work):
        threading.Event().wait(0.05)
        channel.put(1)
    assert waited[0] > 0
    assert idle_seconds() == before


def test_mean_occupancy_is_what_arriving_items_found_waiting():
    channel = Channel[int](4)
    assert channel.mean_occupancy == 0
    for n in range(4):
        channel.put(n)
    assert channel.mean_occupancy == (0 + 1 + 2 + 3) / 4
    full = Channel[int](2, "drop_oldest")
    for n in range(4):
        full.put(n)
    assert full.mean_occupancy == (0 + 1 + 2 + 2) / 4


# Lanes that come and go


def test_a_lane_added_later_is_served_in_turn_and_ends_alone():
    channel = Channel[str](3)
    channel.put("a", 0)
    lane = channel.add_lane()
    for _ in range(2):
        channel.put("b", lane)
    channel.close(lane)
    assert channel.take(3) == ["a", "b", "b"]
    channel.put("a", 0)
    assert channel.take(3) == ["a"], "the first lane lives on"


def test_a_thousand_lanes_that_came_and_went_leave_nothing_behind():
    channel = Channel[int](2, lanes=0)
    stays = channel.add_lane()
    for n in range(1000):
        lane = channel.add_lane()
        channel.put(n, lane)
        channel.close(lane)
        assert channel.take(5) == [n]
    assert len(channel._lanes) == len(channel._turns) == 1
    channel.close(stays)
    assert channel.take(1) == []


def test_each_lane_has_its_own_policy():
    dropped: list[int] = []
    channel = Channel[int](8, lanes=0)
    camera = channel.add_lane(capacity=1, when_full="drop_oldest", on_drop=dropped.append)
    file = channel.add_lane()
    for n in range(3):
        channel.put(n, camera)
        channel.put(10 + n, file)
    assert sorted(channel.take(9)) == [2, 10, 11, 12]
    assert dropped == [0, 1]


def test_a_producer_of_whom_nothing_is_expected_is_not_waited_for():
    channel = Channel[int](2, lanes=0)
    lane = channel.add_lane(capacity=1)
    channel.add_lane(expected=lambda: False)
    channel.put(1, lane)
    assert channel.take(2, within=3600) == [1]


# Slots


def test_no_more_than_the_slots_are_under_way_at_once():
    slots, under_way, most = Slots(3), Channel[int](100), 0

    def ask() -> None:
        for n in range(200):
            slots.acquire()
            under_way.put(n)
        under_way.close()

    with running(ask):
        for _ in slots.freed_by(under_way):  # what is in hand is under way no more
            most = max(most, under_way.held)
    assert 1 <= most <= 3


def test_more_slots_let_who_waits_go_on_and_fewer_hold_him_up():
    slots = Slots(1)
    slots.acquire()
    passed = threading.Event()

    def ask() -> None:
        slots.acquire()
        passed.set()

    with running(ask):
        assert not passed.wait(0.05)
        slots.count = 2
        assert passed.wait(PATIENCE_SECONDS)
    slots.count = 1
    slots.release()
    with running(slots.acquire):
        slots.release()


def test_who_waits_for_a_slot_is_released_when_no_answer_will_come():
    slots = Slots(1)
    slots.acquire()
    with running(slots.acquire) as failures:
        list(slots.freed_by(iter([])))
    assert [type(failure) for failure in failures] == [Cancelled]


def test_whoever_reads_in_bursts_is_woken_for_a_full_channel_and_gets_all_of_it():
    channel = Channel[int](3, in_bursts=True)
    read: list[int] = []
    waits = threading.Event()

    def work() -> None:
        waits.set()
        for item in channel:
            read.append(item)

    with running(work):
        waits.wait(PATIENCE_SECONDS)
        for item in range(2):
            channel.put(item)
        assert read == []  # nothing wakes it before the third
        fill(channel, range(2, 7))
    assert read == list(range(7))  # and the end brings what is left


@given(st.integers(1, 6), st.integers(0, 25))
def test_bursts_lose_nothing_and_keep_the_order(capacity: int, count: int):
    channel = Channel[int](capacity, in_bursts=True)
    with running(lambda: fill(channel, range(count))):
        assert list(channel) == list(range(count))


def test_a_burst_that_will_not_be_complete_is_cut_off_by_a_cancel():
    channel = Channel[int](4, in_bursts=True)
    channel.put(1)

    def work() -> None:
        with pytest.raises(Cancelled):
            list(channel)

    with running(work) as failures:
        channel.cancel()
    assert not failures
