"""Turn pictures the way their display matrix says, as phones and dash cameras write it.

Whoever gets them then finds them upright, whole, and in a format that can be read.
"""

from __future__ import annotations

import struct
from typing import cast

import av
from av.buffer import Buffer
from av.filter import Graph

from pipeline.errors import UnsupportedCodec
from pipeline.gpu.pictures import in_memory, is_on_gpu
from pipeline.yuv import can_be_converted

# From the signs of a display matrix to one libavfilter step. The matrix maps x' = a x + c y and
# y' = b x + d y, with y downwards.
_STRAIGHT = {
    (1, 1): (),
    (-1, 1): ("hflip",),
    (1, -1): ("vflip", "copy"),  # vflip alone leaves rows that run backwards in memory
    (-1, -1): ("vflip", "hflip"),
}
_CROSSED = {(1, -1): "clock", (-1, 1): "cclock", (1, 1): "cclock_flip", (-1, -1): "clock_flip"}
_AS_ONE = "setfield=mode=prog"  # changes the mark only

Steps = tuple[str, ...]


class Upright:
    """Deliver the pictures of one stream upright; those that are already pass untouched.

    Whether a stream is turned is read from its first picture; later ones cost one look at
    their rotation. The filter works in the picture's own pixel format (4:2:2 becomes 4:4:4
    when it is turned by a quarter, because its chroma cannot be kept otherwise). Rows of what
    is delivered follow one another downwards in memory. A turned copy has no display matrix. A
    picture that lies on a GPU is brought to main memory to be turned.

    A picture in main memory that is marked as two fields, as many cameras mark all of theirs,
    loses the mark, without a copy: swscale would scale each field on its own, which leaves half of
    the lines. On a GPU nothing heeds it.
    """

    def __init__(self, what: str = "the stream") -> None:
        """`what` is what it is called where it cannot be shown."""
        self._what = what
        self._marks: tuple[int, bool] | None = None
        self._steps: Steps = ()
        self._format = ""
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str, Steps] | None = None

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        """`picture` itself, or a turned copy of it.

        Raises:
            UnsupportedCodec: It is in a pixel format that nothing here can read.
        """
        if picture.format.name != self._format:
            self._format = self._checked(picture)
        marks = picture.rotation, picture.interlaced_frame
        if marks != self._marks:
            self._marks, self._steps = marks, steps_upright(picture)
            if picture.interlaced_frame and (self._steps or not is_on_gpu(picture)):
                self._steps += (_AS_ONE,)
        return self._turn(picture) if self._steps else picture

    def turned(self, pixel_hw: tuple[int, int]) -> tuple[int, int]:
        """The shape of a pixel in the last picture, turned with it."""
        is_crosswise = any(step.startswith("transpose") for step in self._steps)
        return pixel_hw[::-1] if is_crosswise else pixel_hw

    def _checked(self, picture: av.VideoFrame) -> str:
        """The name of its pixel format."""
        name = picture.format.name
        if not is_on_gpu(picture) and not can_be_converted(name):
            raise UnsupportedCodec(
                f"{self._what} holds pictures in pixel format {name}, which nothing here can read; "
                "convert it to yuv420p first"
            )
        return name

    def _turn(self, picture: av.VideoFrame) -> av.VideoFrame:
        picture = in_memory(picture)
        shape = (picture.width, picture.height, picture.format.name, self._steps)
        if self._graph is None or shape != self._shape:
            self._graph, self._shape = _build(picture, self._steps), shape
        self._graph.vpush(picture)
        turned = self._graph.vpull()
        # A format that had to change loses them on the way.
        turned.colorspace, turned.color_range = picture.colorspace, picture.color_range
        return turned


def steps_upright(picture: av.VideoFrame) -> Steps:
    """The libavfilter steps that turn `picture` upright, each ``name`` or ``name=argument``."""
    a, b, c, d = _display_matrix(picture) or (1, 0, 0, 1)
    if (a, b, c, d) == (1, 0, 0, 1) and picture.planes[0].line_size < 0:
        return ("copy",)  # stored bottom-up, as raw video often is
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _STRAIGHT[_sign(a), _sign(d)]
    return (f"transpose={_CROSSED[_sign(b), _sign(c)]}",)


def _display_matrix(picture: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """``a, b, c, d`` in 16.16 fixed point."""
    try:
        matrix = cast(Buffer | None, picture.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # PyAV lists all side data at once, and stumbles over kinds it is not told
        return _QUARTERS[round(picture.rotation / 90) % 4]
    if matrix is None:
        return None
    a, b, _, c, d, _, _, _, _ = struct.unpack("=9i", bytes(matrix))
    return a, b, c, d


# By counter-clockwise quarters.
_QUARTERS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def _build(picture: av.VideoFrame, steps: Steps) -> Graph:
    graph = Graph()
    graph.threads = 1
    nodes = [
        graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=picture.time_base,
        )
    ]
    for step in steps:
        name, _, argument = step.partition("=")
        nodes.append(graph.add(name, argument or None))
    # What still said that it is to be turned would be turned again by whoever looks.
    nodes.append(graph.add("sidedata", "mode=delete:type=DISPLAYMATRIX"))
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph
