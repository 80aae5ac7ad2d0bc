"""Lengths of time and amounts of data, as people write them."""

from __future__ import annotations

import pytest

from pipeline.configuration.durations import parse_duration, parse_size
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    "text, seconds",
    [
        *(("10min", 600), ("24h", 86_400), ("90s", 90), ("1 h 30 min", 5400), (" 2D ", 172_800)),
        *(("0.5h", 1800), ("600s", 600), ("1w", 604_800), ("15m", 900)),
    ],
)
def test_a_length_of_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-5s", "0s", "5 parsecs", "1h-30min", "h", "1e3s", "inf", "9" * 40, "24", "2.5"],
)
def test_anything_else_is_an_error_that_shows_how(text: str) -> None:
    with pytest.raises(ConfigError, match="write 90s, 10min"):
        parse_duration(text)


def test_an_amount_of_data_is_read_as_people_write_it() -> None:
    assert parse_size("200 GB") == 200e9
    assert parse_size("1.5GiB") == 3 << 29
    for text in ("", "much", "5 hours", "0", "-1GB"):
        with pytest.raises(ConfigError, match="write 800MB"):
            parse_size(text)
