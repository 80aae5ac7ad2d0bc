"""Rungs as model files, for the video line."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.boxes import SizeHW
from models.detection.faster_rcnn import FasterRCNN
from models.ladder.rungs import Rung
from models.ladder.training import Run, is_staged
from models.model_file.writing import export, export_network


def learned(rung: Rung, run: Run, folder: Path) -> nn.Module:
    """A trained rung in eval mode, from its folder."""
    network = rung.network(len(run.class_names))
    state = torch.load(folder / "last.pt", weights_only=True, map_location="cpu")["average"]
    if is_staged(network):
        state = torch.load(folder / "fitted.pt", weights_only=True)
    network.load_state_dict(state)
    return network.eval()


def export_rung(rung: Rung, run: Run, folder: Path, frame_hw: SizeHW) -> Path:
    """``FOLDER.onnx`` in the rung's folder, unless it is there already."""
    file = folder / f"{folder.name}.onnx"
    if file.is_file():
        return file
    network = learned(rung, run, folder)
    about = {"architecture": rung.title, "training": "models.ladder.__main__"}
    if isinstance(network, FasterRCNN):
        names = run.class_names
        export(network, file, frame_hw=frame_hw, class_names=names, provenance=about)
        return file
    export_network(network, file, frame_hw, run.class_names, provenance=about)
    return file
