"""The loop of a training, and the files that tell how it goes."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from models.data.batches import MaskBatch, TrainingBatch, TrainingBatches
from models.data.mask_batches import MaskBatches
from models.data.pictures import DataError
from models.training.run import Training, train_mode

STEPS_PER_ROW = 50
TIMES = ("seconds_per_step", "processor_seconds_per_step")
"""Wall time, and time of all of this process's threads, which other programs do not lengthen."""


@dataclass(frozen=True)
class Log:
    """The files that tell how a run goes."""

    folder: Path
    writes: bool = True
    """Of several processes only the first writes."""

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Append a row, which begins with its step, to a CSV file, with a header if it is new."""
        file = self.folder / name
        new = not file.exists()
        with file.open("a", newline="") as out:
            writer = csv.DictWriter(out, row.keys())
            if new:
                writer.writeheader()
            writer.writerow(row)

    def has(self, name: str, step: int) -> bool:
        """Whether a CSV file has a row of this step."""
        file = self.folder / name
        lines = file.read_text().splitlines()[1:] if file.exists() else []
        return any(int(line.split(",", 1)[0]) == step for line in lines)

    def cut(self, step: int) -> None:
        """Take out what a run that was cut off wrote after its last checkpoint, at ``step``."""
        for file in self.folder.glob("*.csv") if self.writes else ():
            lines = file.read_text().splitlines(keepends=True)
            rows = [line for line in lines[1:] if line.endswith("\n")]  # the last may be half a one
            kept = [row for row in rows if int(row.split(",", 1)[0]) <= step]
            if kept:
                file.write_text("".join([lines[0], *kept]))
            else:  # `add` begins it anew
                file.unlink()

    def draw(self) -> None:
        """Loss curves as a picture."""
        from matplotlib.figure import Figure

        with (self.folder / "losses.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
        for name in [n for n in rows[0] if n not in ("step", *TIMES)]:
            axes.plot([int(r["step"]) for r in rows], [float(r[name]) for r in rows], label=name)
        axes.legend()
        figure.savefig(self.folder / "losses.png", dpi=100)


class ErrorsAsBatches(Dataset[TrainingBatch | MaskBatch | DataError]):
    """The same data, whose errors are given and not raised.

    What is raised in another process comes out of torch's loader with the traceback as its text.
    """

    def __init__(self, data: TrainingBatches | MaskBatches) -> None:
        self.data = data

    def __getitem__(self, step: int) -> TrainingBatch | MaskBatch | DataError:
        try:
            return self.data[step]
        except DataError as error:
            return error


def loader(
    data: TrainingBatches | MaskBatches, start: int, workers: int
) -> Iterator[TrainingBatch | MaskBatch]:
    """Batches from ``start`` on, made ready by ``workers`` processes.

    Raises:
        DataError: a picture cannot be read.
    """
    order = range(start, len(data))
    given = ErrorsAsBatches(data)
    for batch in DataLoader(given, batch_size=None, sampler=order, num_workers=workers):
        if isinstance(batch, DataError):
            raise batch
        yield batch


def mean_losses(recent: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each loss over some steps, by name."""
    return {name: round(sum(r[name] for r in recent) / len(recent), 5) for name in recent[0]}


def clocks() -> tuple[float, float]:
    """What :data:`TIMES` are differences of, in seconds."""
    return time.monotonic(), time.process_time()


def fit_model(
    training: Training,
    data: TrainingBatches | MaskBatches,
    log: Log,
    every: int,
    workers: int,
    validate: Callable[[], None],
) -> None:
    """The loop: steps, and every so often a row in the log, a checkpoint and a validation."""
    train_mode(training.model)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not log.writes) as progress:
        task = progress.add_task("training", total=len(data), completed=training.step)
        recent: list[dict[str, float]] = []
        began = clocks()
        for batch in loader(data, training.step, workers):
            recent.append(training.advance(batch))
            progress.advance(task)
            if not log.writes:
                continue
            if training.step % STEPS_PER_ROW == 0 or training.step == len(data):
                mean = mean_losses(recent)
                spans = zip(TIMES, clocks(), began, strict=True)
                times = {n: round((now - then) / len(recent), 4) for n, now, then in spans}
                log.add("losses.csv", {"step": training.step, **mean, **times})
                progress.update(task, description=f"loss {sum(mean.values()):.3f}")
                recent, began = [], clocks()
            if training.step % every == 0 or training.step == len(data):
                checkpoint(training, log)
                validate()
                began = clocks()


def checkpoint(training: Training, log: Log) -> None:
    """Everything needed to go on, the averaged weights, and the curves so far."""
    training.save(log.folder / "last.pt")
    averaged = training.average.model.state_dict()
    torch.save(averaged, log.folder / f"model_{training.step:06d}.pt")
    if (log.folder / "losses.csv").exists():
        log.draw()
