"""What a tile of the page tells besides its picture: the charts, the zones."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("selenium", reason="the extra 'test' is not installed")

from selenium.webdriver.common.by import By

from tests.serve.browser import TILE, complaints, wait_until
from tests.serve.line import repeatedly, result
from tests.serve.served import playing

CAPTION = (
    f"{TILE}?.querySelector('.' + arguments[1] + ' figcaption').innerText.split(/\\s+/).join(' ')"
)
LINE = f"{TILE}.querySelector('.' + arguments[1] + ' path.' + arguments[2]).getAttribute('d')"
BARS = f"{TILE}.querySelectorAll('.drops rect')"


class Rate:
    """Stands for a source's rate: as many frames a second as the test says."""

    def __init__(self, value: float) -> None:
        self.value = value

    def per_second(self, _now: float) -> float:
        return self.value


def heights(path: str) -> list[float]:
    """How far down each point of a line lies."""
    return [float(point.split()[1]) for point in path.replace("M", "L").split("L") if point]


def painted_share(browser, chart: str) -> float:
    """The share of a chart's pixels that are not its ground."""
    node = browser.find_element(By.CSS_SELECTOR, f".{chart} svg")
    pixels = cv2.imdecode(np.frombuffer(node.screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    return float((np.abs(pixels - ground).max(axis=2) > 8).mean())


def test_the_charts_are_drawn_and_say_what_the_source_says(serve, browser):
    served = serve("front")
    stats = served.control.stats["front"]
    stats.inferred_rate = rate = Rate(25.0)
    stats.frames_dropped.update(queue_full=40)
    with repeatedly(lambda n: served.sinks["front"].write(result(index=n, age=0.25)), 0.05):
        browser.get(served.page.url)
        wait_until(browser, f"{CAPTION} === 'fps 25.0 of 25.0 offered'", "front", "fps")
        wait_until(browser, f"{CAPTION} === 'drops 40 queue full 40'", "front", "drops")
        assert browser.execute_script(f"return {BARS}.length", "front") == 0, "dropped before"
        rate.value = 12.5
        stats.frames_dropped.update(queue_full=6, stale=3)
        wait_until(browser, f"{CAPTION} === 'fps 12.5 of 25.0 offered'", "front", "fps")
        wait_until(browser, f"{CAPTION} === 'drops 49 queue full 46 · stale 3'", "front", "drops")
        latency = wait_until(
            browser,
            f"/^latency \\d+ ms p95 \\d+ · p99 \\d+$/.exec({CAPTION})[0]",
            "front",
            "latency",
        )
        assert 240 <= int(str(latency).split()[1]) < 1000
        drawn = heights(str(wait_until(browser, LINE, "front", "fps", "one")))
        assert (min(drawn), drawn[-1]) == (5.0, 17.5), "12.5 lies half way below 25"
        bars = "const [a, b] = " + BARS + "; return [a, b].map((r) => +r.getAttribute('height'))"
        full, stale = browser.execute_script(bars, "front")
        assert full == pytest.approx(2 * stale), "6 and 3"
        for chart in ("fps", "latency", "drops"):
            assert painted_share(browser, chart) > 0.01, chart
    assert complaints(browser) == []


CHIPS = f"[...{TILE}?.querySelectorAll('.chips li') ?? []].map((chip) => chip.textContent.trim())"


def test_each_zone_has_a_chip_with_the_count_of_every_class(serve, browser):
    served = serve("front", "back")
    zones = {"crossing": {"person": 2, "bicycle": 0}, "yard": {"car": 3}, "lawn": {}}

    def write(number: int) -> None:
        one = result(index=number, size_wh=(320, 180), found=[(0, 0.91), (0, 0.8)])
        served.sinks["front"].write(replace(one, zones=zones))

    with repeatedly(write, 0.05), playing(served, "back"):
        browser.get(served.page.url)
        wanted = "car 2|in crossing: person 2, bicycle 0|in yard: car 3|in lawn: nothing"
        said = f"{CHIPS}.join('|')"
        wait_until(browser, f"{said} === '{wanted}'", "front")
        wait_until(browser, f"{said} === 'car 1'", "back")
        zones["crossing"] = {"person": 1, "bicycle": 4}
        wait_until(browser, f"{said}.includes('in crossing: person 1, bicycle 4')", "front")
    wait_until(browser, f"{CHIPS}.length === 0", "front")
    assert complaints(browser) == []
