"""The small regions that Selective Search starts from (IJCV 2013), and what they look like.

Also the five colour spaces in which it looks at a picture. Numbers of the paper: 25 colour bins a
channel, 10 bins of Gaussian derivatives in 8 orientations (sigma 1) a channel. See
:mod:`models.detection.selective_search` for what we do otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

COLOUR_BINS = 25
TEXTURE_BINS = 10
ORIENTATIONS = 8
SMOOTHING_PIXELS = 0.8
TEXTURE_PIXELS = 1.0


def hsv(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W, 3) uint8 hue, saturation, value."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)


def lab(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W, 3) uint8 CIE L*a*b*."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2LAB)


def rgi(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W, 3) uint8: shares of red and green, and intensity."""
    total = np.maximum(image.sum(2, dtype=np.float32), 1.0)[..., None]
    shares = image[..., :2] * (255.0 / total)
    return np.concatenate([shares.round().astype(np.uint8), intensity(image)], 2)


def hue(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W, 1) uint8."""
    return hsv(image)[..., :1]


def intensity(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W, 1) uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


@dataclass(frozen=True)
class Regions:
    """The first regions of one segmentation, R of them in a picture of `area` square pixels."""

    sizes: np.ndarray
    """(R,) float32 square pixels."""
    boxes: np.ndarray
    """(R, 4) int64 ``x1, y1, x2, y2`` in pixels, outer edges."""
    colour: np.ndarray
    """(R, 25 * channels) float32, sums to 1."""
    texture: np.ndarray
    """(R, 80 * channels) float32, sums to 1."""
    neighbours: np.ndarray
    """(P, 2) int64: pairs that touch, the lower index first, sorted."""
    area: int


def segment(pixels: np.ndarray, k: int) -> np.ndarray:
    """First regions: (H, W, channels) uint8 -> (H, W) int64 labels 0 .. R - 1."""
    # OpenCV blurs several times faster than the segmentation's own filter.
    smooth = cv2.GaussianBlur(pixels.astype(np.float64) / 255, (0, 0), SMOOTHING_PIXELS)
    return felzenszwalb(smooth.reshape(pixels.shape), scale=k, sigma=0, min_size=k)


def colour_bins(pixels: np.ndarray) -> np.ndarray:
    """(H, W, channels) uint8 -> (channels, H, W) uint8 0 .. 24: the bin each value falls into."""
    return (np.arange(256) * COLOUR_BINS // 256).astype(np.uint8)[pixels.transpose(2, 0, 1)]


def texture_bins(pixels: np.ndarray) -> np.ndarray:
    """Bins 0 .. 9 of Gaussian derivatives: (H, W, channels) uint8 -> (channels * 8, H, W) uint8."""
    radius = int(4 * TEXTURE_PIXELS)
    bell = cv2.getGaussianKernel(2 * radius + 1, TEXTURE_PIXELS, cv2.CV_32F)
    slope = bell * np.arange(-radius, radius + 1, dtype=np.float32)[:, None] / TEXTURE_PIXELS**2
    angles = np.arange(ORIENTATIONS // 2) * (2 * np.pi / ORIENTATIONS)
    bins = np.empty((pixels.shape[2], 2, ORIENTATIONS // 2, *pixels.shape[:2]), np.uint8)
    for channel, plane in enumerate(np.ascontiguousarray(pixels.transpose(2, 0, 1))):
        x = cv2.sepFilter2D(plane, cv2.CV_32F, slope, bell)
        y = cv2.sepFilter2D(plane, cv2.CV_32F, bell, slope)
        responses = [np.float32(np.cos(a)) * x + np.float32(np.sin(a)) * y for a in angles]
        strongest = max(float(np.abs(r).max()) for r in responses)
        scale = np.float32((TEXTURE_BINS - 1e-3) / max(strongest, 1e-6))
        for i, response in enumerate(responses):
            signed = (response * scale).astype(np.int8)  # towards zero
            bins[channel, 0, i] = np.maximum(signed, 0)
            bins[channel, 1, i] = np.maximum(-signed, 0)
    return bins.reshape(-1, *pixels.shape[:2])


def histograms(labels: np.ndarray, bins: np.ndarray, count: int, bin_count: int) -> np.ndarray:
    """How the pixels of each region fall into bins, map by map.

    labels: (H, W) region of each pixel; bins: (maps, H, W) uint8 below `bin_count`
    -> (count, maps * bin_count) float32, each row sums to 1.
    """
    first = labels * bin_count
    counts = np.empty((count, len(bins), bin_count), np.float32)
    for i, one in enumerate(bins):
        fallen = np.bincount((first + one).ravel(), minlength=count * bin_count)
        counts[:, i] = fallen.reshape(count, bin_count)
    sizes = counts[:, 0].sum(1)
    return counts.reshape(count, -1) / (sizes[:, None] * len(bins))


def boxes_of(labels: np.ndarray, count: int) -> np.ndarray:
    """(H, W) labels -> (count, 4) int64 ``x1, y1, x2, y2``, outer edges."""
    height, width = labels.shape
    boxes = np.tile(np.array([width, height, 0, 0], np.int64), (count, 1))
    rows, columns = np.indices(labels.shape).reshape(2, -1)
    for side, where in ((0, columns), (1, rows)):
        np.minimum.at(boxes[:, side], labels.ravel(), where)
        np.maximum.at(boxes[:, side + 2], labels.ravel(), where + 1)
    return boxes


def touching(labels: np.ndarray, count: int) -> np.ndarray:
    """Pairs of regions with pixels side by side or corner to corner: (P, 2) int64, sorted."""
    keys = []
    shifts = (
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1], labels[1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[:-1, 1:], labels[1:, :-1]),
    )
    for a, b in shifts:
        border = a != b
        a, b = a[border], b[border]
        keys.append(np.minimum(a, b) * count + np.maximum(a, b))
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), count), 1)


def describe(labels: np.ndarray, colours: np.ndarray, textures: np.ndarray) -> Regions:
    """Statistics of all regions of a segmentation (sec. 3.2).

    labels: (H, W) int64; colours, textures: what :func:`colour_bins` and :func:`texture_bins` give.
    """
    count = int(labels.max()) + 1
    return Regions(
        np.bincount(labels.ravel(), minlength=count).astype(np.float32),
        boxes_of(labels, count),
        histograms(labels, colours, count, COLOUR_BINS),
        histograms(labels, textures, count, TEXTURE_BINS),
        touching(labels, count),
        labels.size,
    )
