"""Two types of 8 bits, and what a graph that uses them has to look like.

Int8 has 255 steps of one size. Float8 (E4M3: ONNX's FLOAT8E4M3FN) has three bits behind the point
at every magnitude, so that its scale hardly matters; it is for TensorRT on a GPU of Ada, Hopper,
Blackwell or later. What TensorRT has fast kernels for is less there: see :func:`suits_float8`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

LEAST_SCALE = 1e-4  # of activations in int8, for the sake of biases: see qdq.rounded_weight
FLOAT8_CHANNELS, FLOAT8_MOST_TAPS = 16, 32
_LEAST_HALF = 2.0**-14  # float16's least number with all its digits


@dataclass(frozen=True)
class EightBits:
    """A type of 8 bits.

    Attributes:
        name: In metadata, and at the end of names in the graph.
        told: What users call it.
        largest: Magnitude that the greatest number becomes; more is cut off.
        onnx_type: Of ``TensorProto``.
        opset: The least of ONNX whose Q/DQ know it.
        is_integer: Steps are of one size. Engines then carry it on through shortcuts, pools and
            concatenations, and may turn biases into integers as well.
    """

    name: str
    told: str
    largest: int
    onnx_type: int
    opset: int
    is_integer: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's."""
        return helper.tensor_dtype_to_np_dtype(self.onnx_type)

    def scale(self, largest: float) -> np.ndarray:
        """() float32, the scale of a tensor of activations with that magnitude."""
        return self.rounded_scale(np.array(max(largest / self.largest, LEAST_SCALE), np.float32))

    def rounded_scale(self, scale: np.ndarray) -> np.ndarray:
        """As float32 what the graph will have: float8's scales are float16, as what they scale."""
        if self.is_integer:
            return scale
        return np.maximum(scale, _LEAST_HALF).astype(np.float16).astype(np.float32)

    def rounded(self, steps: np.ndarray) -> np.ndarray:
        """Numbers in units of their scale, to the nearest of this type, ties to even."""
        whole = np.rint(steps) if self.is_integer else steps
        return np.clip(whole, -self.largest, self.largest).astype(self.dtype)


INT8 = EightBits("int8", "int8", 127, TensorProto.INT8, 18, True)
FLOAT8 = EightBits("f8", "float8", 448, TensorProto.FLOAT8E4M3FN, 21, False)
"""Opset 21 and not 19, because that is what NVIDIA's own tool raises graphs to whose scales are
float16 (modelopt.onnx.quantization.fp8)."""


def suits_float8(node: NodeProto, weights: Sequence[int]) -> bool:
    """Whether TensorRT has fast float8 kernels for a layer with weights of that shape.

    - It finds none for a first layer of 3 channels (NVIDIA/TensorRT, issue 3987), and those for 16
      channels or fewer are slower than float16 (NVIDIA/Model-Optimizer, pull request 1083). Only
      sixteens are taken, because tensor cores want rows of 16 bytes; what TensorRT does with others
      is not documented.
    - None are optimised for groups (release notes of TensorRT 10.12, limitations).
    - Kernels of more than 32 places, and transposed convolutions, NVIDIA's own tool leaves
      (modelopt.onnx.quantization).
    """
    if node.op_type in ("Gemm", "MatMul"):
        return all(side % FLOAT8_CHANNELS == 0 for side in weights)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return (
        node.op_type == "Conv"
        and groups == 1
        and all(n % FLOAT8_CHANNELS == 0 and n > FLOAT8_CHANNELS for n in weights[:2])
        and prod(weights[2:]) <= FLOAT8_MOST_TAPS
    )
