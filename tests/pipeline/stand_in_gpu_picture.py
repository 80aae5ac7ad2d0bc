"""A picture on a GPU without a GPU: it shows what PyAV shows of one, and counts who fetches it.

What can be had of PyAV's own is real: attributes, and planes by DLPack. What it refuses for a
picture on a GPU is refused here, too.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import av
from av.video.plane import VideoPlane


class GpuPicture:
    """A picture of main memory that says it lies on a GPU.

    Attributes:
        downloads: How often it was brought to main memory.
    """

    def __init__(self, picture: av.VideoFrame) -> None:
        self._picture, self.downloads = picture, 0
        # As FFmpeg describes its format "cuda".
        self.format = SimpleNamespace(name="cuda", is_rgb=False, has_palette=False)

    def __getattr__(self, name: str) -> Any:
        if name in ("to_ndarray", "to_rgb", "to_image", "save"):
            raise AssertionError(f"{name} was asked of a picture on a GPU")
        return getattr(self._picture, name)

    @property
    def sw_format(self) -> Any:
        return self._picture.format

    @property
    def planes(self) -> tuple[GpuPlane, ...]:
        return tuple(map(GpuPlane, self._picture.planes))

    def reformat(self, **options: Any) -> av.VideoFrame:
        """Bring it to main memory, and do nothing else: that is for swscale then."""
        assert options == {"format": self._picture.format.name, "threads": 1}
        self.downloads += 1
        copy = self._picture.reformat(**options)
        assert copy is self._picture, "PyAV had something to convert"
        return copy


class GpuPlane:
    """It has no buffer, and orders no streams."""

    def __init__(self, plane: VideoPlane) -> None:
        self._plane = plane
        self.line_size = plane.line_size

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if stream is not None:
            raise NotImplementedError("CUDA stream synchronization is not supported.")
        return self._plane.__dlpack__()


def on_gpu(picture: av.VideoFrame) -> Any:
    """Such a picture; an `Any`, as it passes for an `av.VideoFrame`."""
    return GpuPicture(picture)
