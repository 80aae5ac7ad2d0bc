"""Model files for the line: the bundled one, and a big one with random weights."""

from __future__ import annotations

from pathlib import Path

from pipeline.engines.ov_core import the_core
from tests.benchmarks.material import CLIPS, REPOSITORY, WORKSHOP, clip, fingerprint, spread_frames

STREET = "street"
STREET_FILE = REPOSITORY / "models" / "zoo" / "street.onnx"
OBJECTS_PER_FRAME = 10
"""What a random network's threshold is set to show on average: a street's usual crowd."""


def model_for_the_line(name: str) -> Path:
    """The file of the bundled model, of an architecture of ours (random weights), or `name`."""
    if name == STREET:
        if not STREET_FILE.exists():
            raise SystemExit(f"there is no {STREET_FILE.relative_to(REPOSITORY)} in this checkout")
        return STREET_FILE
    if Path(name).suffix == ".onnx":
        return Path(name)
    return _with_random_weights(name)


def best_precision() -> str:
    """bf16 where the processor has it, which is OpenVINO's own choice, too; else f32."""
    abilities = the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in abilities else "f32"


def _with_random_weights(architecture: str) -> Path:
    here = Path(__file__)
    made_by = [*(REPOSITORY / "models").rglob("*.py"), here, here.with_name("twins.py")]
    path = WORKSHOP / f"line-{architecture}-{fingerprint(made_by)}.onnx"
    if not path.exists():
        from tests.benchmarks import twins

        images = spread_frames(clip(CLIPS["540p"]), 8, twins.SIZE_HW)
        threshold = twins.score_shown_by(architecture, images, OBJECTS_PER_FRAME)
        twins.write_our_onnx(architecture, path, output_form="candidates", threshold=threshold)
    return path
