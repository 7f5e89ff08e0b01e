"""Sequences of tensors, whose length is known whenever a graph is made: lists of the importer.

Exporters split a tensor into a sequence and take its elements. That never reaches the graph; a
sequence as an input or a result of a model is refused.
"""

from __future__ import annotations

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Operand, Typed
from asg.onnx.registry import converter

PARTS = 4096  # of a tensor, each a node


def sequence(items: list[Operand]) -> Operand:
    """Return operands as one."""
    dtype = items[0].dtype if items else np.dtype(np.float32)
    return Operand("sequence", dtype, items=tuple(items))


def items_of(call: Call, position: int) -> list[Operand]:
    """Return the elements of a sequence."""
    found = call.operand(position).items
    if found is None:
        raise call.malformed(f"operand {position} is no sequence")
    return list(found)


def _place(call: Call, position: int, count: int, default: int) -> int:
    if not call.has(position):
        return default
    place = int(call.static(position, "the place").reshape(()))
    if not -count <= place <= count:
        raise call.malformed(f"place {place} in a sequence of {count}")
    return place + count if place < 0 else place


@converter("SequenceConstruct", since=11)
def construct(call: Call) -> Operand:
    """Operands as a sequence."""
    return sequence([call.operand(i) for i in range(call.count)])


@converter("SequenceEmpty", since=11)
def empty(call: Call) -> Operand:
    """No elements."""
    return sequence([])


@converter("SequenceAt", since=11)
def at(call: Call) -> Operand:
    """One element."""
    items = items_of(call, 0)
    place = _place(call, 1, len(items), 0)
    if place >= len(items):
        raise call.malformed(f"place {place} in a sequence of {len(items)}")
    return items[place]


@converter("SequenceLength", since=11)
def length(call: Call) -> np.ndarray[tuple[()], np.dtype[np.int64]]:
    """How many elements there are."""
    return np.array(len(items_of(call, 0)), np.int64)


@converter("SequenceInsert", since=11)
def insert(call: Call) -> Operand:
    """One element more, at the end unless told."""
    items = items_of(call, 0)
    items.insert(_place(call, 2, len(items), len(items)), call.operand(1))
    return sequence(items)


@converter("SequenceErase", since=11)
def erase(call: Call) -> Operand:
    """One element less, the last unless told."""
    items = items_of(call, 0)
    if not items:
        raise call.malformed("nothing to erase")
    del items[_place(call, 1, len(items), len(items) - 1)]
    return sequence(items)


@converter("SplitToSequence", since=11, statics=(1,))
def split_to_sequence(call: Call) -> Operand:
    """Parts of given sizes, all of one size but the last, or single elements."""
    x, axis = call[0], call.get_int("axis", 0) % max(call[0].ndim, 1)
    size = x.shape[axis]
    if not call.has(1):
        _check_parts(call, size)
        parts = F.split(x, [1] * size, axis)
        if not call.get_int("keepdims", 1):
            parts = [F.squeeze(part, axis) for part in parts]
    else:
        given = call.static(1, "the sizes")
        if given.ndim == 0:
            each = int(given)
            if each < 1:
                raise call.malformed(f"parts of {each} elements")
            _check_parts(call, -(-size // each))
            sizes = [min(each, size - start) for start in range(0, size, each)]
        else:
            sizes = [int(each) for each in given]
        parts = F.split(x, sizes, axis)
    dtype = call.dtype(0)
    return sequence([Operand("part", dtype, tensor=part) for part in parts])


def _check_parts(call: Call, count: int) -> None:
    if count > PARTS:
        raise call.unsupported(f"a sequence of {count} parts", f"at most {PARTS} parts")


@converter("ConcatFromSequence", since=11)
def concat_from_sequence(call: Call) -> Typed:
    """Elements one after the other, or along a new axis."""
    items = items_of(call, 0)
    tensors = [call.importer.tensor(each) for each in items]
    join = F.stack if call.get_int("new_axis", 0) else F.concatenate
    return Typed(join(tensors, call.get_int("axis")), items[0].dtype)
