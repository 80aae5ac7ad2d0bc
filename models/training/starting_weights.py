"""What a training starts from: a classifier's weights in the trunk, or another training's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from models.backbones import features
from models.backbones.pyramid import PyramidBackbone
from models.detection.staged_heads import StagedHeads
from models.model_file.weights_back import load_from_model_file
from models.published import state_in


class SettingsError(ValueError):
    """The command line asks for something that this network cannot do."""


def load_fitting(model: nn.Module, file: Path) -> list[str]:
    """Start from weights of the same network; parts of another shape (other classes) stay random.

    Args:
        file: weights that a training wrote, or a model file (``.onnx``), which has to fit wholly.

    Returns:
        names of the parts that were not in the file or did not fit.

    Raises:
        SettingsError: the file holds another network.
        DataError, WeightsError: it cannot be read, or is of another kind.
    """
    if file.suffix == ".onnx":
        load_from_model_file(model, file)
        return []
    given = state_in(file)
    own = model.state_dict()
    fitting = {n: v for n, v in given.items() if n in own and v.shape == own[n].shape}
    if not fitting:
        raise SettingsError(f"{file} holds no weights of this architecture")
    model.load_state_dict(fitting, strict=False)
    if isinstance(heads := getattr(model, "heads", None), StagedHeads):
        heads.scores = "softmax"  # which is what learns; SVMs are fitted anew afterwards
    return sorted(own.keys() - fitting.keys())


def load_trunk(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Start the trunk from a classifier's state dict.

    Raises:
        SettingsError: there is no trunk, or the weights are another classifier's.
    """
    backbone = getattr(model, "backbone", None)
    try:
        if hasattr(model, "load_classifier"):  # hidden layers, too, that a classifier has
            cast(Any, model).load_classifier(state)
        elif isinstance(backbone, features.FeatureMaps | features.SingleMap | PyramidBackbone):
            features.load_classifier(backbone, state)
        else:
            raise SettingsError(
                "this network has no trunk (backbone) that a classifier's weights fit"
            )
    except (KeyError, RuntimeError) as error:  # which names every weight
        raise SettingsError(
            "the weights for the trunk are not those of the classifier that it comes from"
        ) from error
