"""Engines: torchvision's Faster R-CNN and ours, the same weights and frames in each of them.

torchvision's detectors run eagerly and as the ONNX file of torchvision's documented export; ours
in torch, as a program of torch, compiled and not, and as our model file in ONNX Runtime and
OpenVINO. All are given pictures that are
ready (uint8 for ours, float tensors for torchvision's, whose making is not counted), and all use
every core for one call at a time. Alternating rounds in one process; before each measurement one
call that does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch

from models.detection.faster_rcnn import OUTPUTS
from models.judging.runners import sums_overflow
from pipeline.engines import load_engine
from pipeline.engines.ov_core import the_core
from pipeline.model_file.reading import read_model_file
from pipeline.model_file.sizes import at_size
from pipeline.placement import PADDING, Placement
from pipeline.settings import EngineSettings
from tests.benchmarks import twins
from tests.benchmarks.agreement import LOOSE, STRICT, Found, matched_share
from tests.benchmarks.cost import Cost, Meter, in_turn, middle
from tests.benchmarks.files import STREET, STREET_FILE, best_precision
from tests.benchmarks.material import Images
from tests.benchmarks.outcome import aim, arguments, in_words, report, wanted

ROUNDS = 9
SMALL, BIG = "mobilenet_v3_large_320_fpn", "resnet50_fpn"
SHORT = {SMALL: "mobilenet_320", BIG: "resnet50"}
OURS = "boxstream O"  # ONNX Runtime and OpenVINO, not torch
LEAST_FPS = {f"{STREET} b1": 1000 / 6, f"{SHORT[SMALL]} b1": 1000 / 11}  # 6 and 11 ms a frame
LEAST_OVER_EAGER = 6.5  # of the fastest, in whatever precision
COLUMNS = {
    "name": "network, batch, program",
    "wall_ms": "ms/frame",
    "spread": "spread",
    "cpu_ms": "CPU ms",
    "over_eager": "x eager",
    "over_export": "x export",
    "objects": "objects",
    "equal": "equal",
    "similar": "similar",
}


@dataclass
class Runner:
    """One program, ready to run.

    Attributes:
        whose: ``torchvision`` or ``boxstream``.
        engine: What runs it.
        precision: ``f32`` or ``bf16``.
        inputs: One prepared input for each batch of frames.
        call: Runs one of them.
        read: Makes of its answer what was found in each frame.
    """

    whose: str
    engine: str
    precision: str
    inputs: Sequence[Any]
    call: Callable[[Any], Any]
    read: Callable[[Any], list[Found]]
    turn: int = 0

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.whose} {self.engine} {self.precision}"

    def cost(self, calls: int, batch: int) -> Cost:
        """Of so many calls, on the next inputs."""
        self.call(self.inputs[self.turn % len(self.inputs)])
        with Meter() as meter:
            for _ in range(calls):
                self.turn += 1
                self.call(self.inputs[self.turn % len(self.inputs)])
        return meter.cost(calls * batch)

    def everything_found(self) -> list[Found]:
        """In all frames, in order."""
        return [found for one in self.inputs for found in self.read(self.call(one))]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments("engines", __doc__, ROUNDS, argv)
    torch.set_grad_enabled(False)
    rows: list[dict[str, Any]] = []
    for network, batch, calls, share in plan(asked.smoke):
        title = f"{SHORT.get(network, network)} b{batch}"
        if wanted(title, asked.only):
            rounds = max(1, round(asked.rounds * share))
            programs = list(runners(network, batch, whole=not asked.smoke))
            rows += measure(title, programs, batch, calls, rounds)
    groups = dict.fromkeys(row["group"] for row in rows)
    aims = [one for group in groups for one in aims_of(group, rows)]
    report(
        "engines",
        asked,
        rows,
        COLUMNS,
        title="One call at a time on all cores, frames of 640x360",
        notes=[
            "equal: share of objects with a partner in torchvision eager's answer (same label, "
            "IoU > 0.99, score within 0.001); similar: IoU > 0.9, score within 0.05",
            "x export: over the fastest of torchvision's own exports in the same precision; "
            "the numbers after b are batch sizes",
            "random weights magnify rounding: torchvision's own exports are no more equal, and "
            "bf16 is to be judged by street, whose witness is itself in f32",
            "torchvision's export is the TorchScript one, with the number of images fixed; the "
            "torch.export-based one refuses its detectors",
            *in_words(aims),
        ],
        aims=aims,
        warm_up="one call before each measurement",
    )


def plan(smoke: bool) -> list[tuple[str, int, int, float]]:
    """(network, batch, calls in a round, share of the rounds); the big one is slow."""
    if smoke:
        return [(SMALL, 1, 1, 1)]
    return [
        (SMALL, 1, 6, 1),
        (SMALL, 4, 2, 1),
        *([(STREET, 1, 12, 1), (STREET, 4, 3, 1)] if STREET_FILE.exists() else []),
        (BIG, 1, 1, 1 / 3),
    ]


def measure(
    title: str, programs: Sequence[Runner], batch: int, calls: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows of one network at one batch size; the first program is the witness of the others."""
    answers = {program.name: program.everything_found() for program in programs}
    witness = answers[programs[0].name]
    costs = in_turn(rounds, {p.name: lambda p=p: p.cost(calls, batch) for p in programs})
    rows = []
    for program in programs:
        pairs = list(zip(witness, answers[program.name], strict=True))
        rows.append(
            {
                "name": f"{title} {program.name}",
                "group": title,
                "whose": program.whose,
                "engine": program.engine,
                "precision": program.precision,
                "batch": batch,
                "rounds": rounds,
                **middle(costs[program.name]),
                "objects": round(float(np.mean([len(found) for _, found in pairs])), 1),
                "equal": round(matched_share(pairs, STRICT), 4),
                "similar": round(matched_share(pairs, LOOSE), 4),
            }
        )
    for row in rows:
        row["over_eager"] = _ratio(_fastest(rows, "torchvision eager", "f32"), row)
        row["over_export"] = _ratio(_fastest(rows, "torchvision export", row["precision"]), row)
    return rows


