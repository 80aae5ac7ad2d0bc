"""Detectors as something to try on pictures: model files of ours, and YOLOX.

What `models.evaluate` scores and `models.precision_check` compares.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnx

from models.boxes import SizeHW
from models.data.pictures import DataError
from models.detection.proposers import propose
from models.judging.found import Found, suppress
from models.judging.runners import Runner, onnxruntime_runner, openvino_runner
from models.judging.yolox import YoloX
from models.model_file.input_sizes import at_size, sizes_of
from models.model_file.reading import entry_in, model_path, read_onnx


class Detector(Protocol):
    """What can be evaluated."""

    class_names: Sequence[str]

    def detect(self, image: np.ndarray) -> Found:
        """Detections in an (H, W, 3) uint8 RGB picture, in its pixels."""
        ...


class ModelFile:
    """A model file of ours (metadata entry ``boxstream``) behind ``detect``.

    Args:
        run: the loaded network: (1, H, W, 3) uint8 in, the outputs in the file's order out.
        about: the metadata.
        iou_threshold: for suppression of candidates; the file's own unless given.
        merge: candidates, that threshold, `most` -> one box for each object.
    """

    def __init__(
        self,
        run: Runner,
        about: dict[str, Any],
        iou_threshold: float | None = None,
        most: int = 100,
        merge: Callable[[Found, float, int], Found] = suppress,
    ) -> None:
        self.run, self.about, self.most, self.merge = run, about, most, merge
        self.class_names: Sequence[str] = about["class_names"]
        self.iou_threshold = about["nms_iou"] if iou_threshold is None else iou_threshold

    def detect(self, image: np.ndarray) -> Found:
        """Detections in an (H, W, 3) uint8 RGB picture of any size.

        A region model's proposer is run on the picture as it is.
        """
        proposer = self.about.get("proposer")
        if not proposer:
            return self._found(image, None)
        return self._found(image, propose(proposer, image, self.about["regions"]))

    def detect_in(self, image: np.ndarray, regions: np.ndarray) -> Found:
        """The same with proposals that were made before: (R, 4) in pixels of the picture."""
        return self._found(image, regions if self.about.get("proposer") else None)

    def _found(self, image: np.ndarray, regions: np.ndarray | None) -> Found:
        fitted, scale_xy, shift_xy = fit(image, self.about["input_size_hw"], self.about["fit"])
        inputs = [fitted[None]]
        if regions is not None:
            slots = np.zeros((1, self.about["regions"], 4), np.float32)
            moved = regions[: slots.shape[1]] * np.tile(scale_xy, 2) + np.tile(shift_xy, 2)
            slots[0, : len(moved)] = moved
            inputs.append(slots)
        named = dict(zip(self.about["outputs"], self.run(*inputs), strict=True))
        boxes, scores, labels = (named[n][0] for n in ("boxes", "scores", "labels"))
        used = scores > 0
        boxes = (boxes[used] - np.tile(shift_xy, 2)) / np.tile(scale_xy, 2)
        limit = np.tile(np.array(image.shape[1::-1], np.float32), 2)
        found = Found(
            np.clip(boxes, 0, limit).astype(np.float32),
            scores[used].astype(np.float32),
            labels[used].astype(np.int64),
        )
        if self.about["output_form"] == "detections":
            return found
        return self.merge(found, self.iou_threshold, self.most)


def fit(
    image: np.ndarray, size_hw: Sequence[int], how: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring a picture to the model's input size.

    Args:
        how: ``letterbox`` keeps the shape and centres between grey bars, ``stretch`` fills.

    Returns:
        the fitted picture, and the scale and shift (x, y) from picture to input.
    """
    height, width = image.shape[:2]
    ratio = min(size_hw[0] / height, size_hw[1] / width)
    scaled_hw = [
        min(s, max(1, round(x * ratio))) for s, x in zip(size_hw, (height, width), strict=True)
    ]
    if how == "stretch":
        scaled_hw = list(size_hw)
    shrinks = scaled_hw[0] < height and scaled_hw[1] < width
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    top, left = ((s - x) // 2 for s, x in zip(size_hw, scaled_hw, strict=True))
    canvas = np.full((*size_hw, 3), 114, np.uint8)
    canvas[top : top + scaled_hw[0], left : left + scaled_hw[1]] = cv2.resize(
        image, (scaled_hw[1], scaled_hw[0]), interpolation=way
    )
    scale_xy = np.array([scaled_hw[1] / width, scaled_hw[0] / height], np.float32)
    return canvas, scale_xy, np.array([left, top], np.float32)


def open_model(
    file: Path, engine: str, precision: str, input_hw: SizeHW | None
) -> tuple[Runner, dict[str, Any], onnx.ModelProto]:
    """A loaded file, its metadata (empty if it is not ours) and its content.

    Args:
        input_hw: which of the sizes that a file of ours has; None: the usual one.

    Raises:
        DataError: it is no ONNX file, or has not that size.
    """
    content = read_onnx(file, external=False)
    about = entry_in(content)
    source: Path | bytes = file
    if input_hw or sizes_of(content):
        about["input_size_hw"] = input_hw = input_hw or sizes_of(content)[0]
        source = at_size(content, input_hw).SerializeToString()
    run = openvino_runner(source, precision) if engine == "openvino" else onnxruntime_runner(source)
    return run, about, content


def load_detector(
    name_or_file: str,
    engine: str = "onnxruntime",
    precision: str = "f32",
    iou_threshold: float | None = None,
    input_hw: SizeHW | None = None,
) -> Detector:
    """A bundled model by name, or a file: ours by its metadata, YOLOX by its (1, M, 85) output.

    Args:
        input_hw: which of the sizes that a file of ours has; None: the usual one.

    Raises:
        FileNotFoundError: neither a bundled name nor a file.
        DataError: no ONNX file, one of another kind, or one without that size.
    """
    file = model_path(name_or_file)
    run, about, content = open_model(file, engine, precision, input_hw)
    if about.get("task") == "semantic":
        raise DataError(f"{file} finds classes of pixels, not objects; judge it with --masks")
    if "class_names" in about:
        return ModelFile(run, about, iou_threshold)
    shape = [d.dim_value for d in content.graph.output[0].type.tensor_type.shape.dim]
    if shape[-1:] == [85]:
        side = content.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
        return YoloX(run, side, iou_threshold=0.65 if iou_threshold is None else iou_threshold)
    raise DataError(f"{file} is neither a boxstream model file nor YOLOX (output shape {shape})")
