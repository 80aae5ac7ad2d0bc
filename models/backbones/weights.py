"""Weights of a classifier, from a file or from those who trained it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor

PUBLISHED = "DEFAULT"
"""The word for torchvision's own weights, which are fetched."""


class WeightsError(Exception):
    """The weights cannot be had or do not fit; says what to do."""


def classifier_state(name: str, weights: str | Path) -> Mapping[str, Tensor]:
    """The state dict of torchvision's classifier ``name``: a file's, or by the word DEFAULT.

    Raises:
        WeightsError: no such file, nothing to fetch it from, or no state dict.
    """
    return _published(name) if weights == PUBLISHED else _from_file(Path(weights))


def _published(name: str) -> Mapping[str, Tensor]:
    entry = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state: Mapping[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, no such file, or not the right bytes
        raise WeightsError(
            f"cannot fetch {entry}: {error}. Without a network, fetch the file "
            f"{Path(entry.url).name} elsewhere and give that instead of {PUBLISHED}"
        ) from error
    return state


def _from_file(path: Path) -> Mapping[str, Tensor]:
    """A bare state dict, or one under "model" among other things (a checkpoint of ours)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"cannot read weights from {path}: {error}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    return state
