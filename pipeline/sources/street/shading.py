"""The colours that a solid figure's pieces show: matt light, glow, and what gloss mirrors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.sources.street.light import Mood
from pipeline.sources.street.solids import Packed, Pose


def piece_colours(
    packed: Packed,
    normals: npt.NDArray[np.float64],
    facings: npt.NDArray[np.float64],
    rays: npt.NDArray[np.float64],
    pose: Pose,
    mood: Mood,
) -> npt.NDArray[np.float64]:
    """Give the colour (pieces, 3) in [0, 255] of each piece under the mood's light.

    Args:
        packed: The pieces.
        normals: (pieces, 3) in the camera's frame.
        facings: (pieces,) normal times ray.
        rays: (pieces, 3) from the eye to a point of each piece.
        pose: Where the model stands.
        mood: The light.
    """
    sky = np.where(packed.plain, 0.9, 0.72 + 0.28 * normals[:, 1])[:, None]
    sun = np.where(packed.plain, 0.45, np.maximum(0.0, normals @ np.array(mood.towards_sun)))[
        :, None
    ]
    light = sky * np.array(mood.ambient) + sun * np.array(mood.sun)
    own = 255.0 * packed.albedos
    colours = np.minimum(255.0, own * light)
    colours += packed.emissions[:, None] * (own - colours)
    # What stands low gets less of the sky.
    low = np.minimum(1.04, 0.90 + 0.10 * (rays[:, 1] + pose.eye_height))
    colours *= np.where(packed.plain, 1.0, low)[:, None]
    if packed.glosses.any():
        length = np.sqrt((rays * rays).sum(axis=1))
        cosine = np.clip(-facings / length, 0.0, 1.0)
        up = rays[:, 1] / length + 2.0 * cosine * normals[:, 1]
        low_sky, top_sky, haze = np.array(mood.sky_low), np.array(mood.sky_top), np.array(mood.haze)
        mirrored = low_sky + np.clip(up, 0.0, 1.0)[:, None] * (top_sky - low_sky)
        # Below the roofs it is houses, then road, that a car mirrors.
        houses = np.where(up > -0.1, 0.42, 0.3)[:, None] * haze
        mirrored = np.where((up > 0.12)[:, None], mirrored, houses)
        share = np.minimum(0.8, packed.glosses * (0.10 + 0.75 * (1.0 - cosine) ** 4))
        colours += share[:, None] * (mirrored - colours)
    return np.asarray(np.clip(colours, 0.0, 255.0), np.float64)
