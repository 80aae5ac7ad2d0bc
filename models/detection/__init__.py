"""Detectors of boxes."""

from models.detection.faster_rcnn import ARCHITECTURES, FasterRCNN, faster_rcnn

__all__ = ["ARCHITECTURES", "FasterRCNN", "faster_rcnn"]
