"""Kafka, against the mock cluster of librdkafka in a process of its own."""

from __future__ import annotations

import gc
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from tests.brokers.results import HASTY, adds_up, opened, result, write_many
from tests.brokers.servers import PATIENT_SECONDS, KafkaCluster
from tests.collector import without_collector
from tests.live.kit.ports import free_port
from tests.waiting import until

pytest.importorskip("confluent_kafka", reason="the extra 'brokers' is not installed")

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from pipeline.sinks.brokers import kafka
from pipeline.sinks.brokers.address import Address
from pipeline.sinks.brokers.contract import BrokerRefuses, BrokerTrouble


def url(cluster: KafkaCluster, topic: str = "found", options: str = "") -> str:
    return f"kafka://{cluster.servers}/{topic}{options}"


def consumed(cluster: KafkaCluster, topic: str = "found") -> list[tuple[str, dict[str, Any]]]:
    """Keys and records of a topic; those of one key in order."""
    settings = {"bootstrap.servers": cluster.servers, "group.id": "test"}
    consumer = Consumer(settings | {"enable.partition.eof": "true"})
    found: list[tuple[str, dict[str, Any]]] = []
    try:
        partitions = consumer.list_topics(topic, timeout=PATIENT_SECONDS).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        open_ends = set(partitions)
        while open_ends:
            message = consumer.poll(PATIENT_SECONDS)
            assert message is not None, "the cluster says nothing"
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                open_ends.discard(message.partition())
            else:
                found.append((message.key().decode(), json.loads(message.value())))
    finally:
        consumer.close()
    return found


def test_every_frame_is_in_the_topic_and_those_of_one_source_in_order(
    kafka_cluster: KafkaCluster,
) -> None:
    with opened(url(kafka_cluster)) as front, opened(url(kafka_cluster), "rear") as rear:
        for index in range(200):
            front.write(result(index, "front"))
            rear.write(result(index, "rear"))
    found = consumed(kafka_cluster)
    for source, sink in (("front", front), ("rear", rear)):
        assert [entry["frame"] for key, entry in found if key == source] == list(range(200))
        report = sink.report()
        assert (report["sent"], report["dropped"], report["state"]) == (200, {}, "CLOSED")
    assert {entry["schema"] for _, entry in found} == {"boxstream.detections/1"}


def test_a_topic_can_be_named_for_its_source(kafka_cluster: KafkaCluster) -> None:
    address = url(kafka_cluster, "found-{source}")
    with opened(address, "front door") as sink:
        sink.write(result(3, "front door"))
    ((key, entry),) = consumed(kafka_cluster, "found-front_door")
    assert (key, entry["frame"]) == ("front door", 3)


