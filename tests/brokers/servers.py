"""Real servers on free ports of this machine, which can be killed, frozen and brought back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live.kit.ports import free_port
from tests.waiting import until

PATIENT_SECONDS = 40.0  # for what comes at once, on a machine that has too much to do


def program(name: str) -> str:
    """Path of an installed program; skips without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"the program {name} is not installed")
    return found


def _freeze(child: int) -> None:
    """Stop a process of ours, and wait until the last of its threads has stopped."""
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED)


class Server:
    """A server program."""

    def __init__(self, command: Sequence[str], log: Path, port: int) -> None:
        self.port, self.log = port, log
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._listens)

    def kill(self) -> None:
        """As a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As its administrator would."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it be there and say nothing."""
        assert self._process is not None
        _freeze(self._process.pid)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self.thaw()
            self._process.send_signal(number)
            self._process.wait(PATIENT_SECONDS)
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text(errors="replace")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def mosquitto(folder: Path, *lines: str) -> Server:
    """An MQTT broker; `lines` follow ``listener`` in its configuration."""
    executable, port = program("mosquitto"), free_port()
    text = [f"listener {port} 127.0.0.1", "log_type all", "max_queued_messages 0", *lines]
    if os.geteuid() == 0:
        text.append("user root")  # else it becomes somebody who cannot read our files
    if not any(line.startswith(("allow_anonymous", "password_file")) for line in lines):
        text.append("allow_anonymous true")
    config = folder / "mosquitto.conf"
    config.write_text("\n".join(text) + "\n")
    return Server([executable, "-c", str(config)], folder / "mosquitto.log", port)


def redis_server(folder: Path, *options: str, tls: bool = False) -> Server:
    """A Redis that forgets nothing it has confirmed, even if killed."""
    executable, port = program("redis-server"), free_port()
    command = [executable, "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    command += ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
    return Server([*command, *options], folder / "redis.log", port)


class KafkaCluster:
    """The mock cluster of librdkafka, in a process of its own."""

    PROGRAM = """
import sys
from confluent_kafka import Producer
producer = Producer({"test.mock.num.brokers": 3})
brokers = producer.list_topics(timeout=30).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
sys.stdin.read()
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.servers = self._process.stdout.readline().strip()
        assert self.servers, "the mock cluster did not start"

    def freeze(self) -> None:
        """Let it be there and say nothing."""
        _freeze(self._process.pid)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it for good."""
        self._process.kill()
        self._process.communicate()


def certificates(folder: Path) -> None:
    """``ca.pem``; ``server.pem`` for 127.0.0.1, ``client.pem`` for ``boxstream``; ``*.key``."""
    openssl = program("openssl")

    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    call("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, subject in (("server", "broker"), ("client", "boxstream")):
        call(
            "req",
            *curve,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={subject}",
        )
        call(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        )
