"""The buffer of one sink: nothing is lost uncounted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks.brokers.outbox import Message, Outbox
from tests.brokers.results import adds_up


def record(number: int) -> Message:
    return Message("t", str(number).encode(), "front")


def value(text: str, topic: str = "count") -> Message:
    return Message(topic, text.encode(), "front", retain=True)


def texts(messages: list[Message]) -> list[str]:
    return [message.payload.decode() for message in messages]


def filled(count: int, capacity: int = 100) -> Outbox:
    outbox = Outbox(capacity)
    for number in range(count):
        outbox.add(record(number), "full")
    return outbox


def test_a_full_outbox_drops_the_oldest_record_and_says_why() -> None:
    outbox = filled(5, capacity=3)
    assert outbox.counts()["dropped"] == {"full": 2}
    assert texts(outbox.take(10)) == ["2", "3", "4"]


def test_what_was_under_way_when_a_connection_broke_comes_first_again() -> None:
    outbox = filled(6)
    taken = outbox.take(3)
    outbox.settle(taken[0], refused=False)
    assert outbox.put_back() == {"t"}
    assert texts(outbox.take(10)) == ["1", "2", "3", "4", "5"]


def test_of_a_value_only_the_latest_leaves_and_only_when_it_changed() -> None:
    outbox = Outbox(10)
    for text in ("0", "1", "2", "2"):
        outbox.show(value(text))
    (taken,) = outbox.take(10)
    assert taken.payload == b"2"
    outbox.settle(taken, refused=False)
    outbox.show(value("2"))
    assert not outbox.has_mail and outbox.is_empty
    outbox.show(value("3"))
    assert texts(outbox.take(10)) == ["3"]


def test_a_value_that_was_refused_leaves_again_when_it_is_shown_again() -> None:
    outbox = Outbox(10)
    outbox.show(value("1"))
    (taken,) = outbox.take(10)
    outbox.settle(taken, refused=True)
    assert not outbox.has_mail and outbox.is_empty  # nobody waits for it
    outbox.show(value("1"))
    (again,) = outbox.take(10)
    outbox.show(value("2"))
    outbox.settle(again, refused=True)
    outbox.show(value("2"))
    assert texts(outbox.take(10)) == ["2"]


def test_a_new_connection_hears_all_values_again() -> None:
    outbox = Outbox(10)
    outbox.show(value("1", "car"))
    outbox.show(value("2", "bus"))
    for message in outbox.take(10):
        outbox.settle(message, refused=False)
    outbox.put_back()
    assert texts(outbox.take(10)) == ["1", "2"]


def test_what_is_confirmed_after_the_end_was_counted_before() -> None:
    outbox = filled(3)
    (first, *_) = outbox.take(1)
    outbox.close()
    outbox.settle(first, refused=False)
    outbox.add(record(9), "full")
    counts = outbox.counts()
    assert counts["dropped"] == {"unsent_at_end": 3, "closed": 1} and counts["sent"] == 0
    assert adds_up(counts)


STEPS = st.lists(
    st.one_of(
        st.just(("add",)),
        st.just(("show",)),
        st.just(("put_back",)),
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("settle"), st.booleans()),
    )
)


@given(steps=STEPS, capacity=st.integers(1, 8), closes=st.booleans())
def test_every_record_has_one_fate_whatever_happens(
    steps: list[tuple], capacity: int, closes: bool
) -> None:
    outbox, under_way, written = Outbox(capacity), [], 0
    for number, (kind, *argument) in enumerate(steps):
        match kind:
            case "add":
                written += 1
                outbox.add(record(number), "full")
            case "show":
                outbox.show(value(str(number)))
            case "put_back":
                outbox.put_back()
                under_way.clear()
            case "take":
                under_way += outbox.take(argument[0])
            case "settle" if under_way:
                outbox.settle(under_way.pop(0), refused=argument[0])
        counts = outbox.counts()
        assert adds_up(counts) and counts["written"] == written
    if closes:
        outbox.close()
        assert adds_up(outbox.counts()) and outbox.counts()["waiting"] == 0
