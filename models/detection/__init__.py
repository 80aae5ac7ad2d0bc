"""Detectors of boxes. ``architectures.faster_rcnn(name)`` builds one."""
