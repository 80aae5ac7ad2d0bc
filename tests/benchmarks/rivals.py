"""The loops a user would write instead, as well as we can write them.

Each reads with what its library offers, looks with a detector of `detectors`, draws with what its
library offers, and writes the video and one JSON line for each frame, as boxstream does. The
functions ``..._loop`` import what a loop needs, which no clock may see, and give the loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

import av
import cv2

from tests.benchmarks.agreement import Found
from tests.benchmarks.detectors import Detector
from tests.benchmarks.material import Images, frame_rate

COLOURS = [(67, 112, 255), (66, 225, 255), (255, 190, 86), (197, 137, 233), (151, 209, 38)]


X264 = Mapping[str, Any] | None
Loop = Callable[[Path, Path, Path, Detector, int, X264], int]
"""Takes the clip, the video and the lines to write, the detector, the most frames, and which H.264
to write; returns the number of frames."""


class Writer(Protocol):
    """Takes BGR pictures."""

    def write(self, picture: Images) -> None: ...
    def release(self) -> None: ...


class X264Writer:
    """H.264 through PyAV, in the quality that boxstream chose, on as many threads as x264 likes.

    boxstream gives it one, because its engine works meanwhile; a loop waits for its encoder.
    """

    def __init__(self, path: str, fps: float, size_wh: tuple[int, int], x264: Mapping[str, Any]):
        self._container = av.open(path, "w")
        options = {"bf": "0", "preset": x264["preset"], "crf": str(x264["crf"])}
        if x264.get("x264_params"):
            options["x264-params"] = x264["x264_params"]
        rate = Fraction(fps).limit_denominator(60_000)
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height = size_wh
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = round(2 * fps)

    def write(self, picture: Images) -> None:
        """Convert and encode."""
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        self._container.mux(self._stream.encode(frame))

    def release(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def open_writer(path: Path, fps: float, size_wh: tuple[int, int], x264: X264) -> Writer:
    """OpenCV's own writer with mp4v, as in every tutorial; or the x264 that boxstream chose."""
    if x264 is not None:
        return X264Writer(str(path), fps, size_wh, x264)
    return cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size_wh)


def opencv_loop() -> Loop:
    """Read, detect, draw, write, in turn."""
    return _opencv


def _opencv(clip: Path, video: Path, lines: Path, detector: Detector, most: int, x264: X264) -> int:
    capture = cv2.VideoCapture(str(clip))
    fps = capture.get(cv2.CAP_PROP_FPS)
    size_wh = (
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )
    writer = open_writer(video, fps, size_wh, x264)
    index = 0
    with lines.open("w") as log:
        while index < most:
            ok, picture = capture.read()
            if not ok:
                break
            found = detector(picture)
            draw(picture, found, detector.class_names)
            writer.write(picture)
            write_line(log, index, found, detector.class_names)
            index += 1
    capture.release()
    writer.release()
    return index


def draw(picture: Images, found: Found, class_names: Sequence[str]) -> None:
    """Boxes with class and score, straight into the picture."""
    for (x1, y1, x2, y2), label, score in zip(
        found.boxes.round().astype(int).tolist(), found.labels, found.scores, strict=True
    ):
        colour = COLOURS[label % len(COLOURS)]
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 2)
        text = f"{class_names[label]} {score:.2f}"
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        top = max(0, y1 - height - base)
        cv2.rectangle(picture, (x1, top), (x1 + width, top + height + base), colour, -1)
        origin = (x1, top + height)
        cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 18, 18), 1)


def supervision_loop() -> Loop:
    """supervision's threaded ``process_video`` with its own annotators."""
    import supervision

    def run(clip: Path, video: Path, lines: Path, detector: Detector, most: int, x264: X264) -> int:
        boxes, labels = supervision.BoxAnnotator(), supervision.LabelAnnotator()
        count = 0
        with lines.open("w") as log:

            def annotate(picture: Images, index: int) -> Images:
                nonlocal count
                found = detector(picture)
                detections = supervision.Detections(
                    xyxy=found.boxes, confidence=found.scores, class_id=found.labels.astype(int)
                )
                picture = boxes.annotate(picture, detections)
                picture = labels.annotate(picture, detections, texts_of(found, detector))
                write_line(log, index, found, detector.class_names)
                count += 1
                return picture

            if x264 is not None:
                _replace_video_sink(x264, float(frame_rate(clip)))
            supervision.process_video(
                source_path=str(clip), target_path=str(video), callback=annotate, max_frames=most
            )
        return count

    return run


