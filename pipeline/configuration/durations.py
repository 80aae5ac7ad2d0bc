"""Lengths of time and amounts of data, as people write them."""

from __future__ import annotations

import re

from pipeline.errors import ConfigError

_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = {"b": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for unit, base in (("", 1000), ("b", 1000), ("ib", 1024))
}


def parse_duration(text: str) -> float:
    """Seconds. A number wants a unit: "24" meant as hours would delete the recordings of a day.

    >>> parse_duration("90s"), parse_duration("10min"), parse_duration("24h"), parse_duration("7d")
    (90.0, 600.0, 86400.0, 604800.0)
    >>> parse_duration("1h30min"), parse_duration("2.5s")
    (5400.0, 2.5)

    Raises:
        ConfigError: It is not a length of time, or none at all.
    """
    seconds = None if _is_number(text) else _sum(text, _SECONDS)
    if not seconds:
        raise ConfigError(f"{text!r} is no length of time; write 90s, 10min, 1h30min, 24h or 7d")
    return seconds


def parse_size(text: str) -> int:
    """Bytes.

    >>> parse_size("500GB"), parse_size("64MiB"), parse_size("1000")
    (500000000000, 67108864, 1000)

    Raises:
        ConfigError: It is not an amount of data, or none at all.
    """
    size = round(_sum(text, _BYTES) or 0)
    if not size:
        raise ConfigError(f"{text!r} is no amount of data; write 800MB, 500GB or 2TB")
    return size


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,15}(\.\d{1,15})?", text.strip()) is not None


def _sum(text: str, units: dict[str, int]) -> float | None:
    """The sum of numbers with units, or one number without; None if it is anything else."""
    word = r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]+)\s*"
    text = text.strip().lower()
    if _is_number(text):
        return float(text)
    parts = re.findall(word, text)
    if not re.fullmatch(f"(?:{word})+", text) or not all(unit in units for _, unit in parts):
        return None
    return sum(float(number) * units[unit] for number, unit in parts)
