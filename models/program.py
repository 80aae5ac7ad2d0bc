"""Write a network as a torch program: one file that torch runs by itself, on a GPU or a CPU.

    python -m models.export deeplab_v3 --weights runs/road/model_009000.pt --size 288x512 \
        --names road,car,sky --out road.pt2
    python -m models.program street --out street.pt2

It is for a machine with torch and no TensorRT: the static graph of :mod:`models.model_file` as
``torch.export`` has it, with a free batch, in float32. The JSON text that an ONNX file holds in its
metadata is an extra file in the archive here. Nothing in the graph waits for the host, so that a
GPU can replay it as one CUDA graph; what could not be captured is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from models.bad_input import ends_in, told
from models.boxes import SizeHW
from models.detection.faster_rcnn import NMS_BODIES, FasterRCNN
from models.detection.mask_rcnn import MaskRCNN
from models.judging.runners import onnxruntime_runner
from models.model_file.inference_form import for_inference
from models.model_file.input_sizes import at_size, sizes_of
from models.model_file.onnx_file import LARGEST_BATCH, example_inputs, free_batch
from models.model_file.program_operators import roi_align_by_rows
from models.model_file.reading import METADATA_KEY, description, model_path, read_onnx
from models.model_file.weights_back import least_score_in, load_from_model_file
from models.papers import PAPERS

SUFFIX = ".pt2"
NMS_ITERATIONS = 16
MOST_APART = (
    1e-3  # of scores: more between a program and the ONNX file that it is made from is refused
)

# Operators whose result the host must know before it can go on.
WAITS_FOR_HOST = frozenset(
    {
        *("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.nonzero_numpy"),
        *("aten.masked_select", "aten.unique", "aten._unique2", "aten.unique_dim"),
        *("aten.unique_consecutive", "aten.equal", "aten.is_nonzero", "aten.allclose"),
        *("boxstream.ranked_nms", "torchvision.nms"),
    }
)


def to_program(network: Any, frame_hw: SizeHW, regions: int = 0) -> ExportedProgram:
    """The graph of a prepared :class:`models.network.Network`, which stays as it is.

    regions: a second input ``regions`` (N, regions, 4) float32, if there are any.
    Raises ValueError when something in it depends on what is in the pictures.
    """
    lean = for_inference(network)
    given = example_inputs(lean, frame_hw, regions)
    batch = torch.export.Dim("N", min=1, max=LARGEST_BATCH)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own insides
        program = torch.export.export(
            lean, tuple(given), dynamic_shapes=free_batch(lean, len(given), batch)
        )
        table: dict[Any, Any] = {torch.ops.boxstream.roi_align.default: roi_align_by_rows}
        program = program.run_decompositions(table)
    if found := sorted(set(what_waits(program))):
        raise ValueError(
            f"{', '.join(found)} cannot be captured in a CUDA graph; a program needs a graph of "
            "static shapes (--nms fixpoint)"
        )
    return program


def what_waits(program: ExportedProgram) -> Iterator[str]:
    """What in the graph waits for the host, or has a shape that depends on the data."""
    device = torch.device("cpu")
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target).rpartition(".")[0]
        if name in WAITS_FOR_HOST or free_unbacked_symbols(node.meta.get("val")):
            yield name or node.name
        elif name == "aten._to_copy" and node.kwargs.get("device") not in (None, device):
            yield f"{name} to {node.kwargs['device']}"


def write_program(program: ExportedProgram, about: Mapping[str, Any], path: Path) -> None:
    """The archive with its entry, which appears whole or not at all; its folder is made, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.part{SUFFIX}")
    program.example_inputs = None  # frames of zeros, a megabyte of them
    torch.export.save(program, unfinished, extra_files={METADATA_KEY: json.dumps(about)})
    os.replace(unfinished, path)


