"""Brokers at the end of a run: whatever they do, the line and its other outputs do not care."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_stream
from pipeline.sinks.brokers import contract
from pipeline.sinks.brokers.contract import Patience
from tests.brokers import servers
from tests.brokers.results import adds_up
from tests.brokers.servers import Server
from tests.live.kit.ports import free_port
from tests.pipeline.model_files import write_model

pytest.importorskip("paho.mqtt.client", reason="the extra 'brokers' is not installed")
redis = pytest.importorskip("redis", reason="the extra 'brokers' is not installed")

FRAMES = 25


def run(folder: Path, *outs: str, sources: int = 1) -> dict[str, Any]:
    """The report of a run over the synthetic street, whose exit code is 0."""
    street = "synthetic://street?size=320x192&fps=25&seconds=4&seed="
    small = str(write_model(folder / "small.onnx"))
    code = run_stream.main(
        [
            *(f"{street}{seed}" for seed in range(sources)),
            *("--model", small),
            *("--out", str(folder / "{source}.jsonl"), *outs),
            *("--report", str(folder / "report.json"), "--max-frames", str(FRAMES), "--quiet"),
        ]
    )
    assert code == 0
    return dict(json.loads((folder / "report.json").read_text()))


def told(report: dict[str, Any], scheme: str) -> list[dict[str, Any]]:
    return [entry for name, entry in report["sinks"].items() if name.startswith(scheme)]


def test_a_run_with_two_sources_tells_every_broker_of_every_frame(
    tmp_path: Path, mqtt_broker: Server, redis_broker: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is left at the end has two seconds to leave, which a busy machine may exceed.
    monkeypatch.setattr(contract, "Patience", lambda: Patience(flush=30.0))
    outs = (f"mqtt://127.0.0.1:{mqtt_broker.port}", f"redis://127.0.0.1:{redis_broker.port}/0/")
    report = run(tmp_path, *outs, sources=2)
    for scheme in ("mqtt", "redis"):
        for entry in told(report, scheme):
            lost = entry.get("frames_dropped", 0)  # on the way to the sink, on a slow machine
            assert entry["sent"] + lost == FRAMES and entry["dropped"] == {}
        assert len(told(report, scheme)) == 2
    with redis.Redis(port=redis_broker.port, decode_responses=True) as client:
        found = [json.loads(fields["record"]) for _, fields in client.xrange("boxstream")]
    for path in tmp_path.glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        same = [entry for entry in found if entry["source"] == lines[0]["source"]]
        assert len(lines) == FRAMES
        assert any(line["detections"] for line in lines)
        for entry in same:
            assert entry.items() >= lines[entry["frame"]].items()


@pytest.mark.parametrize("trouble", ["down", "frozen"])
def test_a_broker_in_trouble_costs_the_other_outputs_nothing(
    tmp_path: Path, start: Callable[[Server], Server], trouble: str
) -> None:
    brokers = [servers.mosquitto(tmp_path), servers.redis_server(tmp_path)]
    if trouble == "frozen":
        for broker in brokers:
            start(broker).freeze()
    mqtt, store = brokers
    outs = (f"mqtt://u:s3cret@127.0.0.1:{mqtt.port}", f"redis://:s3cret@127.0.0.1:{store.port}")
    report = run(tmp_path, *outs, f"kafka://127.0.0.1:{free_port()}/found")
    (lines,) = tmp_path.glob("*.jsonl")
    assert len(lines.read_text().splitlines()) == FRAMES
    entries = [entry for scheme in ("mqtt", "redis", "kafka") for entry in told(report, scheme)]
    assert len(entries) == 3
    for entry in entries:
        assert adds_up(entry) and entry["sent"] == 0 and entry["error"] is None
        assert entry["written"] + entry.get("frames_dropped", 0) == FRAMES
    assert "s3cret" not in json.dumps(report)
    for broker in brokers:
        if trouble == "frozen":
            broker.thaw()
