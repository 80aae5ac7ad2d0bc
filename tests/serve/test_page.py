"""The page in a real browser: what somebody sees who opens it."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium", reason="the extra 'test' is not installed")

from selenium.webdriver.common.by import By

from pipeline.bookkeeping.metrics import SinkStats
from tests.serve.browser import (
    NOTES,
    NOTICE,
    OLD,
    PIXELS,
    TILE,
    WORD,
    complaints,
    hosts_asked,
    phone,
    scheme,
    wait_until,
)
from tests.serve.line import result
from tests.serve.served import playing
from tests.waiting import until


def test_the_pictures_move_and_nothing_complains_or_asks_another_host(serve, browser):
    served = serve("front", "back")
    with playing(served, "front", "back"):
        browser.get(served.page.url)
        for name in ("front", "back"):
            first = wait_until(browser, PIXELS, name)
            wait_until(browser, f"{PIXELS} !== arguments[1]", name, first)
            wait_until(browser, f"{WORD} === 'live' && !{OLD}", name)
        wait_until(browser, "document.getElementById('summary').textContent.startsWith('2 of 2')")
        wait_until(browser, "document.getElementById('seen').rows.length === 2")
        assert complaints(browser) == []
        assert hosts_asked(browser) == {f"127.0.0.1:{served.client.port}"}


def test_sixteen_cameras_all_move(serve, browser):
    """A browser opens six connections to a server; a stream for each would stop at the sixth."""
    names = [f"camera-{number:02}" for number in range(16)]
    served = serve(*names)
    with playing(served, *names):
        browser.get(served.page.url)
        first = {name: wait_until(browser, PIXELS, name) for name in names}
        for name in names:
            wait_until(browser, f"{PIXELS} !== arguments[1]", name, first[name])


def test_a_killed_camera_turns_to_reconnecting_and_back(serve, browser):
    served = serve("front", "back")
    stats = served.control.stats["front"]
    with playing(served, "back"):
        with playing(served, "front"):
            browser.get(served.page.url)
            wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")
        stats.changed("BACKOFF", "refused", "connection refused")
        wait_until(browser, f"{WORD} === 'reconnecting' && {OLD}", "front")
        text = str(wait_until(browser, NOTICE, "front"))
        assert "Reconnecting" in text
        assert "refused" in text
        wait_until(browser, f"/last picture ([2-9]|[1-9]\\d+) s ago/.test({NOTICE})", "front")
        wait_until(browser, f"{WORD} === 'live' && !{OLD}", "back")
        fps = f"return {TILE}.querySelector('.fps figcaption').innerText.split(/\\s+/).join(' ')"
        assert browser.execute_script(fps, "front") == "fps \u2013", (
            "nothing that would be out of date"
        )
        stats.changed("CONNECTING")
        wait_until(browser, f"{WORD} === 'reconnecting'", "front")
        stats.changed("RUNNING")
        with playing(served, "front"):
            wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")
    assert complaints(browser) == []


def test_a_source_that_says_it_runs_but_shows_nothing_is_not_shown_as_live(serve, browser):
    served = serve("front")
    served.sinks["front"].write(result(size_wh=(320, 180)))
    browser.get(served.page.url)
    wait_until(browser, PIXELS, "front")
    wait_until(browser, f"{OLD} && /last picture \\d+ s ago/.test({NOTICE})", "front")


def test_a_source_that_died_before_the_page_was_opened_shows_its_last_picture(serve, browser):
    served = serve("front")
    served.sinks["front"].write(result(size_wh=(320, 180), age=75))
    served.control.stats["front"].changed("STALLED", "stalled")
    browser.get(served.page.url)
    wait_until(browser, PIXELS, "front")
    wait_until(browser, f"{WORD} === 'stalled' && /last picture/.test({NOTICE})", "front")


def test_the_page_says_when_the_server_is_gone(serve, browser):
    from pipeline.serve import page
    from tests.serve.line import FakeControl

    with page("http://127.0.0.1:0", FakeControl("front")) as shown:
        browser.get(shown.url)
        wait_until(browser, f"{WORD} === 'live'", "front")
    wait_until(browser, "document.getElementById('link').dataset.tone === 'bad'")
    assert "No connection" in str(wait_until(browser, NOTICE, "front"))


def test_what_is_given_up_for_the_latency_budget_is_said_while_it_is(serve, browser):
    served = serve("front")
    budget = {"budget_ms": 200.0, "kept": 1.0, "given_up": "nothing", "seconds_given_up": {}}
    served.control.budget = budget
    browser.get(served.page.url)
    wait_until(browser, "document.getElementById('machine').innerText.includes('200 ms')")
    assert browser.execute_script(f"return {NOTES}") == ""
    served.control.budget = budget | {"given_up": "half of the frame rate"}
    wait_until(browser, f"{NOTES} === 'Half of the frame rate given up to keep 200 ms'")
    served.control.budget = budget
    wait_until(browser, f"{NOTES} === ''")
    assert complaints(browser) == []


def test_an_engine_that_does_not_answer_is_said(serve, browser):
    served = serve("front")
    browser.get(served.page.url)
    wait_until(browser, WORD, "front")
    assert browser.execute_script(f"return {NOTES}") == ""
    served.control.silent_seconds = 12.4
    wait_until(browser, f"{NOTES} === 'The engine has not answered for 12 s'")
    served.control.silent_seconds = 0.0
    wait_until(browser, f"{NOTES} === ''")


def test_an_output_that_has_failed_or_loses_frames_is_named(serve, browser):
    served = serve("front")
    lossy = SinkStats("front", "rtsp://host/live", 30, {"queue_full": 2}, None)
    served.control.outputs = [lossy]
    browser.get(served.page.url)
    wait_until(browser, WORD, "front")
    assert browser.execute_script(f"return {NOTES}") == "", "that was long ago"
    full = SinkStats("front", "out/front.mp4", 40, {}, "the disk is full")
    served.control.outputs = [lossy, full]
    wait_until(browser, f"{NOTES} === 'out/front.mp4 has failed: the disk is full'")
    lossy.frames_dropped["queue_full"] = 3
    wait_until(browser, f"{NOTES}.includes('rtsp://host/live loses frames: queue full 3')")
    wait_until(browser, f"!{NOTES}.includes('rtsp')")
    assert complaints(browser) == []


def test_a_camera_is_added_paused_and_removed_by_hand(serve, browser):
    served = serve("front")
    browser.get(served.page.url)
    wait_until(browser, WORD, "front")
    browser.find_element(By.ID, "open-add").click()
    browser.find_element(By.ID, "add-url").send_keys("/home/me/private.mp4")
    browser.find_element(By.CSS_SELECTOR, "#add-form [type=submit]").click()
    wait_until(browser, "document.getElementById('add-error').textContent.includes('camera')")
    browser.find_element(By.ID, "add-url").clear()
    browser.find_element(By.ID, "add-url").send_keys("rtsp://user:pass@camera/1")
    browser.find_element(By.ID, "add-name").send_keys("yard")
    browser.find_element(By.CSS_SELECTOR, "#add-form [type=submit]").click()
    wait_until(browser, f"{WORD} === 'connecting'", "yard")
    assert served.control.urls == ["rtsp://user:pass@camera/1"]
    assert "pass" not in browser.page_source.replace("user:password@", "")

    browser.execute_script(f"{TILE}.querySelector('.pause').click()", "yard")
    wait_until(browser, f"{WORD} === 'paused'", "yard")
    browser.execute_script(f"{TILE}.querySelector('.remove').click()", "yard")
    browser.find_element(By.CSS_SELECTOR, "#remove [value=yes]").click()
    wait_until(browser, f"!{TILE}", "yard")
    assert list(served.control.stats) == ["front"]


def test_the_slider_sets_the_threshold(serve, browser):
    served = serve("front")
    browser.get(served.page.url)
    wait_until(browser, "!document.getElementById('threshold').disabled")
    browser.execute_script(
        "const s = document.getElementById('threshold'); s.value = 0.3;"
        "s.dispatchEvent(new Event('input'))"
    )
    wait_until(browser, "document.getElementById('threshold-value').textContent === '0.30'")
    eventually_equal(lambda: served.control.threshold, 0.3)
    browser.find_element(By.ID, "threshold-reset").click()
    eventually_equal(lambda: served.control.threshold, None)


def eventually_equal(value, wanted) -> None:
    until(lambda: value() == wanted, what=f"{value()} becomes {wanted}")


@pytest.mark.parametrize("preference", ["light", "dark"])
def test_the_page_fits_a_phone(serve, browser, preference):
    names = ("front", "a-camera-with-quite-a-long-name-that-must-break-somewhere")
    served = serve(*names)
    phone(browser)
    scheme(browser, preference)
    with playing(served, *names):
        browser.get(served.page.url)
        wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390
        small = browser.execute_script(
            "return [...document.querySelectorAll('button, a.tool')]"
            ".map((b) => [b.className, b.getBoundingClientRect()])"
            ".filter(([, r]) => r.width && (r.width < 34 || r.height < 34)).map(([c]) => c)"
        )
        assert small == []
        overlap = browser.execute_script(
            "const r = document.querySelector('.tile canvas').getBoundingClientRect();"
            "return [r.left >= 0, r.right <= innerWidth, r.width > 300]"
        )
        assert overlap == [True, True, True]


def test_everything_that_can_be_used_has_a_name(serve, browser):
    served = serve("front")
    browser.get(served.page.url)
    wait_until(browser, WORD, "front")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, a, input, select, canvas')].filter((e) =>"
        "!(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []


@pytest.mark.parametrize("preference", ["light", "dark"])
def test_words_stand_out_from_their_ground(serve, browser, preference):
    """4.5:1, as WCAG 2 asks for at level AA."""
    served = serve("front")
    scheme(browser, preference)
    browser.get(served.page.url)
    wait_until(browser, WORD, "front")
    style = browser.execute_script(
        "const s = getComputedStyle(document.documentElement);"
        "const out = {}; for (const n of ['ground','card','raised','ink','quiet','accent',"
        "'on-accent','bad']) out[n] = s.getPropertyValue('--' + n).trim(); return out;"
    )
    for word in ("ink", "quiet"):
        for ground in ("ground", "card", "raised"):
            assert contrast(style[word], style[ground]) >= 4.5, (word, ground)
    assert contrast(style["on-accent"], style["accent"]) >= 4.5
    assert contrast(style["bad"], style["card"]) >= 4.5


def contrast(one: str, other: str) -> float:
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_browser_keeps_the_token_after_one_visit(serve, browser):
    served = serve("front", url="http://0.0.0.0:0?token=correct-horse-battery")
    here = f"http://127.0.0.1:{served.client.port}/"
    with playing(served, "front"):
        browser.get(here)
        browser.find_element(By.ID, "token").send_keys("correct-horse-battery")
        browser.find_element(By.CSS_SELECTOR, "form button").click()
        wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")
        assert browser.current_url == here
        browser.get(here)
        wait_until(browser, f"{WORD} === 'live' && !{OLD}", "front")


def test_a_hidden_page_costs_nothing(serve, browser):
    served = serve("front")
    with playing(served, "front"):
        browser.get(served.page.url)
        wait_until(browser, PIXELS, "front")
        browser.switch_to.new_window("tab")
        try:
            until(lambda: served.page.board.viewers == 0, what="nobody watches")
        finally:
            browser.close()
            browser.switch_to.window(browser.window_handles[0])
        until(lambda: served.page.board.viewers == 1, what="somebody watches again")


def test_the_description_of_the_api_can_be_read(serve, browser):
    served = serve()
    browser.get(f"{served.page.url}docs")
    wait_until(browser, "document.querySelectorAll('.path').length > 8")
    assert complaints(browser) == []
    assert hosts_asked(browser) == {f"127.0.0.1:{served.client.port}"}


def test_a_snapshot_is_a_link_to_a_picture(serve, browser):
    served = serve("front")
    served.sinks["front"].write(result())
    browser.get(served.page.url)
    wait_until(browser, WORD, "front")
    link = browser.find_element(By.CSS_SELECTOR, ".snapshot")
    assert link.get_attribute("download") == "front.jpg"
    answer = served.client.get(link.get_attribute("href").split(str(served.client.port))[1])
    assert answer.body[:3] == b"\xff\xd8\xff"
