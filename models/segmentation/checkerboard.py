"""The pattern that transposed convolution leaves and resize-then-convolve does not.

    python -m models.segmentation.checkerboard checkerboard.png

Where the stride does not divide the kernel, some output pixels hear more cells than others
(``overlap``). Where it does, still each of the stride² phases has weights of its own, which nothing
makes agree. Either way the output repeats with the period of the stride, even if the input is the
same everywhere (Odena et al., Distill 2016).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.segmentation.upsampling import ResizeConvolve

CELLS = 20
PANEL_PIXELS = 240


def overlap(kernel: int, stride: int, cells: int) -> np.ndarray:
    """How many cells of a square map each output pixel of a transposed convolution hears."""
    ones = torch.ones(1, 1, cells, cells)
    return F.conv_transpose2d(ones, torch.ones(1, 1, kernel, kernel), stride=stride)[0, 0].numpy()


def pattern_share(picture: np.ndarray, stride: int) -> float:
    """Share of the picture's variance that repeats every ``stride`` pixels, from 0 to 1.

    What is left of each phase's mean, in a picture (H, W) that is cut to whole periods: the energy
    at the harmonics of 1 / stride in its spectrum.
    """
    height, width = (side - side % stride for side in picture.shape)
    whole = picture[:height, :width].astype(np.float64)
    spectrum = np.abs(np.fft.fft2(whole)) ** 2
    harmonics = spectrum[:: height // stride, :: width // stride].sum() - spectrum[0, 0]
    varying = spectrum.sum() - spectrum[0, 0]
    # Rounding alone is no pattern.
    return float(harmonics / varying) if varying > 1e-9 * spectrum[0, 0] else 0.0


def ways(stride: int = 2) -> dict[str, nn.Module]:
    """Layers with random weights that enlarge by ``stride``, by what is written below them."""
    uneven = nn.ConvTranspose2d(1, 1, stride + 1, stride=stride, bias=False)
    even = nn.ConvTranspose2d(1, 1, 2 * stride, stride=stride, padding=stride // 2, bias=False)
    resize = ResizeConvolve(1, stride)
    for layer in (uneven, even, resize.convolve):
        nn.init.uniform_(layer.weight, 0.0, 1.0)  # all of one sign, as if it had learned to blur
    return {
        f"transposed {stride + 1}x{stride + 1}": uneven,
        f"transposed {2 * stride}x{2 * stride}": even,
        "resize, then 3x3": resize,
    }


@torch.no_grad()
def picture(seed: int = 0) -> np.ndarray:
    """(H, W) uint8: above an even map, below a disc, enlarged twofold in each way."""
    torch.manual_seed(seed)
    rows = []
    layers = ways()
    for cells in (torch.ones(1, 1, CELLS, CELLS), _disc()):
        panels = [_panel(layer(cells), name) for name, layer in layers.items()]
        rows.append(np.hstack(panels))
    return np.vstack(rows)


def _disc() -> Tensor:
    y, x = np.mgrid[:CELLS, :CELLS] + 0.5
    distance = np.hypot(y - CELLS / 2, x - CELLS / 2)
    return torch.from_numpy(1 / (1 + np.exp(distance - CELLS / 3))).float()[None, None]


def _panel(enlarged: Tensor, name: str) -> np.ndarray:
    """Without the border, from its darkest to its brightest; an even panel is grey."""
    inner = enlarged[0, 0, 4:-4, 4:-4].numpy()
    low, high = float(inner.min()), float(inner.max())
    even = high - low < 1e-4 * max(abs(high), 1e-12)
    grey = np.full_like(inner, 0.5) if even else (inner - low) / (high - low)
    size = (PANEL_PIXELS, PANEL_PIXELS)
    shown = cv2.resize((grey * 255).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    caption = np.full((24, PANEL_PIXELS), 255, np.uint8)
    cv2.putText(caption, name, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 0, 1, cv2.LINE_AA)
    return np.pad(np.vstack([shown, caption]), 4, constant_values=255)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = argparse.ArgumentParser(
        prog="python -m models.segmentation.checkerboard", description="Draw the checkerboard."
    )
    words.add_argument("out", type=Path, metavar="FILE.png")
    options = words.parse_args(arguments)
    written = cv2.imwrite(str(options.out), picture())
    return 0 if written else 2


if __name__ == "__main__":
    sys.exit(main())
