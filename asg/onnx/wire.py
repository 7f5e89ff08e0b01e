"""A look at the bytes of an ONNX file, to take the weights out before they are parsed.

A protobuf message is a row of fields: a key (number and wire type), then a number or a length and
so many bytes. `split` walks through the fields of a model and its graph, and leaves out the
`raw_data` of large initialisers, which would otherwise be copied into the parsed message and out
of it again. What is left is a small message that the `onnx` package parses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Buffer = memoryview

_GRAPH, _INITIALISER, _RAW_DATA = 7, 5, 9  # in ModelProto, GraphProto, TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
LARGE = 1024  # bytes; smaller ones stay in the message


class WireError(ValueError):
    """The bytes are no protobuf message, or one that is laid out unusually."""


@dataclass(frozen=True)
class Split:
    """A model without its large weights, and where these are: the initialiser's position in the
    graph, and where its bytes begin and end in the file."""

    message: bytes
    places: dict[int, tuple[int, int]]


def split(data: Buffer) -> Split:
    """Return the model in `data` without the contents of large initialisers.

    Raises:
        WireError: the bytes are not understood; parsing them whole tells more.
    """
    parts: list[bytes] = []
    places: dict[int, tuple[int, int]] = {}
    graphs = 0
    for number, kind, start, body, end in _fields(data, 0, len(data)):
        if number == _GRAPH and kind == _BYTES:
            graphs += 1
            if graphs > 1:
                raise WireError("two graphs")
            inner = _split_graph(data, body, end, places)
            parts += [_key(_GRAPH), _varint(sum(map(len, inner))), *inner]
        else:
            parts.append(bytes(data[start:end]))
    return Split(b"".join(parts), places)


def _split_graph(
    data: Buffer, start: int, end: int, places: dict[int, tuple[int, int]]
) -> list[bytes]:
    parts: list[bytes] = []
    position = 0
    kept = start  # what lies from here on is copied as it is
    for number, kind, first, body, last in _fields(data, start, end):
        if number != _INITIALISER or kind != _BYTES:
            continue
        if last - body >= LARGE:
            inner, place = _split_tensor(data, body, last)
            if place is not None:
                parts.append(bytes(data[kept:first]))
                parts += [_key(_INITIALISER), _varint(sum(map(len, inner))), *inner]
                places[position] = place
                kept = last
        position += 1
    return [*parts, bytes(data[kept:end])]


def _split_tensor(data: Buffer, start: int, end: int) -> tuple[list[bytes], tuple[int, int] | None]:
    parts: list[bytes] = []
    place = None
    for number, kind, first, body, last in _fields(data, start, end):
        if number == _RAW_DATA and kind == _BYTES and last - body >= LARGE:
            if place is not None:
                raise WireError("a tensor with two contents")
            place = body, last
        else:
            parts.append(bytes(data[first:last]))
    return parts, place


def _fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield number, wire type, and where a field, its body and what follows begin."""
    place = start
    while place < end:
        key, body = _read_varint(data, place, end)
        kind = key & 7
        if kind == _VARINT:
            _, after = _read_varint(data, body, end)
        elif kind == _BYTES:
            size, body = _read_varint(data, body, end)
            after = body + size
        elif kind in (_FIXED64, _FIXED32):
            after = body + (8 if kind == _FIXED64 else 4)
        else:
            raise WireError(f"wire type {kind}")
        if after > end or key >> 3 == 0:
            raise WireError("a field that reaches beyond its message")
        yield key >> 3, kind, place, body, after
        place = after


def _read_varint(data: Buffer, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise WireError("a number that does not end")


def _key(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
