"""Sources and sinks that come and go while the graph runs."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator

from pipeline.graph import Graph, background

PATIENCE_SECONDS = 20  # only ever reached by a bug


def collected(items: Iterable[str], into: list[str], until: int | None = None) -> Iterator[None]:
    """A sink: append every item; leave after so many."""
    for item in items:
        into.append(item)
        yield
        if until is not None and len(into) >= until:
            return


class Camera:
    """Delivers its name when told to, and waits otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._due = threading.Semaphore(0)
        self._ended = False

    def items(self) -> Iterator[str]:
        while True:
            assert self._due.acquire(timeout=PATIENCE_SECONDS)
            if self._ended:
                return
            yield self.name

    def show(self) -> None:
        self._due.release()

    def end(self) -> None:
        self._ended = True
        self._due.release()


def test_a_source_that_joins_later_is_heard_and_one_that_is_ended_leaves_the_others_alone():
    first, second = Camera("first"), Camera("second")
    with Graph() as graph:
        inlet = graph.inlet()
        end_first = inlet.join("first", first.items(), end=first.end)
        first.show()
        assert inlet.channel.take(1) == ["first"]
        end_second = inlet.join("second", second.items(), end=second.end)
        inlet.close()
        end_first()
        second.show()
        assert inlet.channel.take(1) == ["second"]
        end_second()
        assert inlet.channel.take(1) == [], "closed, and the last one has ended"


def test_an_open_inlet_without_sources_is_not_the_end():
    with Graph() as graph:
        inlet = graph.inlet()
        inlet.join("short", iter(["a"]))
        assert inlet.channel.take(1) == ["a"]
        inlet.join("late", iter(["b"]))
        assert inlet.channel.take(1) == ["b"]
        inlet.close()
        assert inlet.channel.take(1) == []


def test_stop_ends_a_source_that_waits_for_its_camera():
    camera, written = Camera("silent"), list[str]()
    with Graph() as graph:
        inlet = graph.inlet()
        inlet.join("silent", camera.items(), end=camera.end)
        inlet.close()
        graph.sink(inlet.channel, collected(inlet.channel, written), name="sink", on_error=None)
        graph.stop()
        assert graph.wait(PATIENCE_SECONDS)


def test_an_error_elsewhere_ends_a_source_that_waits_for_its_camera():
    camera = Camera("silent")
    try:
        with Graph() as graph:
            inlet = graph.inlet()
            inlet.join("silent", camera.items(), end=camera.end)
            raise RuntimeError("elsewhere")
    except RuntimeError as error:
        assert str(error) == "elsewhere"


def test_a_source_that_joins_after_the_stop_ends_at_once():
    camera = Camera("late")
    with Graph() as graph:
        inlet = graph.inlet()
        graph.stop()
        inlet.join("late", camera.items(), end=camera.end)
        inlet.close()
        assert inlet.channel.take(1) == []


def test_a_recording_is_ended_between_two_items_and_cleans_up():
    closed = threading.Event()

    def recording() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with Graph() as graph:
        inlet = graph.inlet()
        end = inlet.join("file", recording())
        inlet.close()
        assert inlet.channel.take(1) == [0]
        end()
        assert len(list(inlet.channel)) < 20
        assert closed.wait(PATIENCE_SECONDS)


def test_a_branch_added_later_receives_what_comes_from_then_on():
    camera, early, late = Camera("x"), list[str](), list[str]()
    with Graph() as graph:
        inlet = graph.inlet()
        inlet.join("x", camera.items(), end=camera.end)
        inlet.close()
        outlet = graph.outlet(inlet.channel, name="part")
        one = outlet.branch(lambda _: True)
        outlet.start(stays=True)
        camera.show()
        early += one.take(1)
        two = outlet.branch(lambda _: True)
        camera.show()
        early += one.take(1)
        late += two.take(1)
        camera.end()
    assert (early, late) == (["x", "x"], ["x"])


def test_an_outlet_that_stays_goes_on_when_every_branch_has_gone():
    with Graph() as graph:
        outlet = graph.outlet(iter(range(1000)), name="part")
        branch = outlet.branch(lambda _: True)
        outlet.start(stays=True)
        branch.cancel()
    stage = next(stage for stage in graph.stats if stage.name == "part")
    assert stage.items == 1000


def test_a_branch_that_is_ended_keeps_what_it_holds():
    with Graph() as graph:
        outlet = graph.outlet(iter("abc"), name="part")
        branch, rest = outlet.branch(lambda _: True), outlet.branch(lambda _: True)
        outlet.start()
        assert list(rest) == ["a", "b", "c"]
        outlet.end(branch)
        assert list(branch) == ["a", "b", "c"]


def test_a_branch_may_drop_where_another_waits():
    dropped, written = list[int](), list[int]()
    with Graph(capacity=2) as graph:
        outlet = graph.outlet(iter(range(100)), name="part")
        network = outlet.branch(
            lambda _: True, when_full="drop_oldest", capacity=3, on_drop=dropped.append
        )
        file = outlet.branch(lambda _: True)
        outlet.start()
        written += file
        assert list(network) == [97, 98, 99]
    assert written == list(range(100))
    assert dropped == list(range(97))


def test_a_thousand_sources_and_sinks_that_came_and_went_leave_nothing_behind():
    written: list[str] = []
    before = threading.active_count()
    with Graph() as graph:
        inlet = graph.inlet()
        outlet = graph.outlet(inlet.channel, name="part")
        outlet.start(stays=True)
        for n in range(1000):
            branch = outlet.branch(lambda item, n=n: item == str(n))
            graph.sink(branch, collected(branch, written, 1), name="sink", on_error=None)
            inlet.join("camera", iter([str(n)]))
            assert graph.wait(PATIENCE_SECONDS)
        assert len(graph._channels) <= 4
        assert len(graph._threads) <= 8
        assert len(graph.stats) <= 4
        assert threading.active_count() <= before + 4
        inlet.close()
    assert written == [str(n) for n in range(1000)]
    assert {stage.name: stage.items for stage in graph.stats} == {
        "camera": 1000,
        "part": 1000,
        "sink": 1000,
    }


def test_what_runs_in_the_background_can_be_waited_for_with_a_limit():
    may_end = threading.Event()
    hanging = background(may_end.wait, name="hanging")
    assert not hanging.join(0.01)
    may_end.set()
    assert hanging.join(PATIENCE_SECONDS)
