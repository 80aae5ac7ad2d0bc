"""How a graph ends: of itself, by an error anywhere, by leaving, by a signal; never a thread left.

The fixture `no_thread_outlives_the_test` watches over every test here.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

import pipeline.graph as graph_module
from pipeline.channel import Cancelled, Channel
from pipeline.graph import Graph, any_given_up

PATIENCE_SECONDS = 20  # only ever reached by a bug
REPEATS = 50  # for what depends on who comes first


class Unplugged(OSError):
    """What the sources here fail with."""


def fails_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise Unplugged("camera unplugged")


def doubled(items: Iterable[int]) -> Iterator[int]:
    for item in items:
        yield 2 * item


def collected(items: Iterable[int], into: list) -> Iterator[None]:
    """A sink: append every item."""
    for item in items:
        into.append(item)
        yield


def broken(items: Iterable[int], after: int) -> Iterator[int]:
    """A stage that fails at its item number `after`."""
    for n, item in enumerate(items):
        if n == after:
            raise Unplugged("disk full")
        yield item


def merge(graph: Graph, sources: Mapping[str, Iterable], *, on_error=None, **lane) -> Channel:
    """Sources which all join at once."""
    inlet = graph.inlet(on_error=on_error, capacity=lane.pop("capacity", None))
    for name, source in sources.items():
        inlet.join(name, source, **lane)
    inlet.close()
    return inlet.channel


def tee(graph: Graph, items: Iterable, accepts: Sequence[Callable], name="tee") -> list[Channel]:
    """Branches which are all there from the start."""
    outlet = graph.outlet(items, name=name)
    branches = [outlet.branch(accept) for accept in accepts]
    outlet.start()
    return branches


# Order and end


def test_items_pass_several_threads_in_order():
    with Graph(capacity=2) as graph:
        numbers = graph.stage(range(300), name="numbers")
        twice = graph.stage(doubled(numbers), name="twice")
        assert list(graph.stage(doubled(twice), name="again")) == [4 * n for n in range(300)]


def test_an_empty_source_is_an_empty_stream():
    with Graph() as graph:
        assert list(graph.stage(doubled(graph.stage([], name="none")), name="twice")) == []


def test_leaving_the_block_waits_for_the_sinks():
    for _ in range(REPEATS):
        written: list[int] = []
        with Graph(capacity=1) as graph:
            numbers = graph.stage(range(20), name="numbers")
            graph.sink(numbers, collected(numbers, written), name="write", on_error=None)
        assert written == list(range(20))


def test_waiting_for_the_sinks_tells_whether_they_have_ended():
    gate = threading.Event()

    def gated() -> Iterator[int]:
        gate.wait(PATIENCE_SECONDS)
        yield 1

    written: list[int] = []
    with Graph() as graph:
        numbers = graph.stage(gated(), name="numbers")
        graph.sink(numbers, collected(numbers, written), name="write", on_error=None)
        assert not graph.wait(0.01)
        gate.set()
        assert graph.wait(PATIENCE_SECONDS)
    assert written == [1]


def test_a_graph_can_be_run_twice():
    def run() -> list[int]:
        with Graph() as graph:
            return list(graph.stage(doubled(graph.stage(range(9), name="a")), name="b"))

    assert run() == run() == [2 * n for n in range(9)]


def test_a_graph_that_failed_leaves_nothing_behind_for_the_next():
    with pytest.raises(Unplugged), Graph() as graph:
        list(graph.stage(fails_after(2), name="camera"))
    with Graph() as graph:
        assert list(graph.stage(range(3), name="numbers")) == [0, 1, 2]


# Errors


def line(graph: Graph, fails_at: str, written: list[int]) -> None:
    """source -> middle -> tee -> two sinks; the part named fails at its fourth item."""

    def maybe(items: Iterable[int], name: str) -> Iterator[int]:
        return broken(items, 3) if name == fails_at else doubled(items)

    source = merge(graph, {"source": maybe(itertools.count(), "source")})
    middle = graph.stage(maybe(source, "middle"), name="middle")
    one, two = tee(graph, maybe(middle, "tee"), [bool, lambda _: True], name="tee")
    graph.sink(one, collected(maybe(one, "one"), []), name="one", on_error=None)
    graph.sink(two, collected(maybe(two, "two"), written), name="two", on_error=None)


@pytest.mark.parametrize("place", ["source", "middle", "tee", "one", "two"])
def test_an_error_anywhere_ends_an_endless_graph_and_names_its_stage(place):
    for _ in range(REPEATS):
        with pytest.raises(Unplugged, match="disk full") as caught, Graph(capacity=1) as graph:
            line(graph, place, [])
        assert f"in stage {place!r}" in caught.value.__notes__


def test_an_error_reaches_whoever_reads_the_graph_from_outside():
    for _ in range(REPEATS):
        with pytest.raises(Unplugged, match="unplugged"), Graph(capacity=1) as graph:
            for _item in graph.stage(doubled(graph.stage(fails_after(5), name="a")), name="b"):
                pass


def test_the_first_error_wins_over_those_that_follow_from_it():
    def sulking(items: Iterable[int]) -> Iterator[int]:
        try:
            yield from items
        finally:
            raise RuntimeError("cannot close")

    with pytest.raises(Unplugged), Graph(capacity=1) as graph:
        for _item in graph.stage(sulking(graph.stage(fails_after(3), name="a")), name="b"):
            pass


def test_an_error_keeps_its_cause():
    def decode() -> Iterator[int]:
        yield 1
        try:
            raise KeyError("the real reason")
        except KeyError as error:
            raise Unplugged("what the user is told") from error

    with pytest.raises(Unplugged) as caught, Graph() as graph:
        list(graph.stage(decode(), name="decode"))
    assert "the real reason" in "".join(traceback.format_exception(caught.value))


def test_an_error_of_the_reader_stops_producers_that_are_blocked():
    for _ in range(REPEATS):
        with pytest.raises(KeyError), Graph(capacity=1) as graph:
            endless = graph.stage(itertools.count(), name="endless")
            for item in graph.stage(doubled(endless), name="twice"):
                raise KeyError(item)


def test_an_error_while_a_generator_cleans_up_is_reported():
    def careless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise Unplugged("cannot close")

    with pytest.raises(Unplugged, match="cannot close"), Graph(capacity=1) as graph:
        next(iter(graph.stage(careless(), name="careless")))


def test_something_that_is_not_iterable_is_an_error_of_its_stage():
    with pytest.raises(TypeError) as caught, Graph() as graph:
        list(graph.stage(None, name="nothing"))
    assert "in stage 'nothing'" in caught.value.__notes__


def test_a_stage_that_joins_after_the_failure_ends_at_once():
    with pytest.raises(Unplugged), Graph(capacity=1) as graph:
        with contextlib.suppress(Cancelled):  # the failure itself is looked at above
            list(graph.stage(fails_after(0), name="camera"))
        late = graph.stage(itertools.count(), name="late")
        graph.sink(late, collected(late, []), name="write", on_error=None)


def test_a_thread_that_cannot_start_is_an_error_and_stops_those_that_did(monkeypatch):
    real = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "second":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"), Graph(capacity=1) as graph:
        graph.stage(doubled(graph.stage(itertools.count(), name="first")), name="second")


# Leaving early


def test_a_reader_may_leave_an_endless_graph():
    for _ in range(REPEATS):
        with Graph(capacity=1) as graph:
            endless = graph.stage(doubled(graph.stage(itertools.count(), name="a")), name="b")
            assert next(iter(endless)) == 0


def test_leaving_closes_the_source():
    closed: list[str] = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append("source")

    with Graph(capacity=1) as graph:
        next(iter(graph.stage(doubled(graph.stage(source(), name="a")), name="b")))
    assert closed == ["source"]


def test_a_stage_that_has_enough_ends_all_before_it():
    for _ in range(REPEATS):
        ended = threading.Event()

        def source(ended: threading.Event = ended) -> Iterator[int]:
            try:
                yield from itertools.count()
            finally:
                ended.set()

        with Graph(capacity=1) as graph:
            numbers = graph.stage(doubled(graph.stage(source(), name="a")), name="b")
            first = graph.stage(itertools.islice(numbers, 3), name="first three")
            assert list(first) == [0, 2, 4]
            assert ended.wait(PATIENCE_SECONDS), "the source still runs inside the block"


def test_a_line_whose_end_was_reached_early_does_not_disturb_another():
    written: list[int] = []
    with Graph(capacity=1) as graph:
        short = graph.stage(itertools.count(), name="endless")
        graph.sink(short, itertools.islice(collected(short, []), 2), name="short", on_error=None)
        long = graph.stage(range(500), name="long")
        graph.sink(long, collected(long, written), name="write", on_error=None)
    assert written == list(range(500))


# Tee


def test_a_tee_gives_each_branch_what_it_accepts():
    even: list[int] = []
    small: list[int] = []
    with Graph(capacity=2) as graph:
        numbers = graph.stage(range(20), name="numbers")
        accepts = [lambda n: n % 2 == 0, lambda n: n < 5]
        for branch, written in zip(tee(graph, numbers, accepts), (even, small), strict=True):
            graph.sink(branch, collected(branch, written), name="write", on_error=None)
    assert even == list(range(0, 20, 2))
    assert small == list(range(5))


def test_a_branch_that_leaves_does_not_hold_up_the_others():
    for _ in range(REPEATS):
        written: list[int] = []
        with Graph(capacity=1) as graph:
            leaving, staying = tee(graph, range(100), [lambda _: True] * 2)
            graph.sink(
                leaving, itertools.islice(collected(leaving, []), 3), name="leave", on_error=None
            )
            graph.sink(staying, collected(staying, written), name="stay", on_error=None)
        assert written == list(range(100))


def test_a_stage_between_a_tee_and_a_failing_sink_does_not_hold_up_the_others():
    for _ in range(REPEATS):
        written: list[int] = []
        failed: list[str] = []
        with Graph(capacity=1) as graph:
            one, two = tee(graph, range(100), [lambda _: True] * 2)
            encoded = graph.stage(doubled(one), name="encode")
            graph.sink(
                encoded,
                broken(encoded, 3),
                name="disk",
                on_error=lambda name, _, failed=failed: failed.append(name),
            )
            graph.sink(two, collected(two, written), name="write", on_error=None)
        assert failed == ["disk"]
        assert written == list(range(100))


def test_a_tee_whose_branches_have_all_left_ends_an_endless_source():
    with Graph(capacity=1) as graph:
        for branch in tee(graph, itertools.count(), [lambda _: True] * 3):
            graph.sink(
                branch, itertools.islice(collected(branch, []), 5), name="few", on_error=None
            )


# Sinks that fail


def test_a_failing_sink_fails_alone_where_that_was_asked_for():
    for _ in range(REPEATS):
        written: list[int] = []
        failures: list[tuple[str, BaseException]] = []
        with Graph(capacity=1) as graph:
            one, two = tee(graph, range(50), [lambda _: True] * 2)
            graph.sink(
                one,
                broken(one, 3),
                name="disk",
                on_error=lambda name, error, seen=failures: seen.append((name, error)),
            )
            graph.sink(two, collected(two, written), name="write", on_error=None)
        assert written == list(range(50))
        assert [(name, str(error)) for name, error in failures] == [("disk", "disk full")]


def test_a_sink_that_fails_before_its_first_item_takes_no_other_of_its_name_with_it():
    has_failed, written = threading.Event(), []

    def read_by_the_good() -> Iterator[int]:
        assert has_failed.wait(PATIENCE_SECONDS)
        yield from range(3)

    def read_by_the_bad() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            has_failed.set()

    with Graph() as graph:
        good = graph.stage(read_by_the_good(), name="good")
        graph.sink(good, collected(good, written), name="write", on_error=None)
        bad = graph.stage(read_by_the_bad(), name="bad")
        graph.sink(bad, broken([0], after=0), name="write", on_error=lambda *_: None)
        assert graph.wait(PATIENCE_SECONDS)
    assert written == [0, 1, 2]
    assert [stats.items for stats in graph.stats if stats.name == "write"] == [3]


def test_when_every_sink_has_failed_the_endless_source_ends_too():
    failed: list[str] = []
    with Graph(capacity=1) as graph:
        for n, branch in enumerate(tee(graph, itertools.count(), [lambda _: True] * 2)):
            graph.sink(
                branch,
                broken(branch, 3),
                name=f"disk {n}",
                on_error=lambda name, _: failed.append(name),
            )
    assert sorted(failed) == ["disk 0", "disk 1"]


def test_an_error_of_the_error_handler_ends_the_graph():
    def handler(name: str, error: BaseException) -> None:
        raise ZeroDivisionError("in the handler")

    with pytest.raises(ZeroDivisionError, match="in the handler"), Graph(capacity=1) as graph:
        endless = graph.stage(itertools.count(), name="endless")
        graph.sink(endless, broken(endless, 3), name="disk", on_error=handler)


# Several sources


def test_merged_sources_keep_their_own_order_and_lose_nothing():
    for _ in range(REPEATS):
        with Graph(capacity=2) as graph:
            sources = {name: zip(name * 30, range(30), strict=True) for name in "abc"}
            merged = list(merge(graph, sources))
        assert len(merged) == 90
        for name in "abc":
            assert [n for who, n in merged if who == name] == list(range(30))


def test_a_failing_source_ends_alone_where_that_was_asked_for():
    for _ in range(REPEATS):
        failures: list[tuple[str, str]] = []
        with Graph(capacity=2) as graph:
            merged = merge(
                graph,
                {"good": range(100, 150), "bad": fails_after(3)},
                on_error=lambda name, error, seen=failures: seen.append((name, str(error))),
            )
            items = list(merged)
        assert failures == [("bad", "camera unplugged")]
        assert [n for n in items if n >= 100] == list(range(100, 150))
        assert [n for n in items if n < 100] == [0, 1, 2]


def test_a_failing_source_ends_the_graph_where_nothing_else_was_asked_for():
    with pytest.raises(Unplugged) as caught, Graph(capacity=2) as graph:
        list(merge(graph, {"good": itertools.count(), "bad": fails_after(3)}))
    assert "in stage 'bad'" in caught.value.__notes__


def test_sources_that_have_all_failed_are_an_end():
    with Graph() as graph:
        merged = merge(
            graph, {"one": fails_after(1), "two": fails_after(2)}, on_error=lambda *_: None
        )
        assert sorted(merged) == [0, 0, 1]


def test_an_endless_flood_does_not_starve_a_calm_source():
    with Graph(capacity=4) as graph:
        merged = merge(graph, {"flood": itertools.repeat("flood"), "calm": ["calm"] * 5})
        calm = (item for item in merged if item == "calm")
        assert list(itertools.islice(calm, 5)) == ["calm"] * 5


def test_frames_that_a_full_lane_drops_are_counted():
    dropped: list[int] = []
    with Graph() as graph:
        merged = merge(
            graph,
            {"camera": range(1000)},
            when_full="drop_oldest",
            capacity=2,
            on_drop=dropped.append,
        )
        items = list(merged)
    assert sorted(items + dropped) == list(range(1000))
    assert items[-2:] == [998, 999]


def test_a_merge_of_no_sources_is_an_end():
    with Graph() as graph:
        assert list(merge(graph, {})) == []


# Stopping


def test_stop_ends_the_sources_and_delivers_what_they_had_given():
    for _ in range(REPEATS):
        given: list[int] = []
        written: list[int] = []
        enough = threading.Event()

        def source(given: list[int] = given, enough: threading.Event = enough) -> Iterator[int]:
            for n in itertools.count():
                given.append(n)
                if n == 20:
                    enough.set()
                yield n

        with Graph(capacity=2) as graph:
            merged = merge(graph, {"camera": source()})
            twice = graph.stage(doubled(merged), name="twice")
            graph.sink(twice, collected(twice, written), name="write", on_error=None)
            enough.wait(PATIENCE_SECONDS)
            graph.stop()
        assert written == [2 * n for n in given], "every frame that was decoded was written"


def test_what_is_due_at_the_stop_is_called_once_though_a_signal_stops_amid_a_stop():
    called = []
    with Graph() as graph:
        # As if a handler came in between: the outer stop has seen what the inner one calls.
        graph.at_stop(graph.stop)
        graph.at_stop(partial(called.append, "second"))
        graph.stop()
        assert called == ["second"]
        graph.at_stop(partial(called.append, "late"))
    assert called == ["second", "late"]


def test_stop_before_the_start_gives_an_empty_stream():
    with Graph() as graph:
        graph.stop()
        assert list(merge(graph, {"camera": itertools.count()})) == []


SIGNALLED = """
import itertools, os, signal, sys
from pipeline.graph import Graph

