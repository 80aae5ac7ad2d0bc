"""Convolutional trunks, torchvision's, behind two promises.

Plain (``features.FeatureMaps``): ``backbone(images (N, 3, H, W) float) -> {stride: map}`` and
``backbone.channels``; H and W are free.

With a pyramid (``pyramid.PyramidBackbone``): ``backbone(images) -> list[Tensor]``, finest map
first, each ``backbone.out_channels`` deep; H and W are multiples of 32.
"""
