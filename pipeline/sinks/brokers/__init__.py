"""Detections for systems that listen: MQTT, Redis streams and Kafka.

Every frame is one JSON record, the same for all brokers (and, from ``source`` on, the same as a
line of ``--out detections.jsonl`` without its masks and segments)::

    {
      "schema": "boxstream.detections/1",
      "time": "2026-01-31T12:00:00.040Z",   when the frame arrived, by this machine's clock, UTC
      "latency_ms": 62.1,                   from arrival until the record was made
      "source": "front",
      "frame": 1234,                        count of the source's frames, from 0
      "pts_seconds": 49.36,                 on the source's own clock
      "width": 1920, "height": 1080,
      "detections": [
        {"label": "car", "class_id": 2, "score": 0.91, "box": [x1, y1, x2, y2]}, ...
      ]
    }

Boxes are in pixels of the frame. ``class_shares`` (of the picture, by class) is there where a model
knows the class of every pixel, ``zones`` and ``file`` where the source has them.
Fields may be added under the same schema; a listener should pass over those it does not know.

Whatever a broker does, the line does not feel it: see `pipeline.sinks.brokers.courier`. The
modules, and the packages that the three brokers need, are imported when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.errors import SinkError
from pipeline.sinks.protocol import SinkTarget

if TYPE_CHECKING:
    from pipeline.sinks.brokers.address import Address
    from pipeline.sinks.brokers.contract import Patience
    from pipeline.sinks.brokers.sink import BrokerSink

__all__ = ["SCHEMES", "open_broker_sink"]

SCHEMES = {"mqtt", "mqtts", "redis", "rediss", "kafka"}


def open_broker_sink(url: str, target: SinkTarget, patience: Patience | None = None) -> BrokerSink:
    """The sink for a URL whose scheme is one of `SCHEMES`; it connects in its ``with`` block.

    Raises:
        ConfigError: The URL is not right.
        SinkError: A package is missing.
    """
    from pipeline.sinks.brokers.address import Address
    from pipeline.sinks.brokers.contract import Patience

    address = Address.parse(url)
    return _maker(address.scheme)(address, target, patience or Patience())


def _maker(scheme: str) -> Callable[[Address, SinkTarget, Patience], BrokerSink]:
    try:
        if scheme.startswith("mqtt"):
            from pipeline.sinks.brokers.mqtt import mqtt_sink

            return mqtt_sink
        if scheme.startswith("redis"):
            from pipeline.sinks.brokers.redis import redis_sink

            return redis_sink
        from pipeline.sinks.brokers.kafka import kafka_sink

        return kafka_sink
    except ModuleNotFoundError as error:
        raise SinkError(
            f"out: {scheme}:// needs the package {error.name}; pip install -e '.[brokers]'"
        ) from error
