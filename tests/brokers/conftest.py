"""Servers for the tests of the brokers; all of them end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokers import servers
from tests.brokers.servers import KafkaCluster, Server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Server], Server]]:
    """``start(server)`` starts it, and sees to its end."""
    with ExitStack() as stack:

        def starting(server: Server) -> Server:
            stack.callback(server.kill)
            server.start()
            return server

        yield starting


@pytest.fixture
def mqtt_broker(tmp_path: Path, start: Callable[[Server], Server]) -> Server:
    """A broker that lets everybody in."""
    pytest.importorskip("paho.mqtt.client", reason="the extra 'brokers' is not installed")
    return start(servers.mosquitto(tmp_path))


@pytest.fixture
def redis_broker(tmp_path: Path, start: Callable[[Server], Server]) -> Server:
    """A Redis that lets everybody in."""
    pytest.importorskip("redis", reason="the extra 'brokers' is not installed")
    return start(servers.redis_server(tmp_path))


@pytest.fixture
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Three brokers that let everybody in."""
    pytest.importorskip("confluent_kafka", reason="the extra 'brokers' is not installed")
    cluster = KafkaCluster()
    yield cluster
    cluster.thaw()
    cluster.kill()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates of `servers.certificates`."""
    folder = tmp_path_factory.mktemp("certificates")
    servers.certificates(folder)
    return folder
