"""The whole line against everything else one could take, each in an environment of its own.

One clip, one network, the same weights everywhere; all write H.264 with the parameters that
boxstream chose, and one JSON line for each frame:

- our model file in boxstream, in a plain OpenCV loop, in supervision's threaded one, in
  Roboflow's InferencePipeline, and (only with ``--with-ultralytics``) behind Ultralytics' loader;
- torchvision's detector in the OpenCV loop: eagerly, through ``torch.compile``, and its own ONNX
  export in ONNX Runtime and in OpenVINO;
- FFmpeg and GStreamer, which detect nothing: what decoding and encoding cost anybody.

A time is believed when the program handled every frame and found the right objects; another is
shown, and marked. The witness is the OpenCV loop with our model file. All loops prepare pictures as
it does, so with the same weights they must find the same. boxstream prepares them in its own way,
which random weights magnify: what it has in common with the witness there is shown, and it is
believed by what it has in common on `street`, which is trained.
`tests.benchmarks.chart` draws what was written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.model_file.content import content_sha256
from tests.benchmarks.contestant import Job
from tests.benchmarks.cost import in_turn
from tests.benchmarks.environments import Missing, environment, versions
from tests.benchmarks.files import STREET, model_for_the_line
from tests.benchmarks.line import Contest, Entry, row
from tests.benchmarks.material import CLIPS, WORKSHOP, clip, count_frames, synthetic_clip
from tests.benchmarks.outcome import arguments, report, wanted

ROUNDS = 3
NETWORK = "mobilenet_v3_large_320_fpn"
LEAST_AGREEMENT = 0.95
"""Share of common objects from which a time is believed."""
COLUMNS = {
    "name": "program",
    "fps": "frames/s",
    "spread": "spread",
    "cpu_ms": "CPU ms",
    "peak_mb": "peak MB",
    "start_seconds": "start s",
    "objects": "objects",
    "agreement": "same objects",
    "agreement_on_street": "on street",
    "believed": "believed",
}
PACKAGES = (
    *("torch", "torchvision", "onnxruntime", "openvino", "supervision", "inference-cpu"),
    *("ultralytics", "opencv-python-headless", "opencv-python", "av", "numpy"),
)


class Rival(NamedTuple):
    """A program and where it lives.

    Attributes:
        program: As `contestant` knows it.
        home: Its file of pins; None for ours, a command for what the system brings.
        shown: In table and chart.
        finds: Whether it detects anything.
    """

    program: str
    home: str | None
    shown: str
    finds: bool = True


RIVALS = (
    Rival("boxstream", None, "boxstream"),
    Rival("opencv", "opencv", "OpenCV loop, our model"),
    Rival("supervision", "supervision", "supervision, our model"),
    Rival("inference-pipeline", "inference", "InferencePipeline, our model"),
    Rival("ultralytics-loader", "ultralytics", "Ultralytics' loader, our model"),
    Rival("torchvision-openvino", "openvino", "OpenCV loop, torchvision in OpenVINO"),
    Rival("torchvision-onnxruntime", "onnxruntime", "OpenCV loop, torchvision in ONNX Runtime"),
    Rival("torchvision-compiled", "torchvision", "OpenCV loop, torchvision compiled"),
    Rival("torchvision-eager", "torchvision", "OpenCV loop, torchvision eager"),
    Rival("ffmpeg", "ffmpeg", "FFmpeg, no detection", finds=False),
    Rival("gstreamer", "gst-launch-1.0", "GStreamer, no detection", finds=False),
)
OURS, WITNESS = Entry("boxstream", "H.264", "default"), Entry("opencv", "H.264", "x264")
OPT_IN = "ultralytics"  # AGPL-3.0: used here as it is, and neither shipped nor linked


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "full",
        __doc__,
        ROUNDS,
        argv,
        precision={"choices": ("f32", "bf16"), "default": "f32", "help": "of OpenVINO, for all"},
        model={"help": f"another than {NETWORK} for our model file, such as one for a smoke test"},
        with_ultralytics={"action": "store_true", "help": "also what is under the AGPL-3.0"},
        install={"nargs": "*", "metavar": "NAME", "help": "make environments, and stop"},
        no_install={"action": "store_true", "help": "only those whose environments are there"},
    )
    rivals = [r for r in RIVALS if r.home != OPT_IN or asked.with_ultralytics]
    if asked.install is not None:
        names = asked.install or [r.home for r in rivals if r.home and r.finds]
        print("\n".join(f"{n}: {environment(n)}" for n in dict.fromkeys(names)))
        return
    always = (OURS.program, WITNESS.program)
    chosen = [r for r in rivals if r.program in always or wanted(r.program, asked.only)]
    homes = {r: home_of(r, may_install=not asked.no_install) for r in chosen}
    missing = {r.program: home.why for r, home in homes.items() if isinstance(home, Missing)}
    racing = [r for r in chosen if r.program not in missing or r.program == WITNESS.program]
    pythons = {r.program: h for r, h in homes.items() if isinstance(h, Path)}
    # A file of the usual one takes a minute to write.
    network = asked.model or (STREET if asked.smoke else NETWORK)
    with tempfile.TemporaryDirectory() as folder:
        path = synthetic_clip((180, 320), 12) if asked.smoke else clip(CLIPS["540p"])
        job = job_of(racing, path, network, Path(folder), asked.precision)
        race, failed = rehearse(racing, job, pythons)
        left_out = {p: why for p, why in missing.items() if p != WITNESS.program} | failed
        alike = on_street(race.job, pythons)
        rows = measure([r for r in racing if r.program not in failed], race, asked.rounds, alike)
    report(
        "full",
        asked,
        rows,
        COLUMNS,
        title=f"{job.clip.name}, {job.most} frames, {network}, {asked.precision}, H.264 alike",
        notes=[
            "same objects: share that the OpenCV loop with our model found as well (same label, "
            "IoU > 0.7, score +- 0.2)",
            "on street: the same with the model that is trained, by which boxstream is believed, "
            "because it prepares pictures in its own way and random weights magnify that",
            "start: imports, loading, compiling, ten frames to warm up; not in frames/s",
            *(f"left out: {program}: {why}" for program, why in left_out.items()),
        ],
        missing=left_out,
        model_sha256=content_sha256(job.model),
        versions={program: versions(python, PACKAGES) for program, python in pythons.items()},
    )


def home_of(rival: Rival, *, may_install: bool) -> Path | Missing | None:
    """The Python that runs it, None for our own; or why it cannot run."""
    if rival.home is None:
        return None
    if rival.finds:
        return environment(rival.home, may_install=may_install)
    return None if shutil.which(rival.home) else Missing(f"{rival.home} is not installed (apt)")


def job_of(rivals: Sequence[Rival], path: Path, network: str, folder: Path, precision: str) -> Job:
    """The clip, our model file, and its twin where somebody runs torchvision's."""
    twin = twin_of(NETWORK) if any("torchvision" in r.program for r in rivals) else None
    model = model_for_the_line(network)
    return Job(path, model, folder, precision, "default", None, count_frames(path), twin=twin)


