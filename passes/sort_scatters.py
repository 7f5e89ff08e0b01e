"""Sort what is added at run-time positions, where walking through it takes longer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Scatter
from asg.ops.arithmetic import add, minimum
from asg.ops.convert import cast
from asg.ops.logic import less, select
from asg.ops.movement import permute, reshape
from asg.ops.placing import add_sorted
from asg.tensor import Tensor
from asg.types import DType

LANES = 4
ENOUGH_COLUMNS = 16
LARGEST = 2**31 - 1

# Processors, in seconds of one core, measured on Mesa's software driver: a look at an update by
# who owns an element; what sorting costs per key and level, per element of rows and updates, and
# before anything.
LOOK, KEY, ELEMENT, STAGES = 1.1e-9, 2e-8, 4e-9, 1e-3
# Graphics cards, estimated: an addition that waits for the last one, a store and a look that do
# not; invocations that run at once; a dispatch; an element.
WAIT, STORE, GLANCE, AT_ONCE, DISPATCH, MOVED = 5e-7, 5e-8, 1e-8, 1e5, 1e-5, 1e-11
RUN = 1024


@dataclass(frozen=True)
class SortScatters:
    """Replace `scatter_add` by sorted updates, of which every row adds up its own.

    Without sorting, who owns an element or a column of the result looks at all updates, one after
    the other. Either way updates are added in the order in which they were given, so the results
    are the same to the bit. `family` is the target's, for which `asg.compiler.for_target` decides;
    `always` sorts whatever the cost.
    """

    family: str = ""
    always: bool = False

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, self._sort)

    def _sort(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op.kind != Scatter() or node.type.size == 0 or node.inputs[2].type.size == 0:
            return None
        if not self.always and not self._is_cheaper(node):
            return None
        return (_sorted(node, *map(Tensor, inputs)).value,)

    def _is_cheaper(self, node: Node) -> bool:
        rows = node.type.shape[node.attrs["axis"]]
        updates = node.inputs[1].type.size
        elements = (rows + updates) * (node.type.size // rows)
        owners, has_columns = owned(node)
        if self.family == "gpu":
            walk = updates * GLANCE
            if has_columns:
                walk = rows * STORE + updates * WAIT
            stages = 4 + max(0, math.ceil(math.log2(updates / RUN)))
            in_turn = max(1.0, owners / AT_ONCE)
            return walk * in_turn > stages * DISPATCH + elements * MOVED
        if has_columns:
            return False  # every update is looked at by those only who add it
        levels = math.log2(updates + 1)
        return owners * updates * LOOK > STAGES + updates * levels * KEY + elements * ELEMENT


def owned(node: Node) -> tuple[int, bool]:
    """Return how many invocations share the result of a `scatter_add`, and whether each owns a
    column of it, with all places along the axis, rather than an element."""
    axis, shape = node.attrs["axis"], node.type.shape
    is_vector = axis != len(shape) - 1 and shape[-1] % LANES == 0
    columns = math.prod(shape) // max(shape[axis], 1) // (LANES if is_vector else 1)
    if columns >= ENOUGH_COLUMNS:
        return columns, True
    return columns * shape[axis], False


def _sorted(node: Node, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis, size, rank = node.attrs["axis"], x.shape[node.attrs["axis"]], index.ndim
    if index.dtype is DType.U32:
        places = cast(minimum(index, LARGEST), DType.I32)
    else:  # what is negative still, or too large, is no row
        places = select(less(index, 0), add(index, size), index)
    first = (axis, *(each for each in range(x.ndim) if each != axis))
    lead = range(axis, axis + rank)
    order = (*lead, *(each for each in range(updates.ndim) if each not in lead))
    rows = permute(x, axes=first)
    columns = x.size // size
    done = add_sorted(
        reshape(rows, shape=(size, columns)),
        reshape(places, shape=(index.size,)),
        reshape(permute(updates, axes=order), shape=(index.size, columns)),
    )
    back = tuple(first.index(each) for each in range(x.ndim))
    result: Tensor = permute(reshape(done, shape=rows.shape), axes=back)
    return result
