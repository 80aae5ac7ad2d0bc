"""The settings of a run: one frozen value, made once, handed to whoever needs a part of it.

`pipeline.configuration` reads them from a YAML file and the command line, checks every value
against the types written here, and shows the comments beside the fields with ``--print-config``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pipeline.errors import ConfigError
from pipeline.polygon import fault


@dataclass(frozen=True)
class Within:
    """The values that a number may take, both ends included.

    Attributes:
        remark: What it counts.
        zero: A word that may be written for 0, and is shown for it; None: there is none.
    """

    low: float
    high: float
    remark: str = ""
    zero: str | None = None


Share = Annotated[float, Within(0, 1)]
OfSide = Annotated[float, Within(0, 1, "a share of the picture's width or height, not pixels")]
Cores = Annotated[int, Within(0, 1024)]
CoresOrAuto = Annotated[int, Within(0, 1024, zero="auto")]
CallsOrAuto = Annotated[int, Within(0, 256, zero="auto")]
FramesPerSecond = Annotated[float, Within(0.001, 1000)]
Milliseconds = Annotated[float, Within(1, 3_600_000)]
EngineName = Literal["auto", "openvino", "onnxruntime", "tensorrt", "program"]
DecoderName = Literal["auto", "software", "cuda"]
EncoderName = Literal["auto", "libx264", "h264_nvenc", "mpeg4"]
AskedPrecision = Literal["auto", "f32", "bf16", "f16", "int8"]
Suppression = Literal["class_aware", "class_agnostic", "soft", "merge"]
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
    """How the model file is run; auto is decided for the sources that are there at the start."""

    name: EngineName = "auto"  # what runs it
    precision: AskedPrecision = "auto"  # auto: the fastest known to be accurate; int8: NAME_int8
    batch: CallsOrAuto = 0  # images per call; auto: measured by `pipeline.tune`, else a rule
    threads: CoresOrAuto = 0  # CPU threads of the engine; auto: likewise, by rule all cores
    streams: CallsOrAuto = 0  # calls among which OpenVINO divides them; auto: likewise
    batch_wait_seconds: Annotated[float, Within(0, 60)] = 0.5  # a batch waits for its last image
    cache: str | None = "auto"  # folder for compiled models; auto: the user's own; null: none
    build: bool = True  # false: only plans and programs that were built before


@dataclass(frozen=True)
class DetectionSettings:
    """What becomes of the engine's boxes."""

    threshold: Share | None = None  # lowest score shown; null: what the model file recommends
    class_thresholds: dict[str, Share] = field(default_factory=dict)  # such as {person: 0.6}
    nms: Suppression = "class_aware"  # removes duplicates
    nms_iou: Share | None = None  # overlap from which a box is a duplicate; null: the file's
    max_detections: Annotated[int, Within(1, 10_000)] = 100  # per frame


@dataclass(frozen=True)
class OverlaySettings:
    """How the classes of pixels, and the masks of objects, are laid over the picture."""

    alpha: Share = 0.45  # of the classes' colours; 0: not laid over it, 1: nothing else is seen
    edges: bool = True  # a line in full colour where a class ends
    legend: bool = True  # names, colours and shares of the classes in the picture


@dataclass(frozen=True)
class RenderSettings:
    """What is drawn on the picture."""

    enabled: bool = True  # false: the video is written as it came
    labels: bool = True  # class names
    scores: bool = True  # beside the class names
    hud: bool = False  # fps, latency and drops in a corner
    line_width: Annotated[int, Within(0, 100)] = 0  # pixels; 0: chosen for the picture's size
    blur: tuple[str, ...] = ()  # classes made unreadable, such as [person], or [all]
    blur_threshold: Share = 0.05  # lowest score that is blurred; what is shown always is
    blur_frames: Annotated[int, Within(0, 1000)] = 3  # a box stays blurred for so many more frames
    segmentation: OverlaySettings = field(default_factory=OverlaySettings)


@dataclass(frozen=True)
class ZoneSettings:
    """An area of the picture in which objects are counted."""

    polygon: tuple[tuple[OfSide, OfSide], ...]  # corners [x, y], shares of width and height
    classes: tuple[str, ...] = ()  # what is counted; none: everything
    sources: tuple[str, ...] = ()  # names of the sources it lies in; none: all
    anchor: Literal["bottom", "centre"] = "bottom"  # the point of a box that must be inside

    def __post_init__(self) -> None:
        trouble = fault(self.polygon)
        if trouble:
            raise ConfigError(f"polygon: {trouble}")


