"""Copy the sound of the source beside the picture, packet by packet, as it is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer

from pipeline.errors import reason

_LATEST_START = 10.0  # seconds; until its sound begins, a video file cannot be cut in fragments


class NoSound(Exception):
    """There is no sound to copy; the message says why."""


class SoundCopy:
    """The first sound stream of a file, on the clock of its pictures.

    Args:
        path: The file. It is read a second time, beside the source, and only as far as the
            pictures have come.
        origin: Seconds that were taken off the pictures' timestamps.
        form: FFmpeg's name of the kind of file that the sound is copied to.

    Raises:
        NoSound: The file has none, or none that can be copied.
    """

    def __init__(self, path: Path, origin: Fraction, form: str) -> None:
        self.trouble: str | None = None
        self._container = self._open(path)
        try:
            self._input = self._choose(self._container)
            self._origin = round(origin / self._time_base)
            self._packets = self._read(form)
            self._next = self._advance()
            self._try(self._first(), form)
        except BaseException:  # not even Ctrl-C leaves the file open
            self.close()
            raise
        self.codec = self._input.name

    def add_to(self, output: OutputContainer) -> None:
        """Add the stream to a file that is about to be written."""
        self._output = output.add_stream_from_template(self._input)

    def until(self, seconds: Fraction) -> Iterator[av.Packet[AudioStream]]:
        """The packets that begin before that time and were not delivered yet."""
        while self._next is not None:
            packet = self._next
            if self._start_of(packet) >= seconds:
                return
            self._next = self._advance()
            packet.stream = self._output
            yield packet

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._container.close()

    @staticmethod
    def _open(path: Path) -> InputContainer:
        options = {"protocol_whitelist": "file,crypto,data"}
        try:
            return av.open(f"file:{path}", options=options, metadata_errors="replace")
        except (OSError, ValueError, av.FFmpegError) as error:
            raise NoSound(
                f"dropped, because the source does not open again: {reason(error)}"
            ) from error

    @staticmethod
    def _choose(container: InputContainer) -> AudioStream:
        streams = container.streams.audio
        if not streams:
            raise NoSound("none in the source")
        chosen = next((s for s in streams if s.codec_context is not None), None)
        if chosen is None:
            raise NoSound("dropped, because this FFmpeg does not know its codec")
        return chosen

    @property
    def _time_base(self) -> Fraction:
        return self._input.time_base or Fraction(1, 90_000)

    def _start_of(self, packet: av.Packet[AudioStream]) -> Fraction:
        return (packet.pts or 0) * self._time_base

    def _first(self) -> av.Packet[AudioStream]:
        if self._next is None:
            raise NoSound("dropped, because " + (self.trouble or "none of it can be read"))
        start = float(self._start_of(self._next))
        if start > _LATEST_START:
            raise NoSound(f"dropped, because it begins {start:.0f} s late")
        return self._next

    def _try(self, first: av.Packet[AudioStream], form: str) -> None:
        """Write a file of one packet to nowhere: containers tell late what they cannot hold."""
        trial = cast("av.Packet[AudioStream]", av.Packet(bytes(first)))
        trial.pts = trial.dts = 0
        trial.time_base = self._time_base
        options = {"movflags": "hybrid_fragmented+delay_moov"} if form == "mp4" else {}
        try:
            with av.open(io.BytesIO(), "w", format=form, container_options=options) as output:
                trial.stream = output.add_stream_from_template(self._input)
                output.mux(trial)
        except (ValueError, OSError, av.FFmpegError):
            raise NoSound(f"dropped, because {form} cannot hold {self._input.name}") from None

    def _read(self, form: str) -> Iterator[av.Packet[AudioStream]]:
        """Packets from 0 s on, with rising times on the pictures' clock."""
        last = -1
        for packet in self._unwrapped(form):
            if packet.pts is None or packet.dts is None:
                continue
            packet.pts, packet.dts = packet.pts - self._origin, packet.dts - self._origin
            if packet.pts >= 0 and packet.dts > last:
                last = packet.dts
                yield packet

    def _unwrapped(self, form: str) -> Iterator[av.Packet[AudioStream]]:
        """All packets, in the form that MP4 wants: AAC without the headers it has in broadcasts."""
        packets = self._container.demux(self._input)
        first = next(packets, None)
        if first is None:
            return
        packets = chain([first], packets)
        if form != "mp4" or self._input.name != "aac" or not _has_adts_header(bytes(first)):
            yield from packets
            return
        strip = BitStreamFilterContext("aac_adtstoasc", self._input)
        for packet in packets:
            if packet.size:
                yield from cast("list[av.Packet[AudioStream]]", strip.filter(packet))

    def _advance(self) -> av.Packet[AudioStream] | None:
        try:
            return next(self._packets, None)
        except (OSError, ValueError, av.FFmpegError) as error:
            self.trouble = f"the source's sound breaks off: {reason(error)}"
            return None


def _has_adts_header(data: bytes) -> bool:
    """Twelve set bits begin every frame of broadcast AAC."""
    return len(data) > 2 and data[0] == 0xFF and data[1] & 0xF0 == 0xF0
