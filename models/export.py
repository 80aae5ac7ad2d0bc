"""Write a detector as a model file: one ONNX file that says by itself how to use it.

    python -m models.export mobilenet_v3_large_320_fpn --weights DEFAULT --size 360x640 --out m.onnx

The file takes ``frames`` (N, H, W, 3) uint8 RGB with a free N, and returns the tensors named in
``models.detection.faster_rcnn.OUTPUTS``. It may be run at several sizes (``--size`` more than
once): then a line that is too slow can make do with a smaller one. Everything else a user of it
must know stands in one metadata entry, a JSON text under the key "boxstream" (see
:func:`description`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import pickle
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
import torchvision
from torch import Tensor

from models import onnx_operators
from models.boxes import SizeHW
from models.class_names import STREET_NAMES
from models.detection.architectures import ARCHITECTURES, COCO_CLASSES, faster_rcnn
from models.detection.faster_rcnn import OUTPUTS, FasterRCNN, NMSBody, OutputForm
from models.input_sizes import combine, parse_size

METADATA_KEY = "boxstream"
SCHEMA = 1
OPSET = 18
LARGEST_BATCH = 1024  # only to give the free dimension some bound
EXIT_ARGUMENTS, EXIT_MODEL = 2, 4

# torchvision's first ResNet-50 for COCO was trained with a batch norm that had no epsilon; its
# file carries the start of its own SHA-256 in its name.
SHA256_WITHOUT_EPSILON = "258fb6c6"

Fit = Literal["letterbox", "stretch"]


class WeightsError(Exception):
    """The weights cannot be had or do not fit; says what to do."""


def export(
    model: FasterRCNN,
    path: Path,
    *,
    frame_hw: SizeHW,
    class_names: Sequence[str],
    output_form: OutputForm = "candidates",
    nms_body: NMSBody = "fixpoint",
    nms_iterations: int = 16,
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
    protos = list[tuple[SizeHW, onnx.ModelProto]]()
    for size_hw in reversed(sizes):
        model.eval().prepare(
            size_hw, output_form=output_form, nms_body=nms_body, nms_iterations=nms_iterations
        )
        proto = _to_onnx(model, size_hw, output_form)
        if half_weights:
            halve_weights(proto)
        protos.insert(0, (size_hw, proto))
    proto = combine(protos)
    about = description(
        model, frame_hw, class_names, output_form, nms_body, fit, score_threshold, provenance or {}
    )
    if smaller_hw:
        about["input_sizes_hw"] = [list(size_hw) for size_hw in sizes]
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about)})
    onnx.checker.check_model(proto)
    unfinished = path.with_name(path.name + ".part")
    onnx.save(proto, unfinished)
    os.replace(unfinished, path)


def description(
    model: FasterRCNN,
    frame_hw: SizeHW,
    class_names: Sequence[str],
    output_form: OutputForm,
    nms_body: NMSBody,
    fit: Fit,
    score_threshold: float,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """What the metadata entry says."""
    settings = model.roi_heads.settings
    return {
        "schema": SCHEMA,
        "task": "detection",
        "output_form": output_form,
        "class_names": list(class_names),
        "input_size_hw": list(frame_hw),
        "fit": fit,
        "outputs": list(OUTPUTS[output_form]),
        "score_threshold": score_threshold,
        "nms_iou": settings.iou,
        "max_detections": settings.detections,
        "nms_body": nms_body,
        "provenance": dict(provenance),
    }


def _to_onnx(model: FasterRCNN, frame_hw: SizeHW, output_form: OutputForm) -> onnx.ModelProto:
    frames = torch.zeros(2, *frame_hw, 3, dtype=torch.uint8, device=model.normalise.mean.device)
    batch = torch.export.Dim("N", min=1, max=LARGEST_BATCH)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own insides
        program = torch.onnx.export(
            model,
            (frames,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["frames"],
            output_names=list(OUTPUTS[output_form]),
            dynamic_shapes=({0: batch},),
            custom_translation_table={
                torch.ops.boxstream.ranked_nms.default: onnx_operators.ranked_nms,
                torch.ops.boxstream.roi_align.default: onnx_operators.roi_align,
            },
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for entry in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input):
        entry.ClearField("metadata_props")  # stack traces with the paths of this machine
        entry.ClearField("doc_string")
    return proto


def halve_weights(proto: onnx.ModelProto) -> None:
    """Store the weights of Conv, Gemm and MatMul as float16, followed by a Cast to float32.

    Anything else that is constant (anchors, means, tables) keeps its precision.
    """
    weighted = {"Conv", "Gemm", "MatMul"}
    names = {node.input[1] for node in proto.graph.node if node.op_type in weighted}
    casts = []
    for weight in proto.graph.initializer:
        if weight.name in names and weight.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(weight)
            half = weight.name + "_half"
            casts.append(
                onnx.helper.make_node("Cast", [half], [weight.name], to=onnx.TensorProto.FLOAT)
            )
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), half))
    nodes = [*casts, *proto.graph.node]
    proto.graph.ClearField("node")
    proto.graph.node.extend(nodes)


def load_weights(architecture: str, weights: str) -> tuple[FasterRCNN, dict[str, Any]]:
    """A model with weights from a file, or torchvision's for COCO by the word DEFAULT.

    Returns it with what is known of its provenance. Raises WeightsError.
    """
    if weights == "DEFAULT":
        state, eps, source = _published(architecture)
    else:
        state, eps = _from_file(Path(weights))
        source = {"weights": Path(weights).name}
    try:
        num_classes = len(state["roi_heads.box_predictor.cls_score.bias"]) - 1
        model = faster_rcnn(architecture, num_classes, batch_norm_eps=eps)
        model.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{weights} does not hold a {architecture}: {error}") from error
    return model.eval(), {"architecture": architecture, **source}


def _published(architecture: str) -> tuple[Mapping[str, Tensor], float, dict[str, Any]]:
    if architecture not in TORCHVISION:
        raise WeightsError(f"nobody publishes weights of {architecture}; give --weights FILE")
    entry = torchvision.models.get_model_weights(f"fasterrcnn_{architecture}").DEFAULT
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, no such file, or not the right bytes
        raise WeightsError(
            f"cannot fetch {entry}: {error}. Without a network, fetch the file "
            f"{Path(entry.url).name} elsewhere and give it as --weights FILE"
        ) from error
    eps = 0.0 if SHA256_WITHOUT_EPSILON in entry.url else 1e-5
    return state, eps, {"training_data": "COCO train2017", "weights": str(entry)}


def _from_file(path: Path) -> tuple[Mapping[str, Tensor], float]:
    """A bare state dict, or one under "model" among other things (a checkpoint of ours)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"cannot read weights from {path}: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    state = content.get("model", content)
    return state, 0.0 if digest.startswith(SHA256_WITHOUT_EPSILON) else 1e-5


