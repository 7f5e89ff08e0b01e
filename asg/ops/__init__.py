"""The op table: every primitive, explicitly listed, and the operators of tensors bound to them.

Ground: may import `asg` below the roof. Begin reading at `asg/op.py` (what an op is), then
`arithmetic.py`. Each family lists its ops in `OPS`.
"""

from __future__ import annotations

from types import ModuleType

from asg.op import Op
from asg.ops import (
    arithmetic,
    attention,
    bits,
    convert,
    convolution,
    cumulative,
    cutting,
    elementwise,
    gelus,
    hyperbolic,
    indexing,
    join,
    linear,
    logic,
    losses,
    movement,
    normalizing,
    overwriting,
    placing,
    pooling,
    quantized,
    reduction,
    sorting,
    sources,
    suppressing,
    windows,
)
from asg.tensor import bind_operators

_FAMILIES: tuple[ModuleType, ...] = (
    sources, arithmetic, elementwise, hyperbolic, gelus, logic, bits, convert, movement, join,
    reduction, linear, indexing, overwriting, normalizing, losses, attention, windows, convolution,
    pooling, quantized,
)  # fmt: skip
_FAMILIES += (sorting, cumulative, placing, cutting, suppressing)

TABLE: dict[str, Op] = {op.name: op for family in _FAMILIES for op in family.OPS}


# What tensors need for Python's operators and gradient rules across families. `asg.functions`
# adds the methods; nothing in this package uses those.
bind_operators(
    {
        **{op.name: op for op in (*arithmetic.OPS, *logic.OPS, *bits.OPS)},
        "broadcast_to": movement.broadcast_to,
        "cast": convert.cast,
        "constant": sources.constant,
        "invert": bits.bitwise_not,
        "matmul": linear.matmul,
        "pow": elementwise.pow_,
        "reduce_sum": reduction.reduce_sum,
        "true_divide": arithmetic.true_divide,
    }
)
