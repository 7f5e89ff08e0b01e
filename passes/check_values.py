"""What the bytes of a value are, by the graph alone: for the checker of storage plans."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asg.graph import Value
from asg.index import flatten, unflatten, variable
from asg.narrow import evaluate
from asg.op import Elementwise, Join, View
from asg.passes.kernels import FusedKernel, Placement

_DRAWS = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """`nbytes` bytes at `start` are those of `value` from `offset` on; zero where it is None."""

    start: int
    nbytes: int
    value: Value | None
    offset: int = 0


def pieces(
    value: Value, computed: Collection[Value], aliases: Mapping[Value, Placement]
) -> list[Piece]:
    """Return what a value is made of: parts of computed values, inputs and constants.

    Views are looked through and flat joins taken apart until a value in `computed` is met.
    """
    done: list[Piece] = []
    pending = [Piece(0, value.type.nbytes, value)]
    while pending:
        piece = pending.pop()
        part = piece.value
        if part is None or part in computed or not piece.nbytes:
            done.append(piece)
            continue
        kind = part.node.op.kind
        if isinstance(kind, Join) and kind.flat:
            pending += _members(piece, part, kind)
            continue
        step = _alias(part, aliases) or _single_view(part)
        if step is None:
            done.append(piece)
        else:
            source, offset = step
            pending.append(Piece(piece.start, piece.nbytes, source, piece.offset + offset))
    return sorted((piece for piece in done if piece.nbytes), key=lambda piece: piece.start)


def _members(piece: Piece, join: Value, kind: Join) -> list[Piece]:
    """Cut a range of a flat join into ranges of its operands and gaps."""
    operands, item = join.node.inputs, join.type.dtype.itemsize
    starts = kind.starts(join.node.attrs, tuple(operand.type for operand in operands))
    cut: list[Piece] = []
    begin, end = piece.offset, piece.offset + piece.nbytes
    reached = begin
    for operand, element in sorted(zip(operands, starts, strict=True), key=lambda pair: pair[1]):
        low = max(element * item, begin)
        high = min(element * item + operand.type.nbytes, end)
        if low >= high:
            continue
        if low > reached:
            cut.append(Piece(piece.start + reached - begin, low - reached, None))
        cut.append(Piece(piece.start + low - begin, high - low, operand, low - element * item))
        reached = high
    if reached < end:
        cut.append(Piece(piece.start + reached - begin, end - reached, None))
    return cut


def _alias(value: Value, aliases: Mapping[Value, Placement]) -> tuple[Value, int] | None:
    place = aliases.get(value)
    return None if place is None else (place.parent, place.offset * value.type.dtype.itemsize)


def _single_view(value: Value) -> tuple[Value, int] | None:
    """Return the operand of a view that is a contiguous range of it, and where it begins."""
    kind = value.node.op.kind
    if not isinstance(kind, View):
        return None
    source = value.node.inputs[0]
    position = variable("element", value.type.size)
    coordinates = unflatten(position, value.type.shape)
    access = kind.access(value.node.attrs, source.type.shape, value.type.shape, coordinates)
    for index, low, high in access.guards:
        if index.low < low or index.high >= high:
            return None
    distance = flatten(access.coordinates, source.type.shape) - position
    return (source, distance.const * value.type.dtype.itemsize) if distance.is_const else None


def gap_is_zero(kernel: FusedKernel, output: Value, zeros: Sequence[Value]) -> bool:
    """Tell whether `output` comes out zero at an element where the reads `zeros` are zero.

    Plays one element with random numbers for everything else, a few times.
    """
    draw = random.Random(0)
    for _ in range(_DRAWS):
        number = _play_element(kernel, output, zeros, draw)
        if number != 0.0 and not np.isnan(number):
            return False
    return True


def _play_element(
    kernel: FusedKernel, output: Value, zeros: Sequence[Value], draw: random.Random
) -> float:
    held: dict[Value, float] = {
        read: 0.0 if read in zeros else draw.uniform(0.1, 3.0) for read in kernel.reads
    }
    waiting = [output]
    while waiting:
        value = waiting[-1]
        node = value.node
        missing = [operand for operand in node.inputs if operand not in held]
        if value in held:
            waiting.pop()
        elif isinstance(node.op.kind, (Elementwise, View)) and missing:
            waiting += missing
        elif isinstance(node.op.kind, Elementwise):
            operands = [
                np.asarray(held[operand]).astype(operand.type.dtype.numpy)
                for operand in node.inputs
            ]
            with np.errstate(all="ignore"):
                results = evaluate(node.op, operands, node.attrs, node.types)
            held.update(zip(node.values, map(float, results), strict=True))
        elif isinstance(node.op.kind, View):
            held[value] = held[node.inputs[0]]
        else:
            held[value] = _constant(value, draw)
    return held[output]


def _constant(value: Value, draw: random.Random) -> float:
    """Return a constant's number if all its elements are the same, else a random one."""
    array = getattr(value.node.attrs.get("value"), "array", None)
    if array is not None and array.size and (array == array.flat[0]).all():
        return float(array.flat[0])
    return draw.uniform(0.1, 3.0)
