"""The op table: every primitive, explicitly listed, and the operators of tensors bound to them.

Begin reading at `asg/op.py` (what an op is), then `arithmetic.py`.
"""

from __future__ import annotations

from typing import Any

from asg.op import Op
from asg.ops import (
    arithmetic,
    bits,
    convert,
    elementwise,
    indexing,
    join,
    linear,
    logic,
    movement,
    normalizing,
    reduction,
    sources,
)
from asg.tensor import Tensor, as_tensor, bind_operators
from asg.types import as_shape

_FAMILIES = (
    sources, arithmetic, elementwise, logic, bits, convert, movement, join, reduction, linear,
    indexing, normalizing,
)  # fmt: skip

TABLE: dict[str, Op] = {op.name: op for family in _FAMILIES for op in family.OPS}


def _true_divide(x: Any, y: Any) -> Tensor:
    """Divide as Python's `/` does: integers become floats first."""
    result: Tensor = arithmetic.div(*(_as_float(operand) for operand in (x, y)))
    return result


def _as_float(x: Any) -> Any:
    if isinstance(x, (int, float)):
        return float(x)
    return convert.cast(x, "f32")


def _broadcast_to(x: Any, shape: Any) -> Tensor:
    tensor, wanted = as_tensor(x), as_shape(shape)
    result: Tensor = tensor if tensor.shape == wanted else movement.broadcast(tensor, shape=wanted)
    return result


# What tensors need for Python's operators and gradient rules across families. `asg.functions`
# adds the methods; nothing in this package uses those.
bind_operators(
    {
        **{op.name: op for op in (*arithmetic.OPS, *logic.OPS, *bits.OPS)},
        "broadcast_to": _broadcast_to,
        "cast": convert.cast,
        "constant": sources.constant,
        "invert": bits.bitwise_not,
        "matmul": linear.matmul,
        "pow": elementwise.pow_,
        "reduce_sum": reduction.reduce_sum,
        "true_divide": _true_divide,
    }
)
