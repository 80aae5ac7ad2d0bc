"""Make the TensorRT plans of a model beforehand, on the machine that will run them.

    python -m pipeline.build street --batch 4

A first run does the same by itself, unless ``engine.build`` is false; it takes minutes. Plans for
batches of 4 also serve those of 1 and 2, so that a single camera finds its plan among them. With
``--portable`` later versions of TensorRT 10 or 11, and the lean runtime (``tensorrt-lean``), can
run them too; then the folder named by XDG_CACHE_HOME can be copied to machines with the same GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from pipeline.commands import leave, model_path
from pipeline.engines.trt import BATCH, TensorRtEngine
from pipeline.engines.trt_cache import plan_folder
from pipeline.errors import PipelineError
from pipeline.model_file import read_model_file
from pipeline.settings import EngineSettings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m pipeline.build",
        description="Make the TensorRT plans of a model file beforehand.",
        epilog="Exit codes: 0 done, 2 arguments, 4 model or engine.",
    )
    words.add_argument("model", metavar="MODEL", help="bundled name or model file (.onnx)")
    words.add_argument(
        "--batch",
        type=int,
        choices=range(1, 257),
        default=BATCH,
        metavar="N",
        help=f"largest number of images per call, 1 to 256, {BATCH} without it",
    )
    words.add_argument(
        "--precision",
        choices=["auto", "f32"],
        default="auto",
        help="as in the line's settings: auto (unless given) takes TF32 where the GPU has it, f32 "
        "does not",
    )
    words.add_argument(
        "--all-sizes", action="store_true", help="of the images; a latency budget needs them"
    )
    words.add_argument(
        "--portable", action="store_true", help="for later versions and the lean runtime, too"
    )
    words.add_argument(
        "--cache", metavar="FOLDER", default="auto", help="as in engine.cache of the settings"
    )
    words.add_argument("--anew", action="store_true", help="whatever is in the cache")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options, console = parser().parse_args(arguments), Console(stderr=True)
    settings = EngineSettings(
        name="tensorrt",
        precision=options.precision,
        batch=options.batch,
        cache=options.cache,
    )
    try:
        with TensorRtEngine(
            read_model_file(model_path(options.model)),
            settings,
            latency=False,
            all_sizes=options.all_sizes,
            because=f"{options.model} can be run from {plan_folder(options.cache)}",
            portable=options.portable,
            anew=options.anew,
        ) as engine:
            told = engine.reason
    except PipelineError as error:
        console.print(f"error {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    console.print(told, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    leave(main)