def test_a_cluster_that_dies_costs_only_what_is_counted(
    kafka_cluster: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(url(kafka_cluster, options="?buffer=40"), patience=HASTY) as sink:
        write_many(sink, 20)
        until(lambda: sink.report()["sent"] == 20)
        kafka_cluster.kill()
        assert write_many(sink, 300, start=20) < 5
        until(lambda: sink.report()["state"] == "BACKOFF")
        report = sink.report()
        assert adds_up(report) and report["sent"] == 20
        assert sum(report["dropped"].values()) >= 200
    report = sink.report()
    assert adds_up(report) and (report["sent"], report["waiting"]) == (20, 0)
    assert sum(report["dropped"].values()) == 300
    warnings = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert 1 <= len(warnings) <= 4


def test_a_cluster_that_says_nothing_for_a_while_gets_the_rest_later(
    kafka_cluster: KafkaCluster,
) -> None:
    with opened(url(kafka_cluster), patience=HASTY) as sink:
        write_many(sink, 20)
        until(lambda: sink.report()["sent"] == 20)
        kafka_cluster.freeze()
        assert write_many(sink, 100, start=20) < 5
        until(lambda: sink.report()["state"] == "BACKOFF")
        assert adds_up(sink.report())
        kafka_cluster.thaw()
        until(lambda: sink.report()["waiting"] == 0)
    assert sink.report()["sent"] == 120
    assert {entry["frame"] for _, entry in consumed(kafka_cluster)} == set(range(120))


def test_a_cluster_that_nobody_answers_for_is_tried_again_and_again() -> None:
    address = f"kafka://127.0.0.1:{free_port()}/found?buffer=10"
    with opened(address, patience=HASTY) as sink:
        assert write_many(sink, 50) < 5
        until(lambda: sink.report()["state"] == "BACKOFF")
        assert adds_up(sink.report())
    assert sink.report()["dropped"] == {"broker_down": 40, "unsent_at_end": 10}


def test_a_record_too_large_is_refused_and_the_next_one_is_not(
    kafka_cluster: KafkaCluster,
) -> None:
    with opened(url(kafka_cluster, options="?message.max.bytes=1200")) as sink:
        sink.write(result(0, class_ids=(2,) * 50))
        sink.write(result(1))
        until(lambda: sink.report()["sent"] == 1)
    assert sink.report()["dropped"] == {"refused": 1}
    assert [entry["frame"] for _, entry in consumed(kafka_cluster)] == [1]


@pytest.mark.parametrize(
    "options",
    [
        "?no.such.option=s3cret",
        "?sasl.mechanism=s3cret",
        "?acks=s3cret",
        "?ssl.ca.location=s3cret&security.protocol=SSL",
    ],
)
def test_an_option_that_librdkafka_does_not_know_is_named_and_its_value_is_not(
    options: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(f"kafka://cam:pa55@127.0.0.1:9092/found{options}")
    assert options[1:].partition("=")[0] in str(caught.value)
    assert "s3cret" not in str(caught.value) and "pa55" not in str(caught.value)


def test_a_certificate_that_is_missing_while_it_is_renewed_is_no_end(
    certificates: Path, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.pem"
    shutil.copy(certificates / "ca.pem", authority)
    options = f"?security.protocol=SSL&ssl.ca.location={authority}"
    address = f"kafka://cam:pa55@127.0.0.1:{free_port()}/found{options}"
    sink = opened(address, patience=HASTY)
    authority.unlink()
    with sink:
        sink.write(result(0))
        until(lambda: "ssl.ca.location" in (sink.report()["trouble"] or ""))
        until(lambda: sink.report()["state"] == "BACKOFF")
        shutil.copy(certificates / "ca.pem", authority)
        until(lambda: "ssl.ca.location" not in (sink.report()["trouble"] or "ssl.ca.location"))
        sink.write(result(1))
        until(lambda: sink.report()["state"] == "BACKOFF")
        assert "pa55" not in str(sink.report())


def test_a_topic_of_impossible_characters_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cannot be a Kafka topic"):
        opened("kafka://127.0.0.1:9092/a/b")


def test_login_failures_are_told_from_outages() -> None:
    for code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        assert isinstance(kafka.trouble_of(KafkaError(code)), BrokerRefuses)
    outage = kafka.trouble_of(KafkaError(KafkaError._TRANSPORT))
    assert isinstance(outage, BrokerTrouble) and not isinstance(outage, BrokerRefuses)


def producers() -> set[int]:
    # Not isinstance, which asks objects that pretend.
    return {id(thing) for thing in gc.get_objects() if type(thing) is Producer}


def test_a_producer_goes_with_its_connection_and_is_not_left_to_the_collector(
    kafka_cluster: KafkaCluster,
) -> None:
    nobody = kafka.KafkaServer.at(Address.parse(f"kafka://127.0.0.1:{free_port()}/found"), HASTY)
    cluster = kafka.KafkaServer.at(Address.parse(url(kafka_cluster)), HASTY)
    with without_collector():
        before = producers()
        with pytest.raises(BrokerTrouble):
            nobody.connect()
        assert producers() <= before
        connection = cluster.connect()
        assert producers() - before
        connection.close()
        assert producers() <= before
