"""Where a plan comes from: out of the cache if it still works there, else built and tried.

Nothing runs frames that has not shown that it answers rightly: a new plan is held against a CPU
engine that runs the same file, a kept one against what it answered when it was new.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import reduce
from typing import Any, NamedTuple

from pipeline.engines.contract import Outputs, Size, check_names, check_outputs
from pipeline.engines.cuda_calls import GpuFailed
from pipeline.engines.parity import (
    AS_BUILT,
    MOST_AP_LOST,
    Golden,
    LabelledAp,
    Parity,
    bounds_by_cpu,
    by_cpu,
    compare,
    golden_input,
)
from pipeline.engines.trt_build import Built, Order, build, full_tensorrt
from pipeline.engines.trt_cache import PlanCache, PlanKey, Stored, Unusable
from pipeline.engines.trt_calls import version_of
from pipeline.engines.trt_graph import static_graph
from pipeline.engines.trt_layers import Suspect, moved_layers
from pipeline.engines.trt_machine import Machine
from pipeline.engines.trt_run import PlanRunner
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.model_file.reading import ModelFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What plans are wanted.

    Attributes:
        model: The model file.
        batches: Batch sizes of each plan; one from the cache may have more.
        precisions: ``"tf32"`` or ``"f32"``; the first that passes its check is taken.
        may_build: False: only what is in the cache.
        portable: Build for later versions of TensorRT and the lean runtime, too.
        anew: Build whatever is in the cache.
        command: Makes the plans beforehand.
    """

    model: ModelFile
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    may_build: bool
    portable: bool
    anew: bool
    command: str


class Opened(NamedTuple):
    """A plan that may work, under which key it is kept, and a few words on where it comes from."""

    runner: PlanRunner
    key: PlanKey
    origin: str


class Refused(NamedTuple):
    """A plan that may not."""

    why: str


