"""A class for every pixel: from fully convolutional networks to DeepLab, in the order of time.

All do the same five things, and differ in how the coarse map of the trunk becomes fine again: FCN
*adds* the scores of finer maps, Hypercolumns *stacks* the features of all maps at each pixel,
U-Net *concatenates* at each step up, and DeepLab does not let the map get coarse.
"""
