"""The courier, with a server of our own that fails on command."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from pipeline.errors import SinkError
from pipeline.sinks import SinkTarget
from pipeline.sinks.brokers.contract import (
    BrokerRefuses,
    BrokerTrouble,
    Confirm,
    Patience,
    Refusal,
    Server,
    next_pause,
)
from pipeline.sinks.brokers.courier import served
from pipeline.sinks.brokers.outbox import Message, Outbox
from pipeline.sinks.brokers.sink import BrokerSink
from tests.brokers.results import LABELS, QUICK, adds_up, result, write_many
from tests.waiting import until


@dataclass(eq=False)
class FakeServer:
    """Takes what it gets, or raises `trouble`; `open_gate` lets its answers through."""

    patience: Patience = QUICK
    name: str = "fake://server"
    trouble: BaseException | None = None
    refused_topics: set[str] = field(default_factory=set)
    got: list[Message] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    connections: int = 0
    attempts: int = 0
    open_gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.open_gate.set()

    def without_secrets(self, text: str) -> str:
        return text.replace("s3cret", "***")

    def connect(self) -> FakeServer:
        self.attempts += 1
        self.fail_if_told()
        self.connections += 1
        return self

    def send(self, messages: Sequence[Message], confirm: Confirm) -> None:
        self.open_gate.wait()
        self.groups.append(len(messages))
        for message in messages:
            self.fail_if_told()
            if message.topic in self.refused_topics:
                confirm(message, Refusal("not yours"))
                raise BrokerTrouble("broke off")  # as mosquitto 2.0.11 does
            self.got.append(message)
            confirm(message, None)

    def idle(self) -> None:
        self.fail_if_told()

    def close(self) -> None:
        pass  # there is nothing to close

    def fail_if_told(self) -> None:
        if self.trouble is not None:
            raise self.trouble


def sink_for(
    server: Server, source: str = "front", topic: str = "t", buffer: int = 50
) -> BrokerSink:
    return BrokerSink(server, SinkTarget(source, LABELS), topic, f"fake://{source}", buffer)


def test_sinks_that_come_and_go_share_one_connection_and_leave_nothing() -> None:
    server, threads = FakeServer(), threading.active_count()
    with sink_for(server, "first") as first:
        for number in range(200):
            with sink_for(server, f"cam{number}") as sink:
                sink.write(result(number))
            assert sink.report()["sent"] == 1
            assert threading.active_count() <= threads + 1
        first.write(result(0))
    assert (server.connections, len(server.got)) == (1, 201)
    until(lambda: threading.active_count() <= threads)
    with sink_for(server, "later") as later:
        later.write(result(0))
    assert (server.connections, len(server.got)) == (2, 202)


def test_a_server_that_hangs_delays_neither_writing_nor_for_long_the_end() -> None:
    server = FakeServer(replace(QUICK, flush=0.3))
    server.open_gate.clear()
    began = time.monotonic()
    with sink_for(server) as sink:
        assert write_many(sink, 500) < 5
        assert time.monotonic() - began < 20
        assert adds_up(sink.report())
    report = sink.report()
    assert adds_up(report) and (report["sent"], report["waiting"]) == (0, 0)
    assert time.monotonic() - began < 30
    server.open_gate.set()  # what comes true now is not counted twice
    until(lambda: server.got)
    assert sink.report()["sent"] == 0


def test_at_the_end_one_more_attempt_is_made_and_no_second() -> None:
    server = FakeServer(replace(QUICK, first_retry=1000.0, longest_retry=2000.0, flush=1000.0))
    server.trouble = BrokerTrouble("down")
    with sink_for(server) as sink:
        sink.write(result(0))
        until(lambda: sink.report()["state"] == "BACKOFF")
        server.trouble = None
    assert sink.report()["sent"] == 1
    server.trouble = BrokerTrouble("down")
    with sink_for(server) as sink:
        sink.write(result(0))
        until(lambda: sink.report()["state"] == "BACKOFF")
        server.attempts = 0
    assert sink.report()["dropped"] == sink.dropped == {"unsent_at_end": 1} and server.attempts == 1


def test_an_outage_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = FakeServer()
    server.trouble = BrokerTrouble("down with s3cret")
    with sink_for(server) as sink:
        write_many(sink, 100)
        until(lambda: server.attempts > 5)
        server.trouble = None
        until(lambda: sink.report()["waiting"] == 0)
        until(lambda: len(caplog.records) == 2)
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].getMessage() == "fake://server: down with ***; the run goes on"


def test_who_is_refused_waits_the_longest_at_once() -> None:
    patience = Patience()
    assert 15 <= next_pause(patience, failures=1, refused=True) <= 30
    pauses = [next_pause(patience, failures, refused=False) for failures in range(1, 8)]
    for pause, most in zip(pauses, (1, 2, 4, 8, 16, 30, 30), strict=True):
        assert most / 2 <= pause <= most
    assert len({next_pause(patience, 1, False) for _ in range(20)}) > 10  # not all at once


def test_refused_credentials_are_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    server.trouble = BrokerRefuses("wrong password")
    with sink_for(server) as sink:
        write_many(sink, 100)
        until(lambda: server.attempts > 3)
        assert sink.report()["state"] == "REFUSED"
        assert sink.report()["trouble"] == "wrong password"
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
    assert sink.report()["state"] == "REFUSED"


def test_a_topic_over_which_connections_break_is_found_and_left_alone() -> None:
    server = FakeServer(replace(QUICK, longest_retry=1000.0, first_retry=0.01))
    server.refused_topics = {"bad"}
    with sink_for(server, "bad", topic="bad") as bad, sink_for(server, "good") as good:
        for index in range(30):
            bad.write(result(index))
            good.write(result(index))
        until(lambda: good.report()["sent"] == 30)
        until(lambda: bad.report()["dropped"] == {"refused": 30})
        assert (bad.report()["state"], good.report()["state"]) == ("REFUSED", "RUNNING")
    assert server.connections <= 3


def test_a_value_is_told_once_the_broker_takes_it_although_it_never_changed() -> None:
    server, outbox = FakeServer(), Outbox(10)
    server.refused_topics = {"count"}
    value = Message("count", b"1", "front", retain=True)
    with served(server, outbox) as courier:

        def shown() -> bool:
            outbox.show(value)
            courier.wake()
            return value in server.got

        until(lambda: shown() or courier.refusal_of("count"))
        server.refused_topics.clear()
        until(shown)


def test_a_fault_of_the_program_is_an_error_of_the_sink_and_hides_no_other() -> None:
    server = FakeServer()
    server.trouble = ZeroDivisionError("a bug")
    with pytest.raises(SinkError, match="ZeroDivisionError"), sink_for(server) as sink:
        until(lambda: sink.report()["state"] == "BROKEN")
        sink.write(result(0))
    with pytest.raises(KeyError), sink_for(server) as sink:
        until(lambda: sink.report()["state"] == "BROKEN")
        raise KeyError
