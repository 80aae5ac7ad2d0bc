"""As much of protobuf's wire format as it takes to find one's way in an ONNX file.

No engine is imported for it, and what is of no interest is jumped over, not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types

_MOST_FIELDS = 10_000  # a model has dozens; a hostile file may have a hundred million


class Malformed(Exception):
    """These bytes are no protobuf message."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: Which, in the message's definition.
        wire_type: How it is written.
        length: Bytes of the payload, which starts at the file's position.
    """

    number: int
    wire_type: int
    length: int


def fields(file: BinaryIO, end: int) -> Iterator[Field]:
    """Walk over one message; the file stands at each field's payload in turn.

    Raises:
        Malformed: It is none, or is cut short.
    """
    for _ in range(_MOST_FIELDS):
        if file.tell() == end:
            return
        key = _read_varint(file)
        number, wire_type = key >> 3, key & 7
        start = file.tell()
        if wire_type == VARINT:
            _read_varint(file)
            length = file.tell() - start
        elif wire_type == LENGTH:
            length = _read_varint(file)
            start = file.tell()
        elif wire_type in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire_type == EIGHT_BYTES else 4
        else:
            raise Malformed("it does not look like ONNX at all")
        if number == 0:
            raise Malformed("it does not look like ONNX at all")
        if start + length > end:
            raise Malformed("it is cut short, or no ONNX")
        file.seek(start)
        yield Field(number, wire_type, length)
        file.seek(start + length)
    raise Malformed("it does not look like ONNX at all")


def copied(file: BinaryIO, field: Field) -> tuple[bytes, bytes]:
    """Begin and payload of the field at whose payload the file stands, as they are written."""
    begin = begin_of(field.number, field.length)
    if field.wire_type != LENGTH:
        begin = _varint(field.number << 3 | field.wire_type)
    return begin, file.read(field.length)


def begin_of(number: int, length: int) -> bytes:
    """What stands before a text or another message of so many bytes."""
    return _varint(number << 3 | LENGTH) + _varint(length)


def written(number: int, payload: bytes) -> bytes:
    """A field that holds a text or another message."""
    return begin_of(number, len(payload)) + payload


def written_number(number: int, value: int) -> bytes:
    """A field that holds a whole number, 0 or more."""
    return _varint(number << 3 | VARINT) + _varint(value)


def _read_varint(file: BinaryIO) -> int:
    """Base-128 number, least significant group first, at most 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise Malformed("it is cut short, or no ONNX")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise Malformed("it does not look like ONNX at all")


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
