"""What a rung is worth: accuracy on the judged set, time a picture, size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.data.json_files import read_truth
from models.data.masks import MaskEntry
from models.data.pictures import read_picture
from models.evaluate import evaluate
from models.judging.network_judges import NetworkSegmenter, folded, network_detector, prepared
from models.judging.runners import onnxruntime_runner, openvino_runner
from models.judging.segmentation_scores import evaluate_segmentation
from models.ladder.rungs import Rung
from models.ladder.timing import measure, milliseconds, one_thread
from models.ladder.training import Run, is_staged
from models.model_file.onnx_file import to_onnx
from models.model_file.writing import merge_overlap
from models.segmentation.crf import refine
from models.segmentation.deeplab import DeepLab, Fc6To8
from models.segmentation.semantic import SemanticNetwork

Engine = Literal["torch", "onnxruntime", "openvino"]
ENGINES: tuple[Engine, ...] = ("torch", "onnxruntime", "openvino")


def judge_detection(
    network: nn.Module,
    rung: Rung,
    run: Run,
    val: str,
    regions: Mapping[str, np.ndarray] | None,
    timed: int,
) -> dict[str, Any]:
    """Average precision of COCO and VOC, and the seconds of each part.

    Args:
        val: ``ANNOTATIONS:IMAGES``.
        regions: proposals by file name, for networks that need them.
        timed: pictures that time is taken of.
    """
    annotations, images = (Path(words) for words in val.split(":")[:2])
    learned = parameters(network)
    network = folded(network)

    def scores() -> dict[str, Any]:
        detector = network_detector(network, run.class_names, rung.size_hw)
        with run.arithmetic():
            return evaluate(detector, annotations, images, regions=regions)

    figures = scores()
    judged = {
        "AP": figures["AP"],
        "AP50": figures["AP50"],
        "VOC_11_points": figures["VOC"]["11 points"],
        "VOC_all_points": figures["VOC"]["all points"],
        "classes": {n: c["AP50"] for n, c in figures["classes"].items()},
        "parameters": learned,
    }
    if is_staged(network) and rung.judged_by_softmax:
        heads = cast(Any, network).heads
        heads.scores = "softmax"
        judged["AP50_of_the_softmax"] = scores()["AP50"]
        heads.scores = "svm"
    names = [image["file_name"] for image in read_truth(annotations)["images"]]
    spread = names[:: max(1, len(names) // timed)][:timed]
    pictures = [read_picture(images / name) for name in spread]
    judged["seconds"] = measure(network, pictures, rung.size_hw, merge_overlap(network))
    return judged


class CRFSegmenter:
    """DeepLab v1 as it was published: network, then CRF.

    arithmetic: makes the context in which the network computes; the CRF does so in float32.
    """

    def __init__(
        self,
        network: SemanticNetwork,
        class_names: Sequence[str],
        arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.network, self.class_names, self.arithmetic = network, class_names, arithmetic

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 class of each pixel."""
        with self.arithmetic():
            probabilities = self.network.probabilities(torch.from_numpy(image)[None])[0]
        return refine(image, probabilities.float().numpy()).argmax(0).astype(np.uint8)


def judge_segmentation(
    network: nn.Module,
    run: Run,
    entries: Sequence[MaskEntry],
    times: int,
    engines: Sequence[Engine] = ENGINES,
) -> dict[str, Any]:
    """mIoU, pixel accuracy, IoU of classes, and milliseconds a frame at the pictures' own size.

    DeepLab v1 comes with what its CRF makes of it, under ``CRF``.

    times: how often time is taken.
    """
    learned = parameters(network)
    network = folded(network)
    with run.arithmetic():
        judge = NetworkSegmenter(network, run.class_names)
        judged = _scores(evaluate_segmentation(judge, entries))
    judged["parameters"] = learned
    frame = np.ascontiguousarray(entries[0].read()[0])
    judged["frame_hw"] = list(frame.shape[:2])
    judged["milliseconds"] = times_of(network, frame, engines, times)
    if is_deeplab_v1(network):
        with_crf = CRFSegmenter(cast(SemanticNetwork, network), run.class_names, run.arithmetic)
        judged["CRF"] = _scores(evaluate_segmentation(with_crf, entries))
        judged["CRF"]["milliseconds"] = crf_milliseconds(with_crf, frame, times)
    return judged


def is_deeplab_v1(network: nn.Module) -> bool:
    """The one whose head is a single chain of layers that ends in scores (v2 has four)."""
    return isinstance(network, DeepLab) and isinstance(network.head, Fc6To8)


def _scores(figures: Mapping[str, Any]) -> dict[str, Any]:
    classes = {name: row["IoU"] for name, row in figures["classes"].items()}
    return {
        "mIoU": figures["mIoU"],
        "pixel_accuracy": figures["pixel_accuracy"],
        "classes": classes,
    }


def parameters(network: nn.Module) -> int:
    """How many numbers were learned or given."""
    return sum(p.numel() for p in network.parameters())


def times_of(
    network: nn.Module, frame: np.ndarray, engines: Sequence[Engine], times: int
) -> dict[Engine, float]:
    """Median milliseconds of one frame (H, W, 3) uint8 RGB on one thread, by engine."""
    frame_hw = (frame.shape[0], frame.shape[1])
    ready = prepared(network, frame_hw)
    runs: dict[Engine, Callable[[], object]] = {}
    if "torch" in engines:
        frames: Tensor = torch.from_numpy(frame)[None]
        runs["torch"] = lambda: ready(frames)
    if set(engines) - {"torch"}:
        graph = to_onnx(ready, frame_hw, ready.outputs).SerializeToString()
        if "onnxruntime" in engines:
            runs["onnxruntime"] = partial(onnxruntime_runner(graph, threads=1), frame[None])
        if "openvino" in engines:
            runs["openvino"] = partial(openvino_runner(graph, threads=1), frame[None])
    with one_thread(), torch.inference_mode():
        return {engine: milliseconds(run, times) for engine, run in runs.items()}


def crf_milliseconds(segmenter: CRFSegmenter, frame: np.ndarray, times: int) -> float:
    """Median of the CRF alone, on one thread."""
    with one_thread(), torch.inference_mode():
        chances = segmenter.network.probabilities(torch.from_numpy(frame)[None])[0].numpy()
        return milliseconds(lambda: refine(frame, chances), min(times, 3))
