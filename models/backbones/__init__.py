"""Convolutional trunks with a feature pyramid on top.

One promise: ``backbone(images (N, 3, H, W) float) -> list[Tensor]``, finest map first, each
``backbone.out_channels`` deep; H and W are multiples of 32.
"""
