"""What runs on the GPU, in Triton: its compiler comes with torch, and needs a C compiler here.

A kernel is a function that Triton reads the source of; it cannot be called. Triton looks up names
in the module, so ``tl`` and what `HELPERS` become stand there from the first use on.
"""

from __future__ import annotations

import re
from functools import cache
from subprocess import CalledProcessError
from typing import Any

tl: Any = None  # triton.language

ROWS, COLUMNS = 8, 64  # of the image that one program writes; not measured

WHOLE = (  # arguments that are whole numbers
    *("luma_pitch", "chroma_pitch", "height", "width", "top", "left"),
    *("scaled_height", "scaled_width", "luma_taps_y", "luma_taps_x"),
    *("chroma_taps_y", "chroma_taps_x", "input_height", "input_width"),
)

_OF_C = re.compile(r"C compiler|Python\.h|\b(gcc|cc|clang)\b")  # Triton's launchers are in C


def why_not_compiled(error: BaseException) -> str:
    """What Triton has said, in a line, and what to install where C is what cannot be compiled."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, CalledProcessError):  # its words are a long command
        command = error.cmd if isinstance(error.cmd, str) else error.cmd[0]
        said = f"{command} gave {error.returncode}"
    return said + "; install gcc and Python's headers (python3-dev)" * bool(_OF_C.search(said))


@cache
def letterbox() -> Any:
    """The kernel below, to be compiled at its first launch.

    Raises:
        ImportError: Triton is not installed, or cannot be loaded.
    """
    global tl
    import triton
    import triton.language

    tl = triton.language
    names = globals()
    for helper in HELPERS:  # the kernel finds them among the module's names
        names[helper.__name__] = triton.jit(helper)
    # One code for all sizes: it is compiled when a run begins, and not again when sizes change.
    return triton.jit(_letterbox, do_not_specialize=WHOLE)


def _letterbox(
    image,
    luma,
    chroma,
    luma_pitch,
    chroma_pitch,
    height,
    width,
    top,
    left,
    scaled_height,
    scaled_width,
    luma_step_y,
    luma_step_x,
    chroma_step_y,
    chroma_step_x,
    luma_taps_y,
    luma_taps_x,
    chroma_taps_y,
    chroma_taps_x,
    chroma_shift_x,
    unit,
    black,
    gain,
    red_v,
    green_u,
    green_v,
    blue_u,
    input_height,
    input_width,
    padding: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write an image (H, W, 3) of RGB from planes of luma (h, w) and chroma (h / 2, w / 2, 2).

    A pixel of the image is the mean of the picture over its area, and where the picture is
    enlarged a line between neighbours, as swscale's AREA. Both are one formula: a sample counts
    by 1/2 + step/2 less its distance to the middle of the pixel, at most by 1, at least by 0,
    where a step is how many samples a pixel is wide, but at least 1. Luma and chroma are averaged
    apart, and become RGB then.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    # Middles of the pixels, counted from the corner of the scaled picture.
    y = (rows - top).to(tl.float32) + 0.5
    x = (columns - left).to(tl.float32) + 0.5

    middle_y, middle_x = y * luma_step_y - 0.5, x * luma_step_x - 0.5
    reach_y, reach_x = reach_of(luma_step_y), reach_of(luma_step_x)
    first_y, first_x = tl.floor(middle_y - reach_y) + 1.0, tl.floor(middle_x - reach_x) + 1.0
    luminance = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    shares = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for i in range(luma_taps_y):
        share_y = weight(first_y + i, middle_y, reach_y)
        line = inside(first_y + i, height) * luma_pitch
        for j in range(luma_taps_x):
            place = inside(first_x + j, width)
            share_x = weight(first_x + j, middle_x, reach_x)
            share = share_y[:, None] * share_x[None, :]
            luminance += share * tl.load(luma + line[:, None] + place[None, :]).to(tl.float32)
            shares += share
    luminance = luminance / shares

    # Chroma has half as many samples, rounded up, each for two by two of luma.
    middle_y, middle_x = y * chroma_step_y - 0.5, x * chroma_step_x - 0.5 + chroma_shift_x
    reach_y, reach_x = reach_of(chroma_step_y), reach_of(chroma_step_x)
    first_y, first_x = tl.floor(middle_y - reach_y) + 1.0, tl.floor(middle_x - reach_x) + 1.0
    u = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    v = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    shares = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for i in range(chroma_taps_y):
        share_y = weight(first_y + i, middle_y, reach_y)
        line = inside(first_y + i, (height + 1) // 2) * chroma_pitch
        for j in range(chroma_taps_x):
            place = inside(first_x + j, (width + 1) // 2) * 2
            share_x = weight(first_x + j, middle_x, reach_x)
            share = share_y[:, None] * share_x[None, :]
            pair = chroma + line[:, None] + place[None, :]
            u += share * tl.load(pair).to(tl.float32)
            v += share * tl.load(pair + 1).to(tl.float32)
            shares += share
    u = u / shares * unit - 128.0
    v = v / shares * unit - 128.0

    luminance = (luminance * unit - black) * gain
    is_inside_y = (rows >= top) & (rows < top + scaled_height)
    is_inside_x = (columns >= left) & (columns < left + scaled_width)
    is_inside = is_inside_y[:, None] & is_inside_x[None, :]
    exists = (rows < input_height)[:, None] & (columns < input_width)[None, :]
    pixel = image + (rows[:, None] * input_width + columns[None, :]) * 3
    red = luminance + red_v * v
    green = luminance + green_u * u + green_v * v
    blue = luminance + blue_u * u
    red = tl.minimum(tl.maximum(red + 0.5, 0.0), 255.0).to(tl.int32)
    green = tl.minimum(tl.maximum(green + 0.5, 0.0), 255.0).to(tl.int32)
    blue = tl.minimum(tl.maximum(blue + 0.5, 0.0), 255.0).to(tl.int32)
    tl.store(pixel, tl.where(is_inside, red, padding).to(tl.uint8), mask=exists)
    tl.store(pixel + 1, tl.where(is_inside, green, padding).to(tl.uint8), mask=exists)
    tl.store(pixel + 2, tl.where(is_inside, blue, padding).to(tl.uint8), mask=exists)


def reach_of(step):
    """How far from the middle of a pixel, that is `step` samples wide, samples count."""
    return (tl.maximum(step, 1.0) + 1.0) * 0.5


def weight(at, middle, reach):
    """How much of the pixel in the middle the samples at `at` are."""
    return tl.minimum(tl.maximum(reach - tl.abs(at - middle), 0.0), 1.0)


def inside(at, size):
    """The nearest of `size` samples, as whole numbers."""
    return tl.minimum(tl.maximum(at, 0.0), size - 1.0).to(tl.int32)


HELPERS = (reach_of, weight, inside)
