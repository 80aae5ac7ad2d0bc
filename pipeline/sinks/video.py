"""Annotated video: H.264 in MP4 or Matroska, playable whatever happens to the process."""

from __future__ import annotations

import logging
from collections import deque
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.cores import usable_cores
from pipeline.errors import SinkError
from pipeline.frame import Result
from pipeline.settings import VideoSettings
from pipeline.sinks.audio import NoSound, SoundCopy
from pipeline.sinks.encoder import Encoding, choose_encoder, tag
from pipeline.sinks.protocol import SinkTarget, writing
from pipeline.yuv import Colours, fitted, own_yuv420p, stamped

log = logging.getLogger(__name__)


class VideoSink:
    """Encode every picture at its own presentation time.

    The file has its final name from the start and can be played at any moment: MP4 is written
    in fragments of a second or less (and gets an ordinary index on top when it is finished),
    Matroska in clusters. Whoever kills the process loses the last one.

    The first picture decides size, time base and colours; later ones are fitted to it.
    Matroska counts in milliseconds and cannot begin before 0; MP4 keeps times to the tick.
    """

    wants_picture = True

    def __init__(self, path: Path, target: SinkTarget, settings: VideoSettings) -> None:
        """`ConfigError` if the encoder asked for does not exist here."""
        self.path, self.name = path, str(path)
        self.frames = 0
        self._target, self._settings = target, settings
        self._encoder = choose_encoder(settings.encoder)
        if self._encoder != "libx264" and settings.encoder == "auto":
            log.warning("no libx264 in this FFmpeg; writing %s as MPEG-4 part 2", path)
        self._file: _VideoFile | None = None
        self._resized = 0
        self._failed = False
        self._sound_report = ""

    def __enter__(self) -> VideoSink:
        with writing(self.path):
            self.path.open("wb").close()  # what cannot be written should be known at once
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with writing(self.path):
                self._finish()
        except SinkError as second:
            if error is None:
                raise
            log.debug("while closing after another error: %s", second)

    def write(self, result: Result) -> None:
        """Encode one picture; what falls out is written with the sound up to there."""
        try:
            with writing(self.path):
                if self._file is None:
                    self._file = self._open(result)
                self._file.encode(self._picture(result, self._file))
        except BaseException:
            self._failed = True
            raise
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes, encoder, preset, crf, resized and what became of the sound."""
        entry = {
            "path": self.name,
            "frames": self.frames,
            "bytes": self.path.stat().st_size if self.path.exists() else None,
            "encoder": self._encoder,
            "frames_resized": self._resized,
        }
        if self._file is not None:
            encoding = self._file.encoding
            if encoding.preset:
                entry |= {"preset": encoding.preset, "crf": encoding.crf}
            entry |= {"x264_params": encoding.extras} if encoding.extras else {}
            entry |= {
                "threads": encoding.threads,
                "audio": self._file.sound_trouble or self._sound_report,
            }
        return entry

    def _open(self, result: Result) -> _VideoFile:
        picture, time_base = self._own(result), result.frame.time_base
        encoding = Encoding.choose(
            self._settings,
            (picture.height, picture.width),
            self._target.rate,
            live=self._target.live,
            cores=usable_cores(),
        )
        growing = self._target.live or result.frame.pts < 0
        container = _container(self.path, self._settings, time_base, growing)
        sound, self._sound_report = self._sound(container.format.name)
        return _VideoFile(container, picture, time_base, encoding, sound)

    def _sound(self, form: str) -> tuple[SoundCopy | None, str]:
        """The source's sound, or why there is none."""
        path = self._target.media_path
        if not self._settings.audio:
            return None, "off"
        if path is None or not path.is_file() or self._target.is_images:
            return None, "none in the source"
        try:
            sound = SoundCopy(path, self._target.origin, form)
        except NoSound as error:
            return None, str(error)
        return sound, f"copied ({sound.codec})"

    def _picture(self, result: Result, file: _VideoFile) -> av.VideoFrame:
        """The result's picture as this file needs it; a copy wherever it differs."""
        picture = self._own(result)
        if (picture.height, picture.width) != file.size_hw:
            self._resized += 1
            picture = fitted(picture, file.size_hw, file.colours)
        elif Colours.of(picture) != file.colours:
            picture = fitted(picture, file.size_hw, file.colours)
        return picture

    def _own(self, result: Result) -> av.VideoFrame:
        frame = result.frame
        if result.annotated is not None:
            return result.annotated
        return stamped(own_yuv420p(frame.picture), frame.pts, frame.time_base)

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close(flush=not self._failed)
        elif self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()  # no frames came: better no file than one that cannot be played


