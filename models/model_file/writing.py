"""Write a network as a model file: one ONNX file that says by itself how to use it.

A name that ends in ``.pt2`` asks for a program of torch instead (:mod:`models.program`).

The file takes ``frames`` (N, H, W, 3) uint8 RGB with a free N, with a proposer also ``regions``
(N, R, 4), and returns the tensors that the network names (see :mod:`models.network`). A Faster
R-CNN may be run at several sizes: then a line that is too slow can make do with a smaller one.
Everything else a user of it must know stands in one metadata entry, a JSON text under the key
"boxstream", which holds what its task needs and no more (see :func:`description`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal

import onnx

from models.boxes import SizeHW
from models.detection.faster_rcnn import (
    NMS_BODIES,
    OUTPUTS,
    FasterRCNN,
    NMSBody,
    OutputForm,
)
from models.detection.overfeat import OverFeat
from models.model_file.input_sizes import combine
from models.model_file.onnx_file import to_onnx, write
from models.network import Task
from models.program import SUFFIX, to_program, write_program

SCHEMA = 1
USUAL_OVERLAP = 0.5  # from which a box is a duplicate
NMS_ITERATIONS = 16  # of the fixpoint; clustered boxes need about a dozen

Fit = Literal["letterbox", "stretch"]


def export(
    model: FasterRCNN,
    path: Path,
    *,
    frame_hw: SizeHW,
    class_names: Sequence[str],
    output_form: OutputForm = "candidates",
    nms_body: NMSBody = "fixpoint",
    nms_iterations: int = NMS_ITERATIONS,
    fit: Fit = "letterbox",
    score_threshold: float = 0.5,
    provenance: Mapping[str, Any] | None = None,
    half_weights: bool = False,
    smaller_hw: Sequence[SizeHW] = (),
) -> None:
    """Write ``model`` for frames of one size to ``path``, which appears whole or not at all.

    Leaves the model prepared for that size, and in eval mode.

    nms_body: "fixpoint" for every engine, TensorRT and CUDA graphs included; "nonmaxsuppression"
        for CPU engines when the model thins out thousands of boxes.
    fit: how frames of another size are to be brought to ``frame_hw``.
    score_threshold: recommended to the user; the graph itself returns all above its own floor.
    provenance: architecture, training_data, date, score.
    half_weights: store the weights of convolutions and layers as float16, half the file; engines
        turn them back to float32 when they load it.
    smaller_hw: other sizes at which the file can be run, ever fewer pixels.
    """
    if len(class_names) != model.num_classes:
        raise ValueError(f"{model.num_classes} classes need names, got {len(class_names)}")
    sizes = [frame_hw, *smaller_hw]
    if any(prod(more) <= prod(fewer) for more, fewer in pairwise(sizes)):
        raise ValueError(f"each size must have fewer pixels than the one before, got {sizes}")
    settings, outputs = model.roi_heads.settings, OUTPUTS[output_form]
    found = Objects(score_threshold, settings.iou, settings.detections, nms_body)
    about = description(
        "detection", outputs, frame_hw, class_names, fit, provenance or {}, objects=found
    )
    proposals = model.rpn.settings
    # For people; an engine finds all of it in the graph.
    about["proposals"] = {"per_level": proposals.pre_nms, "kept": proposals.post_nms}
    if path.suffix == SUFFIX:
        if smaller_hw:
            raise ValueError(f"a program is written for one size, got {sizes}")
        model.eval().prepare(
            frame_hw, output_form=output_form, nms_body=nms_body, nms_iterations=nms_iterations
        )
        write_program(to_program(model, frame_hw), about, path)
        return
    protos = list[tuple[SizeHW, onnx.ModelProto]]()
    for size_hw in reversed(sizes):
        model.eval().prepare(
            size_hw, output_form=output_form, nms_body=nms_body, nms_iterations=nms_iterations
        )
        protos.insert(0, (size_hw, to_onnx(model, size_hw, outputs, half_weights=half_weights)))
    if smaller_hw:
        about["input_sizes_hw"] = [list(size_hw) for size_hw in sizes]
    write(combine(protos), about, path)


def export_network(
    network: Any,
    path: Path,
    frame_hw: SizeHW,
    class_names: Sequence[str],
    *,
    fit: Fit = "letterbox",
    objects: Objects | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    half_weights: bool = False,
    nms_body: NMSBody | None = None,
) -> None:
    """Write any :class:`models.network.Network` for frames of one size; see :func:`export`.

    objects: recommended numbers for what is found; None for the usual ones. Of no use to a
        semantic network.
    nms_body: how a Mask R-CNN suppresses inside the graph: None for "nonmaxsuppression", which its
        thousands of boxes ask for on a CPU; TensorRT and programs want "fixpoint". Of no use to
        others.
    palette: red, green and blue of each class; None leaves the colours to whoever draws.
    """
    if len(class_names) != network.num_classes:
        raise ValueError(f"{network.num_classes} classes need names, got {len(class_names)}")
    if palette is not None and len(palette) != len(class_names):
        raise ValueError(f"{len(class_names)} classes need colours, got {len(palette)}")
    network.eval().prepare(frame_hw)
    found = objects or Objects()
    if found.nms_iou is None:
        found = replace(found, nms_iou=merge_overlap(network))
    if nms_body:
        network.prepare(frame_hw, nms=NMS_BODIES[nms_body](NMS_ITERATIONS))
        found = replace(found, nms_body=nms_body)
    about = description(
        network.task,
        network.outputs,
        frame_hw,
        class_names,
        fit,
        provenance or {},
        objects=None if network.task == "semantic" else found,
        palette=palette,
        proposer=network.proposer,
        regions=network.regions,
    )
    regions = network.regions if network.proposer else 0
    if path.suffix == SUFFIX:
        write_program(to_program(network, frame_hw, regions), about, path)
        return
    write(to_onnx(network, frame_hw, network.outputs, regions, half_weights), about, path)


def merge_overlap(network: Any) -> float:
    """The overlap from which a network's paper takes two boxes for one, or the usual one."""
    if isinstance(network, OverFeat):
        return network.settings.merge_iou
    settings = getattr(getattr(network, "roi_heads", network), "settings", None)
    return float(getattr(settings, "iou", USUAL_OVERLAP))


