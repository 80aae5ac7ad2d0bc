"""Programs that watch cameras and say what they see, each result as a line of JSON.

``python -m tests.benchmarks.viewers PROGRAM --call-ms 100 URL...`` prints, for every result, when
it reached the end of the line (``at``, monotonic seconds) and what was painted in the picture.

The detector is the bundled model in OpenVINO, one picture a call, and every call is made to take
`call-ms`, so that all programs have the same detector and only what they do around it differs.

- ``boxstream``: `run_stream.stream` as a user gets it.
- ``opencv``: ``VideoCapture``, read, detect, and so on until a read fails.
- ``opencv-latest``: a thread reads and keeps the newest picture, and opens again after a failure.
- ``inference``: Roboflow's ``InferencePipeline`` with its defaults and this detector.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tests.benchmarks.material import REPOSITORY
from tests.live.kit.reading import Unreadable, read_painted

STREET = REPOSITORY / "models" / "zoo" / "street.onnx"
Grey = npt.NDArray[np.uint8]


class Telling:
    """Writes one line for a result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, source: int, grey: Callable[[], Grey]) -> None:
        """Say what is painted in the picture of the source with that number.

        grey: Makes it grey, for which the line is not to answer.
        """
        at = time.monotonic()
        picture = grey()
        line: dict[str, Any] = {"source": source, "at": at, "height": picture.shape[0]}
        try:
            painted = read_painted(picture)
            line |= {"number": painted.number, "age": painted.age_at(line["at"])}
        except Unreadable:
            line |= {"number": None, "age": None}
        with self._lock:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


