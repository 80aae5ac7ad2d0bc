"""What the command line of a training names to learn from, and to be judged by."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from models.data.batches import PICTURES_A_CANVAS, TrainingBatches
from models.data.labelled import Entry, parse_share
from models.data.mask_batches import MaskBatches, View
from models.data.masks import (
    MaskEntry,
    MaskSet,
    class_pixels,
    median_frequency_weights,
    read_masks,
)
from models.data.pictures import DataError
from models.network import Task
from models.proposals import read_proposals
from models.segmentation.losses import PixelLoss
from models.training.starting_weights import SettingsError


def steps_of(arguments: argparse.Namespace, items: float) -> int:
    """Optimiser steps of the whole training; items: of batches, in one pass over the data."""
    if not arguments.epochs:
        return int(arguments.steps)
    return math.ceil(arguments.epochs * items / arguments.batch)


def detection_data(
    arguments: argparse.Namespace, class_names: tuple[str, ...], task: Task, *run: int
) -> TrainingBatches:
    """The stream of batches of a detector; run: number of this process, and of all."""
    rank, processes = run
    sizes = arguments.sizes or [arguments.size]
    if uneven := [size for size in sizes if size[0] % 32 or size[1] % 32]:
        raise SettingsError(f"sides must be multiples of 32 to train a detector, got {uneven}")
    regions = regions_of(arguments.regions, arguments.data)
    shares = [
        parse_share(words, class_names, own, masks=task == "instance")
        for words, own in zip(arguments.data, regions, strict=True)
    ]
    return TrainingBatches(
        shares,
        sizes,
        arguments.batch // processes,
        # A canvas shows several pictures.
        steps_of(arguments, sum(len(s.entries) * s.repeat for s in shares) / PICTURES_A_CANVAS),
        arguments.seed,
        balance=arguments.balance,
        share_of_run=rank,
    )


def regions_of(files: list[Path] | None, sets: list[str]) -> Sequence[dict[str, np.ndarray] | None]:
    """Of each data set the proposals by file name, None where no files were given."""
    if not files:
        return [None] * len(sets)
    if len(files) != len(sets):
        raise SettingsError(f"{len(sets)} sets need as many files of regions, got {len(files)}")
    return [read_proposals(file) for file in files]


def semantic_data(
    arguments: argparse.Namespace, sets: list[MaskSet], rank: int, processes: int
) -> MaskBatches:
    """The stream of batches of a semantic network."""
    return MaskBatches(
        sets,
        arguments.sizes or [arguments.size],
        arguments.batch // processes,
        steps_of(arguments, sum(len(s.entries) * s.repeat for s in sets)),
        arguments.seed,
        View(tuple(arguments.scales), elastic_pixels=arguments.elastic),
        arguments.balance,
        rank,
    )


def weigh_classes(model: nn.Module, sets: list[MaskSet]) -> None:
    """Let the network's ``pixel_loss`` weigh classes by median frequency."""
    if not isinstance(getattr(model, "pixel_loss", None), PixelLoss):
        raise SettingsError("this network has no loss of pixels whose classes can be weighed")
    classes = len(sets[0].class_names)
    counts = class_pixels([e for s in sets for e in s.entries], classes)
    loss = PixelLoss(median_frequency_weights(counts).tolist())
    model.pixel_loss = loss.to(next(model.parameters()).device)


def check_val(arguments: argparse.Namespace, task: Task, class_names: tuple[str, ...]) -> None:
    """Read the lists of ``--val``, but no picture: else a typo would be told after hours.

    Raises:
        DataError: a set is not there, foreign, has no class of the network, or lacks a picture.
        SettingsError: there are not as many ``--val-regions`` as sets.
    """
    entries: list[Entry | MaskEntry] = []
    if task == "semantic":
        for words in arguments.val:
            entries += read_masks(words, class_names).entries
    else:
        regions = regions_of(arguments.val_regions, arguments.val)
        for words, own in zip(arguments.val, regions, strict=True):
            if words.count(":") != 1:
                raise DataError(f"--val: expected ANNOTATIONS:IMAGES_DIR, got {words!r}")
            entries += parse_share(words, class_names, own).entries
    if missing := next((e.file for e in entries if not e.file.is_file()), None):
        raise DataError(f"--val: no picture {missing}; is the picture folder right?")
