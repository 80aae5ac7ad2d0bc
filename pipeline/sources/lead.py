"""The part of a recording that a GPU decodes, and how software goes on without losing a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import av
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import without_frames
from pipeline.sources.gpu_decoder import Context, GpuDecoder, NotOnGpu

_LEAST_KEPT = 64  # packets; what is inside a decoder is never older
_MOST_KEPT_BYTES = 64 << 20


class Delivered:
    """Pictures that were delivered already, each to be left out once when it comes again.

    Args:
        timestamps: Theirs.
        most: How many pictures may come again, those that were not delivered included.
    """

    def __init__(self, timestamps: Counter[int | None], most: int) -> None:
        self._timestamps, self._most = timestamps, most

    def takes(self, picture: av.VideoFrame) -> bool:
        """Tell whether a picture is one of them; all must be shown to this, in order."""
        if self._most <= 0:  # what has the same timestamp now is of another stretch
            return False
        self._most -= 1
        if self._timestamps[picture.pts] <= 0:
            return False
        self._timestamps[picture.pts] -= 1
        return True


class Lead:
    """Decodes on the GPU until the end, or until software is to go on.

    The packets from the last keyframe but one are kept. Software is given them first, and leaves
    out those of its pictures that were delivered already; so none is lost, and none comes twice.

    Software goes on for good where the GPU's decoder fails, does not take the stream, or does not
    pay; and from the first sign of damage, of which only software tells all.

    Args:
        decoder: On the GPU.

    Attributes:
        why_left: Why software is to go on; None while the GPU decodes, and after the last picture.
    """

    def __init__(self, decoder: GpuDecoder) -> None:
        self._decoder = decoder
        self.why_left: NotOnGpu | None = None
        self._before: list[Packet[VideoStream]] = []
        self._since: list[Packet[VideoStream]] = []
        self._given_before: Counter[int | None] = Counter()
        self._given_since: Counter[int | None] = Counter()
        self._bytes = 0

    @property
    def context(self) -> Context:
        """FFmpeg's decoder."""
        return self._decoder.context

    @property
    def words(self) -> str:
        """What is known of the choice."""
        return str(self.why_left or self._decoder.words)

    def pictures(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[av.VideoFrame]:
        """The pictures in the order in which they are shown, none of them damaged."""
        for packet in packets:
            self._keep(packet)
            try:
                pictures = self._decoded(packet)
            except NotOnGpu as why:
                self.why_left = without_frames(why)
                return
            for picture in pictures:
                self._given_since[picture.pts] += 1
                yield picture
            if self._decoder.why_leave:
                self.why_left = self._decoder.why_leave
                return

    def rest(self) -> tuple[list[Packet[VideoStream]], Delivered]:
        """The packets that software begins with, and what was delivered of them."""
        if self.why_left is None:
            return [], Delivered(Counter(), 0)
        packets = self._before + self._since
        return packets, Delivered(self._given_before + self._given_since, len(packets))

    def _keep(self, packet: Packet[VideoStream]) -> None:
        if packet.is_keyframe and len(self._since) >= _LEAST_KEPT:
            self._bytes -= sum(each.size for each in self._before)
            self._before, self._since = self._since, []
            self._given_before, self._given_since = self._given_since, Counter()
        self._since.append(packet)
        self._bytes += packet.size

    def _decoded(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        if packet.size and packet.pts is None:
            raise NotOnGpu("the file has no presentation times to go on by")
        if packet.is_corrupt:
            raise NotOnGpu("the file is damaged, of which the GPU does not tell")
        if self._bytes > _MOST_KEPT_BYTES:
            raise NotOnGpu("keyframes are too far apart to go on from one")
        try:
            pictures = self._decoder.decode(packet)
        except av.InvalidDataError:
            raise NotOnGpu("the file is damaged, or the GPU does not take it") from None
        if any(picture.is_corrupt for picture in pictures):
            raise NotOnGpu("the file is damaged, of which the GPU does not tell")
        return pictures
