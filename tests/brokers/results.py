"""Results to tell of, sinks to tell them, and what holds of every sink at any moment."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np

from pipeline.frame import Detections, Frame, Result
from pipeline.sinks import SinkTarget
from pipeline.sinks.brokers import open_broker_sink
from pipeline.sinks.brokers.contract import Patience
from pipeline.sinks.brokers.sink import BrokerSink

LABELS = ("person", "bicycle", "car", "traffic light")
QUICK = Patience(0.05, 0.3, stable=0.0, connect=10.0, answer=10.0, flush=20.0)
HASTY = replace(QUICK, connect=1.0, answer=1.0, flush=1.0)  # where a server is to be given up


def result(index: int, source: str = "front", class_ids: tuple[int, ...] = (2,)) -> Result:
    """A frame that arrived just now, in which these classes were found."""
    picture = av.VideoFrame(64, 48, "yuv420p")
    frame = Frame(picture, source, index, index, Fraction(1, 25), time.monotonic())
    count = len(class_ids)
    boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (count, 1))
    scores = np.full(count, 0.5, np.float32)
    return Result(frame, Detections(boxes, scores, np.array(class_ids, np.int64)))


def opened(url: str, source: str = "front", patience: Patience = QUICK) -> BrokerSink:
    """A sink for the results of `source`."""
    return open_broker_sink(url, SinkTarget(source, LABELS, live=True), patience)


def write_many(sink: BrokerSink, count: int, start: int = 0) -> float:
    """Write results; return how long the slowest call took."""
    slowest = 0.0
    for index in range(start, start + count):
        found = result(index)
        began = time.perf_counter()
        sink.write(found)
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


def adds_up(report: dict[str, Any]) -> bool:
    """Whether every record that was written has exactly one fate."""
    fates = report["sent"] + sum(report["dropped"].values()) + report["waiting"]
    return bool(report["written"] == fates)
