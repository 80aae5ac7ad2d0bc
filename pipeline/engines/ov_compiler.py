"""Compile a graph for OpenVINO, or go on from what an earlier run has compiled.

OpenVINO has a cache of its own (``CACHE_DIR``), which is not used: it looks into its folder only
when the graph has been read and given its shapes, a third of the time that there is to save, and
it would take what was compiled for f32 for an engine that is to compute in bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from pipeline.cores import processor_flags
from pipeline.engines.cache_folder import CacheFolder, key_of

DEVICE = "CPU"
# Compiling takes time for every operator, going on for every byte: ResNet-50 with an FPN (170 MB)
# starts no sooner with a cache, `street` (12 MB) in half the time.
MOST_MODEL_BYTES = 100 << 20

Shapes = list[list[int]] | None  # of the inputs, in order; -1 is free, None: as they are
Check = Callable[[list[str], list[str]], None]  # of the names of inputs and outputs

# How an ONNX file names another file that holds weights, which would be in no key.
_WEIGHTS_ELSEWHERE = b"\x0a\x08location\x12"


class OpenVinoCompiler:
    """Makes graphs ready to run on the CPU.

    Args:
        core: OpenVINO.
        version: Of OpenVINO.
        options: What it is told when it compiles.
        cache: Keeps what was compiled; None: nothing is kept.
    """

    def __init__(
        self, core: Any, version: str, options: dict[str, Any], cache: CacheFolder | None
    ) -> None:
        self._core, self._options = core, options
        able = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        self._cache = cache if "EXPORT_IMPORT" in able else None
        self._facts = {
            "version": version,
            "device": core.get_property(DEVICE, "FULL_DEVICE_NAME"),
            "able": sorted(able),
            "flags": processor_flags(),
            "options": options,
        }

    @property
    def remark(self) -> str:
        """What is to be said of the cache; empty if all is well."""
        trouble = self._cache.trouble if self._cache else None
        return f"; compiled at every start, because {trouble}" if trouble else ""

    def compile(self, model: Path | bytes, shapes: Shapes, check: Check) -> Any:
        """The compiled model for an ONNX file, or for the bytes of one.

        Args:
            model: What to compile.
            shapes: Of the inputs.
            check: Refuses a graph by its names.

        Raises:
            RuntimeError: OpenVINO cannot use it.
        """
        key = self._key(model, shapes)
        kept = self._cache.read(key) if self._cache and key else None
        if kept is not None:
            with suppress(RuntimeError):  # it is compiled anew, and what was kept written over
                return self._core.import_model(kept, DEVICE, self._options)
        compiled = self._compiled(model, shapes, check)
        # A file may have changed between the two times that it was read.
        if self._cache and key and key == self._key(model, shapes):
            with suppress(RuntimeError):  # it cannot be exported, but runs
                exported = BytesIO()
                compiled.export_model(exported)
                self._cache.write(key, exported.getvalue())
        return compiled

    def _key(self, model: Path | bytes, shapes: Shapes) -> str | None:
        """Under which the compiled model is kept; None if it is not to be."""
        try:
            size = len(model) if isinstance(model, bytes) else model.stat().st_size
            if self._cache is None or size > MOST_MODEL_BYTES:
                return None
            content = model if isinstance(model, bytes) else model.read_bytes()
        except OSError:  # OpenVINO will say it
            return None
        if _WEIGHTS_ELSEWHERE in content:
            return None
        return key_of("openvino", content, self._facts | {"shapes": shapes})

    def _compiled(self, model: Path | bytes, shapes: Shapes, check: Check) -> Any:
        graph = self._core.read_model(model)
        inputs = [port.any_name for port in graph.inputs]
        # In a file of several sizes outputs have a second name, which older versions name first.
        check(inputs, [name for port in graph.outputs for name in sorted(port.names)])
        if shapes is not None:
            graph.reshape(dict(zip(inputs, shapes, strict=False)))
        return self._core.compile_model(graph, DEVICE, self._options)
