"""Names and numbers of classes, and how a data set's categories meet a model's classes."""

from collections.abc import Sequence
from typing import Any

STREET_NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
"""Classes of the bundled model, in the order of its outputs."""

# One name a line would be a page.
# fmt: off
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
    "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
    "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
    "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
    "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair",
    "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
    "toothbrush",
)
# fmt: on
"""The 80 COCO classes in the order of networks trained on them."""

_UNUSED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS: dict[str, int] = dict(
    zip(COCO_NAMES, (i for i in range(1, 91) if i not in _UNUSED_COCO_IDS), strict=True)
)
"""Name -> number in COCO's annotation files, which count to 90 and leave ten out."""

VOC_NAMES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "tvmonitor": "tv",
    "diningtable": "dining table",
    "pottedplant": "potted plant",
}
"""What Pascal VOC calls COCO's classes."""


def class_of(category: dict[str, Any], class_names: Sequence[str]) -> int | None:
    """The model's class id for a COCO category, or None.

    A ``coco_id`` in the category decides before its name does: one data set calls motorcycles
    "bike". A ``coco_id`` of null says that COCO has no such class, so the name is not tried.
    """
    name = category["name"]
    if "coco_id" in category:
        by_id = {number: n for n, number in COCO_IDS.items()}
        name = by_id.get(category["coco_id"])
    name = VOC_NAMES.get(name, name)
    return class_names.index(name) if name in class_names else None