class TellingSink:
    """The end of our line."""

    wants_picture = False
    may_drop = False
    capacity = 1

    def __init__(self, source: int, tell: Telling) -> None:
        self.name, self.frames = f"telling {source}", 0
        self._source, self._tell = source, tell

    def write(self, result: Any) -> None:
        """Say it."""
        self._tell(self._source, partial(result.frame.picture.to_ndarray, format="gray"))
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Nothing was written."""
        return {"path": self.name, "frames": self.frames, "bytes": None}

    def __enter__(self) -> TellingSink:
        return self

    def __exit__(self, *ended: object) -> None:
        pass  # there is nothing to finish


class TellingOutputs:
    """One such end for each source."""

    want_pictures = False

    def __init__(self, names: Sequence[str], tell: Telling) -> None:
        self._names, self._tell = list(names), tell

    def of(self, source: Any) -> list[TellingSink]:
        """The sinks of a source."""
        return [TellingSink(self._names.index(source.name), self._tell)]

    def may_stay_on_gpu(self, source: str) -> bool:
        return False

    def forget(self, name: str) -> None:
        """It has left."""


def watch_with_boxstream(urls: Sequence[str], seconds: float, tell: Telling) -> None:
    """Our own line, without its pictures being drawn on, as nobody else draws either."""
    from rich.console import Console

    import run_stream
    from pipeline.bookkeeping.progress import ProgressView
    from pipeline.bookkeeping.report import source_report
    from pipeline.bookkeeping.tally import Tally
    from pipeline.crew import Crew
    from pipeline.detect import Shown
    from pipeline.engines import load_engine
    from pipeline.governor import Governor
    from pipeline.model_file.reading import read_model_file
    from pipeline.sources import open_sources
    from pipeline.stop_request import StopRequest
    from tests.benchmarks.files import best_precision
    from tests.benchmarks.ours import settings_for
    from tests.live.kit.slow_line import SlowEngine

    same = {"engine.precision": best_precision()}  # as the loops have, whatever auto would take
    settings = settings_for({"sources": list(urls), "engine.batch": 1, **same})
    model = read_model_file(STREET)
    sources = open_sources(settings.sources, live=settings.live)
    tally = Tally([source.stats for source in sources], model.class_names, lambda _sentence: None)
    outputs = TellingOutputs([source.name for source in sources], tell)
    with load_engine(model, settings.engine, purpose="camera") as engine:
        slow: Any = SlowEngine(engine, seconds)
        slow.batch = 1
        governor, stop = Governor(None, lambda: ()), StopRequest()
        with ProgressView(Console(stderr=True), True) as view:
            crew = Crew(model, slow)
            shown = Shown(model, settings.detection)
            run_stream.stream(sources, crew, outputs, settings, shown, tally, view, stop, governor)
    tally.close()
    for source in sources:
        source.close()
        sys.stderr.write(json.dumps(source_report(source.stats)) + "\n")


def detector(seconds: float) -> Any:
    """What the loops call: a BGR picture in, objects out; the engine in it takes a fixed time."""
    from tests.benchmarks.detectors import OurFile
    from tests.benchmarks.files import best_precision

    never = threading.Event()

    class Slow(OurFile):
        def infer(self, image: Any) -> Any:
            due = time.monotonic() + seconds
            outputs = super().infer(image)
            never.wait(max(0.0, due - time.monotonic()))
            return outputs

    return Slow(STREET, best_precision())


def watch_with_opencv(urls: Sequence[str], seconds: float, tell: Telling) -> None:
    """The loop of every tutorial, going round the cameras."""
    detect = detector(seconds)
    captures = [cv2.VideoCapture(url) for url in urls]
    if not all(capture.isOpened() for capture in captures):
        raise SystemExit("cannot open a camera")
    while True:
        for number, capture in enumerate(captures):
            ok, picture = capture.read()
            if not ok:
                raise SystemExit("cannot read a camera")
            detect(picture)
            tell(number, partial(cv2.cvtColor, picture, cv2.COLOR_BGR2GRAY))


class Latest:
    """A camera read on a thread of its own, of which only the newest picture is kept."""

    def __init__(self, url: str, fresh: threading.Condition) -> None:
        self.picture: Any = None
        self._url, self._fresh = url, fresh
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            # On one thread: each further one would keep back a picture.
            capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            while capture.isOpened():
                ok, picture = capture.read()
                if not ok:
                    break
                with self._fresh:
                    self.picture = picture
                    self._fresh.notify_all()
            capture.release()
            time.sleep(1.0)  # as such loops do; part of what is measured


def watch_with_latest(urls: Sequence[str], seconds: float, tell: Telling) -> None:
    """What the tutorials come to when latency has grown."""
    detect, fresh = detector(seconds), threading.Condition()
    cameras = [Latest(url, fresh) for url in urls]
    while True:
        with fresh:
            fresh.wait_for(lambda: any(camera.picture is not None for camera in cameras))
            taken = [(n, c.picture) for n, c in enumerate(cameras) if c.picture is not None]
            for number, _ in taken:
                cameras[number].picture = None
        for number, picture in taken:
            detect(picture)
            tell(number, partial(cv2.cvtColor, picture, cv2.COLOR_BGR2GRAY))


def watch_with_inference(urls: Sequence[str], seconds: float, tell: Telling) -> None:
    """Roboflow's pipeline; it decides about threads, queues and reconnecting."""
    from inference import InferencePipeline

    detect = detector(seconds)

    def on_frames(frames: Any) -> list[Any]:
        return [detect(frame.image) for frame in frames]

    def on_results(_results: Any, frames: Any) -> None:
        for frame in frames if isinstance(frames, list) else [frames]:
            if frame is not None:
                tell(frame.source_id or 0, partial(cv2.cvtColor, frame.image, cv2.COLOR_BGR2GRAY))

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=list(urls) if len(urls) > 1 else urls[0],
        on_video_frame=on_frames,
        on_prediction=on_results,
    )
    pipeline.start()
    pipeline.join()


PROGRAMS = {
    "boxstream": watch_with_boxstream,
    "opencv": watch_with_opencv,
    "opencv-latest": watch_with_latest,
    "inference": watch_with_inference,
}


def main() -> None:
    """Watch until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.viewers")
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--call-ms", type=float, default=20.0)
    parser.add_argument("urls", nargs="+", metavar="URL")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    PROGRAMS[asked.program](asked.urls, asked.call_ms / 1e3, Telling())


if __name__ == "__main__":
    main()
