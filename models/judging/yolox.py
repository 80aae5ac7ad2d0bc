"""YOLOX-nano as a reference and as a teacher (Ge et al., 2021, arXiv:2107.08430).

The ONNX file of the YOLOX authors takes one 416x416 picture, blue-green-red 0..255, letterboxed to
the top left with grey 114, and returns the raw head: centre offsets and logarithmic sizes per grid
cell. This adapter gives it the same face as our own model files: a picture in, boxes, scores,
labels out.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from models.data.class_names import COCO_NAMES
from models.judging.found import Found, suppress
from models.judging.runners import Runner

STRIDES_PIXELS = (8, 16, 32)
GREY = 114


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell origins (M, 2) in cells and stride (M, 1) in pixels, in the order of the network's
    rows."""
    origins, strides = [], []
    for stride in STRIDES_PIXELS:
        cells = side // stride
        y, x = np.divmod(np.arange(cells * cells), cells)
        origins.append(np.stack([x, y], 1))
        strides.append(np.full((cells * cells, 1), stride))
    return np.concatenate(origins).astype(np.float32), np.concatenate(strides).astype(np.float32)


class YoloX:
    """YOLOX behind ``detect``: decodes the raw head (sec. 2.1) and suppresses per class.

    Args:
        run: the loaded network.
        side: input width and height in pixels.
        score_threshold: smaller products of objectness and class score are dropped.
        iou_threshold: boxes of one class that overlap more are suppressed.
    """

    class_names: Sequence[str] = COCO_NAMES

    def __init__(
        self,
        run: Runner,
        side: int = 416,
        score_threshold: float = 0.01,
        iou_threshold: float = 0.65,
        most: int = 100,
    ) -> None:
        self.run, self.side = run, side
        self.score_threshold, self.iou_threshold, self.most = score_threshold, iou_threshold, most
        self.origins, self.strides = grid(side)

    def detect(self, image: np.ndarray) -> Found:
        """Detections in an (H, W, 3) uint8 RGB picture of any size."""
        found = self.candidates(image)
        return suppress(found, self.iou_threshold, self.most) if len(found.scores) else found

    def candidates(self, image: np.ndarray) -> Found:
        """Every box above the score threshold, before suppression, in pixels of ``image``."""
        height, width = image.shape[:2]
        scale = min(self.side / height, self.side / width)
        fitted = cv2.resize(
            image,
            (int(width * scale), int(height * scale)),
            interpolation=cv2.INTER_LINEAR,
        )
        canvas = np.full((self.side, self.side, 3), GREY, np.uint8)
        canvas[: fitted.shape[0], : fitted.shape[1]] = fitted
        blob = np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)[None], dtype=np.float32)
        return self.decode(self.run(blob)[0][0], scale)

    def decode(self, raw: np.ndarray, scale: float) -> Found:
        """Raw rows (M, 85) ``dx, dy, log w, log h, objectness, 80 classes`` to boxes of the
        picture."""
        scores = raw[:, 4:5] * raw[:, 5:]
        rows, class_ids = np.nonzero(scores > self.score_threshold)
        centre = (raw[rows, :2] + self.origins[rows]) * self.strides[rows]
        half = np.exp(raw[rows, 2:4]) * self.strides[rows] / 2
        boxes = np.concatenate([centre - half, centre + half], 1) / scale
        best_first = np.argsort(-scores[rows, class_ids], kind="stable")
        return Found(
            boxes[best_first].astype(np.float32),
            scores[rows, class_ids][best_first].astype(np.float32),
            class_ids[best_first].astype(np.int64),
        )
