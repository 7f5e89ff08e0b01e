"""Attention that is spelt out: two products with a softmax between.

From the last product down: the softmax (perhaps with NaN made 0), then masks, scales, a cap and
views in any order that keeps their meaning, then the product of queries and keys. Scales of the
queries or keys themselves are taken into attention's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from asg.graph import Graph, Node, Value
from asg.ops.arithmetic import add, div, mul
from asg.ops.attention import attention
from asg.ops.convert import cast_
from asg.ops.elementwise import tanh
from asg.ops.linear import matmul_
from asg.ops.logic import isnan, select
from asg.ops.movement import permute, reshape
from asg.ops.normalizing import softmax
from asg.passes.attention_masks import LARGEST, MaskTerm, Scenery, judged
from asg.passes.matching import Match, is_private
from asg.passes.rewriting import is_uniform, uniform
from asg.tensor import Tensor
from asg.types import DType, Shape

MOST_STEPS = 12  # between the two products, and between a product and a scale of its operand
MOST_MASKS = 4


@dataclass(frozen=True)
class _Scores:
    """What was found between the softmax and the product of queries and keys."""

    inside: tuple[Node, ...] = ()
    scale: float = 1.0
    softcap: float = 0.0
    masks: tuple[MaskTerm, ...] = ()

    def passing(self, *nodes: Node) -> _Scores:
        return replace(self, inside=(*self.inside, *nodes))


@dataclass(frozen=True)
class _Operand:
    """Queries or keys: views of a value, and the number that they are multiplied by.

    `views` are applied to `source` from the last to the first.
    """

    source: Value
    views: tuple[tuple[str, tuple[int, ...]], ...] = ()
    scale: float = 1.0

    def build(self, source: Tensor) -> Tensor:
        found = source
        for name, numbers in reversed(self.views):
            found = (
                permute(found, axes=numbers) if name == "permute" else reshape(found, shape=numbers)
            )
        return found


def find_attention(graph: Graph, avoid: Collection[Value] = ()) -> Mapping[Node, Match]:
    """Return the products that are the end of attention.

    `avoid` are values that no mask may be: those that a gradient is wanted of, which is made of
    scores that attention does not keep.
    """
    if not any(node.op is softmax for node in graph.nodes):
        return {}
    scenery = Scenery()
    found: dict[Node, Match] = {}
    for node in graph.nodes:
        match = _attention(node, scenery, avoid) if node.op is matmul_ else None
        if match is not None and is_private(graph, node, match.inside):
            found[node] = match
    return found


def _attention(node: Node, scenery: Scenery, avoid: Collection[Value]) -> Match | None:
    weights, v = node.inputs
    if weights.type.dtype is not DType.F32:
        return None
    passed, is_guarded = [], False
    guarded = _without_nan(weights)
    if guarded is not None:
        passed, is_guarded = [weights.node, weights.node.inputs[0].node], True
        weights = guarded
    *batch, rows, _ = weights.type.shape
    while _keeps_rows(weights.node):
        passed.append(weights.node)
        weights = weights.node.inputs[0]
    if weights.node.op is not softmax or weights.node.attrs["axis"] != weights.type.rank - 1:
        return None
    passed.append(weights.node)
    start = _Scores(tuple(passed))
    for product, scores in _walks(weights.node.inputs[0], start, MOST_STEPS):
        if not any(mask.value in avoid for mask in scores.masks):
            is_aligned = product.type.shape[-2] == rows  # or keys might not be shared
            match = None
            if is_aligned:
                match = _matched(product, scores, v, tuple(batch), scenery, is_guarded, bool(avoid))
            if match is not None:
                return match
    return None


def _without_nan(value: Value) -> Value | None:
    """Return x of `select(isnan(x), 0, x)`."""
    if value.node.op is not select:
        return None
    condition, instead, x = value.node.inputs
    is_guard = condition.node.op is isnan and condition.node.inputs[0] == x
    return x if is_guard and is_uniform(instead, 0) else None


def _keeps_rows(node: Node) -> bool:
    """Tell whether a node only arranges rows, those along the last axis, in other axes."""
    if node.op is not reshape:
        return False
    return node.inputs[0].type.shape[-1:] == node.type.shape[-1:] != ()


def _has_same_ends(node: Node) -> bool:
    """Tell whether a reshape leaves the last two axes alone."""
    before, after = node.inputs[0].type.shape, node.type.shape
    return len(before) >= 2 and before[-2:] == after[-2:]


def _walks(value: Value, scores: _Scores, left: int) -> list[tuple[Node, _Scores]]:
    """Return the products that scores may be of, with what lies between."""
    node = value.node
    if node.op is matmul_:
        return [(node, scores.passing(node))]
    if left == 0:
        return []
    if _keeps_rows(node) or _is_idle_cast(node):
        return _walks(node.inputs[0], scores.passing(node), left - 1)
    found: list[tuple[Node, _Scores]] = []
    if node.op is mul or node.op is div:
        found += _scaled_walks(node, scores, left)
    if scores.scale != 1.0 or scores.softcap or len(scores.masks) == MOST_MASKS:
        return found  # a mask that is scaled or capped with the scores is none
    if node.op is add:
        for one, other in (node.inputs, node.inputs[::-1]):
            masks = (*scores.masks, MaskTerm(other))
            found += _walks(one, replace(scores.passing(node), masks=masks), left - 1)
    if node.op is select:
        condition, chosen, fill = node.inputs
        for inner, other, is_denied in ((chosen, fill, False), (fill, chosen, True)):
            number = uniform(other)
            if number is not None:
                masks = (*scores.masks, MaskTerm(condition, float(number), is_denied))
                found += _walks(inner, replace(scores.passing(node), masks=masks), left - 1)
    return found


def _is_idle_cast(node: Node) -> bool:
    return node.op is cast_ and node.inputs[0].type == node.type


def _scaled_walks(node: Node, scores: _Scores, left: int) -> list[tuple[Node, _Scores]]:
    found = _times(node)
    if found is None:
        return []
    inner, number = found
    scores = scores.passing(node)
    if inner.node.op is tanh and not scores.softcap and number > 0 and scores.scale == 1.0:
        below = replace(scores.passing(inner.node), softcap=number, scale=number)
        return _walks(inner.node.inputs[0], below, left - 1)
    return _walks(inner, replace(scores, scale=scores.scale * number), left - 1)


def _times(node: Node) -> tuple[Value, float] | None:
    """Return x and c of x * c, c * x or x / c."""
    x, y = node.inputs
    right = uniform(y)
    if right is not None and (node.op is mul or right != 0):
        return x, float(right) if node.op is mul else 1.0 / float(right)
    left = uniform(x) if node.op is mul else None
    return None if left is None else (y, float(left))


# -- queries and keys -----------------------------------------------------------------------------


def _unscaled(value: Value) -> _Operand:
    """Return an operand without the numbers that it is multiplied by, below views if need be."""
    views: list[tuple[str, tuple[int, ...]]] = []
    best = _Operand(value)
    inner, scale = value, 1.0
    for _ in range(MOST_STEPS):
        node = inner.node
        found = _times(node) if node.op is mul or node.op is div else None
        if found is not None:
            inner, scale = found[0], scale * found[1]
            best = _Operand(inner, tuple(views), scale)
        elif node.op is reshape or node.op is permute:
            views.append(_as_view(node))
            inner = node.inputs[0]
        else:
            break
    return best


def _as_view(node: Node) -> tuple[str, tuple[int, ...]]:
    if node.op is permute:
        return "permute", tuple(node.attrs["axes"])
    return "reshape", node.type.shape


def _turned(value: Value) -> _Operand:
    """Return keys [..., T, D] of their transpose [..., D, T]."""
    node = value.node
    if node.op is mul or node.op is div:
        found = _times(node)
        if found is not None:
            below = _turned(found[0])
            return replace(below, scale=below.scale * found[1])
    if node.op is permute:
        *lead, one, other = node.attrs["axes"]
        below = _unscaled(node.inputs[0])
        return replace(below, views=(("permute", (*lead, other, one)), *below.views))
    if node.op is reshape and _has_same_ends(node) and node.inputs[0].node.op is permute:
        below = _turned(node.inputs[0])
        *batch, size, count = node.type.shape
        return replace(below, views=(("reshape", (*batch, count, size)), *below.views))
    rank = value.type.rank
    swap = (*range(rank - 2), rank - 1, rank - 2)
    return _Operand(value, (("permute", swap),))


# -- the replacement ------------------------------------------------------------------------------


def _matched(
    product: Node,
    scores: _Scores,
    v: Value,
    batch: Shape,
    scenery: Scenery,
    is_guarded: bool,
    is_differentiated: bool,
) -> Match | None:
    queries, keys = _unscaled(product.inputs[0]), _turned(product.inputs[1])
    full = (*batch, *product.type.shape[-2:])
    if v.type.shape[:-2] != batch or 0 in full:
        return None
    mask = judged(scores.masks, full, scenery, is_guarded, is_differentiated)
    if mask is None:
        return None
    scale = scores.scale * queries.scale * keys.scale
    if not max(abs(scale), scores.softcap) <= LARGEST:
        return None
    attrs = {"causal": mask.is_causal, "scale": scale}
    if scores.softcap:
        attrs["softcap"] = scores.softcap

    def build(q: Tensor, k: Tensor, v: Tensor, *masks: Tensor) -> Tensor:
        q, k = (
            reshape(each, shape=(*batch, *each.shape[-2:])) if each.shape[:-2] != batch else each
            for each in (queries.build(q), keys.build(k))
        )
        made = mask.build(*masks)
        result: tuple[Tensor, ...] | Tensor = attention(q, k, v, *made, **attrs)
        return result[0] if isinstance(result, tuple) else result

    operands = (queries.source, keys.source, v, *mask.operands)
    return Match("attention", operands, scores.inside, build)
