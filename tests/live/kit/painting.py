"""Moving pictures with a number and a time in them: the camera's side, without any package.

The time is `time.monotonic()`, which is the same for all programs on one machine, so the age of a
picture can be told from its pixels alone. How both are painted is told in
`pipeline.painted_clock`; `reading.py` is the other side.
"""

from __future__ import annotations

from pipeline.painted_clock import COLUMNS, DARK, LIGHT, block_pixels, blocks


class Painter:
    """Moving pictures in I420, cheap enough for many cameras on one core.

    Args:
        width, height: Even, and at least 120 x 24, which the strip takes.
    """

    def __init__(self, width: int, height: int) -> None:
        if width % 2 or height % 2 or width < COLUMNS * block_pixels(height):
            raise ValueError(f"cannot paint a strip into {width}x{height}")
        self.width, self.height = width, height
        # Taller than the picture: a window that moves down it is a scene that moves up.
        self._tall = bytes(
            40 + (x * 3 // 2 + 37 * ((x // 16 + y // 16) % 2) + y // 2) % 160
            for y in range(2 * height)
            for x in range(width)
        )
        quarter = width * height // 4
        self._chroma = bytes([120]) * quarter + bytes([136]) * quarter

    def picture(self, number: int, clock_ms: int) -> bytes:
        """The planes Y, U, V of one picture, one after the other."""
        top = number * 2 % self.height * self.width
        luma = bytearray(self._tall[top : top + self.width * self.height])
        side = block_pixels(self.height)
        for row, bits in enumerate(blocks(number, clock_ms)):
            line = b"".join(bytes([LIGHT if bit else DARK]) * side for bit in bits)
            for y in range(row * side, (row + 1) * side):
                luma[y * self.width : y * self.width + len(line)] = line
        return bytes(luma) + self._chroma