def _replace_video_sink(x264: Mapping[str, Any], fps: float) -> None:
    """``process_video`` cannot be told to write H.264, so it is given a sink that does.

    More than a user would do; without it there is no comparison at an equal encoder.
    """
    import supervision.utils.video

    class Sink:
        def __init__(self, target_path: str, video_info: Any) -> None:
            size_wh = (video_info.width, video_info.height)
            self._writer = X264Writer(target_path, fps, size_wh, x264)

        def __enter__(self) -> Sink:
            return self

        def write_frame(self, frame: Images) -> None:
            self._writer.write(frame)

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            self._writer.release()

    supervision.utils.video.VideoSink = Sink


def inference_loop() -> Loop:
    """Roboflow's ``InferencePipeline``, which decides about threads and queues."""
    import supervision
    from inference import InferencePipeline

    def run(clip: Path, video: Path, lines: Path, detector: Detector, most: int, x264: X264) -> int:
        boxes, labels = supervision.BoxAnnotator(), supervision.LabelAnnotator()
        width_height, fps = size_and_rate(clip)
        writer, count = open_writer(video, fps, width_height, x264), 0

        def look(frames: Any) -> list[Any]:
            return [detector(frame.image) for frame in frames]

        with lines.open("w") as log:

            def take(found: Any, frame: Any) -> None:
                nonlocal count
                if frame is None or count >= most:
                    return
                detections = supervision.Detections(
                    xyxy=found.boxes, confidence=found.scores, class_id=found.labels.astype(int)
                )
                picture = boxes.annotate(frame.image.copy(), detections)
                picture = labels.annotate(picture, detections, texts_of(found, detector))
                writer.write(picture)
                write_line(log, count, found, detector.class_names)
                count += 1
                if count == most:
                    pipeline.terminate()

            pipeline = InferencePipeline.init_with_custom_logic(
                video_reference=str(clip), on_video_frame=look, on_prediction=take
            )
            pipeline.start()
            pipeline.join()
        writer.release()
        return count

    return run


def ultralytics_loop() -> Loop:
    """Ultralytics' loader of videos and its annotator, around the same detector."""
    from ultralytics.data.loaders import LoadImagesAndVideos
    from ultralytics.utils.plotting import Annotator, colors

    def run(clip: Path, video: Path, lines: Path, detector: Detector, most: int, x264: X264) -> int:
        width_height, fps = size_and_rate(clip)
        writer, count = open_writer(video, fps, width_height, x264), 0
        with lines.open("w") as log:
            for _, (picture,), _ in LoadImagesAndVideos(str(clip), batch=1):
                if count >= most:
                    break
                found = detector(picture)
                annotator = Annotator(picture, line_width=2)
                texts = texts_of(found, detector)
                for box, label, text in zip(found.boxes, found.labels, texts, strict=True):
                    annotator.box_label(box, text, color=colors(int(label), True))
                writer.write(annotator.result())
                write_line(log, count, found, detector.class_names)
                count += 1
        writer.release()
        return count

    return run


def size_and_rate(clip: Path) -> tuple[tuple[int, int], float]:
    """Width and height, and frames/s, as OpenCV reads them."""
    capture = cv2.VideoCapture(str(clip))
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return (int(width), int(height)), fps


def texts_of(found: Found, detector: Detector) -> list[str]:
    """What is written on each box."""
    return [
        f"{detector.class_names[label]} {score:.2f}"
        for label, score in zip(found.labels, found.scores, strict=True)
    ]


def write_line(log: TextIO, index: int, found: Found, class_names: Sequence[str]) -> None:
    """One JSON object for a frame, with what boxstream writes, too."""
    detections = [
        {
            "label": class_names[label],
            "class_id": int(label),
            "score": round(float(score), 4),
            "box": [round(value, 2) for value in box],
        }
        for box, label, score in zip(found.boxes.tolist(), found.labels, found.scores, strict=True)
    ]
    log.write(json.dumps({"frame": index, "detections": detections}) + "\n")