class Plans:
    """Opens plans for the sizes of one model."""

    def __init__(self, machine: Machine, cache: PlanCache, wanted: Wanted) -> None:
        self._machine, self._cache, self._wanted = machine, cache, wanted
        self._discarded: str | None = None

    def open(self, size_hw: Size) -> Opened:
        """A plan for images of that size.

        Raises:
            EngineUnavailable: There is none in the cache, and none may or can be built.
            ModelMismatch: TensorRT cannot take the model.
            EngineError: It fails, or what it builds answers wrongly.
        """
        onnx = static_graph(self._wanted.model, size_hw)
        refusals = []
        for precision in self._wanted.precisions:
            found: Opened | Refused | None = None
            for key in self._keys(onnx, precision, size_hw):
                with self._cache.locked(key):
                    found = None if self._wanted.anew else self._kept(key) or self._wider(key)
                    if found is None and self._builds(key):
                        found = self._new(key, onnx)
                if found is not None:
                    break
            if isinstance(found, Opened):
                return found
            if found:
                log.warning("TensorRT in %s: %s", precision, found.why)
                refusals.append(f"in {precision} {found.why}")
        raise self._nothing(size_hw, refusals)

    def judge(self, opened: Opened, ap: LabelledAp) -> bool:
        """Keep what a plan's average precision is; refuse it for good where too much is lost."""
        with self._cache.locked(opened.key):
            why = (
                f"its plan was refused, because it loses on labelled pictures: {ap}, which "
                f"{ap.judge} reaches in f32 (at most {MOST_AP_LOST} may be lost)"
            )
            self._cache.keep_ap(opened.key, ap, None if ap.is_near else why)
        return ap.is_near

    def _keys(self, onnx: bytes, precision: str, size_hw: Size) -> Iterator[PlanKey]:
        """Under which a plan may lie, the one that would be built last."""
        machine, wanted = self._machine, self._wanted
        major = str(version_of(machine.trt)[0])
        for portable in (True, False):
            if portable or (machine.package.can_build and not wanted.portable):
                yield PlanKey(
                    hashlib.sha256(onnx).hexdigest(),
                    major if portable else machine.trt.__version__,
                    machine.gpu.name,
                    machine.compute_capability,
                    precision,
                    size_hw,
                    wanted.batches,
                    portable,
                )

    def _builds(self, key: PlanKey) -> bool:
        wanted = self._wanted
        return wanted.may_build and wanted.portable == key.portable

    def _kept(self, key: PlanKey) -> Opened | Refused | None:
        """What the cache has; None where it has nothing that can be used."""
        try:
            stored = self._cache.find(key)
            if stored is None:
                return None
            if stored.refused is not None:
                return Refused(stored.refused)
            ap = f" ({stored.ap})" if stored.ap else ""
            return Opened(self._tried(key, stored), key, f"its plan was in the cache{ap}")
        except (EngineUnavailable, GpuFailed):
            raise  # the plan has done nothing wrong
        except (Unusable, EngineError) as error:
            self._discarded = f"a plan in the cache was discarded, because {error}"
            log.warning("TensorRT: %s", self._discarded)
            self._cache.discard(key)
            return None

    def _wider(self, key: PlanKey) -> Opened | None:
        """What the cache has for more batch sizes than are wanted: `pipeline.build` makes such."""
        for wider in self._cache.wider(key):
            with self._cache.locked(wider):  # nobody waits the other way round
                found = self._kept(wider)
            if isinstance(found, Opened):
                return found
        return None

    def _tried(self, key: PlanKey, stored: Stored) -> PlanRunner:
        """The plan, after it has given its old answers once more."""
        with self._runner(key, stored.plan) as (runner, keep):
            try:
                golden = Golden(stored.golden["images"], stored.golden.get("regions"))
                for n, found in self._answers(runner, golden).items():
                    kept = {name: stored.golden[f"{n}/{name}"] for name in found}
                    parity = compare(self._wanted.model, kept, found, AS_BUILT)
                    if not parity.within(AS_BUILT):
                        raise Unusable(f"it answers otherwise than when it was new: {parity}")
            except KeyError as error:
                raise Unusable(f"its golden answers lack {error}") from None
            keep.pop_all()
            return runner

    def _new(self, key: PlanKey, onnx: bytes) -> Opened | Refused:
        """Build a plan, and see whether it may work."""
        wanted, started = self._wanted, time.perf_counter()
        full_tensorrt(self._machine)  # before anybody waits for anything
        self._cache.check_writable()
        name = f"{wanted.model.path.name} at {key.size_hw[0]}x{key.size_hw[1]}"
        log.warning("TensorRT builds a plan for %s, which takes minutes", name)
        golden = golden_input(wanted.model, key.size_hw)
        truth = by_cpu(wanted.model, key.size_hw, golden)
        order = Order(name, onnx, key.batches, key.precision == "tf32", key.portable)
        built = build(self._machine, order, self._cache.timings(key))
        self._cache.keep_timings(key, built.timings)
        seconds = time.perf_counter() - started
        about = {"built": date.today().isoformat(), "seconds": round(seconds, 1)}
        return self._judged(key, order, built, golden, truth, about)

    def _judged(
        self,
        key: PlanKey,
        order: Order,
        built: Built,
        golden: Golden,
        truth: tuple[Outputs, str],
        about: dict[str, Any],
    ) -> Opened | Refused:
        """Hold a new plan against the CPU's answer, `truth`, and keep it, or its refusal."""
        model, (expected, judge) = self._wanted.model, truth
        bounds = bounds_by_cpu(model)
        with self._runner(key, built.plan) as (runner, keep):
            answers = self._answers(runner, golden)
            parities = {n: self._parity(expected, found) for n, found in answers.items()}
            parity = reduce(Parity.worst, parities.values())
            about |= {"judge": judge, "parity": str(parity)}
            if parity.within(bounds):
                self._cache.add(key, built.plan, _arrays(golden, answers), about)
                keep.pop_all()
                origin = f"its plan was built in {about['seconds']:.0f} s and agrees with {judge}"
                return Opened(runner, key, f"{origin}: {parity}")
        wrong = min(n for n, found in parities.items() if not found.within(bounds))
        new = Suspect(model, order, key.size_hw, golden, expected, wrong, built.timings)
        why = (
            f"its plan was refused, because it answers otherwise than {judge} in f32: {parity} "
            f"(expected {bounds})"
        )
        self._cache.refuse(key, why, about)  # whoever interrupts what follows has waited for it
        log.warning("TensorRT's plan answers wrongly; a second one is to show which layers moved")
        why = f"{why}; {moved_layers(self._machine, new)}"
        self._cache.refuse(key, why, about)
        return Refused(why)

    @contextmanager
    def _runner(self, key: PlanKey, plan: bytes) -> Iterator[tuple[PlanRunner, ExitStack]]:
        """The plan made ready, and what closes it at the end of the block unless it is kept."""
        with ExitStack() as keep:
            runner = PlanRunner(
                self._machine,
                plan,
                key.size_hw,
                key.batches,
                wanted=self._wanted.batches,
                portable=key.portable,
            )
            keep.callback(runner.close)
            check_names(self._wanted.model, *runner.names)
            yield runner, keep

    def _answers(self, runner: PlanRunner, golden: Golden) -> dict[int, Outputs]:
        """To the golden input, by batch size; of each image once."""
        answers = {}
        for n in self._wanted.batches:
            found = runner.submit(*golden.repeated(n)).result()
            check_outputs(self._wanted.model, found, n)
            answers[n] = {name: rows[: len(golden.images)] for name, rows in found.items()}
        return answers

    def _parity(self, expected: Outputs, found: Outputs) -> Parity:
        """Of one batch size: each is computed in a way of its own."""
        wanted = {name: rows[: len(found[name])] for name, rows in expected.items()}
        return compare(self._wanted.model, wanted, found, bounds_by_cpu(self._wanted.model))

    def _nothing(self, size_hw: Size, refusals: list[str]) -> EngineError:
        wanted, machine = self._wanted, self._machine
        name = "{} at {}x{}".format(wanted.model.path.name, *size_hw)
        if refusals:
            return EngineError(
                f"TensorRT may not run {name}: {'; '.join(refusals)}; use --engine openvino, or "
                f"build once more with `{wanted.command} --anew`"
            )
        discarded = f" ({self._discarded})" if self._discarded else ""
        if wanted.may_build:
            cause, where = f"{machine.package.module} only runs plans", " --portable` where the "
            where += "full TensorRT is, for the same GPU"
        else:
            cause, where = "building is forbidden (engine.build: false)", "`"
        return EngineUnavailable(
            f"there is no plan for {name} on {machine.gpu.name} with TensorRT "
            f"{machine.trt.__version__}{discarded}, and {cause}; make it beforehand: "
            f"`{wanted.command}{where}"
        )


def _arrays(golden: Golden, answers: dict[int, Outputs]) -> dict[str, Any]:
    """Input and answers under the names that they have in the cache."""
    kept: dict[str, Any] = {"images": golden.images}
    if golden.regions is not None:
        kept["regions"] = golden.regions
    for n, outputs in answers.items():
        kept |= {f"{n}/{name}": rows for name, rows in outputs.items()}
    return kept
