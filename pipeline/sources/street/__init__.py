"""A street that is drawn, not filmed: pictures whose true boxes are known.

Begin with `drive`. It moves through a `layout` of `roads`, house `fronts`, `foliage` and
`scenery`, under `skies` and in a `light`; a `cast` of `cars`, `lorries`, `buses` and `people`
takes part in the `traffic`; `render` turns their `solids` into sprites, and `pasting` lays those
over the picture and knows what of each can still be seen.
"""

from pipeline.sources.street.counter import read_frame_counter
from pipeline.sources.street.drive import STREET_CLASSES, Street, StreetFrame
from pipeline.sources.street.pixel_classes import PIXEL_CLASSES

__all__ = ["PIXEL_CLASSES", "STREET_CLASSES", "Street", "StreetFrame", "read_frame_counter"]
