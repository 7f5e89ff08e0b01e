"""Cut long rows of running sums into blocks, so that there is work for every core."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Combine, Procedure
from asg.ops.arithmetic import add, maximum, minimum, mul
from asg.ops.cumulative import recur_rows, scan_prod
from asg.ops.logic import equal, select
from asg.ops.movement import broadcast, pad, reshape, slice_
from asg.ops.sources import iota
from asg.tensor import Tensor
from asg.types import DType

_COMBINE: dict[Combine | None, Callable[..., Tensor]] = {
    Combine.SUM: add,
    Combine.PROD: mul,
    Combine.MAX: maximum,
    Combine.MIN: minimum,
}


@dataclass(frozen=True)
class SplitScans:
    """Scan blocks of `block` elements, then the blocks' last elements, and combine both.

    Rows are cut where there are fewer than `enough_rows`, and rows of less than `shortest`
    elements never.
    """

    block: int = 256
    enough_rows: int = 256
    shortest: int = 1024

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, self._split)

    def _split(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        kind = node.op.kind
        if not isinstance(kind, Procedure) or kind.form not in ("scan", "recur"):
            return None
        if not self._is_long(node.type.shape):
            return None
        operands = [Tensor(value) for value in inputs]
        if kind.form == "recur":
            return (self._recur(*operands).value,)
        return (self._scan(operands[0], node, _COMBINE[kind.combine]).value,)

    def _is_long(self, shape: tuple[int, ...]) -> bool:
        rows = math.prod(shape[:-1])
        return 0 < rows < self.enough_rows and shape[-1] >= self.shortest

    def _scan(self, x: Tensor, node: Node, combine: Callable[..., Tensor]) -> Tensor:
        if not self._is_long(x.shape):
            whole: Tensor = node.op(x)
            return whole
        blocks = self._blocks(x)
        local = node.op(blocks)
        before = self._before(self._scan(_last(local), node, combine), local.shape)
        return _joined(select(_is_first(local.shape), local, combine(before, local)), x.shape)

    def _recur(self, a: Tensor, b: Tensor) -> Tensor:
        """Each element is its block's own, plus what came before the block times all factors."""
        if not self._is_long(b.shape):
            whole: Tensor = recur_rows(a, b)
            return whole
        factors, terms = self._blocks(a), self._blocks(b)
        local, product = recur_rows(factors, terms), scan_prod(factors)
        before = self._before(self._recur(_last(product), _last(local)), local.shape)
        whole = select(_is_first(local.shape), local, add(local, mul(product, before)))
        return _joined(whole, b.shape)

    def _blocks(self, x: Tensor) -> Tensor:
        """Cut rows into blocks; what fills the last one up is never looked at."""
        *lead, length = x.shape
        count = -(-length // self.block)
        missing = count * self.block - length
        if missing:
            high = (*(0 for _ in lead), missing)
            x = pad(x, low=(0,) * x.ndim, high=high, fill=0.0 if x.dtype.is_float else 0)
        result: Tensor = reshape(x, shape=(*lead, count, self.block))
        return result

    def _before(self, totals: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return for every element the total of the blocks before its own."""
        none = (0,) * (totals.ndim - 1)
        fill = 0.0 if totals.dtype.is_float else 0
        moved = pad(totals, low=(*none, 1), high=(*none, -1), fill=fill)
        result: Tensor = broadcast(reshape(moved, shape=(*totals.shape, 1)), shape=shape)
        return result


def _last(blocks: Tensor) -> Tensor:
    *lead, length = blocks.shape
    starts = (*(0 for _ in lead), length - 1)
    last = slice_(blocks, starts=starts, stops=blocks.shape, steps=(1,) * blocks.ndim)
    result: Tensor = reshape(last, shape=tuple(lead))
    return result


def _is_first(shape: tuple[int, ...]) -> Tensor:
    result: Tensor = equal(iota(shape=shape, axis=len(shape) - 2, dtype=DType.I32), 0)
    return result


def _joined(blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
    *lead, count, length = blocks.shape
    rows = reshape(blocks, shape=(*lead, count * length))
    ones = (1,) * len(shape)
    result: Tensor = slice_(rows, starts=(0,) * len(shape), stops=shape, steps=ones)
    return result
