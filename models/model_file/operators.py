"""Our two operators of torch, ``boxstream::ranked_nms`` and ``boxstream::roi_align``, in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import torch
from onnxscript import BOOL, FLOAT, INT64
from onnxscript import opset18 as _opset18

from models.detection import pooling, suppression  # noqa: F401  # they make the operators

op: Any = _opset18  # its annotations know no constants


def ranked_nms(boxes: FLOAT, valid: BOOL, labels: INT64, num_labels: int, iou: float) -> BOOL:
    """NonMaxSuppression, and a scatter of what it selects into a mask of the shape of ``valid``.

    boxes (G, K, 4), valid and labels (G, K); K is static. Only the tensors between the two
    operators have a shape that depends on the data.
    """
    count = int(boxes.shape[1])  # type: ignore[index]  # it is known
    second_axis = _constant([1], np.int64)
    eligible = op.Unsqueeze(valid, second_axis)
    if num_labels > 1:
        classes = _constant(np.arange(num_labels)[:, None], np.int64)
        of_class = op.Equal(op.Unsqueeze(labels, second_axis), classes)
        eligible = op.And(eligible, of_class)
    # Falling scores say the rank, and 0 < score keeps out what has none.
    rank = _constant(1 - np.arange(count) / count, np.float32)
    scores = op.Where(eligible, rank, _constant(-1, np.float32))
    most, overlap = _constant([count], np.int64), _constant([iou], np.float32)
    selected = op.NonMaxSuppression(boxes, scores, most, overlap, _constant([0], np.float32))
    place = op.Gather(selected, _constant([0, 2], np.int64), axis=1)
    ones = op.Expand(_constant(1, np.float32), op.Shape(selected, start=0, end=1))
    zero = _constant(0, np.float32)
    zeros = op.Where(valid, zero, zero)  # of a shape that needs no run to be known
    return op.Greater(op.ScatterND(zeros, place, ones), _constant(0.5, np.float32))


def roi_align(maps: FLOAT, boxes: FLOAT, image: INT64, output: int, sampling: int) -> FLOAT:
    """RoiAlign on boxes (R, 4) in cells of maps (N, C, H, W); image (R,) says which map."""
    return op.RoiAlign(
        maps,
        boxes,
        image,
        coordinate_transformation_mode="output_half_pixel",
        output_height=output,
        output_width=output,
        sampling_ratio=sampling,
        spatial_scale=1.0,
    )


def _constant(value: Any, dtype: type[np.generic]) -> Any:
    return op.Constant(value=onnx_ir.tensor(np.asarray(value, dtype)))


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.boxstream.ranked_nms.default: ranked_nms,
    torch.ops.boxstream.roi_align.default: roi_align,
}
"""How each of our operators is written in ONNX."""
