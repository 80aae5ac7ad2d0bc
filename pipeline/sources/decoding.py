"""From a file to good pictures: read, decode, leave out what is damaged, count it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
from av.codec.context import Flags
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.gpu_decoder import NotOnGpu
from pipeline.sources.lead import Delivered, Lead
from pipeline.sources.opening import choose_video, open_container
from pipeline.sources.pixel_shape import PixelShape

log = logging.getLogger(__name__)

_HIGHEST_RATE = 1000  # frames/s; above this a declared rate is a time base in disguise
_GENERATE_PTS = 1  # FFmpeg's AVFMT_FLAG_GENPTS, which PyAV sets
_TS_DISCONT = 0x0200  # FFmpeg's AVFMT_TS_DISCONT: timestamps may jump in this kind of file
_READ_FAILURES = 10  # in a row, before a file counts as cut off
_PACKET_SIZES = (188, 192, 204)  # of MPEG transport streams, in bytes


class Decoding:
    """One pass over the video of one file.

    Damage is counted, never shown: a packet that cannot be decoded is ``corrupt_packet`` in
    `anomalies`; a picture that the decoder marks as damaged, or that comes before the first
    keyframe, is left out and counted in `damaged_pictures`; a file that ends before it said it
    would is ``truncated``. Decoding always goes on behind the damage.

    On a GPU, where that is possible and pays; see `Lead` for how long. Its pictures are the same,
    but in another layout; they change back where software goes on.

    FFmpeg's own guess at missing timestamps (GENPTS) is off, because it mixes up reordered
    pictures in containers that hold decoding times only (H.264 in AVI).

    Attributes:
        time_base: Seconds per unit of the pictures' timestamps.
        rate: Declared frames/s, None if unknown.
        begin: Seconds; the first timestamp of any stream of the file, sound included.
        may_jump: Whether jumping timestamps are normal for this kind of file.
    """

    def __init__(self, path: Path, decoder_threads: int, gpu: GpuDecoding | None = None) -> None:
        """Open the file.

        Args:
            decoder_threads: In software.
            gpu: Opens decoders on a GPU; None leaves it to software.

        Raises:
            SourceNotFound, NoVideo, UnsupportedCodec, SourceError: See `open_container` and
                `choose_video`.
        """
        self.path = path
        self.anomalies: Counter[str] = Counter()
        self.damaged_pictures = 0
        self._gpu, self._in_software_by = gpu, DecodedBy("", "cpu", "as asked for")
        self._lead: Lead | None = None
        self._container = open_container(path)
        try:
            self._stream = choose_video(self._container, path)
            self._prepare(decoder_threads)
        except BaseException:  # not even Ctrl-C leaves the file open
            self._container.close()
            raise

    @property
    def decoded_by(self) -> DecodedBy:
        """What decodes it now, and why."""
        if self._lead is not None:
            return self._in_software_by._replace(where="gpu", why=self._lead.words)
        return self._in_software_by

    @property
    def picture_count(self) -> int | None:
        """About how many pictures there are, by what the file says."""
        if self._stream.duration and self.rate:
            return round(self._stream.duration * self.time_base * self.rate)
        return self._stream.frames or None

    def pixel_hw(self, picture: av.VideoFrame) -> tuple[int, int]:
        """The shape of the pixels of the picture that was delivered last; see `PixelShape`."""
        decoder = self._stream.codec_context if self._lead is None else self._lead.context
        return self._pixel_shape.of(picture, decoder)

    def pictures(self) -> Iterator[av.VideoFrame]:
        """The good pictures, in the order in which they are shown."""
        packets: Iterator[Packet[VideoStream]] = self._packets()
        delivered = Delivered(Counter(), 0)
        self._lead = self._lead_of(self._gpu)
        if self._lead is not None:
            yield from self._lead.pictures(packets)
            kept, delivered = self._lead.rest()
            packets = chain(kept, packets)
            self._leave(self._lead.why_left)
        yield from self._in_software(packets, delivered)
        if self._ended_early():
            self.anomalies["truncated"] += 1

    def close(self) -> None:
        """Close the file and let go of the GPU; harmless when done twice. Pictures stay valid."""
        # PyAV frees a decoder with Python's lock held, and FFmpeg waits there for the decoder's
        # threads; which may wait for that lock, because FFmpeg's log, where it is on, is Python's.
        # After a flush, which lets the lock go, they have nothing left to do or say.
        self._stream.codec_context.flush_buffers()
        self._container.close()
        self._lead = None

    def _in_software(
        self, packets: Iterable[Packet[VideoStream]], delivered: Delivered
    ) -> Iterator[av.VideoFrame]:
        """The good pictures that were not delivered before."""
        for packet in packets:
            try:
                pictures = packet.decode()
            except av.FFmpegError:
                self.anomalies["corrupt_packet"] += 1
                # With several threads, what stood behind the failure in the decoder is lost.
                self._was_cut_off |= not packet.size
                continue
            for picture in pictures:
                if delivered.takes(picture):
                    continue
                if picture.is_corrupt:
                    self.damaged_pictures += 1
                else:
                    yield picture

    def _lead_of(self, gpu: GpuDecoding | None) -> Lead | None:
        if gpu is None:
            return None
        try:
            return Lead(gpu.of_file(self.path, self._stream, self.picture_count))
        except NotOnGpu as why:
            self._leave(why)
        return None

    def _leave(self, why: NotOnGpu | None) -> None:
        """Software decodes from here on; None: there is nothing left for it."""
        if why is None:
            return
        self._lead, self._in_software_by = None, self._in_software_by._replace(why=str(why))
        if why.is_failure:
            self.anomalies["gpu_decoder_failed"] += 1
            log.warning("%s: %s; it goes on in software", self.path.name, why)

    def _prepare(self, decoder_threads: int) -> None:
        container, stream = self._container, self._stream
        container.flags &= ~_GENERATE_PTS
        decoder = stream.codec_context
        self._in_software_by = self._in_software_by._replace(codec=decoder.codec.name)
        decoder.thread_type = "AUTO"
        decoder.thread_count = decoder_threads
        decoder.flags |= Flags.output_corrupt  # hand damaged pictures over, so they are counted
        self._pixel_shape = PixelShape(stream)
        self.time_base = stream.time_base or Fraction(1, 90_000)
        self.rate = _sane_rate(stream)
        self.begin = Fraction(container.start_time or 0, av.time_base)
        self.may_jump = bool(container.format.flags & _TS_DISCONT)
        self._end = Fraction(0)  # seconds; where the packets read so far end
        self._was_cut_off = False

    def _packets(self) -> Iterator[av.Packet[VideoStream]]:
        """All packets of the stream and one that flushes the decoder, whatever lies between."""
        failures = 0
        while failures < _READ_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    self._note(packet)
                    yield packet
                return
            except (av.FFmpegError, IndexError):
                # The demuxer stumbled, and may find its feet again. (IndexError is how PyAV
                # reports a stream that appears only now, from a damaged stream table.)
                failures += 1
        self._was_cut_off = True
        flush = cast("av.Packet[VideoStream]", av.Packet())
        flush.stream, flush.time_base = self._stream, self.time_base
        yield flush

    def _note(self, packet: av.Packet[VideoStream]) -> None:
        if packet.size:
            self._was_cut_off = packet.is_corrupt
            begin = packet.pts if packet.pts is not None else packet.dts
            if begin is not None:
                self._end = max(self._end, (begin + (packet.duration or 0)) * self.time_base)

    def _ended_early(self) -> bool:
        if self._was_cut_off or self._has_a_part_packet():
            return True
        declared = self._declared_end()
        slack = 0.1 + 3 / float(self.rate or 25)
        return declared is not None and declared - self._end > slack

    def _declared_end(self) -> Fraction | None:
        """Where the video ends by what the file says, in seconds on the file's clock."""
        container, stream = self._container, self._stream
        if stream.duration is not None:
            return ((stream.start_time or 0) + stream.duration) * self.time_base
        if tag := stream.metadata.get("DURATION"):  # Matroska, written as 00:00:03.520000000
            return _clock_time(tag)
        if len(container.streams) == 1 and container.duration is not None:
            return Fraction((container.start_time or 0) + container.duration, av.time_base)
        return None

    def _has_a_part_packet(self) -> bool:
        """A transport stream declares no length; but it comes in packets of one size."""
        if self._container.format.name != "mpegts":
            return False
        bytes_in_file = self.path.stat().st_size
        return all(bytes_in_file % size for size in _PACKET_SIZES)


def _sane_rate(stream: VideoStream) -> Fraction | None:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= _HIGHEST_RATE:
            return Fraction(rate)
    return None


def _clock_time(text: str) -> Fraction | None:
    try:
        hours, minutes, seconds = map(Fraction, text.split(":"))
    except ValueError:
        return None
    return (hours * 60 + minutes) * 60 + seconds
