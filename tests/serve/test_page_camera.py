"""The page of a real line on a real camera: what somebody sees who pulls the camera's plug."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("selenium", reason="the extra 'test' is not installed")

from selenium.webdriver.remote.webdriver import WebDriver

from tests.live.kit.cameras import CameraServer, why_no_cameras
from tests.live.kit.line import Line
from tests.live.kit.ports import free_port
from tests.live.kit.reading import Painted, Unreadable, read_painted
from tests.pipeline.model_files import write_model
from tests.serve.browser import NOTICE, OLD, PIXELS, WORD, complaints, wait_until
from tests.waiting import until


def shown(browser: WebDriver, name: str) -> Painted | None:
    """The number and the time that the camera painted into what the tile shows now."""
    png = browser.execute_script(f"return {PIXELS}", name).partition(",")[2]
    if not png:
        return None
    pixels = np.frombuffer(base64.b64decode(png), np.uint8)
    try:
        return read_painted(cv2.imdecode(pixels, cv2.IMREAD_GRAYSCALE))
    except Unreadable:
        return None


def wait_moving(browser: WebDriver, name: str, painted_after: float) -> None:
    """Wait for three pictures one after the other that the camera painted after that moment."""
    numbers: list[int] = []

    def moved() -> bool:
        painted = shown(browser, name)
        if painted and painted.age_seconds < time.monotonic() - painted_after:
            numbers.extend([painted.number] if painted.number not in numbers else [])
        return len(numbers) >= 3

    until(moved, within=60, what=f"moving pictures of {name}")
    assert numbers == sorted(numbers)


@pytest.mark.timeout(240)
def test_a_camera_that_is_killed_turns_to_reconnecting_and_comes_back_by_itself(
    browser: WebDriver, tmp_path: Path
) -> None:
    missing = why_no_cameras()
    if missing:
        pytest.skip(missing)
    page = f"http://127.0.0.1:{free_port()}"
    model = write_model(tmp_path / "small.onnx")
    # No boxes over what is painted.
    settings = ["--set", "render.enabled=false"]
    with CameraServer() as server:
        url = server.add("front").url + "#name=front"
        with Line([url], tmp_path, model, out=[page], settings=settings) as line:
            line.wait_records(1)
            browser.get(page)
            wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")
            wait_moving(browser, "front", painted_after=0.0)

            server.kill()
            wait_until(browser, f"{WORD} === 'reconnecting' && {OLD}", "front")
            wait_until(
                browser,
                f"/^Reconnecting\\s.*refused.* · last picture \\d+ s ago$/s.test({NOTICE})",
                "front",
            )
            last = wait_until(browser, PIXELS, "front")

            reborn = time.monotonic()
            server.start()
            wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")
            wait_moving(browser, "front", painted_after=reborn)
            assert browser.execute_script(f"return {PIXELS}", "front") != last
            assert complaints(browser) == []
            assert line.process.poll() is None
