"""Cut rows that are too long to be sorted at once into runs, and merge these."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Procedure
from asg.ops.arithmetic import add, mul
from asg.ops.movement import pad, reshape
from asg.ops.sorting import LAST, merge_rows
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType

REGISTER_RUN = 16  # keys that an invocation sorts in variables
STAGED_RUN = 1024  # keys that a workgroup sorts in its memory


@dataclass(frozen=True)
class SplitSorts:
    """Sort rows in runs of `longest` elements, then merge pairs of runs until one is left.

    None leaves the length to the target, for which `asg.compiler.for_target` decides; it is that
    of graphics cards until then. Where few elements are wanted, runs are cut to so many at once.
    Afterwards no `sort_rows` has longer rows.
    """

    longest: int | None = None

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, self._split)

    def _split(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        longest = self.longest or STAGED_RUN
        if not isinstance(node.op.kind, Procedure) or node.op.kind.form != "sort":
            return None
        *lead, length = node.inputs[0].type.shape
        if length <= longest or node.type.size == 0:
            return None
        count = node.attrs["count"]
        runs = -(-length // longest)
        keys = _padded(Tensor(inputs[0]), runs * longest - length)
        keys = reshape(keys, shape=(*lead, runs, longest))
        keys, places = node.op(keys, count=min(count, longest))
        before = iota(shape=places.shape, axis=len(lead), dtype=DType.I32)
        places = add(places, mul(before, longest))
        while runs > 1:
            keys, places = _merged(keys, places, count)
            runs = keys.shape[-2]
        results = (reshape(each, shape=(*lead, count)) for each in (keys, places))
        return tuple(each.value for each in results)


def _merged(keys: Tensor, places: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge neighbouring runs; a last one alone gets a run of nothing."""
    *lead, runs, length = keys.shape
    pairs = (*lead, (runs + 1) // 2, 2, length)
    if runs % 2:
        keys, places = (_padded(each, 1, axis=-2) for each in (keys, places))
    keys, places = reshape(keys, shape=pairs), reshape(places, shape=pairs)
    merged, order = merge_rows(keys, places, count=min(count, 2 * length))
    return merged, order


def _padded(x: Tensor, count: int, axis: int = -1) -> Tensor:
    """Put what comes after every key behind an axis."""
    if not count:
        return x
    high = [0] * x.ndim
    high[axis] = count
    fill = LAST if x.dtype is DType.U32 else 0
    result: Tensor = pad(x, low=(0,) * x.ndim, high=tuple(high), fill=fill)
    return result
