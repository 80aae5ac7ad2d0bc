"""The settings of a run: one frozen value, made once, handed to whoever needs a part of it.

`pipeline.config` reads them from a YAML file and the command line. The comments beside the
fields are what `--print-config` and the documentation show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EngineSettings:
    """How the model file is run."""

    name: Literal["auto", "openvino", "onnxruntime"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"
    batch: int = 0  # images per call; 0: chosen for this machine
    threads: int = 0  # CPU threads of the engine; 0: all cores
    batch_wait_seconds: float = 0.02  # most time a batch waits for its last image


@dataclass(frozen=True)
class DetectionSettings:
    """What becomes of the engine's boxes."""

    threshold: float | None = None  # lowest score shown; none: what the model file recommends
    class_thresholds: dict[str, float] = field(default_factory=dict)  # e.g. {person: 0.6}
    nms: Literal["class_aware", "class_agnostic", "soft"] = "class_aware"
    nms_iou: float | None = None  # overlap from which a box is a duplicate; none: the file's
    max_detections: int = 100


@dataclass(frozen=True)
class RenderSettings:
    """What is drawn on the picture."""

    enabled: bool = True
    labels: bool = True
    scores: bool = True
    hud: bool = False  # fps, latency and drops in a corner
    line_width: int = 0  # pixels; 0: chosen for the picture's size


@dataclass(frozen=True)
class VideoSettings:
    """How annotated video is encoded."""

    encoder: Literal["auto", "libx264", "mpeg4"] = "auto"
    preset: str = "auto"  # of x264; auto: what this machine can carry
    crf: int = 23  # quality of x264, 0 (lossless) to 51
    keyframe_seconds: float = 2.0  # a killed run loses at most this much
    audio: bool = True  # copy the source's audio stream


@dataclass(frozen=True)
class Settings:
    """Everything a run needs to know."""

    sources: tuple[str, ...] = ("synthetic://street?seed=7&size=640x360&fps=25&seconds=20",)
    model: str = "street"  # a name or a model file
    out: tuple[str, ...] = ("out/{source}.mp4", "out/{source}.jsonl")
    report: str | None = "out/report.json"
    max_frames: int | None = None  # per source
    duration: float | None = None  # seconds of each source's own time
    decoder_threads: int = 0  # 0: chosen for this machine
    engine: EngineSettings = field(default_factory=EngineSettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
