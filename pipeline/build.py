"""Make the TensorRT plans of a model beforehand, on the machine that will run them.

    python -m pipeline.build street --batch 4

A first run does the same by itself, unless ``engine.build`` is false; it takes minutes. Plans for
batches of 4 also serve those of 1 and 2, so that a single camera finds its plan among them. With
``--portable`` later versions of TensorRT 10 or 11, and the lean runtime (``tensorrt-lean``), can
run them too; then the folder named by XDG_CACHE_HOME can be copied to machines with the same GPU.

    python -m pipeline.build street --data VAL.json:IMAGES [VAL.json:IMAGES ...]

measures on labelled pictures, too: a plan whose average precision is more than half a point below
that of an engine on the CPU in f32 is refused for good, and with precision auto the next one tried.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from pipeline.commands import leave, model_path
from pipeline.engines.contract import Size
from pipeline.engines.parity import LabelledAp, cpu_engine
from pipeline.engines.trt import BATCH, TensorRtEngine
from pipeline.engines.trt_cache import plan_folder
from pipeline.errors import PipelineError
from pipeline.labelled import LabelledSet, mean_ap, read_labelled_set
from pipeline.model_file.reading import ModelFile, read_model_file
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
    words.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="SET",
        help="labelled pictures, VAL.json:IMAGES, on which a plan may lose half a point of AP",
    )
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options, console = parser().parse_args(arguments), Console(stderr=True)
    try:
        model = read_model_file(model_path(options.model))
        sets = [read_labelled_set(words, model) for words in options.data]
        told = _built(model, options, sets)
    except PipelineError as error:
        console.print(f"error {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    for line in told:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _built(model: ModelFile, options: argparse.Namespace, sets: Sequence[LabelledSet]) -> list[str]:
    """Make the plans, others where one loses too much on the sets, and say what became of it."""
    settings = EngineSettings(
        name="tensorrt",
        precision=options.precision,
        batch=options.batch,
        cache=options.cache,
    )
    wanted, anew = dict[Size, tuple[float, str]](), options.anew
    while True:  # each time one more plan is refused, until none is left to be tried
        with TensorRtEngine(
            model,
            settings,
            latency=False,
            all_sizes=options.all_sizes,
            because=f"{options.model} can be run from {plan_folder(options.cache)}",
            portable=options.portable,
            anew=anew,
        ) as engine:
            told = [engine.reason]
            for size_hw in engine.sizes_hw if sets else ():
                if size_hw not in wanted:
                    wanted[size_hw] = _by_cpu(model, size_hw, sets)
                ap = LabelledAp(
                    mean_ap(engine, size_hw, sets), *wanted[size_hw], tuple(s.name for s in sets)
                )
                if not engine.judge(size_hw, ap):
                    break
                told.append(f"{ap} at {size_hw[0]}x{size_hw[1]}, by {ap.judge} in f32")
            else:
                return told
        anew = False  # those that were built just now are tried no second time


def _by_cpu(model: ModelFile, size_hw: Size, sets: Sequence[LabelledSet]) -> tuple[float, str]:
    """What a CPU engine reaches, and its name."""
    with cpu_engine(model, size_hw) as engine:
        return mean_ap(engine, size_hw, sets), engine.name


if __name__ == "__main__":
    leave(main)