@dataclass(frozen=True)
class Objects:
    """Recommended numbers for what a network finds.

    score_threshold: lowest score that is shown.
    nms_iou: overlap from which a box is a duplicate; None: :func:`export_network` asks
        :func:`merge_overlap`.
    max_detections: of a frame.
    nms_body: how suppression is written inside the graph.
    """

    score_threshold: float = 0.5
    nms_iou: float | None = None
    max_detections: int = 100
    nms_body: str = "none"


def description(
    task: Task,
    outputs: Sequence[str],
    frame_hw: SizeHW,
    class_names: Sequence[str],
    fit: Fit,
    provenance: Mapping[str, Any],
    *,
    objects: Objects | None,
    palette: Sequence[Sequence[int]] | None = None,
    proposer: str | None = None,
    regions: int = 0,
) -> dict[str, Any]:
    """What the metadata entry says; without `objects` nothing of thresholds and suppression."""
    entry: dict[str, Any] = {"schema": SCHEMA, "task": task}
    if objects:
        entry["output_form"] = "detections" if "count" in outputs else "candidates"
    entry |= {
        "class_names": list(class_names),
        "input_size_hw": list(frame_hw),
        "fit": fit,
        "outputs": list(outputs),
    }
    if palette is not None:
        entry["palette"] = [list(colour) for colour in palette]
    if objects:
        entry |= asdict(objects)
    if proposer:
        entry |= {"proposer": proposer, "regions": regions}
    return entry | {"provenance": dict(provenance)}
