"""What systemd, Kubernetes and Prometheus ask."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.bookkeeping.metrics import SinkStats, SourceStats
from pipeline.governor import ladder
from tests.serve.line import running


def samples(served) -> dict[tuple[str, ...], float]:
    """Every sample: its name and its labels' values (the source's first) -> its value."""
    answer = served.client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, *in_order(sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


def in_order(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels, key=lambda name: (name != "source", name))]


def test_a_process_that_answers_is_live_even_without_engine_and_sources(serve):
    served = serve()
    served.control.loaded = False
    assert served.client.get("/live").status == 200


@pytest.mark.parametrize(
    ("loaded", "state", "ready", "reason"),
    [
        (True, "RUNNING", True, None),
        (False, "RUNNING", False, "the engine is being loaded"),
        (True, "BACKOFF", False, "source 'front' is BACKOFF"),
        (True, "STALLED", False, "source 'front' is STALLED"),
        (True, None, False, "there is no source"),
    ],
)
def test_ready_means_that_results_come_out(serve, loaded, state, ready, reason):
    served = serve()
    served.control.loaded = loaded
    if state:
        served.control.stats["front"] = SourceStats("front", state=state)
    answer = served.client.get("/ready")
    assert answer.status == (200 if ready else 503)
    assert answer.json == {"ready": ready, "reasons": [] if reason is None else [reason]}


def test_an_engine_that_does_not_answer_makes_nothing_ready_until_it_does(serve):
    served = serve("front")
    served.control.silent_seconds = 9.4
    assert served.client.get("/ready").status == 200
    served.control.silent_seconds = 12.4
    answer = served.client.get("/ready")
    assert answer.status == 503
    assert answer.json["reasons"] == ["the engine has not answered for 12 s"]
    assert samples(served)["boxstream_engine_silent_seconds",] == 12.4
    served.control.silent_seconds = 0.0
    assert served.client.get("/ready").status == 200


def test_one_running_source_among_dead_ones_is_enough(serve):
    served = serve("alive")
    served.control.stats["dead"] = SourceStats("dead", state="BACKOFF")
    assert served.client.get("/ready").status == 200


def test_the_metrics_are_the_counters(serve):
    served = serve("front")
    stats = served.control.stats["front"]
    stats.frames_decoded, stats.frames_inferred = 100, 90
    stats.frames_dropped.update(stale=4, queue_full=5)
    stats.failures["refused"] = 3
    stats.connections = 3
    found = samples(served)
    assert found["boxstream_frames_decoded_total", "front"] == 100
    assert found["boxstream_frames_inferred_total", "front"] == 90
    dropped = {key[1:]: n for key, n in found.items() if key[0] == "boxstream_frames_dropped_total"}
    assert {frozenset(labels): n for labels, n in dropped.items()} == {
        frozenset({"front", "stale"}): 4,
        frozenset({"front", "queue_full"}): 5,
    }
    assert found["boxstream_frames_in_flight", "front"] == 1
    assert found["boxstream_source_reconnects_total", "front"] == 2
    assert found["boxstream_engine_calls_total",] == 10
    assert found["boxstream_engine_busy_seconds_total",] == 1.5
    assert found["boxstream_queue_depth", "infer"] == 2
    assert found["boxstream_readers_hanging",] == 3
    assert found["boxstream_source_fps", "front"] == pytest.approx(25, rel=0.5)
    assert any(key[0] == "process_resident_memory_bytes" for key in found)


def test_the_state_is_one_hot(serve):
    served = serve("front")
    for state in ("CONNECTING", "RUNNING", "BACKOFF", "PAUSED"):
        served.control.stats["front"].changed(state)
        hot = {
            key[1:]: value
            for key, value in samples(served).items()
            if key[0] == "boxstream_source_state"
        }
        assert sum(hot.values()) == 1
        assert [labels for labels, value in hot.items() if value] == [("front", state)]


def test_a_dead_source_leaves_no_stale_rate_and_a_removed_one_nothing(serve):
    served = serve("front")
    assert ("boxstream_source_fps", "front") in samples(served)
    served.control.stats["front"].changed("BACKOFF", "stalled")
    dead = samples(served)
    assert ("boxstream_source_fps", "front") not in dead
    assert ("boxstream_source_offered_fps", "front") not in dead
    served.control.remove("front")
    assert not [key for key in samples(served) if "front" in key]


def test_the_way_from_the_camera_is_told_where_the_camera_tells_it(serve):
    served = serve("front", "back")
    for seconds in (0.05, 0.07, 0.09):
        served.control.stats["front"].came_after(seconds)
    for seconds in (-3.0, 7200.0):
        served.control.stats["back"].came_after(seconds)
    found = samples(served)
    assert found["boxstream_transit_seconds_count", "front"] == 3
    assert ("boxstream_transit_seconds_count", "back") not in found
    front, back = served.client.get("/api/sources").json
    assert front["transit_ms"]["p50"] == pytest.approx(70, rel=0.03)
    assert back["transit_ms"] is None
    assert back["anomalies"] == {"camera_clock_wrong": 2}


def test_the_latency_histogram_agrees_with_the_latencies(serve):
    served = serve("front")
    latencies = [0.001 * (1 + n) for n in range(400)]
    for seconds in latencies:
        served.control.stats["front"].latency.add(seconds)
    found = samples(served)
    assert found["boxstream_latency_seconds_count", "front"] == 400
    assert found["boxstream_latency_seconds_sum", "front"] == pytest.approx(sum(latencies))
    for bound in (0.01, 0.05, 0.1, 0.25):
        counted = found["boxstream_latency_seconds_bucket", "front", str(bound)]
        low, high = (sum(s < bound * slack for s in latencies) for slack in (0.97, 1.03))
        assert low <= counted <= high


def test_the_latency_budget_and_what_is_given_up_for_it_are_told(serve):
    served = serve("front")
    assert not [key for key in samples(served) if "budget" in key[0]]
    assert served.client.get("/api/state").json["latency_budget"] is None
    half = {"budget_ms": 200.0, "kept": 0.9, "given_up": "half of the frame rate"}
    served.control.budget = half | {"seconds_given_up": {"half of the frame rate": 3.0}}
    found = samples(served)
    assert found["boxstream_latency_budget_seconds",] == 0.2
    assert found["boxstream_latency_budget_kept_ratio",] == 0.9
    given_up = {key[1]: n for key, n in found.items() if key[0].endswith("_given_up")}
    assert given_up["nothing"] == 0
    assert [what for what, n in given_up.items() if n] == ["half of the frame rate"]
    smaller = ladder([(224, 416)])[-1].words
    served.control.budget = half | {"given_up": smaller, "seconds_given_up": {smaller: 1.0}}
    given_up = {key[1]: n for key, n in samples(served).items() if key[0].endswith("_given_up")}
    assert [what for what, n in given_up.items() if n] == [smaller]
    assert served.client.get("/api/state").json["latency_budget"] == served.control.budget


def test_what_each_output_took_and_lost_is_told_and_whether_it_has_failed(serve):
    served = serve("front")
    served.control.outputs = [
        SinkStats("front", "out/front.mp4", 40, {}, "the disk is full"),
        SinkStats("front", "rtsp://host/live", 30, {"queue_full": 2, "unreachable": 8}, None),
        SinkStats("front", "null:", 50, {}, None),
        SinkStats("front", "null:", 50, {}, None),
    ]
    found = {key[0].removeprefix("boxstream_sink_"): {} for key in samples(served)}
    for key, value in samples(served).items():
        found[key[0].removeprefix("boxstream_sink_")][key[2:]] = value
    assert found["frames_total"] == {
        ("out/front.mp4",): 40,
        ("rtsp://host/live",): 30,
        ("null:",): 50,
    }
    assert {frozenset(labels): n for labels, n in found["frames_dropped_total"].items()} == {
        frozenset({"rtsp://host/live", "queue_full"}): 2,
        frozenset({"rtsp://host/live", "unreachable"}): 8,
    }
    assert [labels for labels, n in found["failed"].items() if n] == [("out/front.mp4",)]
    failed, dropping, *_ = served.client.get("/api/state").json["sinks"]
    assert (failed["source"], failed["error"]) == ("front", "the disk is full")
    assert dropping["frames_dropped"] == {"queue_full": 2, "unreachable": 8}


def test_no_url_and_no_odd_name_breaks_the_metrics(serve):
    served = serve()
    odd = 'a "quoted"\nname \\ with ünïcode'
    served.control.stats[odd] = running(odd)
    served.client.ask("POST", "/api/sources", {"url": "rtsp://u:hunter22@cam/1", "name": "x"})
    text = served.client.get("/metrics").body.decode()
    assert "hunter22" not in text
    assert "rtsp" not in text
    assert ("boxstream_frames_decoded_total", odd) in samples(served)
