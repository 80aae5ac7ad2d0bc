"""Train one rung of the ladder, or go on with it, or take it as it is.

A rung's folder holds what every training leaves (``models.train``), ``rung.json`` (what it was
made with) and, of R-CNN and SPPnet, ``fitted.pt`` and ``stages.json``.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from models.data.batches import TrainingBatch, TrainingBatches
from models.data.labelled import Entry
from models.data.mask_batches import MaskBatches
from models.detection.losses import Truth
from models.detection.staged_heads import Staged, StagedHeads
from models.detection.stages import (
    FeatureCache,
    cache_features,
    fit_box_regressors,
    fit_svms,
)
from models.judging.detectors import fit
from models.judging.network_judges import folded
from models.ladder.rungs import Rung
from models.network import Network
from models.published import state_in
from models.training.loop import TIMES, Log, fit_model
from models.training.run import HALVES, Precision, Recipe, Training, freeze, usual_norms
from models.training.schedules import Schedule
from models.training.starting_weights import SettingsError, load_trunk

CLAIM = "rung.json"


@dataclass(frozen=True)
class Run:
    """What all rungs share."""

    class_names: tuple[str, ...]
    trunk: Path | None
    """Weights of the classifier it starts from; None: random."""
    workers: int = 1
    """Processes that prepare pictures."""
    every: int = 500
    """Steps between checkpoints."""
    precision: Precision = "f32"
    """Of convolutions and matrices in training and in what follows it, but where time is taken."""

    def arithmetic(self) -> torch.autocast:
        """Of this precision, on a CPU."""
        half = HALVES.get(self.precision)
        return torch.autocast("cpu", half, enabled=half is not None)


def claim(folder: Path, about: dict[str, Any]) -> None:
    """Make a rung's folder, or make sure that it holds this very rung.

    Raises:
        SettingsError: it was made with other settings or data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / CLAIM
    if file.is_file() and not is_of(folder, about):
        raise SettingsError(f"{folder} was made with other settings; see {file}, or name another")
    write_whole(file, json.dumps(about, indent=1, default=str))


def is_of(folder: Path, about: dict[str, Any]) -> bool:
    """Whether this very rung has claimed the folder."""
    file = folder / CLAIM
    return file.is_file() and file.read_text() == json.dumps(about, indent=1, default=str)


def write_whole(file: Path, text: str) -> None:
    """Write a file that appears whole or not at all, so that no interruption leaves a half."""
    part = file.with_name(file.name + ".part")
    part.write_text(text)
    part.replace(file)


def train(
    rung: Rung, run: Run, data: TrainingBatches | MaskBatches, folder: Path, seed: int = 0
) -> nn.Module:
    """The averaged network in eval mode, after all its steps; goes on from ``last.pt``."""
    torch.manual_seed(seed)
    network = rung.network(len(run.class_names))
    if run.trunk:
        load_trunk(network, state_in(run.trunk))
    norms = usual_norms(cast(Network, network).task, begun=bool(run.trunk))
    freeze(network, rung.frozen if run.trunk else 0, norms)
    network = network.to(memory_format=torch.channels_last)
    warm_up = min(200, rung.steps // 4)
    schedule = Schedule(rung.steps, warm_up)
    recipe = Recipe(rate=rung.rate, trunk_share=rung.trunk_share)
    training = Training(network, recipe, schedule, run.precision)
    log = Log(folder)
    if (folder / "last.pt").is_file():
        training.load(folder / "last.pt")
        log.cut(training.step)
    if training.step < rung.steps:
        fit_model(training, data, log, run.every, run.workers, lambda: None)
    return training.average.model.eval()


def training_seconds(folder: Path) -> float:
    """Processor time of all steps, as ``losses.csv`` has it; repeated ones count once."""
    with (folder / "losses.csv").open(newline="") as lines:
        per_step = {int(r["step"]): float(r[TIMES[1]]) for r in csv.DictReader(lines)}
    before, total = 0, 0.0
    for step in sorted(per_step):
        total += (step - before) * per_step[step]
        before = step
    return total


def is_staged(network: nn.Module) -> bool:
    """Whether SVMs and regressors follow fine-tuning."""
    return isinstance(getattr(network, "heads", None), StagedHeads)


def fit_stages(
    network: nn.Module, rung: Rung, run: Run, entries: Sequence[Entry], folder: Path
) -> dict[str, float]:
    """R-CNN's later stages, in place: features to disk, SVMs, ridge regressors; or load them.

    The features are removed once they have served.

    Returns:
        processor time in seconds as ``features``, ``svms`` and ``regressors``, and the features'
        ``megabytes``.
    """
    staged = cast(Staged, network)
    fitted, notes, stored = (folder / n for n in ("fitted.pt", "stages.json", "features"))
    if not fitted.is_file():
        seconds: dict[str, float] = {}
        with run.arithmetic():
            cache = _cached(network, rung, entries, stored, seconds)
        fit_svms(staged, cache)
        seconds["svms"] = _lap(seconds)
        fit_box_regressors(staged, cache)
        seconds["regressors"] = _lap(seconds)
        seconds.pop("clock")
        seconds["megabytes"] = cache.bytes_on_disk / 1e6
        write_whole(notes, json.dumps({k: round(v, 3) for k, v in seconds.items()}))
        _save(network.state_dict(), fitted)
        shutil.rmtree(stored)
    network.load_state_dict(torch.load(fitted, weights_only=True))
    return cast(dict[str, float], json.loads(notes.read_text()))


def _cached(
    network: nn.Module,
    rung: Rung,
    entries: Sequence[Entry],
    folder: Path,
    seconds: dict[str, float],
) -> FeatureCache:
    """All features, made anew unless an earlier run finished them."""
    done = folder.with_suffix(".json")
    if done.is_file() and folder.is_dir():
        seconds.update(json.loads(done.read_text()), clock=time.process_time())
        return FeatureCache(folder)
    if folder.is_dir():
        shutil.rmtree(folder)
    seconds["clock"] = time.process_time()
    pictures = pictures_once(entries, rung.size_hw, rung.fitted_regions)
    cache = cache_features(cast(Staged, folded(network)), pictures, folder)
    seconds["features"] = _lap(seconds)
    write_whole(done, json.dumps({"features": seconds["features"]}))
    return cache


def _lap(seconds: dict[str, float]) -> float:
    """Since the last lap; ``clock`` holds when that was."""
    now = time.process_time()
    passed, seconds["clock"] = now - seconds["clock"], now
    return passed


def _save(state: dict[str, Any], file: Path) -> None:
    fresh = file.with_suffix(".tmp")
    torch.save(state, fresh)
    fresh.replace(file)


def pictures_once(
    entries: Sequence[Entry], size_hw: tuple[int, int], most: int
) -> Iterator[TrainingBatch]:
    """Each picture as it is, between grey bars, with its boxes and its first ``most`` regions."""
    for entry in entries:
        item = entry.read()
        image, scale_xy, shift_xy = fit(item.image, size_hw, "letterbox")
        scale, shift = np.tile(scale_xy, 2), np.tile(shift_xy, 2)
        moved = [
            torch.from_numpy(np.asarray(boxes * scale + shift, np.float32))
            for boxes in (item.boxes, item.ignored, item.regions[:most])
        ]
        truth = Truth(moved[0], torch.from_numpy(item.class_ids), moved[1])
        yield TrainingBatch(torch.from_numpy(image)[None], [truth], [moved[2]])
