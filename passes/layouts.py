"""Images with their channels first or last: [n, c, *places] or [n, *places, c] in memory.

Values of a graph are stored as their shapes say. An image [n, c, *places] whose channels come last
in memory is a permutation of what is stored, which costs nothing where it is read through index
maps. `to_last` and then `to_first` leave a value as it is, and say how it should be stored.
"""

from __future__ import annotations

from typing import Literal

from asg.graph import Graph, Value
from asg.index import Var, flatten, variable
from asg.op import View
from asg.ops.movement import permute
from asg.passes.pull import operand_coordinates
from asg.tensor import Tensor

Layout = Literal["nchw", "nhwc"]


def last_axes(rank: int) -> tuple[int, ...]:
    """Return the permutation that moves channels behind the places."""
    return (0, *range(2, rank), 1)


def first_axes(rank: int) -> tuple[int, ...]:
    """Return the permutation that moves channels before the places."""
    return (0, rank - 1, *range(1, rank - 1))


def to_last(x: Tensor) -> Tensor:
    """Return [n, c, *places] as [n, *places, c]."""
    result: Tensor = permute(x, axes=last_axes(x.ndim))
    return result


def to_first(x: Tensor) -> Tensor:
    """Return [n, *places, c] as [n, c, *places]."""
    result: Tensor = permute(x, axes=first_axes(x.ndim))
    return result


def is_read_last(graph: Graph, value: Value) -> bool:
    """Tell whether all that reads an image wants its channels last."""
    axes, users = last_axes(value.type.rank), graph.users.get(value, ())
    is_turned = all(user.op is permute and user.attrs["axes"] == axes for user in users)
    return bool(users) and is_turned and value not in graph.results


def dense_axis(value: Value) -> int | None:
    """Return the axis along which neighbours lie beside each other in memory, or None.

    A permutation of what is computed counts as stored: `TurnMaps` sees to that where it can.
    """
    shape = value.type.shape
    at = tuple(variable(f"axis_{number}", size) for number, size in enumerate(shape))
    while isinstance(value.node.op.kind, View):
        node = value.node
        if node.op is permute and not isinstance(node.inputs[0].node.op.kind, View):
            break
        below = operand_coordinates(node, at)[0]
        assert below[1] is not None
        value, at = below[0], below[1]
    position = flatten(at, value.type.shape)
    for number, size in enumerate(shape):
        if size > 1 and position.coefficient(Var(f"axis_{number}", 0, size - 1)) == 1:
            return number
    return None
