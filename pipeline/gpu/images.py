"""A batch of images in a GPU's memory: what an engine on that GPU takes instead of an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

HostImages = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class DeviceImages:
    """(N, H, W, 3) uint8 RGB on the GPU, contiguous; never written to again.

    Attributes:
        tensor: They.
        ready: An event of ``torch.cuda`` that happens when they have been written; None: they
            have been. Whoever reads them on another stream than the default one waits for it, and
            keeps these images until it has.
    """

    tensor: Any
    ready: Any = None

    def __post_init__(self) -> None:
        if not self.tensor.is_contiguous():
            raise ValueError("images on a GPU must be contiguous")

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy has it."""
        return np.dtype(str(self.tensor.dtype).removeprefix("torch."))

    @property
    def address(self) -> int:
        """Of the first byte, in the GPU's memory."""
        return int(self.tensor.data_ptr())

    def __len__(self) -> int:
        return len(self.tensor)


Images = HostImages | DeviceImages


def host_images(images: Images) -> HostImages:
    """The same images, which lie in main memory; `ValueError` if they do not."""
    if isinstance(images, DeviceImages):
        raise ValueError(
            "these images lie on a GPU, and who is to read them does not; "
            "have the pictures decoded with `decoder: software`"
        )
    return images