class _VideoFile:
    """One container being written.

    Args:
        container: Where to; closed with this.
        picture: The first picture; decides size and colours.
        time_base: Seconds per unit of the timestamps written.
        encoding: How to encode.
        sound: Goes beside the picture; closed with this.
    """

    def __init__(
        self,
        container: OutputContainer,
        picture: av.VideoFrame,
        time_base: Fraction,
        encoding: Encoding,
        sound: SoundCopy | None,
    ) -> None:
        self.size_hw = (picture.height, picture.width)
        self.colours = Colours.of(picture)
        self.encoding = encoding
        self._sound = sound
        self._time_base = time_base
        self._clock = encoding.clock(time_base)
        self._times: deque[int] = deque()  # of pictures inside an encoder with a coarser clock
        self._last_pts: int | None = None
        self._end = Fraction(0)
        self._container = container
        try:
            self._stream = self._add_stream(picture)
            if sound is not None:
                sound.add_to(container)
            container.start_encoding()
        except BaseException:
            self._close_files()
            raise

    @property
    def sound_trouble(self) -> str | None:
        """What went wrong with the sound on the way."""
        return self._sound.trouble if self._sound else None

    def encode(self, picture: av.VideoFrame) -> None:
        """Encode and write; `picture` is not written to."""
        self._mux(self._stream.encode(self._timed(picture)))

    def close(self, flush: bool) -> None:
        """Write what is left inside the encoder, if `flush`, and finish the file."""
        try:
            if flush:
                self._mux(self._stream.encode(None))
                self._copy_sound(self._end)
        finally:
            self._close_files()

    def _close_files(self) -> None:
        if self._sound is not None:
            self._sound.close()
        self._container.close()

    def _add_stream(self, picture: av.VideoFrame) -> VideoStream:
        rate = self.encoding.rate
        added = self._container.add_stream(self.encoding.encoder, rate=rate)
        stream = cast(VideoStream, added)
        context: VideoCodecContext = stream.codec_context
        self.encoding.configure(context, self.size_hw, self._time_base)
        tag(context, picture)
        stream.time_base = self._time_base
        return stream

    def _timed(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture on this file's clock, later than the last one."""
        pts, time_base = picture.pts, picture.time_base
        assert pts is not None and time_base is not None, "pictures come with their time"
        placed = pts if time_base == self._time_base else round(pts * time_base / self._time_base)
        if self._last_pts is not None and placed <= self._last_pts:
            placed = self._last_pts + 1
        self._last_pts = placed
        if self._clock != self._time_base:
            self._times.append(placed)
            placed = round(placed * self._time_base / self._clock)
        if (placed, self._clock) == (pts, time_base):
            return picture
        return stamped(own_yuv420p(picture), placed, self._clock)

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            if self._times:  # one packet a picture, in order: there are no B-frames
                packet.pts = packet.dts = self._times.popleft()
                packet.duration = round((packet.duration or 0) * self._clock / self._time_base)
                packet.time_base = self._time_base
            start = (packet.pts or 0) * packet.time_base
            self._copy_sound(start)
            self._end = start + (packet.duration or 0) * packet.time_base
            self._container.mux(packet)

    def _copy_sound(self, until: Fraction) -> None:
        if self._sound is not None:
            for packet in self._sound.until(until):
                self._container.mux(packet)


def _container(
    path: Path, settings: VideoSettings, time_base: Fraction, growing: bool
) -> OutputContainer:
    """Open a file that stays playable while it grows.

    Args:
        growing: Leave an MP4 in fragments for good: the only form that needs no index in memory,
            and that can begin before 0.
    """
    piece = min(1.0, settings.keyframe_seconds)
    options = {
        "flush_packets": "1",  # do not sit on what is complete
        "max_interleave_delta": "1000000",  # microseconds; when the sound ends before the picture
    }
    if path.suffix.lower() == ".mp4":
        flags = ["frag_keyframe", "default_base_moof", "delay_moov"]
        if not growing:
            flags.append("hybrid_fragmented")
        units = time_base.denominator * -(-1000 // time_base.denominator)  # a second, at least 1000
        options |= {
            "movflags": "+".join(flags),
            "frag_duration": str(round(piece * 1e6)),
            "movie_timescale": str(min(units, 2**31 - 1)),  # what a late beginning is counted in
        }
        form = "mp4"
    else:
        options |= {"cluster_time_limit": str(round(piece * 1e3))}
        form = "matroska"
    return av.open(f"file:{path}", "w", format=form, container_options=options)
