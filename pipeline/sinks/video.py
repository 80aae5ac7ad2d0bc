"""Annotated video: H.264 in MP4 or Matroska, playable whatever happens to the process."""

from __future__ import annotations

import logging
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import av
from av.video.stream import VideoStream

from pipeline.cores import usable_cores
from pipeline.frame import Result
from pipeline.settings import VideoSettings
from pipeline.sinks.audio import NoSound, SoundCopy
from pipeline.sinks.container import LONGEST_STEP, ContainerFile, open_container
from pipeline.sinks.encoder import Encoder, picture_of
from pipeline.sinks.encoder_choice import choose_encoder
from pipeline.sinks.encoding import Encoding
from pipeline.sinks.nvenc import NVENC
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.protocol import SinkTarget, finishing, writing

log = logging.getLogger(__name__)

_ANY_TIME = -(1 << 62)  # before that of every picture


class VideoSink:
    """Encode every picture at its own presentation time.

    The file has its final name from the start and can be played at any moment: MP4 is written
    in fragments of a second or less (and gets an ordinary index on top when it is finished),
    Matroska in clusters. Whoever kills the process loses the last one.

    The first picture decides size, shape of pixels, time base and colours; later ones are fitted
    to it.
    Matroska counts in milliseconds and cannot begin before 0; MP4 keeps a recording's times to the
    tick, and counts in milliseconds where an outage may have to be told, that is of live sources.
    What an earlier run wrote of a live source is kept, as ``name~1.mp4``, ``name~2.mp4``...; a
    recording can be had again, so its video is replaced.
    """

    wants_picture = True
    may_drop = False
    capacity = 4

    def __init__(self, path: Path, target: SinkTarget, settings: VideoSettings) -> None:
        """`ConfigError` if the encoder asked for does not exist here."""
        self.path, self.name = path, str(path)
        self.frames = 0
        self._target, self._settings = target, settings
        self._encoder = choose_encoder(settings.encoder)
        if self._encoder == "mpeg4" and settings.encoder == "auto":
            log.warning("no libx264 in this FFmpeg; writing %s as MPEG-4 part 2", path)
        self._file: _VideoFile | None = None
        self._facts: dict[str, Any] = {"frames_resized": 0}
        self._failed = False

    def __enter__(self) -> VideoSink:
        with writing(self.path):
            if self._target.live:
                self._keep_what_was_before()
            self.path.open("wb").close()  # what cannot be written should be known at once
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with finishing(error), writing(self.path):
            self._finish()

    @property
    def takes_gpu_pictures(self) -> bool:
        """Whether NVENC encodes."""
        return self._file.takes_gpu_pictures if self._file else self._encoder == NVENC

    def write(self, result: Result) -> None:
        """Encode one picture; what falls out is written with the sound up to there."""
        try:
            with writing(self.path):
                picture = picture_of(result, self.takes_gpu_pictures)
                if self._file is None:
                    self._file = self._open(result, picture)
                self._file.encode(picture, result.frame.pixel_hw)
        except BaseException:  # after any failure the end must not write more
            self._failed = True
            raise
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes, encoder and why, preset, crf, resized, what became of the sound."""
        return {
            "path": self.name,
            "frames": self.frames,
            "bytes": self.path.stat().st_size if self.path.exists() else None,
            "encoder": self._encoder,
            **(self._file.facts() if self._file else self._facts),
        }

    def _keep_what_was_before(self) -> None:
        """Rename what an earlier run wrote: no camera shows it again."""
        path = self.path.resolve()  # where a link leads to, the next one is to be, too
        if path.is_file() and path.stat().st_size:
            kept = FilePattern(str(path).replace("%", "%%")).create(0.0)  # no time in its name
            path.replace(kept)
            log.warning("%s was there; it is called %s now", path, kept.name)

    def _open(self, result: Result, picture: av.VideoFrame) -> _VideoFile:
        time_base = result.frame.time_base
        encoding = Encoding.choose(
            self._settings,
            (picture.height, picture.width),
            self._target.rate,
            live=self._target.live,
            cores=usable_cores(),
            pixel_hw=result.frame.pixel_hw,
        )
        live = self._target.live
        encoder = Encoder(picture, time_base, encoding)
        file = open_container(
            self.path,
            self._settings,
            time_base,
            growing=live or result.frame.pts < 0,
            in_milliseconds=live,
        )
        try:
            sound = self._sound(file.container.format.name)
        except BaseException:  # not even Ctrl-C leaves the file open
            file.close()
            raise
        return _VideoFile(file, encoder, *sound)

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

    def _finish(self) -> None:
        file, self._file = self._file, None  # its encoder holds many pictures
        if file is not None:
            try:
                file.close(flush=not self._failed)
            finally:
                self._facts = file.facts()
        elif self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()  # no frames came: better no file than one that cannot be played


class _VideoFile:
    """One container being written.

    Args:
        file: Where to; closed with this.
        encoder: Where the pictures come from.
        sound: Goes beside the picture; closed with this.
        sound_facts: What `sound` is, or why there is none.
    """

    def __init__(
        self,
        file: ContainerFile,
        encoder: Encoder,
        sound: SoundCopy | None,
        sound_facts: str,
    ) -> None:
        self._encoder = encoder
        self._sound, self._sound_facts = sound, sound_facts
        self._end = Fraction(0)
        # On the file's clock: what was left out of outages, and between what the next picture lies.
        self._cut, self._earliest, self._latest = 0, _ANY_TIME, inf
        self._file, self._container = file, file.container
        try:
            self._stream = self._container.add_stream_from_template(encoder.template)
            if sound is not None:
                sound.add_to(self._container)
            self._container.start_encoding()
        except BaseException:  # not even Ctrl-C leaves the file open
            self._close_files()
            raise
        assert self._stream.time_base is not None, "the header has been written"
        self._clock = self._stream.time_base
        self._longest = LONGEST_STEP if self._container.format.name == "mp4" else inf

    def facts(self) -> dict[str, Any]:
        """How it was encoded, pictures that were resized, and what became of the sound."""
        encoding = self._encoder.encoding
        facts = {"frames_resized": self._encoder.resized, **encoding.facts()}
        facts |= {"x264_params": encoding.extras} if encoding.extras else {}
        trouble = self._sound.trouble if self._sound else None
        return facts | {"threads": encoding.threads, "audio": trouble or self._sound_facts}

    @property
    def takes_gpu_pictures(self) -> bool:
        """See `Encoder`."""
        return self._encoder.takes_gpu_pictures

    def encode(self, picture: av.VideoFrame, pixel_hw: tuple[int, int]) -> None:
        """Encode and write; `picture` is not written to."""
        self._mux(self._encoder.encode(picture, pixel_hw))

    def close(self, flush: bool) -> None:
        """Write what is left inside the encoder, if `flush`, and finish the file."""
        try:
            if flush:
                self._mux(self._encoder.flush())
                self._copy_sound(self._end)
        finally:
            self._close_files()

    def _close_files(self) -> None:
        if self._sound is not None:
            self._sound.close()
        self._file.close()

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            start = (packet.pts or 0) * packet.time_base
            self._copy_sound(start)
            self._end = start + (packet.duration or 0) * packet.time_base
            self._place(packet)
            packet.stream = self._stream
            self._container.mux(packet)

    def _place(self, packet: av.Packet[VideoStream]) -> None:
        """Put it on the file's clock: after the one before, but no later than MP4 can tell."""
        ticks = packet.time_base / self._clock
        placed = round((packet.pts or 0) * ticks) - self._cut
        if placed > self._latest:
            placed = self._cut_short(placed)
        placed = max(placed, self._earliest)  # a coarse clock may have one time for two
        self._earliest, self._latest = placed + 1, placed + self._longest
        packet.pts = packet.dts = placed  # there are no B-frames
        packet.duration = round((packet.duration or 0) * ticks)
        packet.time_base = self._clock

    def _cut_short(self, placed: int) -> int:
        """The latest time that MP4 can tell, for a picture after a longer outage."""
        latest = int(self._latest)
        log.warning(
            "%s: nothing came for %.0f s, more than MP4 can tell; there it is %.0f s",
            self._container.name,
            (placed - latest + LONGEST_STEP) * self._clock,
            LONGEST_STEP * self._clock,
        )
        self._cut += placed - latest
        return latest

    def _copy_sound(self, until: Fraction) -> None:
        if self._sound is not None:
            for packet in self._sound.until(until):
                self._container.mux(packet)
