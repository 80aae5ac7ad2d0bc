"""Tell from an H.264 stream itself that a picture is missing in it.

FFmpeg's decoder puts a copy of an earlier picture where one is missing and says nothing, so the
pictures that follow are built on the wrong one and look it. But reference pictures are numbered:
`frame_num` in every slice header counts them (ITU-T H.264, 7.4.3).
"""

from __future__ import annotations

_START = b"\x00\x00\x01"
_SLICE, _IDR_SLICE, _SEQUENCE = 1, 5, 7  # types of units
_HEAD_BYTES = 24  # more than a slice header needs up to its number
_LONG_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244}


class FrameNumbers:
    """Follows the numbers of one stream, in the format with start codes (RTP, transport streams).

    For no other format: where lengths stand before the units, some look like start codes. Such
    streams come over connections that lose nothing.

    Args:
        extradata: Of the stream: the parameters that were sent before it.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._bits = 0  # of a number; 0: unknown
        self._has_planes = False
        self._last: int | None = None
        self._last_reference = 0
        if extradata:
            self.is_one_missing_before(extradata)

    def is_one_missing_before(self, packet: bytes) -> bool:
        """Take the next picture's packet; tell whether one that it may be built on is missing."""
        at = packet.find(_START)
        while at >= 0 and at + 4 <= len(packet):
            kind, is_reference = packet[at + 3] & 31, bool(packet[at + 3] >> 5 & 3)
            if kind == _SEQUENCE:
                self._learn(packet[at + 4 :])
            elif kind in (_SLICE, _IDR_SLICE):
                return self._follows_a_gap(packet[at + 4 :][:_HEAD_BYTES], kind, is_reference)
            at = packet.find(_START, at + 3)
        return False

    def _follows_a_gap(self, head: bytes, kind: int, is_reference: bool) -> bool:
        """Whether the number in a slice's head is not the one that was due."""
        if not self._bits:
            return False
        bits = Bits(head)
        for _ in range(3):  # first macroblock, type, parameters
            bits.count()
        bits.take(2 if self._has_planes else 0)
        number, last = bits.take(self._bits), self._last
        due = (self._last_reference + 1) % (1 << self._bits)
        self._last = number
        if is_reference:
            self._last_reference = number
        # The same number again: the second field, or after a picture that none is built on.
        return kind == _SLICE and last is not None and number not in (last, due)

    def _learn(self, unit: bytes) -> None:
        """Read how long a number is from a sequence's parameters."""
        bits = Bits(unit)
        profile = bits.take(24) >> 16
        bits.count()  # which sequence; cameras have one
        self._has_planes = profile in _LONG_PROFILES and _skip_format(bits)
        length = bits.count() + 4
        _skip_order(bits)
        bits.count()  # reference pictures
        gaps_are_allowed = bool(bits.take(1))
        self._bits = 0 if gaps_are_allowed or length > 16 else length


class Bits:
    """Reads a unit bit by bit; past its end there are zeros."""

    def __init__(self, unit: bytes) -> None:
        plain = unit.replace(b"\x00\x00\x03", b"\x00\x00")  # the 3 only keeps start codes away
        self._value, self._left = int.from_bytes(plain, "big"), 8 * len(plain)

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        self._left -= count
        value = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return value & ((1 << count) - 1)

    def count(self) -> int:
        """An unsigned number in Exp-Golomb code."""
        zeros = 0
        while self._left > 0 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """A signed one."""
        code = self.count()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _skip_format(bits: Bits) -> bool:
    """Leave behind what says how colours are coded; tell whether in planes of their own."""
    chroma = bits.count()
    has_planes = chroma == 3 and bool(bits.take(1))
    bits.count()  # depth of luma
    bits.count()  # depth of chroma
    bits.take(1)
    if bits.take(1):
        for index in range(12 if chroma == 3 else 8):
            if bits.take(1):
                _skip_scaling(bits, 16 if index < 6 else 64)
    return has_planes


def _skip_scaling(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed() + 256) % 256
        last = following or last


def _skip_order(bits: Bits) -> None:
    """Leave behind what says in which order pictures are shown."""
    kind = bits.count()
    if kind == 0:
        bits.count()
    elif kind == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(min(bits.count(), 255)):
            bits.signed()