def aims_of(group: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the design asks of one network at one batch size."""
    mine = [row for row in rows if row["group"] == group]
    ours = {p: _fastest(mine, OURS, p) for p in ("f32", "bf16")}
    aims = []
    if ours["f32"]:
        what = f"{group}: ours f32 over torchvision eager f32"
        aims.append(aim(what, ours["f32"]["over_eager"], 3.0))
    for precision, row in ours.items():
        if row:
            what = f"{group}: ours {precision} over torchvision's best export in {precision}"
            aims.append(aim(what, row["over_export"], 1.25))
    if group in LEAST_FPS:
        fastest = max(mine, key=lambda row: row["fps"])
        who = f"{fastest['engine']} {fastest['precision']}"
        aims.append(aim(f"{group}: frames/s of {who}", fastest["fps"], LEAST_FPS[group]))
        what = f"{group}: {who} over torchvision eager f32"
        aims.append(aim(what, fastest["over_eager"], LEAST_OVER_EAGER))
    return [each for each in aims if each["value"] is not None]


def _fastest(rows: Iterable[dict[str, Any]], program: str, precision: str) -> dict[str, Any] | None:
    """Of the rows in that precision whose program begins so."""
    chosen = [
        row
        for row in rows
        if row["precision"] == precision and f"{row['whose']} {row['engine']}".startswith(program)
    ]
    return min(chosen, key=lambda row: row["wall_ms"], default=None)


def _ratio(slow: Mapping[str, Any] | None, fast: Mapping[str, Any]) -> float | None:
    return round(slow["wall_ms"] / fast["wall_ms"], 3) if slow else None


def runners(network: str, batch: int, whole: bool) -> Iterable[Runner]:
    """For one network at one batch size; `whole`: also those that take a minute to make."""
    few = network == BIG or not whole  # the big one takes seconds for each
    frames = twins.road_frames()[: 2 if few else None]
    if network == STREET:
        frames = _as_the_file_wants(STREET_FILE, frames)
    batches = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    if network == STREET:
        yield from _of_model_file(STREET_FILE, batches)
        if not sums_overflow():
            yield from _of_int8_file(STREET_FILE.with_stem(f"{STREET_FILE.stem}_int8"), batches)
        yield from _of_program(str(STREET_FILE), batches)
        return
    floats = [twins.as_floats(images) for images in batches]
    yield _torchvision_eager(network, floats)
    yield from _torchvision_exported(network, batch, floats)
    yield _ours_in_torch(network, batches)
    yield from _of_model_file(twins.our_onnx(network), batches)
    if network == SMALL and whole:
        yield from _of_program(network, batches)


def _torchvision_eager(network: str, floats: Sequence[Any]) -> Runner:
    model = twins.torchvision_detector(network)

    def read(answer: Sequence[Mapping[str, torch.Tensor]]) -> list[Found]:
        return [
            Found(one["boxes"].numpy(), one["labels"].numpy() - 1, one["scores"].numpy())
            for one in answer
        ]

    return Runner("torchvision", "eager", "f32", floats, model, read)


def _torchvision_exported(network: str, batch: int, floats: Sequence[Any]) -> Iterable[Runner]:
    path = twins.torchvision_onnx(network, batch)
    inputs = [{f"image{i}": image.numpy() for i, image in enumerate(images)} for images in floats]

    def read(answer: Sequence[Any]) -> list[Found]:
        threes = [answer[i : i + 3] for i in range(0, 3 * batch, 3)]
        return [Found(boxes, labels - 1, scores) for boxes, labels, scores in threes]

    session = _onnxruntime_session(path)
    yield Runner(
        "torchvision", "export in ONNX Runtime", "f32", inputs, partial(session.run, None), read
    )
    for precision in precisions():
        infer = _openvino_call(path, precision)
        yield Runner("torchvision", "export in OpenVINO", precision, inputs, infer, read)


def _ours_in_torch(network: str, batches: Sequence[Images]) -> Runner:
    model = twins.our_twin(network).prepare(twins.SIZE_HW)
    inputs = [torch.from_numpy(images) for images in batches]

    def read(answer: Sequence[torch.Tensor]) -> list[Found]:
        arrays = [tensor.numpy() for tensor in answer]
        return _filled(dict(zip(OUTPUTS["detections"], arrays, strict=True)), 0.0)

    return Runner("boxstream", "torch", "f32", inputs, model, read)


def _of_program(source: str, batches: Sequence[Images]) -> Iterable[Runner]:
    """What `--engine program` does, compiled and operator by operator."""
    file = read_model_file(twins.our_program(source))
    least = file.score_threshold if file.output_form == "candidates" else 0.0
    for precision in precisions():
        for build in (False, True):
            cache = str(twins.WORKSHOP / "compiled") if build else None
            asked = EngineSettings("program", precision, len(batches[0]), build=build, cache=cache)
            how = "compiled" if build else "uncompiled"
            infer = load_engine(file, asked).infer
            read = partial(_filled, least=least)
            yield Runner("boxstream", f"program, {how}", precision, batches, infer, read)


def _of_model_file(path: Path, batches: Sequence[Images]) -> Iterable[Runner]:
    file = read_model_file(path)
    # Candidates are shown from the file's threshold on; detections have passed theirs.
    least = file.score_threshold if file.output_form == "candidates" else 0.0
    inputs = [{"frames": images} for images in batches]

    def read(answer: Sequence[Any]) -> list[Found]:
        return _filled(dict(zip(file.outputs, answer, strict=True)), least)

    one_size = at_size(file, file.input_size_hw)  # as the line runs it
    session = _onnxruntime_session(one_size)
    call = partial(session.run, list(file.outputs))
    yield Runner("boxstream", "ONNX Runtime", "f32", inputs, call, read)
    for precision in precisions():
        infer = _openvino_call(one_size, precision, batches[0].shape, file.outputs)
        yield Runner("boxstream", "OpenVINO", precision, inputs, infer, read)


def _of_int8_file(path: Path, batches: Sequence[Images]) -> Iterable[Runner]:
    """The same network with its large layers in int8, all else as fast as may be."""
    *_, fastest = _of_model_file(path, batches)
    yield replace(fastest, precision=f"int8+{fastest.precision}")


def precisions() -> Sequence[str]:
    """What this processor computes in."""
    return ("f32", "bf16") if best_precision() == "bf16" else ("f32",)


def _onnxruntime_session(path: Path | bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _openvino_call(
    path: Path | bytes,
    precision: str,
    shape: Sequence[int] | None = None,
    outputs: Sequence[str] | None = None,
) -> Callable[[Any], list[Any]]:
    """A function that runs the file, of the fixed input `shape` if one is given."""
    core = the_core()
    graph = core.read_model(path)
    if shape is not None:
        graph.reshape(list(shape))
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(graph, "CPU", options).create_infer_request()

    def infer(one: Mapping[str, Any]) -> list[Any]:
        answer = request.infer(one, share_inputs=True)
        return [answer[name].copy() for name in outputs] if outputs else list(answer.to_tuple())

    return infer


def _filled(outputs: Mapping[str, Any], least: float) -> list[Found]:
    """The slots that hold an object, frame by frame."""
    found = []
    for boxes, scores, labels in zip(
        outputs["boxes"], outputs["scores"], outputs["labels"], strict=True
    ):
        filled = scores > least
        found.append(Found(boxes[filled], labels[filled], scores[filled]))
    return found


def _as_the_file_wants(path: Path, frames: Images) -> Images:
    """Frames letterboxed to the file's input size."""
    file = read_model_file(path)
    placement = Placement.letterbox((frames.shape[1], frames.shape[2]), file.input_size_hw)
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    fitted = np.full((len(frames), *file.input_size_hw, 3), PADDING, np.uint8)
    for image, frame in zip(fitted, frames, strict=True):
        image[top : top + height, left : left + width] = cv2.resize(frame, (width, height))
    return fitted


if __name__ == "__main__":
    main()
