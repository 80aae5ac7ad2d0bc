"""Seconds a picture, and where they go: proposals, features, heads, merge. One thread of torch.

What belongs to which part:

proposals   Selective Search, or the region proposal network
features    everything up to what the fully connected layers see: scaling, warping, convolutions,
            pooling of regions (a Faster R-CNN's own pooling stands inside its heads)
heads       everything else in the network, up to its slots
merge       suppression, or OverFeat's greedy merge

Decoding the picture and bringing it to the network's size are in none of them. Seconds are the
processor's, so other programs on the machine do not count.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import nn

from models.detection.greedy_merge import greedy_merge
from models.detection.overfeat import OverFeat
from models.detection.proposers import propose
from models.judging.detectors import fit
from models.judging.found import Found, suppress
from models.judging.network_judges import prepared
from models.network import Network

PARTS = ("proposals", "features", "heads", "merge")
FEATURES_AGAIN = ("backbone",)
HEADS_FROM = ("hidden", "classifier", "roi_heads")
"""Modules at whose entry features end."""
PACKAGES = ("torch", "torchvision", "numpy", "onnxruntime", "openvino")


class PhaseClock:
    """Adds up the seconds of named phases, one of which is always on."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.phase, self.since = "features", time.process_time()

    def switch(self, phase: str) -> None:
        """What has passed belongs to the last phase; from now on it is this one's."""
        now = time.process_time()
        self.seconds[self.phase] += now - self.since
        self.phase, self.since = phase, now


@contextmanager
def watched(network: nn.Module, clock: PhaseClock) -> Iterator[None]:
    """Have the network's own modules switch the clock while it runs; without a change to it."""
    handles = []

    def on(module: nn.Module, phase: str, *, after: bool = False) -> None:
        hook = module.register_forward_hook if after else module.register_forward_pre_hook
        handles.append(hook(lambda *_: clock.switch(phase)))

    for name, module in network.named_children():
        if name in FEATURES_AGAIN:
            on(module, "features")
        elif name in HEADS_FROM:
            on(module, "heads")
        elif name == "rpn":
            on(module, "proposals")
            on(module, "heads", after=True)
    if (warp := getattr(network, "warp", None)) is not None:  # a function, which takes no hooks
        network.warp = _switching(warp, clock)  # type: ignore[assignment]  # while it is timed
    try:
        yield
    finally:
        if warp is not None:
            network.warp = warp
        for handle in handles:
            handle.remove()


def _switching(function: Callable[..., Any], clock: PhaseClock) -> Callable[..., Any]:
    def switched(*arguments: Any) -> Any:
        clock.switch("features")
        return function(*arguments)

    return switched


@contextmanager
def one_thread() -> Iterator[None]:
    """torch and OpenCV on one core; afterwards as before."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)


def measure(
    network: nn.Module,
    pictures: Sequence[np.ndarray],
    size_hw: tuple[int, int],
    nms_iou: float,
) -> dict[str, float]:
    """Median seconds of each part over some pictures (H, W, 3) uint8 RGB, and their ``total``.

    The first picture is done once before, to warm up.
    """
    ready = prepared(network, size_hw)
    with one_thread(), torch.inference_mode():
        rows = [_measured(ready, one, size_hw, nms_iou) for one in (pictures[0], *pictures)][1:]
    parts = {part: median(row[part] for row in rows) for part in PARTS}
    return {**parts, "total": sum(parts.values())}


def _measured(
    network: Network, picture: np.ndarray, size_hw: tuple[int, int], nms_iou: float
) -> dict[str, float]:
    fitted, scale_xy, shift_xy = fit(picture, size_hw, "letterbox")
    inputs = [torch.from_numpy(fitted)[None]]
    clock = PhaseClock()
    if network.proposer:
        clock.switch("proposals")
        regions = propose(network.proposer, picture, network.regions)
        slots = np.zeros((1, network.regions, 4), np.float32)
        slots[0, : len(regions)] = regions * np.tile(scale_xy, 2) + np.tile(shift_xy, 2)
        inputs.append(torch.from_numpy(slots))
    with watched(cast(nn.Module, network), clock):
        clock.switch("features")
        outputs = network(*inputs)
    clock.switch("merge")
    merged(network, outputs, nms_iou)
    clock.switch("merge")
    return clock.seconds


def merged(network: Network | nn.Module, outputs: Sequence[torch.Tensor], iou: float) -> Found:
    """From the slots of one picture to its objects, as the paper does it."""
    boxes, scores, labels = (out[0].numpy() for out in outputs[:3])
    found = Found(boxes[scores > 0], scores[scores > 0], labels[scores > 0])
    if isinstance(network, OverFeat):
        return greedy_merge(found, iou, 100)
    return suppress(found, iou, 100)


def milliseconds(run: Callable[[], object], times: int) -> float:
    """Median processor time of a call on one thread, after one to warm up."""
    run()
    took = []
    for _ in range(times):
        started = time.process_time()
        run()
        took.append(time.process_time() - started)
    return 1000 * median(took)


def machine() -> dict[str, str]:
    """Where and with what numbers were measured."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "python": platform.python_version(),
        **versions,
    }


def processor(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as far as the system tells."""
    if listing.is_file():
        for line in listing.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
