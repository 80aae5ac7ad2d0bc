"""What is given up for a latency budget, and when it is taken back; on a clock of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.governor import CALM_SECONDS, LADDER, Governor
from pipeline.sources.live.decoder import DecodeEffort

SMALLER = ("224x416", "192x352")


class Line:
    """A line whose latency is known: a source of so many fps, and so much work for each frame.

    What it is given to do beyond one second's work a second piles up as latency.
    """

    def __init__(
        self,
        budget_ms: float | None,
        fps: float = 25.0,
        smaller_hw: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.now, self.fps, self.efforts = 0.0, fps, list[DecodeEffort]()
        self.offered, self._due = fps, 0.0
        self.stats = SourceStats("camera", live=True)
        self.governor = Governor(budget_ms, lambda: [self.stats], lambda: self.now, smaller_hw)
        self.governor.steer(self.limit, self.efforts.append)

    def limit(self, fps: float | None) -> None:
        self.fps = self.offered if fps is None else fps

    def run(self, seconds: float, latency_ms_at: dict[float, float]) -> None:
        """`latency_ms_at`: from which frame rate on it takes how long."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.2
            reached = [ms for fps, ms in latency_ms_at.items() if self.fps >= fps]
            self._due += self.fps / 5
            while self._due >= 1:
                self._due -= 1
                self.stats.frames_inferred += 1
                self.stats.latency.add(max(reached) / 1e3)
            self.governor.update()


def test_a_budget_that_is_kept_costs_nothing():
    line = Line(budget_ms=200)
    line.run(60, {0: 50})
    assert line.fps == 25.0
    assert line.governor.report() == {
        "budget_ms": 200,
        "kept": 1.0,
        "given_up": "nothing",
        "seconds_given_up": {},
    }


def test_a_camera_that_came_back_under_its_name_is_measured_from_nothing():
    line = Line(budget_ms=200)
    line.run(60, {0: 50})
    line.stats = SourceStats("camera", live=True)
    line.run(10, {0: 400})
    assert line.governor.report()["kept"] < 1 and line.fps < 25


def test_frame_rate_is_given_up_first_and_only_as_much_as_is_needed():
    line = Line(budget_ms=200)
    line.run(30, {0: 150, 13: 400})
    assert line.fps == pytest.approx(12.5, abs=1)
    assert line.governor.given_up.words == "half of the frame rate"
    assert set(line.efforts) == {DecodeEffort.FULL}
    assert 0.5 < line.governor.report()["kept"] < 1


def test_decoding_effort_is_given_up_when_frame_rate_is_not_enough():
    line = Line(budget_ms=200)
    line.run(60, {0: 900})
    assert line.governor.given_up is LADDER[-1]
    assert line.efforts[-1] == DecodeEffort.REFERENCES
    assert line.governor.report()["kept"] == 0


def test_everything_is_taken_back_step_by_step_when_the_load_falls():
    line = Line(budget_ms=200)
    line.run(20, {0: 900})
    line.run(len(LADDER) * (CALM_SECONDS[0] + 4), {0: 30})
    assert line.governor.given_up is LADDER[0]
    assert line.fps == 25.0
    assert line.efforts[-1] == DecodeEffort.FULL
    assert sum(line.governor.report()["seconds_given_up"].values()) > 20


class LineOfSizes(Line):
    """Its latency is what the engine takes for an image of the size that is asked for."""

    def run_engine(self, seconds: float, ms_at: dict[tuple[int, int] | None, float]) -> list[str]:
        """What is given up meanwhile, in order."""
        given_up = list[str]()
        end = self.now + seconds
        while self.now < end:
            self.run(0.2, {0: ms_at[self.governor.input_hw()]})
            if given_up[-1:] != [self.governor.given_up.words]:
                given_up.append(self.governor.given_up.words)
        return given_up


def test_a_smaller_input_is_given_up_last_and_taken_back_first():
    line = LineOfSizes(200, smaller_hw=[(224, 416), (192, 352)])
    down = line.run_engine(120, {None: 500, (224, 416): 300, (192, 352): 150})
    small, smallest = (f"{LADDER[-1].words}, and an input larger than {s}" for s in SMALLER)
    assert down == [*(step.words for step in LADDER), small, smallest]
    assert line.governor.input_hw() == (192, 352)
    assert line.efforts[-1] == DecodeEffort.REFERENCES
    assert line.fps == pytest.approx(25 / 8, abs=0.5)
    back = line.run_engine(400, {None: 50, (224, 416): 30, (192, 352): 20})
    assert back == list(reversed(down))
    assert line.governor.input_hw() is None
    told = line.governor.report()["seconds_given_up"]
    assert told[small] > 2 and told[smallest] > 10


def test_no_smaller_input_is_chosen_than_is_needed():
    line = LineOfSizes(200, smaller_hw=[(224, 416), (192, 352)])
    line.run_engine(200, {None: 500, (224, 416): 150, (192, 352): 90})
    assert line.governor.input_hw() == (224, 416)
    assert line.governor.given_up.words.endswith("larger than 224x416")


@pytest.mark.parametrize("fps", [10, 5, 2])
def test_everything_is_taken_back_from_slow_cameras_too(fps):
    line = Line(budget_ms=200, fps=fps)
    line.run(300, {0: 900})
    assert line.governor.given_up is LADDER[-1]
    line.run(600, {0: 30})
    assert line.governor.given_up is LADDER[0]
    assert line.fps == fps


def test_an_outage_does_not_make_a_camera_look_slow():
    line = Line(budget_ms=200)
    line.run(2.1, {0: 50})
    line.run(0.2, {0: 50})  # too little to judge by, and then nothing comes for a minute
    for _ in range(300):
        line.now += 0.2
        line.governor.update()
    line.run(5, {0: 900})
    assert line.governor.given_up is not LADDER[0]
    assert line.fps > 25 * LADDER[-1].rate


def test_what_had_to_be_given_up_again_is_left_alone_for_longer_each_time():
    line = Line(budget_ms=200)
    changes, before = list[float](), line.fps
    for _ in range(2000):
        line.run(0.2, {0: 50, 20: 400})  # there is room at 19 fps, but not at 25
        if line.fps != before:
            changes.append(line.now)
            before = line.fps
    taken_back = changes[1::2]
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(taken_back)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= CALM_SECONDS[1]
    assert line.governor.report()["kept"] > 0.9


def test_what_is_reported_while_it_runs_changes_nothing():
    line = Line(budget_ms=200)
    line.run(10, {0: 900})
    before = line.governor.report()
    line.now += 7.0
    for _ in range(2):
        report = line.governor.report()
        assert report["given_up"] == before["given_up"] != "nothing"
        spent, earlier = (sum(r["seconds_given_up"].values()) for r in (report, before))
        assert spent == pytest.approx(earlier + 7.0, abs=0.3)


def test_without_frames_nothing_is_judged():
    line = Line(budget_ms=200)
    line.fps = 0.0
    line.run(60, {0: 900})
    assert line.governor.report()["kept"] is None


def test_recordings_have_no_latency_to_keep():
    line = Line(budget_ms=200)
    line.stats.live = False
    line.run(60, {0: 900})
    assert line.governor.report()["given_up"] == "nothing"


def test_without_a_budget_nothing_is_given_up_nor_promised():
    line = Line(budget_ms=None)
    line.run(60, {0: 9000})
    assert line.governor.given_up is LADDER[0]
    assert line.governor.report() is None
