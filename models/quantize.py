"""Write a model file whose precision stands in the graph: int8, or float8 or 16 for TensorRT.

    python -m models.quantize street --calibrate drive.mp4 pictures/ --out street_int8.onnx \\
        --data VAL.json:IMAGES
    python -m models.quantize street --float8 --calibrate drive.mp4 --out street_f8.onnx
    python -m models.quantize street --float16 --out street_f16.onnx

Int8 and float8 are calibrated on frames of your own (never on those that you judge by). The result
is compared with the original: by AP (mIoU for classes of pixels) where ``--data`` names labelled
sets, else by what both find in the frames. If it loses more than half a point, the noisiest layers
are given back to float until it does not; ``--keep-float`` names some from the start. A file in
int8 runs in OpenVINO, ONNX Runtime and TensorRT, one in float8 in TensorRT on a GPU of Ada or
later, with the other layers in float16; decoding, boxes and scores stay float32.

Exit codes: 0 written, 2 arguments, 4 the model file cannot be used, 6 refused, because what
would be written loses too much.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, version_converter
from rich.console import Console
from rich.table import Column, Table

from models.bad_input import ends_in
from models.boxes import SizeHW
from models.data.pictures import DataError
from models.judging.detectors import fit
from models.model_file.input_sizes import at_size, combine, sizes_of
from models.model_file.onnx_file import halve_weights, write
from models.model_file.reading import ModelFileError, description, model_path, read_onnx
from models.quantization.eight_bits import FLOAT8, INT8, EightBits
from models.quantization.frames import read_frames
from models.quantization.gate import MOST_LOSS, Gate, Verdict, entry, until_it_passes
from models.quantization.half import halved
from models.quantization.layers import feature_layers, layers_for, widened
from models.quantization.noise import Noise, largest_inputs, noise_of_layers
from models.quantization.qdq import Rounding, opset_of, quantised

EXIT_ARGUMENTS, EXIT_MODEL, EXIT_REFUSED = 2, 4, 6
FRAMES, LOOKED_AT, COMPARED = 200, 50, 40
"""Frames for the largest values, for the noise of layers, and for comparing both files."""
SHOWN = 12


class Refused(ValueError):
    """No file of lower precision is good enough."""


class Original:
    """A model file of ours, taken apart by its sizes, its graphs in that opset or a later one.

    Raises:
        ModelFileError: it is none of ours.
        ValueError: it is of a kind that cannot be rounded.
    """

    def __init__(self, path: Path, opset: int = 0) -> None:
        self.path, self.proto, self.about = path, read_onnx(path), description(path)
        if self.about.get("proposer"):
            raise ValueError(
                f"{path} needs regions; only models that look for themselves are taken"
            )
        if self.about.get("arithmetic", "f32") != "f32":
            raise ValueError(f"{path} is {self.about['arithmetic']} already; take its original")
        sizes = sizes_of(self.proto) or [tuple(self.about["input_size_hw"])]
        graphs = ((size, widened(at_size(self.proto, size))) for size in sizes)
        self.graphs = [(size, _raised(graph, opset)) for size, graph in graphs]
        self.layers = [layer.name for layer in feature_layers(self.graphs[0][1])]
        self.is_half = any(t.data_type == TensorProto.FLOAT16 for t in self.proto.graph.initializer)

    def changed(self, change: Callable[[ModelProto], ModelProto]) -> ModelProto:
        """The whole with each graph changed, and what stays float stored as it was."""
        changed = list[tuple[SizeHW, ModelProto]]()
        for size, graph in self.graphs:
            proto = change(graph)
            if self.is_half:
                halve_weights(proto)
            changed.append((size, proto))
        return combine(changed)

    def fitted(self, frames: Iterable[np.ndarray]) -> list[list[np.ndarray]]:
        """Frames of any size as the model sees them, at each of its sizes."""
        sizes = [size for size, _ in self.graphs]
        seen = ([fit(one, size, self.about["fit"])[0] for size in sizes] for one in frames)
        return [list(column) for column in zip(*seen, strict=True)]


class Calibrated:
    """What 8 bits need to know of the original, found by running it over frames.

    frames: for each size of the original, (H, W, 3) uint8 RGB of that size.
    kind: the type of 8 bits.

    Every size has its own largest values; the greater ones are taken, so that all sizes round
    alike and share their weights.
    """

    def __init__(
        self, original: Original, frames: Sequence[Sequence[np.ndarray]], kind: EightBits = INT8
    ) -> None:
        self.original, self.kind = original, kind
        places = list[list[str]]()
        values = list[list[float]]()
        for (_, graph), seen in zip(original.graphs, frames, strict=True):
            layers = layers_for(kind, graph)
            if not layers:
                raise ValueError(f"{original.path} has no layers that may be {kind.told}")
            found = largest_inputs(graph, layers, seen)
            places.append([layer.data for layer in layers])
            values.append([found[layer.data] for layer in layers])
        largest = np.max(values, axis=0).tolist()
        self.largest = [dict(zip(names, largest, strict=True)) for names in places]
        graph, few = original.graphs[0][1], _some(frames[0], LOOKED_AT)
        layers = layers_for(kind, graph)
        self.noise = noise_of_layers(graph, layers, self.largest[0], few, kind)

    def rounded(self, kept_float: frozenset[str]) -> ModelProto:
        """The original with all layers in 8 bits that may be, but these.

        Beside layers in float8 all others that give features are in float16.
        """
        offsets = {n: -one.offset for n, one in self.noise.items() if n not in kept_float}
        largest = iter(self.largest)

        def change(graph: ModelProto) -> ModelProto:
            layers = [x for x in layers_for(self.kind, graph) if x.name not in kept_float]
            made = quantised(graph, layers, Rounding(next(largest), offsets, self.kind))
            return made if self.kind.is_integer else halved(made, feature_layers(graph))

        return self.original.changed(change)


def check(options: argparse.Namespace, original: Original) -> None:
    """Whether all that is named can be used, before much is done with it. Raises DataError."""
    out: Path = options.out
    if out.exists() and out.samefile(original.path):
        raise DataError(f"--out {out} is the original itself; name another file")
    if unknown := set(options.keep_float).difference(original.layers):
        raise DataError(f"no layer {min(unknown)!r}; there are {', '.join(original.layers)}")
    out.parent.mkdir(parents=True, exist_ok=True)


def make_eight_bits(
    options: argparse.Namespace, original: Original, told: Console, kind: EightBits
) -> Verdict:
    """Write the file in int8 or float8; raises :class:`Refused`."""
    frames = original.fitted(read_frames(options.calibrate, options.frames))
    # First, because it measures the original over the labelled sets and so tries them.
    gate = Gate(original.path, _some(frames[0], COMPARED), options.data, options.most_loss)
    calibrated, kept = Calibrated(original, frames, kind), frozenset(options.keep_float)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / options.out.name

        def make(floats: frozenset[str]) -> Path:
            write(calibrated.rounded(floats), original.about | {"arithmetic": kind.name}, trial)
            return trial

        for floats, verdict in until_it_passes(make, gate.judge, calibrated.noise, kept):
            count = len(calibrated.noise.keys() - floats)
            told.print(f"{count} layers in {kind.told}: {verdict}")
        told.print(noise_table(calibrated.noise, floats, kind))
        if not verdict.passes:
            noisiest = min(calibrated.noise, key=lambda name: calibrated.noise[name].decibels)
            raise Refused(
                f"{kind.told} loses too much ({verdict}); nothing was written. Calibrate on frames "
                f"like those that it will see, keep more layers (--keep-float {noisiest} ...), or "
                "allow more with --most-loss"
            )
        others = floats | {name for name in original.layers if name not in calibrated.noise}
        about = {"calibration_frames": len(frames[0]), "float_layers": sorted(others)}
        write_result(original, calibrated.rounded(floats), kind.name, verdict, about, options.out)
    return verdict


def make_float16(options: argparse.Namespace, original: Original, told: Console) -> Verdict | None:
    """Write the float16 file, compared with the original if there are frames or labelled sets."""
    kept = frozenset(options.keep_float)
    proto = original.changed(
        lambda graph: halved(graph, [x for x in feature_layers(graph) if x.name not in kept])
    )
    verdict = None
    if options.calibrate or options.data:
        frames = list(read_frames(options.calibrate, COMPARED)) if options.calibrate else []
        gate = Gate(original.path, frames, options.data, options.most_loss)
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / options.out.name
            write(proto, original.about, trial)
            verdict = gate.judge(trial)
        told.print(f"float16: {verdict}")
        if not verdict.passes:
            raise Refused(f"float16 loses too much ({verdict}); nothing was written")
    write_result(original, proto, "f16", verdict, {"float_layers": sorted(kept)}, options.out)
    return verdict


def write_result(
    original: Original,
    proto: ModelProto,
    arithmetic: str,
    verdict: Verdict | None,
    about: dict[str, Any],
    out: Path,
) -> None:
    """The file with its metadata, which appears whole or not at all."""
    write(proto, entry(original.path, original.about, arithmetic, verdict, about), out)


def noise_table(noise: dict[str, Noise], floats: frozenset[str], kind: EightBits) -> Table:
    """The layers whose outputs moved most."""
    table = Table(Column("layer", overflow="fold"), "signal to noise, dB", "with offsets", "now")
    for name in sorted(noise, key=lambda name: noise[name].decibels)[:SHOWN]:
        one = noise[name]
        now = "float" if name in floats else kind.told
        table.add_row(name, f"{one.decibels:.1f}", f"{one.decibels_before:.1f}", now)
    return table


def _raised(graph: ModelProto, opset: int) -> ModelProto:
    return graph if opset_of(graph) >= opset else version_converter.convert_version(graph, opset)


def _some(frames: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """At most so many, evenly spread."""
    return [frames[i] for i in np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(int)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m models.quantize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = words.add_argument
    add("model", help="bundled name or model file")
    add("--out", type=ends_in(".onnx"), required=True, metavar="FILE.onnx")
    add(
        "--calibrate",
        nargs="+",
        default=[],
        metavar="FRAMES",
        help="videos, pictures, folders of pictures, or JSON:IMAGES of a labelled set",
    )
    others = words.add_mutually_exclusive_group()
    others.add_argument("--float8", action="store_true", help="instead of int8, for newer GPUs")
    others.add_argument("--float16", action="store_true", help="instead of int8, for GPUs")
    add("--data", nargs="+", default=[], metavar="SET", help="JSON:IMAGES, or a set of masks")
    add("--keep-float", nargs="+", default=[], metavar="LAYER", help="layers that stay float")
    add("--frames", type=int, default=FRAMES, metavar="N", help="most frames to calibrate on")
    add("--most-loss", type=float, default=MOST_LOSS, help="of AP or mIoU")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    words = parser()
    options, told = words.parse_args(arguments), Console(soft_wrap=True)
    if not (options.calibrate or options.float16):
        words.error("it is calibrated on frames of your own: --calibrate drive.mp4 or a folder")
    if options.frames < 1:
        words.error("--frames must be at least 1")
    kind = FLOAT8 if options.float8 else INT8
    try:
        original = Original(model_path(options.model), kind.opset if options.float8 else 0)
        check(options, original)
        if options.float16:
            make_float16(options, original, told)
        else:
            make_eight_bits(options, original, told, kind)
    except Refused as error:
        return _failed(error, EXIT_REFUSED)
    except ModelFileError as error:
        return _failed(error, EXIT_MODEL)
    except (DataError, OSError) as error:
        return _failed(error, EXIT_ARGUMENTS)
    except (ValueError, onnx.checker.ValidationError) as error:
        return _failed(error, EXIT_MODEL)
    size, before = (file.stat().st_size / 1e6 for file in (options.out, original.path))
    told.print(f"{options.out}: {size:.1f} MB instead of {before:.1f}")
    return 0


def _failed(error: Exception, code: int) -> int:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {error}")
    return code


if __name__ == "__main__":
    sys.exit(main())