def of_model_file(path: Path) -> tuple[ExportedProgram, dict[str, Any]]:
    """The program of the network in an ONNX file of ours at its usual size, and what to say of it.

    Raises ValueError: the file is none of ours, does not name its network, or computes otherwise.
    """
    about = description(path)
    network = network_of(path, about)
    size_hw = (about["input_size_hw"][0], about["input_size_hw"][1])
    program = to_program(network, size_hw, about.get("regions", 0))
    apart = how_far_apart(program, path, about)
    if apart > MOST_APART:
        raise ValueError(f"the program's scores would be up to {apart:.4f} from those of {path}")
    about.pop("input_sizes_hw", None)
    if about.get("nms_body") == "nonmaxsuppression":
        about["nms_body"] = "fixpoint"
    return program, about


def network_of(path: Path, about: Mapping[str, Any]) -> nn.Module:
    """The network whose weights a model file holds, prepared for its size.

    Raises ValueError: see :func:`of_model_file`.
    """
    architecture = about["provenance"].get("architecture")
    if architecture not in PAPERS:
        raise ValueError(
            f"{path} does not say which network it is (architecture: {architecture!r}); write the "
            "program from the weights with `python -m models.export`"
        )
    network: Any = PAPERS[architecture](len(about["class_names"])).eval()
    load_from_model_file(network, path)
    least = least_score_in(path)
    if isinstance(network, FasterRCNN | MaskRCNN) and least is not None:
        heads = network.roi_heads
        heads.settings = replace(heads.settings, min_score=least)
    size_hw = tuple(about["input_size_hw"])
    if isinstance(network, FasterRCNN):
        form = about["output_form"]
        if counts := about.get("proposals"):
            network.rpn.settings = replace(
                network.rpn.settings, pre_nms=counts["per_level"], post_nms=counts["kept"]
            )
        return network.prepare(
            size_hw, output_form=form, nms_body="fixpoint", nms_iterations=NMS_ITERATIONS
        )
    if isinstance(network, MaskRCNN):
        return network.prepare(size_hw, nms=NMS_BODIES["fixpoint"](NMS_ITERATIONS))
    prepared: nn.Module = network.prepare(size_hw)
    return prepared


def how_far_apart(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> float:
    """The largest difference of scores from what ONNX Runtime makes of the file, on blurred noise.

    Of classes of pixels the share that differs, in thousandths of which one is allowed.
    """
    size_hw = (about["input_size_hw"][0], about["input_size_hw"][1])
    chance = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, size_hw[0] // 8 + 1, size_hw[1] // 8 + 1, generator=chance) * 255
    smooth = nn.functional.interpolate(coarse, size=size_hw, mode="bilinear")
    given = [smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()]
    if regions := about.get("regions", 0):
        corners = torch.rand(2, regions, 2, 2, generator=chance).sort(2).values
        given.append((corners * torch.tensor([size_hw[1], size_hw[0]])).flatten(2))
    with torch.no_grad():
        ours = [one.numpy() for one in program.module()(*given)]
    proto = read_onnx(path)
    if sizes_of(proto):
        proto = at_size(proto, size_hw)
    names = [output.name for output in proto.graph.output]
    answer = onnxruntime_runner(proto.SerializeToString())(*(one.numpy() for one in given))
    theirs = dict(zip(names, answer, strict=True))
    key = "classes" if about["task"] == "semantic" else "scores"
    mine = dict(zip(about["outputs"], ours, strict=True))[key]
    if key == "classes":
        return float((mine != theirs[key]).mean())
    return float(np.abs(mine - theirs[key]).max())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m models.program", description="Make a torch program of a model file."
    )
    words.add_argument("model", metavar="MODEL", help="bundled name or model file (.onnx)")
    words.add_argument("--out", required=True, type=ends_in(SUFFIX), metavar=f"FILE{SUFFIX}")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for bad arguments, 4 for a file of which none is made."""
    options = parser().parse_args(arguments)
    try:
        program, about = of_model_file(model_path(options.model))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    write_program(program, about, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    with told():
        sys.exit(main())
