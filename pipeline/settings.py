"""The settings of a run: one frozen value, made once, handed to whoever needs a part of it.

`pipeline.config` reads them from a YAML file and the command line, checks every value against
the types written here, and shows the comments beside the fields with ``--print-config``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Within:
    """The values that a number may take, both ends included."""

    low: float
    high: float


Share = Annotated[float, Within(0, 1)]
Cores = Annotated[int, Within(0, 1024)]
Preset = Literal[
    "auto",
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
]


@dataclass(frozen=True)
class EngineSettings:
    """How the model file is run."""

    name: Literal["auto", "openvino", "onnxruntime"] = "auto"  # what runs it
    precision: Literal["auto", "f32", "bf16"] = "auto"  # auto: the fastest known to be accurate
    batch: Annotated[int, Within(0, 256)] = 0  # images per call; 0: chosen for this machine
    threads: Cores = 0  # CPU threads of the engine; 0: all cores
    batch_wait_seconds: Annotated[float, Within(0, 60)] = 0.5  # a batch waits for its last image


@dataclass(frozen=True)
class DetectionSettings:
    """What becomes of the engine's boxes."""

    threshold: Share | None = None  # lowest score shown; null: what the model file recommends
    class_thresholds: dict[str, Share] = field(default_factory=dict)  # such as {person: 0.6}
    nms: Literal["class_aware", "class_agnostic", "soft"] = "class_aware"  # removes duplicates
    nms_iou: Share | None = None  # overlap from which a box is a duplicate; null: the file's
    max_detections: Annotated[int, Within(1, 10_000)] = 100  # per frame


@dataclass(frozen=True)
class RenderSettings:
    """What is drawn on the picture."""

    enabled: bool = True  # false: the video is written as it came
    labels: bool = True  # class names
    scores: bool = True  # beside the class names
    hud: bool = False  # fps, latency and drops in a corner
    line_width: Annotated[int, Within(0, 100)] = 0  # pixels; 0: chosen for the picture's size


@dataclass(frozen=True)
class VideoSettings:
    """How annotated video is encoded."""

    encoder: Literal["auto", "libx264", "mpeg4"] = "auto"  # auto: H.264 where there is an encoder
    preset: Preset = "auto"  # of x264; auto: what this machine can carry
    crf: Annotated[int, Within(0, 51)] = 23  # quality of x264, 0 (lossless) to 51
    keyframe_seconds: Annotated[float, Within(0.1, 60)] = 2.0  # a killed run loses at most this
    audio: bool = True  # copy the source's audio stream


@dataclass(frozen=True)
class Settings:
    """Everything a run needs to know."""

    sources: tuple[str, ...] = ("synthetic://street?seed=0&size=640x360&fps=25&seconds=20",)
    model: str = "street"  # a name or a model file
    out: tuple[str, ...] = ()  # none: out/{source}.mp4 (or a folder of pictures) and .jsonl
    report: str | None = "out/report.json"  # null: no report
    max_frames: Annotated[int, Within(1, 10**12)] | None = None  # per source
    duration: Annotated[float, Within(0.001, 1e9)] | None = None  # seconds of a source's own time
    decoder_threads: Cores = 0  # 0: chosen for this machine
    concurrent: Annotated[int, Within(1, 1024)] = 8  # sources read side by side; others follow
    engine: EngineSettings = field(default_factory=EngineSettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    video: VideoSettings = field(default_factory=VideoSettings)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources: expected at least one file, folder or URL, found none")
