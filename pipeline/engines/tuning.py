"""How an engine divides the cores, as `python -m pipeline.tune` has measured it on this machine.

What was measured is kept in the folder of compiled models, under a key that covers all that it
depends on: the model's bytes, the engine and its version, the precision, the processor, and the
cores that this process may use. Where nothing is kept an engine goes by its own rule.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pipeline.cores import processor_flags, usable_cores
from pipeline.engines.cache_folder import CacheFolder, cache_folder, key_of
from pipeline.machine import cpu_name
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings

Purpose = Literal["recording", "camera", "cameras"]
"""What an engine is for: as many frames a second as there can be, one camera's frames as soon as
there is an answer, or both for several cameras, whose frames must not wait for each other."""

_SCHEMA = 1
_KIND = "tuning"  # begins the names of what is kept


@dataclass(frozen=True)
class Division:
    """Threads, calls at once among which they are divided, images per call; 0: the engine's rule.

    One that is all zeros stands for the rule.
    """

    threads: int = 0
    streams: int = 0
    batch: int = 0

    def __post_init__(self) -> None:
        if min(self.threads, self.streams, self.batch) < 0:
            raise ValueError(f"threads, streams and batch cannot be negative: {self}")

    def asked_of(self, settings: EngineSettings) -> EngineSettings:
        """The same settings with this division in them."""
        return replace(settings, **asdict(self))


RULE = Division()


@dataclass(frozen=True)
class Measured:
    """What was found on a machine for a model.

    Attributes:
        day: When, as 2026-11-29.
        best: The division for each purpose.
    """

    day: str
    best: Mapping[Purpose, Division] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """Settings that an engine is to use, and where they come from.

    Attributes:
        settings: With what was measured in the place of ``auto``.
        day: When it was measured; None: it was not, or the user has asked for something.
    """

    settings: EngineSettings
    day: str | None = None

    def remark(self, batch: int, streams: int) -> str:
        """What is to be said of it; empty where nothing was measured."""
        if self.day is None:
            return ""
        images = "1 image" if batch == 1 else f"{batch} images"
        threads = self.settings.threads or usable_cores()
        calls = f" divided among {streams} calls" if streams > 1 else ""
        some = "1 thread" if threads == 1 else f"{threads} threads"
        return f"; {some}{calls}, {images} per call: measured on this machine {self.day}"


def choose(
    model: ModelFile, settings: EngineSettings, engine: str, precision: str, purpose: Purpose
) -> Chosen:
    """What was measured, where the user leaves threads, calls and batch to the machine.

    Somebody who has asked for one of them has asked for something that was not measured, so the
    others are the rule's.
    """
    if settings.threads or settings.streams or settings.batch:
        return Chosen(settings)
    folder = cache_folder(settings.cache)
    measured = folder and read(folder, model, engine, precision)
    if not measured or purpose not in measured.best:
        return Chosen(settings)
    return Chosen(measured.best[purpose].asked_of(settings), measured.day)


def read(folder: CacheFolder, model: ModelFile, engine: str, precision: str) -> Measured | None:
    """What is kept for this machine and model; None if nothing is, or if it makes no sense."""
    if not folder.has_any(_KIND):  # so that nobody pays for the key who has never measured
        return None
    try:
        content = folder.read(_key(model, engine, precision))
        return None if content is None else _understood(json.loads(content))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write(
    folder: CacheFolder, model: ModelFile, engine: str, precision: str, measured: Measured
) -> None:
    """Keep it; where that fails, the folder's `trouble` says why."""
    entry = {"schema": _SCHEMA, **asdict(measured)}
    folder.write(_key(model, engine, precision), json.dumps(entry).encode())


def _understood(entry: dict[str, Any]) -> Measured | None:
    if entry["schema"] != _SCHEMA:
        return None
    best = {purpose: Division(**division) for purpose, division in entry["best"].items()}
    return Measured(str(entry["day"]), best)


def _key(model: ModelFile, engine: str, precision: str) -> str:
    """`OSError` if the model cannot be read any more. The engine's package has been imported."""
    facts = {
        "engine": engine,
        "version": str(sys.modules[engine].__version__),
        "precision": precision,
        "processor": cpu_name(),
        "flags": processor_flags(),
        "cores": usable_cores(),
    }
    return key_of(_KIND, model.path.read_bytes(), facts)
