"""A result whose length is known only at run time: computed in full size, cut on the host."""

from __future__ import annotations

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import BadSample, Cut, Example, Op, Sample, no_gradient
from asg.ops.rules import check_axis, expect
from asg.types import DType, TensorType


def _cut_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 2)
    x, count = types
    if check_axis(attrs["axis"], x.shape) != attrs["axis"]:
        raise ShapeError(f"an axis is given from 0, got {attrs['axis']}")
    if count != TensorType((), DType.I32):
        raise DTypeError(f"the count must be i32[], got {count}")
    return x


cut = Op(
    name="cut",
    doc="`x`, marked as a result of which only the first `count` elements along `axis` are real."
    " Whoever runs the graph cuts it; no op reads it.",
    kind=Cut(),
    shape=_cut_rule,
    numpy=lambda x, count, axis: x,
    grad=no_gradient("its length is not known before it is run"),
    examples=[
        Example([[5.0, 7.0, 0.0], 2], [5.0, 7.0], {"axis": 0}, dtypes=["f32", "i32"]),
    ],
    samples=[
        Sample(["f32[3, 2]", "i32[]"], {"axis": 0}, lows=[-2, 1], highs=[2, 3]),
        Sample(["i32[4]", "i32[]"], {"axis": 0}, lows=[-2, 0], highs=[2, 0]),
    ],
    errors=[
        BadSample(["f32[3]", "f32[]"], "cut: the count must be i32[]", {"axis": 0}),
        BadSample(["f32[3]", "i32[]"], "cut: axis 1 is out of range", {"axis": 1}),
    ],
)

OPS = (cut,)
