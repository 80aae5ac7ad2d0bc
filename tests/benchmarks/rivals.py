"""The two loops a user would write instead, as well as we can write them.

Both run the same model file with the same engine (OpenVINO in latency mode on all cores, one
frame at a time), suppress duplicates with OpenCV's NMS, draw with what their library offers, and
write the video and one JSON line for each frame, as boxstream does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

import av
import cv2
import numpy as np
import openvino
import supervision
import supervision.utils.video

from pipeline.model_file import read_model_file
from pipeline.model_sizes import at_size
from tests.benchmarks.agreement import Found
from tests.benchmarks.material import Images, frame_rate

COLOURS = [(67, 112, 255), (66, 225, 255), (255, 190, 86), (197, 137, 233), (151, 209, 38)]
GREY = (114, 114, 114)


class Detector:
    """A model file in OpenVINO: one BGR picture in, what is in it out."""

    def __init__(self, model: Path, precision: str) -> None:
        file = read_model_file(model)
        self.class_names = file.class_names
        self._input_hw, self._stretch = file.input_size_hw, file.fit == "stretch"
        self._threshold, self._iou = file.score_threshold, file.nms_iou
        self._most = file.max_detections
        core = openvino.Core()
        network = core.read_model(at_size(file, self._input_hw))
        network.reshape([1, *self._input_hw, 3])
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self._request = core.compile_model(network, "CPU", settings).create_infer_request()

    def __call__(self, picture: Images) -> Found:
        """(H, W, 3) uint8 BGR -> objects in pixels of the picture."""
        image, scale, shift = self._fitted(picture)
        outputs = self._request.infer({0: image[None]}, share_inputs=True)
        boxes, scores, labels = (outputs[name][0] for name in ("boxes", "scores", "labels"))
        likely = scores >= self._threshold
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        if len(boxes):
            corners_and_sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
            keep = cv2.dnn.NMSBoxesBatched(
                corners_and_sizes.astype(np.float64), scores, labels, self._threshold, self._iou
            )[: self._most]
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        height, width = picture.shape[:2]
        placed = np.clip((boxes - shift) / scale, 0, [width, height, width, height])
        return Found(placed.astype(np.float32), labels, scores)

    def _fitted(self, picture: Images) -> tuple[Images, Any, Any]:
        """RGB at the model's size; box = (box there - shift) / scale."""
        height, width = picture.shape[:2]
        input_h, input_w = self._input_hw
        if self._stretch:
            image = cv2.resize(picture, (input_w, input_h))
            scale = np.array([input_w / width, input_h / height] * 2)
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), scale, np.zeros(4)
        ratio = min(input_h / height, input_w / width)
        h, w = round(height * ratio), round(width * ratio)
        image = cv2.cvtColor(cv2.resize(picture, (w, h)), cv2.COLOR_BGR2RGB)
        top, left = (input_h - h) // 2, (input_w - w) // 2
        if (h, w) != (input_h, input_w):
            image = cv2.copyMakeBorder(
                image, top, input_h - h - top, left, input_w - w - left, 0, value=GREY
            )
        return image, np.array([w / width, h / height] * 2), np.array([left, top] * 2)


class Writer(Protocol):
    """Takes BGR pictures."""

    def write(self, picture: Images) -> None: ...
    def release(self) -> None: ...


class X264Writer:
    """H.264 through PyAV, with exactly the parameters that boxstream chose."""

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
        self._stream.codec_context.thread_count = x264["threads"]

    def write(self, picture: Images) -> None:
        """Convert and encode."""
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        self._container.mux(self._stream.encode(frame))

    def release(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def open_writer(
    path: Path, fps: float, size_wh: tuple[int, int], x264: Mapping[str, Any] | None
) -> Writer:
    """OpenCV's own writer with mp4v, as in every tutorial; or the x264 that boxstream chose."""
    if x264 is not None:
        return X264Writer(str(path), fps, size_wh, x264)
    return cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size_wh)


def opencv_loop(
    clip: Path, video: Path, lines: Path, detector: Detector, most: int, x264: Mapping | None
) -> int:
    """Read, detect, draw, write, in turn; returns the number of frames."""
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


def supervision_loop(
    clip: Path, video: Path, lines: Path, detector: Detector, most: int, x264: Mapping | None
) -> int:
    """supervision's threaded ``process_video`` with its own annotators."""
    boxes, labels = supervision.BoxAnnotator(), supervision.LabelAnnotator()
    count = 0
    with lines.open("w") as log:

        def annotate(picture: Images, index: int) -> Images:
            nonlocal count
            found = detector(picture)
            detections = supervision.Detections(
                xyxy=found.boxes, confidence=found.scores, class_id=found.labels.astype(int)
            )
            texts = [
                f"{detector.class_names[label]} {score:.2f}"
                for label, score in zip(found.labels, found.scores, strict=True)
            ]
            picture = boxes.annotate(picture, detections)
            picture = labels.annotate(picture, detections, texts)
            write_line(log, index, found, detector.class_names)
            count += 1
            return picture

        if x264 is not None:
            _replace_video_sink(x264, float(frame_rate(clip)))
        supervision.process_video(
            source_path=str(clip), target_path=str(video), callback=annotate, max_frames=most
        )
    return count


def _replace_video_sink(x264: Mapping[str, Any], fps: float) -> None:
    """``process_video`` cannot be told to write H.264, so it is given a sink that does.

    More than a user would do; without it there is no comparison at an equal encoder.
    """

    class Sink:
        def __init__(self, target_path: str, video_info: supervision.VideoInfo) -> None:
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
