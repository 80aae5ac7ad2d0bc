"""Every network of the family by the word that a command line knows it by."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from models.detection.architectures import ARCHITECTURES, faster_rcnn

PAPERS: dict[str, Callable[[int], nn.Module]] = {
    **{name: partial(faster_rcnn, name) for name in ARCHITECTURES},
}
"""Name -> builder: number of classes -> network (:class:`models.network.Network`) with random
weights, in training mode."""