@dataclass(frozen=True)
class VideoSettings:
    """How annotated video is encoded."""

    encoder: EncoderName = "auto"  # auto: H.264, on an NVIDIA GPU where that opens
    preset: Preset = "auto"  # of x264, or what is like it; auto: what this machine can carry
    crf: Annotated[int, Within(0, 51)] = 23  # quality of x264, 0 (lossless) to 51
    keyframe_seconds: Annotated[float, Within(0.1, 60)] = 2.0  # a killed run loses at most this
    audio: bool = True  # copy the source's audio stream


@dataclass(frozen=True)
class LatencySettings:
    """How old a live frame may get."""

    max_age_seconds: Annotated[float, Within(0.01, 3600)] = 0.5  # older ones are not inferred
    budget_ms: Milliseconds | None = None  # arrival to sink; costs frame rate, decoding, input size


@dataclass(frozen=True)
class RecordingSettings:
    """Recordings in many files, by time or by event, and pieces for a playlist."""

    segment_seconds: Annotated[float, Within(1, 604_800)] = 600.0  # then a new file begins
    keep_seconds: Annotated[float, Within(1, 1e9)] | None = None  # older files are deleted
    keep_bytes: Annotated[int, Within(1, 10**18)] | None = None  # of all files; the oldest go
    event_classes: tuple[str, ...] = ()  # what an {event} file begins for; none: everything
    event_score: Share = 0.5  # lowest score that counts as seen
    pre_seconds: Annotated[float, Within(0, 120)] = 5.0  # kept from before it was seen
    post_seconds: Annotated[float, Within(0, 3600)] = 10.0  # kept after it was last seen
    hls_seconds: Annotated[float, Within(0.5, 60)] = 2.0  # length of a piece behind .m3u8
    hls_pieces: Annotated[int, Within(2, 10_000)] = 6  # in the list; older ones are deleted


@dataclass(frozen=True)
class RecordedSettings:
    """What of a recording, a folder of pictures or a drawn street goes through the line."""

    max_fps: FramesPerSecond | None = None  # of its own time, which pictures lack; null: all
    stride: Annotated[int, Within(1, 10**6)] = 1  # every so many pictures one is taken


@dataclass(frozen=True)
class LiveSettings:
    """How cameras are read; each key can be set for one of them: rtsp://host/path#key=value."""

    transport: Literal["tcp", "udp"] = "tcp"  # of rtsp://; UDP loses packets where TCP waits
    open_seconds: Annotated[float, Within(0.2, 300)] = 10.0  # to connect and learn what comes
    stall_seconds: Annotated[float, Within(0.5, 3600)] = 10.0  # without a picture: connect anew
    stable_seconds: Annotated[float, Within(0, 3600)] = 10.0  # of pictures: failures are forgiven
    max_attempts: Annotated[int, Within(1, 10**9)] | None = None  # in a row; null: for ever
    damaged: Literal["skip", "flagged", "keep"] = "skip"  # pictures; skip: to the next keyframe
    late_seconds: Annotated[float, Within(0.1, 3600)] = 1.0  # pictures held up longer are dropped
    max_fps: FramesPerSecond | None = None  # more are left out; null: all
    stride: Annotated[int, Within(1, 10**6)] = 1  # every so many pictures one is taken
    verify_tls: bool = False  # most cameras have a certificate that nobody has signed
    credentials: str | None = None  # a file with user:password in its first line
    size: str | None = None  # WIDTHxHEIGHT asked of a webcam (/dev/video0, camera:0)
    fps: FramesPerSecond | None = None  # asked of a webcam
    loop: bool = False  # replay: begins again at its end
    painted_clock: bool = False  # read the one that synthetic://street?clock=1 paints


@dataclass(frozen=True)
class Settings:
    """Everything a run needs to know."""

    sources: tuple[str, ...] = ("synthetic://street?seed=0&size=640x360&fps=25&seconds=20",)
    model: tuple[str, ...] = ("street",)  # names or model files; one for objects, one for pixels
    out: tuple[str, ...] = ()  # none: out/{source}.mp4 (or a folder of pictures) and .jsonl
    report: str | None = "out/report.json"  # null: no report
    max_frames: Annotated[int, Within(1, 10**12)] | None = None  # per source
    duration: Annotated[float, Within(0.001, 1e9)] | None = None  # seconds of a source's own time
    decoder: DecoderName = "auto"  # of video; auto: an NVIDIA GPU where that is the quicker one
    decoder_threads: Cores = 0  # of each source; 0: one for a camera, by the machine for a file
    concurrent: Annotated[int, Within(1, 1024)] = 8  # sources read side by side; others follow
    zones: dict[str, ZoneSettings] = field(default_factory=dict)  # see configs/zones.yaml
    engine: EngineSettings = field(default_factory=EngineSettings)
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    recorded: RecordedSettings = field(default_factory=RecordedSettings)
    live: LiveSettings = field(default_factory=LiveSettings)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources: expected at least one file, folder or URL, found none")
        if not self.model:
            raise ConfigError("model: expected a name or a model file, found none")
