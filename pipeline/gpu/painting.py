"""The kernels that draw on a picture in a GPU's memory, in Triton's language.

The picture is one piece of memory: rows of luma, then half as many rows of U and V in turn, all
`pitch` bytes apart. Every number is that of `pipeline.drawing.canvas`, to the last bit.

The functions are plain Python until `kernels` makes kernels of them; until then nothing here needs
Triton. They have no annotations, as it would take them for code of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

from pipeline.gpu.orders import BLEND, DIM, FIELDS, FILL, FRAME, POLYGON

tl: Any = None  # triton.language, from the first use on
Kernel = Any


class Kernels(NamedTuple):
    """What can be launched, each as ``kernel[grid](arguments)``."""

    draw: Kernel
    classes: Kernel
    mosaic: Kernel


@cache
def kernels() -> Kernels:
    """Have Triton take the functions of this file; they find one another among its names.

    Raises:
        ImportError: Triton is not installed, or cannot be loaded.
    """
    import triton
    import triton.language

    names = globals()
    names["tl"] = triton.language
    names |= {name: triton.language.constexpr(value) for name, value in _CONSTANTS.items()}
    for function in _FUNCTIONS:
        varying = [name for name in _VARYING if name in signature(function).parameters]
        names[function.__name__] = triton.jit(function, do_not_specialize=varying)
    return Kernels(names["draw"], names["classes"], names["mosaic"])


def draw(
    picture,
    pitch,
    height,
    width,
    orders,
    count,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Carry out `count` orders on one tile of ROWS x COLUMNS pixels."""
    top, left = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS
    y, x = top + tl.arange(0, ROWS)[:, None], left + tl.arange(0, COLUMNS)[None, :]
    # U and V of four pixels, whose upper left one is (cy, cx).
    cy = top + 2 * tl.arange(0, ROWS // 2)[:, None]
    cx = left + 2 * tl.arange(0, COLUMNS // 2)[None, :]
    at, at_u = picture + y * pitch + x, picture + (height + cy // 2) * pitch + cx
    inside, inside_u = (y < height) & (x < width), (cy < height) & (cx < width)
    luma = tl.load(at, inside, 0).to(tl.int32)
    u = tl.load(at_u, inside_u, 0).to(tl.int32)
    v = tl.load(at_u + 1, inside_u, 0).to(tl.int32)
    for number in range(count):
        order = orders + number * FIELDS
        x1, y1 = tl.load(order + 1).to(tl.int32), tl.load(order + 2).to(tl.int32)
        x2, y2 = tl.load(order + 3).to(tl.int32), tl.load(order + 4).to(tl.int32)
        # Soft edges, and the colour of halves of a block, reach one pixel further.
        if (x1 <= left + COLUMNS) & (x2 >= left) & (y1 <= top + ROWS) & (y2 >= top):
            luma, u, v = carried_out(order, x1, y1, x2, y2, y, x, cy, cx, luma, u, v, height, width)
    tl.store(at, luma.to(tl.uint8), inside)
    tl.store(at_u, u.to(tl.uint8), inside_u)
    tl.store(at_u + 1, v.to(tl.uint8), inside_u)


def carried_out(
    order,
    x1,
    y1,
    x2,
    y2,
    y,
    x,
    cy,
    cx,
    luma,
    u,
    v,
    height,
    width,
):
    """A tile's numbers after one order."""
    kind = tl.load(order)
    to_y, to_u = tl.load(order + 5).to(tl.int32), tl.load(order + 6).to(tl.int32)
    to_v, line = tl.load(order + 7).to(tl.int32), tl.load(order + 8).to(tl.int32)
    within = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    if kind == FILL:
        luma = tl.where(within, to_y, luma)
        half = touched(cy, cx, x1, y1, x2, y2)
        u, v = tl.where(half, to_u, u), tl.where(half, to_v, v)
    elif kind == DIM:
        luma = tl.where(within, (luma >> 2) + to_y, luma)
        half = (cx >= x1) & (cx < x2) & (cy >= y1) & (cy < y2)
        u, v = tl.where(half, (u >> 2) + to_u, u), tl.where(half, (v >> 2) + to_v, v)
    elif kind == FRAME:
        across, down = tl.minimum(line, x2 - x1), tl.minimum(line, y2 - y1)
        luma = shaded(luma, y, x, x1, y1, x2, y2, height, width)
        ix1, iy1, ix2, iy2 = x1 + across, y1 + down, x2 - across, y2 - down
        luma = shaded(luma, y, x, ix1 + 1, iy1 + 1, ix2 - 1, iy2 - 1, height, width)
        on_line = within & ((x < ix1) | (x >= ix2) | (y < iy1) | (y >= iy2))
        luma = tl.where(on_line, to_y, luma)
        half = touched(cy, cx, x1, y1, x2, iy1) | touched(cy, cx, x1, iy2, x2, y2)
        half |= touched(cy, cx, x1, y1, ix1, y2) | touched(cy, cx, ix2, y1, x2, y2)
        u, v = tl.where(half, to_u, u), tl.where(half, to_v, v)
    else:
        stamp = tl.load(order + 9).to(tl.pointer_type(tl.uint8))
        step = tl.load(order + 10).to(tl.int32)
        here = tl.load(stamp + (y - y1) * step + x - x1, within, 0).to(tl.int32)
        if kind == BLEND:
            mixed = (luma * (255 - here) + to_y * here + 127) // 255
            luma = tl.where(within, mixed, luma)
        elif kind == POLYGON:
            beside = nearby(stamp, step, y - y1, x - x1, y2 - y1, x2 - x1)
            mixed = (luma * (255 - here) + to_y * here + 127) // 255
            luma = tl.where(here > 0, mixed, tl.where(beside > 0, luma >> 1, luma))
            half = most_of_four(stamp, step, cy - y1, cx - x1, y2 - y1, x2 - x1) > 127
            u, v = tl.where(half, to_u, u), tl.where(half, to_v, v)
        else:
            mixtures = tl.load(order + 11).to(tl.pointer_type(tl.uint8))
            half = (cx >= x1) & (cx < x2) & (cy >= y1) & (cy < y2)
            there = tl.load(stamp + (cy - y1) * step + cx - x1, half, 0).to(tl.int32)
            luma = tinted(luma, to_y, here, mixtures)
            u, v = tinted(u, to_u, there, mixtures), tinted(v, to_v, there, mixtures)
    return luma, u, v


def touched(cy, cx, x1, y1, x2, y2):
    """Which blocks of four pixels have one in the rectangle."""
    return (cx + 2 > x1) & (cx < x2) & (cy + 2 > y1) & (cy < y2)


def shaded(luma, y, x, x1, y1, x2, y2, height, width):
    """Luma halved just outside the rectangle: in corners twice, as two edges meet there."""
    x1, y1 = tl.maximum(x1 - 1, 0), tl.maximum(y1 - 1, 0)
    x2, y2 = tl.minimum(x2 + 1, width), tl.minimum(y2 + 1, height)
    is_there = (x1 + 2 <= x2) & (y1 + 2 <= y2)
    within = (x >= x1) & (x < x2) & (y >= y1) & (y < y2) & is_there
    times = (y == y1).to(tl.int32) + (y == y2 - 1) + (x == x1) + (x == x2 - 1)
    return tl.where(within, luma >> times, luma)


def nearby(stamp, step, y, x, rows, columns):
    """The most of a stamp in the nine pixels around each."""
    most = 0 * (y + x)
    for down in tl.static_range(-1, 2):
        for right in tl.static_range(-1, 2):
            there, beside = y + down, x + right
            within = (there >= 0) & (there < rows) & (beside >= 0) & (beside < columns)
            value = tl.load(stamp + there * step + beside, within, 0).to(tl.int32)
            most = tl.maximum(most, value)
    return most


def most_of_four(stamp, step, y, x, rows, columns):
    """The most of a stamp in the four pixels right of and below each, itself included."""
    most = 0 * (y + x)
    within = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)  # both sides are even
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            value = tl.load(stamp + (y + down) * step + x + right, within, 0).to(tl.int32)
            most = tl.maximum(most, value)
    return most


def tinted(ground, colour, stamp, mixtures):
    """Mixed with the colour where the stamp says 1, the colour itself where it says 2."""
    mixed = tl.load(mixtures + colour * 256 + ground).to(tl.int32)
    return tl.where(stamp == 0, ground, tl.where(stamp == 1, mixed, colour))


def classes(
    picture,
    pitch,
    height,
    width,
    ids,
    ids_pitch,
    rows,
    columns,
    tables,
    mixtures,
    EDGES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Tint a tile of ROWS x COLUMNS pixels in the colours of their classes.

    `rows` and `columns` say which of `ids` a pixel has, `tables` what Y, U, V and (255) whether
    a class is laid over.
    """
    y = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    x = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    stamp, own = looked_up(ids, ids_pitch, rows, columns, y, x, height, width, tables, EDGES)
    at, inside = picture + y * pitch + x, (y < height) & (x < width)
    luma = tl.load(at, inside, 0).to(tl.int32)
    to_y = tl.load(tables + own).to(tl.int32)
    tl.store(at, tinted(luma, to_y, stamp, mixtures).to(tl.uint8), inside)
    cy = tl.program_id(0) * ROWS + 2 * tl.arange(0, ROWS // 2)[:, None]
    cx = tl.program_id(1) * COLUMNS + 2 * tl.arange(0, COLUMNS // 2)[None, :]
    stamp, own = looked_up(ids, ids_pitch, rows, columns, cy, cx, height, width, tables, EDGES)
    at, inside = picture + (height + cy // 2) * pitch + cx, (cy < height) & (cx < width)
    for k in tl.static_range(2):
        chroma = tl.load(at + k, inside, 0).to(tl.int32)
        to = tl.load(tables + (1 + k) * 256 + own).to(tl.int32)
        tl.store(at + k, tinted(chroma, to, stamp, mixtures).to(tl.uint8), inside)


def looked_up(
    ids,
    ids_pitch,
    rows,
    columns,
    y,
    x,
    height,
    width,
    tables,
    EDGES: tl.constexpr,
):
    """How pixels are tinted (0, 1, or 2 where their class ends), and their classes."""
    y, x = tl.minimum(y, height - 1), tl.minimum(x, width - 1)
    row, column = tl.load(rows + y) * ids_pitch, tl.load(columns + x)
    own = tl.load(ids + row + column).to(tl.int32)
    stamp = tl.full(own.shape, 1, tl.int32)
    if EDGES:
        above = tl.load(rows + tl.maximum(y - 1, 0)) * ids_pitch
        below = tl.load(rows + tl.minimum(y + 1, height - 1)) * ids_pitch
        before, behind = tl.maximum(x - 1, 0), tl.minimum(x + 1, width - 1)
        is_edge = tl.load(ids + above + column).to(tl.int32) != own
        is_edge |= tl.load(ids + below + column).to(tl.int32) != own
        is_edge |= tl.load(ids + row + tl.load(columns + before)).to(tl.int32) != own
        is_edge |= tl.load(ids + row + tl.load(columns + behind)).to(tl.int32) != own
        stamp = tl.where(is_edge, 2, 1)
    return tl.where(tl.load(tables + 768 + own) > 0, stamp, 0), own


def mosaic(picture, pitch, blocks, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Replace one block of one plane by its mean.

    A row of `blocks`: where it begins, its rows, its columns, bytes from one column to the next.
    """
    block = blocks + tl.program_id(0) * 4
    begin, rows = tl.load(block), tl.load(block + 1)
    columns, step = tl.load(block + 2), tl.load(block + 3)
    y, x = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    total = tl.full((ROWS, COLUMNS), 0, tl.int32)
    for top in range(0, rows, ROWS):
        for left in range(0, columns, COLUMNS):
            within = (y + top < rows) & (x + left < columns)
            at = picture + begin + (y + top) * pitch + (x + left) * step
            total += tl.load(at, within, 0).to(tl.int32)
    size = rows * columns
    mean = ((tl.reduce(tl.reduce(total, 1, added), 0, added) + size // 2) // size).to(tl.uint8)
    for top in range(0, rows, ROWS):
        for left in range(0, columns, COLUMNS):
            within = (y + top < rows) & (x + left < columns)
            at = picture + begin + (y + top) * pitch + (x + left) * step
            tl.store(at, mean, within)


def added(a, b):
    """For sums; Triton's own function for them is made for one way of running kernels at import."""
    return a + b


# As they are now, for Triton to take anew where a test asks it to.
_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    *(draw, carried_out, touched, shaded, nearby, most_of_four, tinted),
    *(classes, looked_up, mosaic, added),
)
_CONSTANTS = {
    name: globals()[name] for name in ("FILL", "FRAME", "DIM", "BLEND", "POLYGON", "FIELDS")
}
# Numbers for whose kinds (1, multiples of 16) no kernel of its own is to be compiled in mid-stream.
_VARYING = ("count", "height", "width", "ids_pitch")
