"""Which layers of a refused plan moved: what each gives, beside what ONNX Runtime gives on the CPU.

TensorRT does not show what it computes between input and answer. So the plan is built once more,
with what its layers give among the outputs of the graph, and the golden input is run through both.
An output is also a wall: nothing is fused across it. Where the second plan answers rightly, fusing
is to blame, and no layer by itself.

All that is looked at lies in memory at once, for one batch: once on the GPU, and three times on the
host. `MOST_BYTES` bounds it; of a larger network every second layer is looked at, or every third.

Never run on a GPU; see `pipeline.engines.trt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.engines.contract import Outputs, Size
from pipeline.engines.parity import Golden, Parity, bounds_by_cpu, compare
from pipeline.engines.trt_build import Order, build
from pipeline.engines.trt_graph import with_outputs
from pipeline.engines.trt_machine import Machine
from pipeline.engines.trt_run import PlanRunner
from pipeline.errors import EngineError
from pipeline.model_file.reading import ModelFile

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from pipeline.engines.layers import Layer

MOST_BYTES = 512 << 20
MOST_NAMED = 3  # of the worst
LEAST_DB, LEAST_DB_INT8 = 30.0, 10.0
"""Signal to noise below which a layer has moved. Two right engines of the CPU leave at least 112 in
the bundled models, and products rounded to tf32 should leave about 50. Of int8 they leave 22, and
14 where biases are 1 in 2000 off: a number between two steps falls to either side."""


class Suspect(NamedTuple):
    """A plan that was refused.

    Attributes:
        model: Its model file.
        order: What was built.
        size_hw: Of the images.
        golden: What it was shown.
        expected: What it should have answered.
        batch: Number of images from which on it did not.
        timings: What its build measured; they make the second one quicker.
    """

    model: ModelFile
    order: Order
    size_hw: Size
    golden: Golden
    expected: Outputs
    batch: int
    timings: bytes


def moved_layers(machine: Machine, suspect: Suspect) -> str:
    """Build the plan again with its layers open, and say in a sentence which of them moved.

    Nothing is raised if that fails: the plan was refused before.
    """
    unknown = "which layers moved is not known, because"
    try:
        from pipeline.engines.layers import layers_of, looked_at, on_cpu
        from pipeline.engines.ort import FAILURES
    except (ImportError, OSError) as error:
        return f"{unknown} ONNX Runtime, which could tell, cannot be loaded ({error})"
    try:
        every = layers_of(suspect.order.onnx)
        session = on_cpu(suspect.order.onnx, every)
        layers = looked_at(session, every, MOST_BYTES // suspect.batch)
        if not layers:
            return f"{unknown} the graph has none that could be looked at"
        parity = _compared(machine, suspect, session, layers)
    except (EngineError, ValueError, *FAILURES) as error:  # ValueError: shapes differ
        return f"{unknown} {' '.join(str(error).split())}"
    least = LEAST_DB_INT8 if suspect.model.arithmetic in ("int8", "f8") else LEAST_DB
    moved = [layer for layer in layers if layer.decibels < least]
    worst = sorted(moved or layers, key=lambda layer: layer.decibels)[:MOST_NAMED]
    second = (
        f"in a second plan, for batches of {suspect.batch} and with the outputs of {len(layers)} "
        f"of {len(every)} layers open,"
    )
    if moved:
        return (
            f"{second} {len(moved)} moved (less than {least:.0f} dB beside ONNX Runtime), in the "
            f"order of the graph first {moved[0]}; the worst: {', '.join(map(str, worst))}"
        )
    none = f"{second} none moved, the lowest is {worst[0]}"
    if parity.within(bounds_by_cpu(suspect.model)):
        return (
            f"{none}, and it answers rightly: open outputs keep TensorRT from fusing layers, so "
            "the fault lies in how it fuses them"
        )
    return f"{none}, yet it answers wrongly: the fault lies between these layers or behind them"


def _compared(
    machine: Machine, suspect: Suspect, session: InferenceSession, layers: Sequence[Layer]
) -> Parity:
    """Build and run the second plan; how far its layers are off, and how far its answers."""
    n, images = suspect.batch, len(suspect.golden.images)
    rounds = -(-images // n)
    shown, regions = suspect.golden.repeated(rounds * n)
    opened = with_outputs(suspect.order.onnx, {layer.output: layer.kind for layer in layers})
    order = replace(suspect.order, onnx=opened, batches=(n,))
    plan = build(machine, order, suspect.timings).plan
    runner = PlanRunner(machine, plan, suspect.size_hw, (n,), portable=order.portable, whole=True)
    with closing(runner):
        names = [layer.output for layer in layers]
        if missing := {*names, *suspect.model.outputs}.difference(runner.names[1]):
            raise EngineError(f"the second plan does not give {', '.join(sorted(missing))}")
        inputs = [port.name for port in session.get_inputs()]
        parity = Parity()
        for place in (slice(i * n, i * n + n) for i in range(rounds)):
            batch = Golden(shown[place], None if regions is None else regions[place])
            found = runner.submit(*batch).result()
            wanted = session.run(names, dict(zip(inputs, batch, strict=False)))  # regions, if any
            for layer, rows in zip(layers, wanted, strict=True):
                layer.add(rows, found[layer.output])
            rows_of = np.arange(place.start, place.stop) % images
            expected = {name: rows[rows_of] for name, rows in suspect.expected.items()}
            answer = {name: found[name][:, 0] for name in suspect.model.outputs}
            bounds = bounds_by_cpu(suspect.model)
            parity = parity.worst(compare(suspect.model, expected, answer, bounds))
    return parity
