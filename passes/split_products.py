"""Cut products with few results and a long inner axis, so that there is work for every core.

[8, 65536] x [65536, 8] becomes 16 products of a 16th of the inner axis each, and the sum of those,
in the graph itself. As with long reductions, the order of additions is fixed and plain to see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Contraction
from asg.ops.arithmetic import mul
from asg.ops.movement import permute, reshape
from asg.ops.reduction import reduce_sum
from asg.passes.riders import find_riders
from asg.tensor import Tensor


@dataclass(frozen=True)
class SplitProducts:
    """Split matrix products that are too few tiles for a device.

    A product of two vectors is no product at all: it becomes a sum.

    Attributes:
        tile: rows and columns of a tile, about as kernels have them.
        enough_tiles: tiles that keep a device busy.
        shortest: inner steps of a part, at least: the partial results cost memory traffic.
        longest: inner steps from which on idle cores cost more than another kernel; four times as
            many where sums ride with the product (`riders.py`), which need one too.
    """

    tile: int = 32
    enough_tiles: int = 16
    shortest: int = 256
    longest: int = 2048

    def __call__(self, graph: Graph) -> Graph:
        ridden = set(find_riders(graph).values())
        return rewrite(graph, lambda node, inputs: self._split(node, inputs, node in ridden))

    def _split(
        self, node: Node, inputs: tuple[Value, ...], is_ridden: bool
    ) -> tuple[Value, ...] | None:
        if not isinstance(node.op.kind, Contraction):
            return None
        *batch, rows, columns = node.type.shape
        inner = node.inputs[0].type.shape[-1]
        if node.type.size == 0 or inner < self.shortest:
            return None
        left, right = (Tensor(value) for value in inputs)
        if rows == columns == 1:
            return (_scalar_products(left, right).value,)
        tiles = math.prod(batch) * -(-rows // self.tile) * -(-columns // self.tile)
        if tiles >= self.enough_tiles or inner < self.longest * (4 if is_ridden else 1):
            return None
        parts = _divisor(inner, min(-(-self.enough_tiles // tiles), inner // self.shortest))
        if parts == 1:
            return None
        lead = len(batch)
        lefts = reshape(left, shape=(*batch, rows, parts, inner // parts))
        rights = reshape(right, shape=(*batch, parts, inner // parts, columns))
        others = tuple(range(lead))
        lefts = permute(lefts, axes=(lead + 1, *others, lead, lead + 2))
        if batch:
            rights = permute(rights, axes=(lead, *others, lead + 1, lead + 2))
        partial = node.op(lefts, rights)
        return (reduce_sum(partial, axes=(0,)).value,)


def _scalar_products(left: Tensor, right: Tensor) -> Tensor:
    """Return [*, 1, k] times [*, k, 1] as a sum over k."""
    *batch, _, inner = left.shape
    shape = (inner,) if math.prod(batch) == 1 else (*batch, inner)
    pairs = mul(reshape(left, shape=shape), reshape(right, shape=shape))
    result: Tensor = reshape(reduce_sum(pairs, axes=(len(shape) - 1,)), shape=(*batch, 1, 1))
    return result


def _divisor(length: int, most: int) -> int:
    """Return the largest divisor of `length` up to `most`, one that leaves quads if there is."""
    divisors = [part for part in range(1, most + 1) if length % part == 0]
    whole = [part for part in divisors if length // part % 4 == 0]
    return max(whole or divisors, default=1)
