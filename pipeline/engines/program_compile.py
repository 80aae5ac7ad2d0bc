"""Compile a program of torch ahead of time, or go on from what an earlier run has compiled.

AOTInductor makes a package of machine code and weights, which is loaded in 0.2 s; ``torch.compile``
would trace the program anew at every start. Constants are folded into the code (``freezing``),
which lays out weights beforehand: on one core `street` takes 38 ms with it and 59 without (f32, a
busy machine, 2026-11-29). What cannot be compiled takes as long to find out, so that is kept, too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from pipeline.engines.cache_folder import CacheFolder, key_of
from pipeline.engines.program_graph import Graph, Torch, first_line
from pipeline.engines.program_tools import missing_tools, tools
from pipeline.errors import EngineError

log = logging.getLogger(__name__)

Call = Callable[..., Sequence[Any]]

# A compiler may give up in any way, and that is no reason not to run what it was to compile.
_GIVES_UP = (
    *(RuntimeError, OSError, ImportError, ValueError, TypeError, AssertionError),
    *(LookupError, AttributeError, NotImplementedError),
)


class NotCompiled(EngineError):
    """There is no compiled program; the message says why."""


class Compiled(NamedTuple):
    """A compiled program.

    Attributes:
        call: Takes tensors and gives the outputs in order.
        is_new: It was compiled now, not taken from the cache.
        keep: Puts it into the cache, where there is one.
        refuse: Puts there why it is not to be used, and not to be compiled again.
    """

    call: Call
    is_new: bool
    keep: Callable[[], None]
    refuse: Callable[[str], None]


class ProgramCompiler:
    """Makes programs ready to run.

    Args:
        torch: The module.
        cache: Keeps what was compiled; None: nothing is kept.
        facts: All that the outcome depends on beside the program and torch.
    """

    def __init__(
        self, torch: Torch, cache: CacheFolder | None, facts: Mapping[str, object]
    ) -> None:
        self._torch, self._cache = torch, cache
        self._facts = {"torch": torch.__version__, **facts}

    def compiled(
        self, program: bytes, given: Sequence[Any], module: Callable[[], Graph], *, may_build: bool
    ) -> Compiled:
        """The program for inputs of those shapes.

        Args:
            program: The model file.
            given: Inputs of the shapes, on the device that it is for.
            module: Reads the graph and puts it into the precision; asked only if it is needed.
            may_build: Whether it may be compiled now, or must have been before.

        Raises:
            NotCompiled: It is not to be compiled, or cannot be.
        """
        facts = self._facts | {"shapes": [list(one.shape) for one in given]}
        key = key_of("program", program, facts)
        on_gpu = bool(given[0].is_cuda)
        kept = self._cache.read(key) if self._cache else None
        if kept is not None:
            try:
                return Compiled(self._loaded(kept, on_gpu), False, _nothing, _nothing)
            except NotCompiled:
                pass  # it is compiled anew, and what was kept written over
        if not may_build:
            raise NotCompiled("engine.build is false and no earlier run has compiled it")
        with quiet():
            missing = missing_tools(self._torch, on_gpu=on_gpu)
            facts["tools"] = tools(on_gpu=on_gpu)
        if missing:
            raise NotCompiled(missing)
        refused = key_of("refused-program", program, facts)
        self._check_not_refused(refused)
        log.warning(
            "torch compiles the program for batches of %d, which takes a minute or more",
            given[0].shape[0],
        )
        try:
            package = self._package(module(), given)
            call = self._loaded(package, on_gpu)
        except NotCompiled as error:
            if not isinstance(error.__cause__, OSError | self._torch.OutOfMemoryError):
                self._keep(refused, str(error).encode())  # else it may have room the next time
            raise
        return Compiled(
            call,
            True,
            lambda: self._keep(key, package),
            lambda why: self._keep(refused, why.encode()),
        )

    def _check_not_refused(self, key: str) -> None:
        why = self._cache.read(key) if self._cache else None
        if why is not None:
            raise NotCompiled(
                f"{why.decode(errors='replace')}, as an earlier run found; another compiler, or "
                "--set engine.cache=null, tries again"
            )

    def _keep(self, key: str, content: bytes) -> None:
        if self._cache:
            self._cache.write(key, content)

    def _package(self, module: Graph, given: Sequence[Any]) -> bytes:
        torch = self._torch
        try:
            with TemporaryDirectory() as folder, quiet(), torch.no_grad():
                from torch import hub
                from torch._inductor import utils

                # Its bars, which nobody sees, would leave a thread that watches over them.
                vars(hub)["tqdm"].monitor_interval = 0

                path = Path(folder, "compiled.pt2")
                program = torch.export.export(module, tuple(given))
                # Else tens of megabytes of source and objects stay in /tmp; 2.7 has the old name.
                own_folder = getattr(utils, "fresh_cache", None) or utils.fresh_inductor_cache
                with own_folder(), torch._inductor.config.patch(freezing=True):
                    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
                return path.read_bytes()
        except _GIVES_UP as error:
            raise NotCompiled(f"it cannot be compiled ({first_line(error)})") from error

    def _loaded(self, package: bytes, on_gpu: bool) -> Call:
        """One for a GPU is called by one thread at a time, and may be captured in a CUDA graph.

        The other kind asks at each call whether an event has happened, which a capture forbids.
        """
        try:
            with TemporaryDirectory() as folder, quiet():
                path = Path(folder, "compiled.pt2")
                path.write_bytes(package)
                call: Call = self._torch._inductor.aoti_load_package(
                    str(path), run_single_threaded=on_gpu
                )
                return call
        except _GIVES_UP as error:
            raise NotCompiled(
                f"what was compiled cannot be loaded ({first_line(error)})"
            ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block torch keeps its remarks on its own insides to itself."""
    log = logging.getLogger("torch")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, about its own insides
            yield
    finally:
        log.setLevel(before)


def _nothing(*_: str) -> None:
    """What is in the cache stays there."""
