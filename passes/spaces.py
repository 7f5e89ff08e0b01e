"""The loops of a kernel: rows and the elements inside a row, and how values relate to them.

A reduction over some axes splits its operand's elements into `rows` (the axes kept) times
`length` (the axes reduced). `full` is the row-major position in the operand of element `k` of row
`r`. A value of the whole operand's size is *full* in that space, one of the rows' number *per
row*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asg.graph import Node
from asg.index import Index, Var, flatten, unflatten, variable
from asg.op import ArgReduction, Reduction
from asg.types import Shape


@dataclass(frozen=True)
class RowSpace:
    """`shape` with `axes` reduced; `full` in terms of the variables `row` and `k`."""

    rows: int
    length: int
    full: Index
    shape: Shape
    axes: tuple[int, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for reductions whose loops can be one."""
        return self.rows, self.length, self.full

    @property
    def is_row_contiguous(self) -> bool:
        """Tell whether neighbours within a row are neighbours in memory."""
        return self.full == row_variable(self.rows) * self.length + element_variable(self.length)


def row_variable(rows: int) -> Index:
    """Return the variable that runs over rows."""
    return variable("row", rows)


def element_variable(length: int) -> Index:
    """Return the variable that runs over the elements of a row."""
    return variable("k", length)


def reduced_axes(node: Node) -> tuple[int, ...]:
    """Return the axes that a reduction removes."""
    if isinstance(node.op.kind, ArgReduction):
        return (node.attrs["axis"] % node.inputs[0].type.rank,)
    return tuple(axis % node.inputs[0].type.rank for axis in node.attrs["axes"])


def row_space(node: Node) -> RowSpace:
    """Return the loops of a reduction."""
    assert isinstance(node.op.kind, (Reduction, ArgReduction))
    shape = node.inputs[0].type.shape
    axes = reduced_axes(node)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    rows = math.prod(shape[axis] for axis in kept)
    length = math.prod(shape[axis] for axis in axes)
    full = full_position(shape, axes, row_variable(rows), element_variable(length))
    return RowSpace(rows, length, full, shape, axes)


def full_position(shape: Shape, axes: tuple[int, ...], row: Index, k: Index) -> Index:
    """Return the row-major position in `shape` of element `k` of row `row`."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    outer = unflatten(row, [shape[axis] for axis in kept])
    inner = unflatten(k, [shape[axis] for axis in axes])
    coordinates = dict(zip(kept, outer, strict=True)) | dict(zip(axes, inner, strict=True))
    return flatten([coordinates[axis] for axis in range(len(shape))], shape)


FLAT = "i"


def flat_variable(size: int) -> Index:
    """Return the variable that runs over all elements of a map."""
    return variable(FLAT, size)


def flat_atom(size: int) -> Var:
    """Return the same variable as an atom, to be replaced."""
    return Var(FLAT, 0, size - 1)
