"""Weights from a file, or from those who trained them."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

PUBLISHED = "DEFAULT"
"""The word for torchvision's own weights, which are fetched."""
UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, ImportError),
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError),
)
"""How torch may fail at bytes that are no weights: it looks for commands in them."""


class WeightsError(Exception):
    """The weights cannot be had or do not fit; says what to do."""


def published_entry(name: str) -> WeightsEnum:
    """torchvision's best weights of its network ``name``, not yet fetched."""
    from torchvision.models import get_model_weights  # loads for seconds; tools without networks

    entry: WeightsEnum = get_model_weights(name).DEFAULT
    return entry


def published_state(entry: WeightsEnum) -> Mapping[str, Tensor]:
    """Fetch a state dict, or take it from torch's own store of what was fetched before.

    Raises:
        WeightsError: it cannot be fetched, or is not what was published.
    """
    try:
        state: Mapping[str, Tensor] = entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, no such file, or not the right bytes
        raise WeightsError(
            f"cannot fetch {entry}: {error}. Without a network, fetch the file "
            f"{Path(entry.url).name} elsewhere and give it instead of {PUBLISHED}"
        ) from error
    return state


def state_in(path: Path) -> Mapping[str, Tensor]:
    """A bare state dict, or one among other things: "average" (of our checkpoints), else "model".

    Raises:
        WeightsError: there is no such file, or it holds something else.
    """
    if path.suffix == ".onnx":
        raise WeightsError(f"{path} is a model file; give the weights it was made from (.pt, .pth)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror}") from error
    except UNREADABLE as error:
        raise WeightsError(
            f"cannot read weights from {path}: it holds no state dict that torch has saved "
            f"({type(error).__name__})"
        ) from error
    state = content
    if isinstance(content, dict):
        # The average is what a training is judged by, and what it writes as model_STEP.pt.
        state = content.get("average", content.get("model", content))
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    return state


def load_state(network: nn.Module, state: Mapping[str, Tensor], otherwise: str) -> None:
    """``load_state_dict``, but what it says of weights that do not fit is short.

    Raises:
        WeightsError: `otherwise`, how many do not fit, and the first of them.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        own = network.state_dict()
        missing = [name for name in own if name not in state]
        wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
        strange = [name for name in state if name not in own]
        first = ", such as ".join(["", *(missing + wrong + strange)[:1]])
        raise WeightsError(
            f"{otherwise}: {len(missing)} weights are missing, {len(wrong)} have another shape and "
            f"{len(strange)} are none of its own{first}"
        ) from error


def state_of(name: str, weights: str | Path) -> Mapping[str, Tensor]:
    """The state dict of torchvision's network ``name``: a file's, or by the word DEFAULT its own.

    Raises:
        WeightsError: it cannot be had.
    """
    if weights == PUBLISHED:
        return published_state(published_entry(name))
    return state_in(Path(weights))


def sha256_of(path: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
