"""Count the bytes that the line's own code moves, at the places where it moves pictures.

The places are known by reading: they are replaced, for the time of a run, by the same functions
with a count around them. What a decoder, an encoder or the network does inside its library is not
seen. That no place is missing was checked once with a library that counts what `memcpy` and
`memmove` move (blocks from 256 bytes on): of a 1080p frame, drawn and written, they moved 7.8 MB,
which is 3.9 by OpenVINO, 3.1 by the copy to draw on, 0.8 by libx264, and nothing else.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import av
import cv2

from pipeline import preprocess, yuv
from pipeline.engines import ov


@dataclass
class Moved:
    """What one stage has moved.

    Attributes:
        read, written: Bytes of pixels.
        whole: Pictures that were copied at their full size.
    """

    read: int = 0
    written: int = 0
    whole: int = 0


class Copies:
    """What was moved inside `counted`, by the name of the thread that did it."""

    def __init__(self) -> None:
        self.by_thread: defaultdict[str, Moved] = defaultdict(Moved)

    def count(self, read: int, written: int, whole: bool = False) -> None:
        """Called by the thread that moves."""
        moved = self.by_thread[threading.current_thread().name]
        moved.read += read
        moved.written += written
        moved.whole += whole

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Inside the block every place counts."""
        with ExitStack() as stack:
            for module in _holders("own_yuv420p"):
                patch = mock.patch.object(module, "own_yuv420p", self._copy(yuv.own_yuv420p))
                stack.enter_context(patch)
            for module, name, instead in [
                (preprocess, "cv2", _Except(cv2, merge=self._merge)),
                (preprocess, "VideoReformatter", lambda: _Scaling(self)),
                (ov.OpenVinoEngine, "_padded", self._padding(ov.OpenVinoEngine._padded)),
                (ov._Request, "result", self._answer(ov._Request.result)),
            ]:
                stack.enter_context(mock.patch.object(module, name, instead))
            yield

    def _copy(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(picture: av.VideoFrame) -> av.VideoFrame:
            copy = function(picture)
            self.count(_bytes(picture), _bytes(copy), whole=True)
            return copy

        return counting

    def _merge(self, channels: Any, into: Any) -> Any:
        merged = cv2.merge(channels, into)
        self.count(sum(channel.nbytes for channel in channels), into.nbytes)
        return merged

    def _padding(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(engine: Any, given: Any) -> Any:
            padded = function(engine, given)
            if padded is not given:
                self.count(given.nbytes, padded.nbytes)
            return padded

        return counting

    def _answer(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(request: Any) -> Any:
            is_new = request._outputs is None
            outputs = function(request)
            if is_new:
                size = sum(array.nbytes for array in outputs.values())
                self.count(size, size)
            return outputs

        return counting


class _Scaling:
    """A reformatter that counts what it reads and writes."""

    def __init__(self, copies: Copies) -> None:
        self._copies, self._reformatter = copies, av.video.reformatter.VideoReformatter()

    def reformat(self, picture: av.VideoFrame, **options: Any) -> av.VideoFrame:
        """As PyAV's."""
        scaled = self._reformatter.reformat(picture, **options)
        same_size = (scaled.width, scaled.height) == (picture.width, picture.height)
        self._copies.count(_bytes(picture), _bytes(scaled), whole=same_size)
        return scaled


class _Except:
    """A module with other functions in the place of some of its own."""

    def __init__(self, module: ModuleType, **instead: Any) -> None:
        self._module = module
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _holders(function: str) -> list[ModuleType]:
    """The modules of the line that call it by a name of their own."""
    loaded = [(name, module) for name, module in sys.modules.items() if module is not None]
    return [
        module
        for name, module in loaded
        if name.startswith("pipeline.") and module is not yuv and hasattr(module, function)
    ]


def _bytes(picture: av.VideoFrame) -> int:
    """Of its pixels; the padding of the lines is not moved."""
    return picture.width * picture.height * picture.format.padded_bits_per_pixel // 8
