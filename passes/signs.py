"""What is known of the signs of values, whatever the inputs are."""

from __future__ import annotations

from asg.graph import Node, Value
from asg.index import variable
from asg.op import Combine, Reduction, View
from asg.ops.arithmetic import sub


def is_never_positive(value: Value) -> bool:
    """Tell whether every element is 0 or less, or NaN: numbers less the largest of their row."""
    node = value.node
    if node.op is not sub:
        return False
    numbers, largest = node.inputs
    coordinates = tuple(variable(f"axis{axis}", size) for axis, size in enumerate(value.type.shape))
    at = coordinates
    source: Node = largest.node
    while isinstance(source.op.kind, View) and len(source.inputs) == 1:
        shape = source.inputs[0].type.shape
        access = source.op.kind.access(source.attrs, shape, source.type.shape, at)
        if access.guards:
            return False
        at, source = access.coordinates, source.inputs[0].node
    kind = source.op.kind
    if not isinstance(kind, Reduction) or kind.combine is not Combine.MAX:
        return False
    axes = source.attrs["axes"]
    row = tuple(each for axis, each in enumerate(coordinates) if axis not in axes)
    return source.inputs == (numbers,) and at == row