TORCHVISION = tuple(name for name in ARCHITECTURES if name != "mobilenet_v2_fpn")


def class_names_of(num_classes: int) -> list[str]:
    """The names that go with a number of classes: COCO's, or the street's, or numbers."""
    if num_classes == COCO_CLASSES:
        weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT
        return list(weights.meta["categories"][1:])
    if num_classes == len(STREET_NAMES):
        return list(STREET_NAMES)
    return [f"class {i}" for i in range(num_classes)]


def score(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a score lies between 0 and 1, got {text!r}")
    return value


def known_origin(text: str) -> tuple[str, Any]:
    """ "date=2026-11-21" -> its two sides; the right one is JSON where it reads as JSON."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m models.export", description="Write a model file."
    )
    words.add_argument("architecture", choices=list(ARCHITECTURES))
    words.add_argument("--weights", required=True, metavar="FILE|DEFAULT")
    words.add_argument(
        "--size",
        required=True,
        type=parse_size,
        action="append",
        metavar="HxW",
        help="of the frames; give more for a file that can also be run at smaller ones",
    )
    words.add_argument("--out", required=True, type=Path, metavar="FILE")
    words.add_argument("--form", choices=list(OUTPUTS), default="candidates")
    words.add_argument("--nms", choices=["fixpoint", "nonmaxsuppression"], default="fixpoint")
    words.add_argument("--fit", choices=["letterbox", "stretch"], default="letterbox")
    words.add_argument("--threshold", type=score, default=0.5, help="recommended score")
    words.add_argument(
        "--min-score", type=score, metavar="S", help="below it the graph itself finds nothing"
    )
    words.add_argument(
        "--provenance",
        type=known_origin,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the file tells of its origin, such as training_data=COCO; the value may be "
        "JSON; an empty one leaves the key out",
    )
    words.add_argument("--names", metavar="A,B,...", help="of the classes, background left out")
    words.add_argument("--half", action="store_true", help="store weights as float16")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for bad arguments, 4 for weights."""
    options = parser().parse_args(arguments)
    try:
        model, provenance = load_weights(options.architecture, options.weights)
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MODEL
    names = options.names.split(",") if options.names else class_names_of(model.num_classes)
    if len(names) != model.num_classes:
        print(f"error: --names gives {len(names)} of {model.num_classes} names", file=sys.stderr)
        return EXIT_ARGUMENTS
    if options.min_score is not None:
        heads = model.roi_heads
        heads.settings = replace(heads.settings, min_score=options.min_score)
    sizes = sorted(set(options.size), key=prod, reverse=True)
    provenance |= {"date": date.today().isoformat(), **dict(options.provenance)}
    export(
        model,
        options.out,
        frame_hw=sizes[0],
        smaller_hw=sizes[1:],
        class_names=names,
        output_form=options.form,
        nms_body=options.nms,
        fit=options.fit,
        score_threshold=options.threshold,
        provenance={key: value for key, value in provenance.items() if value != ""},
        half_weights=options.half,
    )
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
