"""What looks at a picture in the loops of `rivals`: our model file, or torchvision's detector.

Each takes one BGR picture and says what is in it. Nothing here needs more than one package beside
NumPy, OpenCV and PyAV, so that each runs in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.model_file.sizes import at_size
from tests.benchmarks.agreement import Found
from tests.benchmarks.material import Images

GREY = (114, 114, 114)


class Detector(Protocol):
    """Finds objects.

    Attributes:
        class_names: What the labels mean.
        about: What runs it, and how.
    """

    class_names: tuple[str, ...]
    about: str

    def __call__(self, picture: Images) -> Found:
        """(H, W, 3) uint8 BGR -> objects in pixels of the picture."""
        ...


class OurFile:
    """Our model file in OpenVINO, in latency mode on all cores."""

    def __init__(self, model: Path, precision: str) -> None:
        from pipeline.engines.ov_core import the_core

        self._file = read_model_file(model)
        self.class_names, self.about = self._file.class_names, f"openvino {precision} batch 1"
        core = the_core()
        network = core.read_model(at_size(self._file, self._file.input_size_hw))
        network.reshape([1, *self._file.input_size_hw, 3])
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self._request = core.compile_model(network, "CPU", settings).create_infer_request()

    def __call__(self, picture: Images) -> Found:
        """See `Detector`."""
        image, scale, shift = fitted(picture, self._file)
        outputs = self.infer(image)
        boxes, scores, labels = (outputs[name][0] for name in ("boxes", "scores", "labels"))
        likely = scores >= self._file.score_threshold
        boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
        if len(boxes):
            corners_and_sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
            least, overlap = self._file.score_threshold, self._file.nms_iou
            keep = cv2.dnn.NMSBoxesBatched(
                corners_and_sizes.astype(np.float64), scores, labels, least, overlap
            )[: self._file.max_detections]
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        return Found(home(boxes, picture, scale, shift), labels, scores)

    def infer(self, image: Images) -> Mapping[str, Any]:
        """One call of the engine: (H, W, 3) uint8 RGB at the size of the model's input."""
        outputs: Mapping[str, Any] = self._request.infer({0: image[None]}, share_inputs=True)
        return outputs


class Torchvision:
    """torchvision's own detector with the weights that our file has, too.

    Args:
        model: Our file, for the size of the input, the threshold and the names.
        twin: ``architecture``, ``weights`` (a state dict) and ``export`` (an ONNX file).
        how: ``eager``, ``compiled``, ``onnxruntime`` or ``openvino``; the last two run the export.
        precision: Of OpenVINO.
    """

    def __init__(self, model: Path, twin: Mapping[str, str], how: str, precision: str) -> None:
        self._file = read_model_file(model)
        self.class_names = self._file.class_names
        make = {
            "eager": lambda: _eager(twin, self._file),
            "compiled": lambda: _compiled(twin, self._file),
            "onnxruntime": lambda: _onnxruntime(twin["export"]),
            "openvino": lambda: _openvino(twin["export"], precision),
        }
        self._call = make[how]()
        self.about = f"torchvision {how} {precision if how == 'openvino' else 'f32'}"

    def __call__(self, picture: Images) -> Found:
        """See `Detector`."""
        image, scale, shift = fitted(picture, self._file)
        floats = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255
        boxes, labels, scores = self._call(floats)
        likely = scores >= self._file.score_threshold
        boxes, labels, scores = boxes[likely], labels[likely] - 1, scores[likely]
        return Found(home(boxes, picture, scale, shift), labels, scores)


Call = Callable[[Any], tuple[Any, Any, Any]]
"""(3, H, W) float32 in [0, 1] -> boxes, labels from 1, scores."""


def _eager(twin: Mapping[str, str], file: ModelFile, compiled: bool = False) -> Call:
    import torch
    import torchvision

    build = getattr(torchvision.models.detection, f"fasterrcnn_{twin['architecture']}")
    network = build(
        weights=None,
        weights_backbone=None,
        box_score_thresh=file.score_threshold,
        box_detections_per_img=file.max_detections,
    )
    network.load_state_dict(torch.load(twin["weights"], weights_only=True))
    network.eval()
    if compiled:
        network = torch.compile(network)

    def call(floats: Any) -> tuple[Any, Any, Any]:
        with torch.inference_mode():
            (answer,) = network([torch.from_numpy(floats)])
        return tuple(answer[name].numpy() for name in ("boxes", "labels", "scores"))

    return call


def _compiled(twin: Mapping[str, str], file: ModelFile) -> Call:
    return _eager(twin, file, compiled=True)


def _onnxruntime(path: str) -> Call:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return lambda floats: tuple(session.run(None, {name: floats}))


def _openvino(path: str, precision: str) -> Call:
    from pipeline.engines.ov_core import the_core

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    core = the_core()
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    return lambda floats: request.infer({0: floats}, share_inputs=True).to_tuple()


def fitted(picture: Images, file: ModelFile) -> tuple[Images, Any, Any]:
    """RGB at the file's size; box = (box there - shift) / scale."""
    height, width = picture.shape[:2]
    input_h, input_w = file.input_size_hw
    if file.fit == "stretch":
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


def home(boxes: Any, picture: Images, scale: Any, shift: Any) -> Any:
    """(N, 4) boxes of the fitted picture -> float32 in pixels of `picture`, clipped to it."""
    height, width = picture.shape[:2]
    return np.clip((boxes - shift) / scale, 0, [width, height, width, height]).astype(np.float32)
