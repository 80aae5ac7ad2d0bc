"""Plans on disk: each under a name that says all that it depends on.

A folder holds the plan, what it answers to the golden input, and a manifest in JSON. It appears
whole, by renaming, while a lock is held that other processes wait for; whoever dies in the middle
leaves nothing that counts. A refusal is kept likewise, so that what takes minutes and comes to
nothing is not begun with every start.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.engines.cache_folder import cache_folder
from pipeline.engines.contract import Outputs, Size
from pipeline.engines.parity import LabelledAp
from pipeline.errors import EngineError, EngineUnavailable

log = logging.getLogger(__name__)

FORMAT = 1  # of the folder, and of how plans are built here; a change makes all plans foreign
_PLAN, _GOLDEN, _MANIFEST = "plan", "golden.npz", "manifest.json"


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on.

    Attributes:
        model_sha256: Of the bytes that TensorRT is given.
        tensorrt: Its version; the first number only of a portable plan.
        gpu: Its name.
        compute_capability: Such as ``"9.0"``.
        precision: ``"tf32"`` or ``"f32"``, for what the graph leaves in float32.
        size_hw: Height and width in pixels of the images.
        batches: Batch sizes of the profiles.
        portable: Whether later versions of TensorRT, and the lean runtime, can run it.
        format: Of this cache.
    """

    model_sha256: str
    tensorrt: str
    gpu: str
    compute_capability: str
    precision: str
    size_hw: Size
    batches: tuple[int, ...]
    portable: bool
    format: int = FORMAT

    @property
    def name(self) -> str:
        """sha256 of all that."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def is_in(self, manifest: dict[str, Any]) -> bool:
        """Whether that is the manifest of this key."""
        return bool(manifest["key"] == json.loads(json.dumps(asdict(self))))


class Stored(NamedTuple):
    """What the cache holds under a key."""

    plan: bytes
    golden: dict[str, Any]
    refused: str | None
    ap: str | None = None


class Unusable(Exception):
    """What lies in the cache is damaged, or not what its name says; the text says why."""


def plan_folder(asked: str | None) -> Path:
    """Where plans lie in the folder that the setting ``engine.cache`` stands for.

    Raises:
        EngineUnavailable: There is no such folder; a plan takes minutes, so it must be kept.
    """
    kept = cache_folder(asked)
    if kept is None:
        why = "engine.cache is null" if asked is None else "there is no home folder"
        raise EngineUnavailable(
            f"TensorRT must keep its plans, which take minutes to build, but {why}; name a folder "
            "with --set engine.cache=PATH, or take another engine"
        )
    return kept.path / "tensorrt"


class PlanCache:
    """Plans in one folder; everything but `locked` is to be called while the lock is held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self, key: PlanKey) -> Iterator[None]:
        """Only one process at a time is inside for a key; the others wait, and say so.

        A folder that cannot be written to needs no lock.

        Raises:
            EngineError: The folder cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.folder / f"{key.name}.lock").open("a")
        except OSError as error:
            if not self.folder.is_dir():
                raise _cannot_write(self.folder, error) from error
            yield
            return
        with lock:  # closing it lets go, as does the end of the process, however it comes
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("another process is making ready the same TensorRT plan; waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def find(self, key: PlanKey) -> Stored | None:
        """The plan, checked against its manifest; None if there is none.

        Raises:
            Unusable: It is damaged or foreign.
        """
        folder = self.folder / key.name
        if not folder.exists():
            return None
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            if not key.is_in(manifest):
                raise Unusable("its manifest is that of another plan")
            if manifest["refused"] is not None:
                return Stored(b"", {}, str(manifest["refused"]))
            plan = (folder / _PLAN).read_bytes()
            if hashlib.sha256(plan).hexdigest() != manifest["plan_sha256"]:
                raise Unusable("it is not the plan that its manifest tells of")
            with (
                (folder / _GOLDEN).open("rb") as file,  # which NumPy leaves open when it fails
                np.load(file, allow_pickle=False) as arrays,
            ):
                return Stored(plan, dict(arrays), None, manifest.get("ap"))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise Unusable(f"it cannot be read ({error})") from error

    def wider(self, key: PlanKey) -> list[PlanKey]:
        """Of plans that may work and differ in more batch sizes only, the smallest first.

        They may be asked for without the lock; only what is found under them counts.
        """
        found = []
        for path in self.folder.glob(f"*/{_MANIFEST}"):
            with suppress(OSError, ValueError, KeyError, TypeError):  # damaged, or gone meanwhile
                manifest = json.loads(path.read_text(encoding="utf-8"))
                other = replace(key, batches=tuple(manifest["key"]["batches"]))
                is_wider = {*key.batches} < {*other.batches} and other.is_in(manifest)
                if is_wider and manifest["refused"] is None and path.parent.name == other.name:
                    found.append(other)
        return sorted(found, key=lambda other: other.batches[-1])

    def check_writable(self) -> None:
        """To be asked before a build of minutes; `EngineError` if its plan could not be kept."""
        try:
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def add(self, key: PlanKey, plan: bytes, golden: Outputs, about: dict[str, Any]) -> None:
        """Keep a plan that may work; replaces whatever is there."""
        sha256 = hashlib.sha256(plan).hexdigest()
        self._add(key, plan, golden, {"refused": None, "plan_sha256": sha256} | about)

    def refuse(self, key: PlanKey, why: str, about: dict[str, Any]) -> None:
        """Keep that a plan may not work, and why."""
        self._add(key, None, {}, {"refused": why} | about)

    def keep_ap(self, key: PlanKey, ap: LabelledAp, refused: str | None) -> None:
        """Write into a plan's manifest what was measured on labelled pictures.

        Args:
            refused: Why it may not work any more; None: it may.
        """
        path = self.folder / key.name / _MANIFEST
        measured = {"ap": str(ap), "labelled": ap._asdict(), "refused": refused}
        try:
            manifest = json.loads(path.read_text(encoding="utf-8")) | measured
            part = path.with_suffix(".part")
            _write(part, json.dumps(manifest, indent=1).encode())
            os.replace(part, path)
            if refused:
                path.with_name(_PLAN).unlink(missing_ok=True)
                path.with_name(_GOLDEN).unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def discard(self, key: PlanKey) -> None:
        """Remove what lies under the key."""
        shutil.rmtree(self.folder / key.name, ignore_errors=True)  # it may be gone already

    def timings(self, key: PlanKey) -> bytes:
        """What builds for this GPU have measured so far; empty at first."""
        try:
            return self._timing_file(key).read_bytes()
        except OSError:
            return b""

    def keep_timings(self, key: PlanKey, timings: bytes) -> None:
        """Replace them; without them a build only takes longer, so that no failure matters."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                file.write(timings)
            os.replace(file.name, self._timing_file(key))
        except OSError as error:
            log.debug("TensorRT's timings cannot be kept: %s", error)

    def _timing_file(self, key: PlanKey) -> Path:
        place = f"{key.tensorrt} {key.gpu} {key.compute_capability}"
        return self.folder / f"{hashlib.sha256(place.encode()).hexdigest()}.timings"

    def _add(
        self, key: PlanKey, plan: bytes | None, golden: dict[str, Any], manifest: dict[str, Any]
    ) -> None:
        for left in self.folder.glob(f"{key.name}.part-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)  # or another process does it
        try:
            part = Path(tempfile.mkdtemp(prefix=f"{key.name}.part-", dir=self.folder))
            if plan is not None:
                _write(part / _PLAN, plan)
                np.savez_compressed(part / _GOLDEN, allow_pickle=False, **golden)
            text = json.dumps({"key": asdict(key)} | manifest, indent=1)
            _write(part / _MANIFEST, text.encode())
            self.discard(key)
            os.rename(part, self.folder / key.name)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error


def _write(path: Path, content: bytes) -> None:
    """All of it on the disk, before anything is renamed."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _cannot_write(folder: Path, error: OSError) -> EngineError:
    return EngineError(
        f"cannot write TensorRT's plans to {str(folder)!r} ({error.strerror or error}); make room "
        "there, or name another folder with --set engine.cache=PATH"
    )
