"""Lay the classes of pixels, and the masks of objects, over the planes of a picture.

The picture stays YUV: each class is one luma and two chroma numbers, so a map becomes a plane of
colour by a look into a table of 256, and the rest is one weighted sum a plane. Chroma has half the
size, and takes the class of each upper left pixel of four. A map with edges and legend costs 0.9 ms
of one core on 640x360 and 2.4 ms on 1280x720, twenty objects' masks 2.2 and 2.9 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.frame import Classes, Detections, PixelClasses, SegmentationMap
from pipeline.instances import Patch, patch
from pipeline.settings import OverlaySettings
from pipeline.yuv import Colours, Plane

YUV = tuple[int, int, int]
UNTINTED = {"background", "void", "unlabelled", "unlabeled", "ignore", "unknown"}
"""Names of classes that say nothing of a pixel: the picture stays as it is there."""

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class Tables(NamedTuple):
    """What each class id becomes.

    Attributes:
        planes: (256,) uint8 for Y, U and V.
        tinted: (256,) uint8: 255 for classes that are laid over the picture, else 0.
    """

    planes: tuple[Plane, Plane, Plane]
    tinted: Plane

    @classmethod
    def of(cls, meaning: PixelClasses, colours: Colours) -> Tables:
        """For pictures of those colours."""
        table = np.zeros((3, 256), np.uint8)
        table[0], table[1:] = colours.black[0], colours.black[1]
        tinted = np.zeros(256, np.uint8)
        for i, (name, rgb) in enumerate(zip(meaning.names, meaning.colours, strict=True)):
            table[:, i] = colours.yuv(rgb)
            tinted[i] = 255 if is_tinted(name) else 0
        return cls((table[0], table[1], table[2]), tinted)


def is_tinted(name: str) -> bool:
    """Whether a class of that name is laid over the picture."""
    return name.lower() not in UNTINTED


def lay_over(
    planes: Sequence[Plane],
    segmentation: SegmentationMap,
    tables: Tables,
    settings: OverlaySettings,
) -> None:
    """Blend a map into a picture, in place.

    Args:
        planes: Y, U, V of a yuv420p picture of even size that may be written to; it may have one
            row and one column more than the frame.
        segmentation: The classes of the frame.
        tables: What they become.
        settings: How strongly, and with or without edges.
    """
    classes = to_size(segmentation.at_frame(), planes[0].shape)
    sees_through = bool(
        (tables.tinted[: len(segmentation.counts)][segmentation.counts > 0] == 0).any()
    )
    edges = _edges(classes) if settings.edges else None
    for plane, table, step in zip(planes, tables.planes, (1, 2, 2), strict=True):
        own = np.ascontiguousarray(classes[::step, ::step]) if step > 1 else classes
        colour = cast(Plane, cv2.LUT(own, table))
        tint = cast(Plane, cv2.LUT(own, tables.tinted)) if sees_through else None
        _blend(plane, colour, settings.alpha, tint)
        if edges is not None:
            line = edges if step == 1 else np.ascontiguousarray(edges[::step, ::step])
            cv2.copyTo(colour, line if tint is None else cv2.bitwise_and(line, tint), plane)


def colour_planes(planes: Sequence[Plane], segmentation: SegmentationMap, tables: Tables) -> None:
    """Fill the planes of a picture (see `lay_over`) with the classes' colours alone."""
    classes = to_size(segmentation.at_frame(), planes[0].shape)
    for plane, table, step in zip(planes, tables.planes, (1, 2, 2), strict=True):
        plane[:] = cv2.LUT(np.ascontiguousarray(classes[::step, ::step]), table)


def lay_masks_over(
    planes: Sequence[Plane],
    detections: Detections,
    colours: dict[int, YUV],
    settings: OverlaySettings,
) -> None:
    """Blend objects' masks into a picture, in place; of two on one pixel the later is on top.

    Args:
        planes: As for `lay_over`.
        detections: With masks.
        colours: Of the objects to draw, by their numbers, the topmost last.
        settings: How strongly, and with or without edges.
    """
    height, width = planes[0].shape
    for i, colour in colours.items():
        found = even_patch(detections, i, (height, width))
        if found is None:
            continue
        top, left, inside = found
        outline = outline_of(inside) if settings.edges else None
        for plane, value, step in zip(planes, colour, (1, 2, 2), strict=True):
            mask = inside[::step, ::step]
            y, x = top // step, left // step
            area = plane[y : y + mask.shape[0], x : x + mask.shape[1]]
            mask = np.ascontiguousarray(mask[: area.shape[0], : area.shape[1]])
            flat = np.full(area.shape, value, np.uint8)
            _blend(area, flat, settings.alpha, mask)
            if outline is not None:
                line = outline[::step, ::step][: area.shape[0], : area.shape[1]]
                cv2.copyTo(flat, np.ascontiguousarray(line), area)


def to_size(classes: Classes, size_hw: tuple[int, ...]) -> Classes:
    """The map with its last row and column repeated up to that size."""
    down, right = size_hw[0] - classes.shape[0], size_hw[1] - classes.shape[1]
    if not down and not right:
        return classes
    return np.pad(classes, ((0, down), (0, right)), mode="edge")


def _blend(plane: Plane, colour: Plane, alpha: float, where: Plane | None) -> None:
    """``plane = (1 - alpha) plane + alpha colour``, rounded; only `where` that is not 0."""
    if where is None:
        cv2.addWeighted(colour, alpha, plane, 1 - alpha, 0, dst=plane)
    else:
        cv2.copyTo(cv2.addWeighted(colour, alpha, plane, 1 - alpha, 0), where, plane)


def _edges(classes: Classes) -> npt.NDArray[np.uint8]:
    """(H, W) not 0 for pixels beside one of another class."""
    return cast(Plane, cv2.morphologyEx(classes, cv2.MORPH_GRADIENT, _CROSS))


def even_patch(detections: Detections, i: int, size_hw: tuple[int, int]) -> Patch | None:
    """The pixels of an object, beginning on an even row and column, where luma and chroma agree.

    None: there are none.
    """
    assert detections.masks is not None
    found = patch(detections.masks[i], detections.boxes[i], size_hw)
    if found is None or not (found.top % 2 or found.left % 2):
        return found
    down, right = found.top % 2, found.left % 2
    inside = np.pad(found.inside, ((down, 0), (right, 0)))
    return Patch(found.top - down, found.left - right, inside)


def outline_of(inside: Plane) -> Plane:
    """The pixels of a mask that have a neighbour outside of it."""
    border = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    return cast(Plane, inside - cv2.erode(border, _CROSS)[1:-1, 1:-1])
