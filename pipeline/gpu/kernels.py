"""What runs on the GPU, in Triton: its compiler comes with torch, and needs a C compiler here.

A kernel is a function that Triton reads the source of; it cannot be called. Triton looks up names
in the module, so ``tl`` stands there from the first use on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

tl: Any = None  # triton.language

ROWS, COLUMNS = 8, 64  # of the image that one program writes; not measured

WHOLE = (  # arguments that are whole numbers
    *("luma_pitch", "chroma_pitch", "height", "width", "top", "left"),
    *("scaled_height", "scaled_width", "luma_taps_y", "luma_taps_x"),
    *("chroma_taps_y", "chroma_taps_x", "input_height", "input_width"),
)


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
    # One code for all sizes: it is compiled when a run begins, and not again when sizes change.
    return triton.jit(_letterbox, do_not_specialize=WHOLE)


def _letterbox(  # type: ignore[no-untyped-def]  # Triton's types are not Python's
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
    reach_y = (tl.maximum(luma_step_y, 1.0) + 1.0) * 0.5
    reach_x = (tl.maximum(luma_step_x, 1.0) + 1.0) * 0.5
    first_y, first_x = tl.floor(middle_y - reach_y) + 1.0, tl.floor(middle_x - reach_x) + 1.0
    luminance = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    weights = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for i in range(luma_taps_y):
        at_y = first_y + i
        weight_y = tl.minimum(tl.maximum(reach_y - tl.abs(at_y - middle_y), 0.0), 1.0)
        line = tl.minimum(tl.maximum(at_y, 0.0), height - 1.0).to(tl.int32) * luma_pitch
        for j in range(luma_taps_x):
            at_x = first_x + j
            weight_x = tl.minimum(tl.maximum(reach_x - tl.abs(at_x - middle_x), 0.0), 1.0)
            place = tl.minimum(tl.maximum(at_x, 0.0), width - 1.0).to(tl.int32)
            weight = weight_y[:, None] * weight_x[None, :]
            luminance += weight * tl.load(luma + line[:, None] + place[None, :]).to(tl.float32)
            weights += weight
    luminance = luminance / weights

    # Chroma has half as many samples, rounded up, each for two by two of luma.
    chroma_height, chroma_width = (height + 1) // 2, (width + 1) // 2
    middle_y, middle_x = y * chroma_step_y - 0.5, x * chroma_step_x - 0.5 + chroma_shift_x
    reach_y = (tl.maximum(chroma_step_y, 1.0) + 1.0) * 0.5
    reach_x = (tl.maximum(chroma_step_x, 1.0) + 1.0) * 0.5
    first_y, first_x = tl.floor(middle_y - reach_y) + 1.0, tl.floor(middle_x - reach_x) + 1.0
    u = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    v = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    weights = tl.full((ROWS, COLUMNS), 0.0, tl.float32)
    for i in range(chroma_taps_y):
        at_y = first_y + i
        weight_y = tl.minimum(tl.maximum(reach_y - tl.abs(at_y - middle_y), 0.0), 1.0)
        line = tl.minimum(tl.maximum(at_y, 0.0), chroma_height - 1.0).to(tl.int32) * chroma_pitch
        for j in range(chroma_taps_x):
            at_x = first_x + j
            weight_x = tl.minimum(tl.maximum(reach_x - tl.abs(at_x - middle_x), 0.0), 1.0)
            place = tl.minimum(tl.maximum(at_x, 0.0), chroma_width - 1.0).to(tl.int32) * 2
            weight = weight_y[:, None] * weight_x[None, :]
            pair = chroma + line[:, None] + place[None, :]
            u += weight * tl.load(pair).to(tl.float32)
            v += weight * tl.load(pair + 1).to(tl.float32)
            weights += weight
    u = u / weights * unit - 128.0
    v = v / weights * unit - 128.0

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
