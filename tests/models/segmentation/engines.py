"""What a network says in torch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn
from torch.hub import tqdm

from models.network import SEMANTIC_OUTPUTS


def write_onnx(network: nn.Module, frame_hw: tuple[int, int], path: Path) -> None:
    """The prepared network with a free batch, opset 18."""
    batch = torch.export.Dim("N", min=1, max=64)
    frames = torch.zeros(2, *frame_hw, 3, dtype=torch.uint8)
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        pytest.MonkeyPatch.context() as patch,
    ):
        warnings.simplefilter("ignore")  # the exporter's own
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)  # it would start a thread
        program = torch.onnx.export(
            network,
            (frames,),
            dynamo=True,
            opset_version=18,
            input_names=["frames"],
            output_names=list(SEMANTIC_OUTPUTS),
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, path)


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
    compiled = openvino.Core().compile_model(path, "CPU", settings)
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