def twin_of(network: str) -> dict[str, str]:
    """torchvision's weights and its own export, equal to our model file's."""
    import torch

    from tests.benchmarks import twins

    export = twins.torchvision_onnx(network, batch=1)
    weights = WORKSHOP / f"{export.stem}.pt"
    if not weights.exists():
        torch.save(twins.torchvision_detector(network).state_dict(), weights)
    return {"architecture": network, "weights": str(weights), "export": str(export)}


class Race(Contest):
    """A contest that goes on when somebody loses frames."""

    def agreement(self, entry: Entry, reference: Entry) -> float:
        """As in a contest; 0 if the programs did not write the same number of frames."""
        ours, theirs = self.runs[reference][-1]["found"], self.runs[entry][-1]["found"]
        return super().agreement(entry, reference) if len(ours) == len(theirs) else 0.0


def rehearse(
    rivals: Sequence[Rival], job: Job, pythons: Mapping[str, Path]
) -> tuple[Race, dict[str, str]]:
    """Let each run once, which fills caches of files and compilers; who fails is left out."""
    rehearsal, failed = Race(job, {}, pythons), dict[str, str]()
    rehearsal.run(OURS)  # says which H.264 the others shall write
    x264 = rehearsal.runs[OURS][0]["encoding"]
    race = Race(replace(job, x264=x264), {}, pythons)
    for rival in rivals[1:]:
        try:
            race.run(entry_of(rival))
        except (subprocess.SubprocessError, json.JSONDecodeError) as error:
            failed[rival.program] = f"failed in the rehearsal ({type(error).__name__})"
    if WITNESS.program in failed:
        raise SystemExit(f"the {WITNESS.program} loop failed, and nobody else can be believed")
    race.runs.clear()
    return race, failed


def on_street(job: Job, pythons: Mapping[str, Path]) -> float:
    """Share of objects common to boxstream and the witness, with the model that is trained."""
    folder = job.folder / "street"
    folder.mkdir()
    street = replace(job, model=model_for_the_line(STREET), folder=folder)
    pair = Race(street, {}, pythons)
    for entry in (OURS, WITNESS):
        pair.run(entry)
    return pair.agreement(OURS, WITNESS)


def entry_of(rival: Rival) -> Entry:
    """All but boxstream are told which H.264 to write."""
    return OURS if rival.home is None else Entry(rival.program, "H.264", "x264")


def measure(rivals: Sequence[Rival], race: Race, rounds: int, alike: float) -> list[dict[str, Any]]:
    """A row for each, the quickest first among those that find something.

    Args:
        alike: What boxstream has in common with the witness on `street`.
    """
    runs = {r.program: lambda r=r: race.run(entry_of(r)) for r in rivals}
    costs, rows = in_turn(rounds, runs), []
    for rival in rivals:
        figures = row(entry_of(rival), rival.shown, costs[rival.program], race, WITNESS)
        figures |= {"program": rival.program}
        if rival.program == OURS.program:
            figures["agreement_on_street"] = round(alike, 4)
        rows.append(figures | believed(rival, figures, race.job.most))
    return sorted(rows, key=lambda figures: (not figures["finds"], -figures["fps"]))


def believed(rival: Rival, figures: Mapping[str, Any], frames: int) -> dict[str, Any]:
    """Whether it did the work that it was timed for."""
    whole = figures["frames"] == frames
    if not rival.finds:
        return {"finds": False, "believed": whole, "agreement": None, "objects": None}
    alike = figures.get("agreement_on_street", figures["agreement"])
    return {"finds": True, "believed": whole and alike >= LEAST_AGREEMENT}


if __name__ == "__main__":
    main()
