"""Picture files as arrays, and what is said when they cannot be had."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


class DataError(ValueError):
    """A data set or model file is not there, of no known form, or does not fit the other."""


def read_picture(file: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB.

    Raises:
        DataError: the file is missing or no picture.
    """
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"cannot read picture {file}; is the picture folder right?")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
