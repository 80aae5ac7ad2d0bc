"""The model file: an ONNX graph that says itself what it is.

One entry of the ONNX metadata, key ``boxstream``, holds a JSON object with the task, the class
names, how frames are fitted and where the weights come from. No second file can get lost, and any
engine that loads ONNX loads it. The entry is read here straight from the protobuf bytes, so that
a wrong file is refused before an engine is even imported.

An archive of ``torch.export`` with the same entry (`pipeline.model_file.program_archive`) is a
model file, too, for one engine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pipeline.errors import ModelMismatch
from pipeline.frame import RGB
from pipeline.model_file.content import explained, metadata
from pipeline.model_file.program_archive import NoArchive, entry_of_program, is_archive

Fit = Literal["letterbox", "stretch"]
OutputForm = Literal["candidates", "detections", "classes"]
Arithmetic = Literal["f32", "int8", "f8", "f16"]
Task = Literal["detection", "instance", "semantic"]

METADATA_KEY = "boxstream"
SCHEMA = 1
OUTPUTS: dict[OutputForm, tuple[str, ...]] = {
    "candidates": ("boxes", "scores", "labels"),
    "detections": ("boxes", "scores", "labels", "count"),
    "classes": ("classes",),
}
TASKS: tuple[Task, ...] = ("detection", "instance", "semantic")
MOST_PIXEL_CLASSES = 255  # 255 itself is kept free: nothing known
MOST_REGIONS = 100_000

_MOST_METADATA_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """What a model file says about itself.

    Attributes:
        path: The ONNX file.
        task: ``"detection"`` finds boxes, ``"instance"`` boxes with masks, ``"semantic"`` the
            class of every pixel.
        output_form: ``"candidates"`` leaves suppression to the line, ``"detections"`` has done it,
            ``"classes"`` is that of semantic models.
        class_names: Name of each class id; of objects without background, of pixels all of them.
        input_size_hw: Height and width in pixels of the uint8 RGB frames it takes.
        fit: How a frame is brought to that size.
        outputs: Names of the outputs.
        score_threshold: Recommended lowest score of a detection; this and the three that follow
            mean nothing to a semantic model.
        nms_iou: Recommended overlap from which a box is a duplicate.
        max_detections: Most detections of a frame.
        precision_check: Average precision, or mIoU of pixels, by precision (``{"f32": 0.71, "bf16":
            0.71}``), as measured when the file was made; None when it was not. In a file that
            `models.quantize` made, ``"original"`` is that of the file it was made from, in f32.
        smaller_hw: Other sizes at which the file can be run, ever fewer pixels; see
            `pipeline.model_file.sizes`.
        palette: RGB in which each class is drawn; None leaves that to the line.
        proposer: Who tells the model where to look, by name; None when it looks for itself.
        regions: Most regions of a frame that a proposer may give it; 0 without one.
        arithmetic: In which the graph has its layers compute; ``"int8"``, ``"f8"`` (with f16 beside
            it) and ``"f16"`` are what `models.quantize` writes, and leave scores and boxes in f32.
        is_program: A program of torch, which one engine runs, and no ONNX file.
        made_from: `content_sha256` of the file that `models.quantize` made it from; None where it
            does not say.
    """

    path: Path
    task: Task
    output_form: OutputForm
    class_names: tuple[str, ...]
    input_size_hw: tuple[int, int]
    fit: Fit
    outputs: tuple[str, ...]
    score_threshold: float
    nms_iou: float
    max_detections: int
    precision_check: dict[str, float] | None
    smaller_hw: tuple[tuple[int, int], ...] = ()
    palette: tuple[RGB, ...] | None = None
    proposer: str | None = None
    regions: int = 0
    arithmetic: Arithmetic = "f32"
    is_program: bool = False
    made_from: str | None = None

    @property
    def input_sizes_hw(self) -> tuple[tuple[int, int], ...]:
        """Every size at which it can be run, the usual one first."""
        return self.input_size_hw, *self.smaller_hw

    def __post_init__(self) -> None:
        masks = ("masks",) if self.task == "instance" else ()
        needed = (*OUTPUTS[self.output_form], *masks)
        missing = [name for name in needed if name not in self.outputs]
        if missing:
            raise ModelMismatch(f"{self.path}: the {self.output_form} form needs outputs {missing}")
        if not self.class_names or min(self.input_size_hw) < 1 or self.max_detections < 1:
            raise ModelMismatch(
                f"{self.path}: class names, input size and max_detections cannot be empty or zero"
            )
        pixels = [max(height, 0) * max(width, 0) for height, width in self.input_sizes_hw]
        if not all(more > fewer > 0 for more, fewer in pairwise(pixels)):
            raise ModelMismatch(f"{self.path}: each input size must be smaller than the one before")
        for key in ("score_threshold", "nms_iou"):
            if not 0 <= getattr(self, key) <= 1:
                raise ModelMismatch(f"{self.path}: {key} must lie between 0 and 1")
        if self.is_semantic and len(self.class_names) > MOST_PIXEL_CLASSES:
            raise ModelMismatch(f"{self.path}: more than {MOST_PIXEL_CLASSES} classes of pixels")
        if self.palette is not None and len(self.palette) != len(self.class_names):
            raise ModelMismatch(
                f"{self.path}: the palette has {len(self.palette)} colours for "
                f"{len(self.class_names)} classes; export the model again"
            )
        if (self.proposer is None) != (self.regions == 0):
            raise ModelMismatch(
                f"{self.path}: proposer and regions belong together; export the model again"
            )

    @property
    def is_semantic(self) -> bool:
        """Whether it says the class of every pixel, and finds no objects."""
        return self.task == "semantic"

    @property
    def object_names(self) -> tuple[str, ...]:
        """What the class ids of its detections mean; none where it finds no objects."""
        return () if self.is_semantic else self.class_names


def read_model_file(path: str | Path) -> ModelFile:
    """Read what `path` says about itself; touches a few kilobytes, whatever the file's size.

    Raises:
        ModelNotFound: There is no such file.
        ModelMismatch: It is no ONNX file and no program, is cut short, or was not made by our
            exporter.
        EngineError: It may not be read.
    """
    path = Path(path)
    try:
        with explained(path), path.open("rb") as file:
            is_program = is_archive(file)
            text = (
                entry_of_program(file, METADATA_KEY, _MOST_METADATA_BYTES)
                if is_program
                else metadata(file, path.stat().st_size, METADATA_KEY, _MOST_METADATA_BYTES)
            )
    except NoArchive as error:
        raise ModelMismatch(
            f"{str(path)!r} is not a complete torch program ({error}); copy or export it again"
        ) from None
    if text is None:
        where = "it holds" if is_program else "its ONNX metadata has"
        raise ModelMismatch(
            f"{str(path)!r} is not one of our model files: {where} no "
            f"{METADATA_KEY!r} entry; make it with `python -m models.export`"
        )
    return _parse(path, text, is_program)


def _parse(path: Path, text: bytes, is_program: bool) -> ModelFile:
    try:
        entry = json.loads(text)
        if entry["schema"] != SCHEMA:
            raise ModelMismatch(
                f"{str(path)!r} has schema {entry['schema']!r}, this program reads {SCHEMA}; "
                "export the model again with the same version"
            )
        height, width = (int(side) for side in entry["input_size_hw"])
        sizes = [(int(h), int(w)) for h, w in entry.get("input_sizes_hw", [[height, width]])]
        if sizes[:1] != [(height, width)]:
            raise ValueError("input_sizes_hw does not begin with input_size_hw")
        check = entry.get("precision_check")
        task = cast(Task, _one_of(entry, "task", TASKS))
        return ModelFile(
            path=path,
            task=task,
            class_names=tuple(str(name) for name in entry["class_names"]),
            input_size_hw=(height, width),
            fit=cast(Fit, _one_of(entry, "fit", ("letterbox", "stretch"))),
            outputs=tuple(str(name) for name in entry["outputs"]),
            **(_CLASSES_OF_PIXELS if task == "semantic" else _of_objects(entry)),
            precision_check=check and {str(key): float(ap) for key, ap in check.items()},
            smaller_hw=tuple(sizes[1:]),
            palette=_palette(entry.get("palette")),
            arithmetic=cast(Arithmetic, _arithmetic(entry)),
            is_program=is_program,
            made_from=_made_from(entry),
        )
    except KeyError as error:
        raise ModelMismatch(
            f"{str(path)!r}: its {METADATA_KEY!r} entry lacks {error}; export the model again"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ModelMismatch):
            raise
        raise ModelMismatch(
            f"{str(path)!r}: its {METADATA_KEY!r} entry cannot be read ({error}); "
            "export the model again"
        ) from None


# What a semantic model's entry says nothing of, because nothing is thresholded or suppressed.
_CLASSES_OF_PIXELS: dict[str, Any] = {
    "output_form": "classes",
    "score_threshold": 0.0,
    "nms_iou": 1.0,
    "max_detections": 1,
}


def _of_objects(entry: dict[str, Any]) -> dict[str, Any]:
    """What only the entry of a model that finds objects says."""
    proposer, regions = entry.get("proposer"), int(entry.get("regions", 0))
    if not 0 <= regions <= MOST_REGIONS:
        raise ValueError(f"regions is {regions}, expected 0 to {MOST_REGIONS}")
    return {
        "output_form": _one_of(entry, "output_form", ("candidates", "detections")),
        "score_threshold": float(entry["score_threshold"]),
        "nms_iou": float(entry["nms_iou"]),
        "max_detections": int(entry["max_detections"]),
        "proposer": None if proposer is None else str(proposer),
        "regions": regions,
    }


def _palette(colours: Any) -> tuple[RGB, ...] | None:
    """Triples of 0 to 255."""
    if colours is None:
        return None
    palette = tuple((int(red), int(green), int(blue)) for red, green, blue in colours)
    if not all(0 <= part <= 255 for colour in palette for part in colour):
        raise ValueError("a colour of the palette is not red, green and blue from 0 to 255")
    return palette


def _made_from(entry: dict[str, Any]) -> str | None:
    return str(entry["made_from"]["sha256"]) if "made_from" in entry else None


def _arithmetic(entry: dict[str, Any]) -> str:
    return _one_of({"arithmetic": "f32"} | entry, "arithmetic", get_args(Arithmetic))


def _one_of(entry: dict[str, Any], key: str, known: tuple[str, ...]) -> str:
    if entry[key] not in known:
        raise ValueError(f"{key} is {entry[key]!r}, known are {', '.join(known)}")
    return cast(str, entry[key])
