"""What a network says in torch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.hub import tqdm

from models.judging.runners import the_core
from models.model_file.onnx_file import to_onnx
from models.network import SEMANTIC_OUTPUTS


def write_onnx(network: nn.Module, frame_hw: tuple[int, int], path: Path) -> None:
    """The prepared network as it is exported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)  # it would start a thread
        onnx.save(to_onnx(network, frame_hw, SEMANTIC_OUTPUTS), path)


def by_onnxruntime(path: Path, frames: Tensor) -> np.ndarray:
    """classes (N, H, W)"""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"frames": frames.numpy()})[0]


def by_openvino(path: Path, frames: Tensor) -> np.ndarray:
    """classes (N, H, W)"""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = the_core().compile_model(path, "CPU", settings)
    return compiled([frames.numpy()])[0].copy()


ENGINES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


@torch.no_grad()
def enliven(network: nn.Module, frames: Tensor) -> nn.Module:
    """Eval mode with batch norms that fit the frames.

    Else a random network says one class everywhere, and agreement would prove nothing.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    network.probabilities(frames)
    for norm in norms:
        norm.eval()
    return network


def agreement(ours: Tensor, theirs: np.ndarray) -> float:
    """Share of pixels of one class."""
    assert theirs.dtype == np.uint8
    assert theirs.shape == tuple(ours.shape)
    return float((ours.numpy() == theirs).mean())
