"""The ops' samples in narrow element types."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asg import ops
from asg.errors import DTypeError, ShapeError
from asg.graph import Literal
from asg.op import Op, Sample
from asg.ops.bits import bitcast
from asg.types import DType, parse_type
from support.samples import sample_graph


def _in_narrow(
    op: Op, sample: Sample, floats: DType, signed: DType, unsigned: DType
) -> Sample | None:
    """The sample with its types made narrow; None where they are not."""
    swap = {DType.F32: floats, DType.I32: signed, DType.U32: unsigned}
    types = [parse_type(text) for text in sample.types]
    narrow = [replace(type_, dtype=swap.get(type_.dtype, type_.dtype)) for type_ in types]
    attrs = dict(sample.attrs or {})
    if types == narrow or isinstance(attrs.get("value"), Literal):
        return None
    if isinstance(attrs.get("dtype"), DType):
        attrs["dtype"] = swap.get(attrs["dtype"], attrs["dtype"])
        if op is bitcast:
            attrs["dtype"] = DType.U16

    def within(low: float, high: float) -> tuple[float, float]:
        whole = [type_.dtype for type_ in narrow if type_.dtype.is_integer]
        for dtype in whole:
            limits = np.iinfo(dtype.numpy)
            low, high = max(low, limits.min), min(high, limits.max)
        return low, high

    low, high = within(sample.low, sample.high)
    return replace(sample, types=list(map(str, narrow)), attrs=attrs, low=low, high=high)


def narrow_samples() -> list[tuple[Op, Sample]]:
    """Each sample in narrow types as far as the op takes them: some want positions in i32."""
    triples = [(DType.F16, DType.I8, DType.U16), (DType.BF16, DType.I16, DType.U8)]
    found: list[tuple[Op, Sample]] = []
    for op in ops.TABLE.values():
        for sample in op.samples:
            for floats, signed, unsigned in triples:
                for whole in ((signed, unsigned), (DType.I32, DType.U32)):
                    narrow = _in_narrow(op, sample, floats, *whole)
                    if narrow is not None and _is_accepted(op, narrow):
                        found.append((op, narrow))
                        break
    return found


def _is_accepted(op: Op, sample: Sample) -> bool:
    try:
        sample_graph(op, sample)
    except (DTypeError, ShapeError):  # a type is part of what some rules say of shapes
        return False
    return True