def numbers():
    try:
        for n in itertools.count():
            if n == 100:
                print("running", flush=True)
            yield n
    finally:
        os.write(1, b"source closed\\n")

def write(items):
    try:
        for item in items:
            yield
    finally:
        os.write(1, b"sink closed\\n")

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's "&"
with Graph(capacity=1) as graph:
    if sys.argv[1] == "SIGTERM":
        signal.signal(signal.SIGTERM, lambda *_: graph.stop())
    inlet = graph.inlet()
    inlet.join("numbers", numbers())
    inlet.close()
    graph.sink(inlet.channel, write(inlet.channel), name="write", on_error=None)
    while sys.argv[2] == "watching" and not graph.wait(0.2):
        pass
print("left in order", flush=True)
"""


def signalled(which: signal.Signals, main_is: str = "watching") -> tuple[int, str]:
    """Exit code and output of a program with an endless graph that is sent a signal.

    Its main thread is either "watching" inside the block or already "leaving" it.
    """
    with subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, which.name, main_is],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout and program.stdout.readline() == "running\n"
        program.send_signal(which)
        output, _ = program.communicate(timeout=PATIENCE_SECONDS)
        return program.returncode, output


@pytest.mark.parametrize("main_is", ["watching", "leaving"])
def test_ctrl_c_closes_every_stage_and_ends_the_program(main_is):
    code, output = signalled(signal.SIGINT, main_is)
    assert code == -signal.SIGINT
    assert sorted(output.splitlines()) == ["sink closed", "source closed"]


def test_a_stage_that_hangs_is_given_up_when_the_graph_is_interrupted(monkeypatch):
    monkeypatch.setattr(graph_module, "_LAST_SECONDS", 0.1)
    hangs, goes_on = threading.Event(), threading.Event()

    def hanging(items: Iterable[int]) -> Iterator[None]:
        for _ in items:
            hangs.set()
            goes_on.wait(PATIENCE_SECONDS)
            yield

    with contextlib.ExitStack() as end:
        end.callback(goes_on.set)
        with pytest.raises(KeyboardInterrupt), Graph() as graph:
            numbers = graph.stage(itertools.count(), name="numbers")
            graph.sink(numbers, hanging(numbers), name="write", on_error=None)
            assert hangs.wait(PATIENCE_SECONDS)
            raise KeyboardInterrupt
        assert any_given_up()


def test_a_signal_that_stops_the_graph_lets_it_end_in_order():
    code, output = signalled(signal.SIGTERM)
    assert code == 0
    assert output.splitlines()[-1] == "left in order"


# What was counted


def test_each_stage_counts_its_items_and_its_own_work():
    def slow(items: Iterable[int]) -> Iterator[int]:
        for item in items:
            threading.Event().wait(0.005)
            yield item

    with Graph(capacity=1) as graph:
        numbers = graph.stage(range(10), name="numbers")
        graph.sink(numbers, slow(numbers), name="slow", on_error=None)
    by_name = {stats.name: stats for stats in graph.stats}
    assert {name: stats.items for name, stats in by_name.items()} == {"numbers": 10, "slow": 10}
    assert by_name["slow"].busy_seconds >= 10 * 0.005
    assert by_name["numbers"].busy_seconds < by_name["slow"].busy_seconds, "waiting is not work"
    assert 0 < by_name["numbers"].queue_mean <= 1


def test_a_sink_that_never_reads_ends_an_endless_source():
    with Graph(capacity=1) as graph:
        numbers = graph.stage(itertools.count(), name="numbers")
        graph.sink(numbers, [], name="uninterested", on_error=None)
