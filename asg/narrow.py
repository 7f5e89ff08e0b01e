"""What an op means for narrow element types: computed wide, rounded once.

An op on f16 or bf16 computes in f32, one on integers of 8 or 16 bits in i32 or u32; its result is
rounded to nearest (ties to even), or wraps. So each op has one NumPy rule and one shader, those of
the wide type. Whatever only moves elements, and conversions, take them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asg.graph import Attrs
from asg.op import Composite, Gather, Join, Op, Source, View
from asg.ops.bits import bitcast
from asg.ops.convert import cast_
from asg.types import DType, TensorType, is_floating

Array = np.ndarray[Any, Any]


def widened_operands(op: Op, count: int) -> range | tuple[int, ...]:
    """Return the positions of operands that are computed with, rather than moved."""
    is_call = isinstance(op.kind, Composite) and op.kind.is_call  # its body says what is computed
    if is_call or op is cast_ or op is bitcast or isinstance(op.kind, (View, Join, Source)):
        return ()
    return (1,) if isinstance(op.kind, Gather) else range(count)


def evaluate(
    op: Op, operands: Sequence[Array], attrs: Attrs, types: Sequence[TensorType]
) -> tuple[Array, ...]:
    """Run an op's NumPy rule on operands as they are stored; `types` are those of its results.

    Results are not rounded yet: that is for the caller, who may want more than their types hold.
    """
    wide = list(operands)
    for position in widened_operands(op, len(wide)):
        wide[position] = _widened(wide[position])
    if isinstance(op.kind, Source) and "dtype" in attrs:
        attrs = {**attrs, "dtype": attrs["dtype"].compute}
    found = op.numpy(*wide, **attrs)
    results = found if len(types) > 1 else (found,)
    return tuple(np.asarray(result) for result in results)


def _widened(array: Array) -> Array:
    if is_floating(array):
        return array if array.dtype.itemsize >= 4 else array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize < 4:
        return array.astype(np.int32 if array.dtype.kind == "i" else np.uint32)
    return array


def stored(array: Array, dtype: DType) -> Array:
    """Return computed numbers in the type that they are stored in."""
    return array.astype(dtype.numpy, copy=False)
