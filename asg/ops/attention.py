"""Scaled dot-product attention and its gradient, kept whole so that scores need not be stored.

Attention yields its result and, for every query, the logarithm of the sum of its keys' weights.
With these the gradient recomputes weights from scores tile by tile, as the forward kernel does.
Each op is one kernel, or is spelt out by its `expand` where separate products are faster.

A key is *hidden* from a query by the mask, by `causal`, or by a score below `LOWEST`; it has no
weight. That needs no case of its own: the maximum that scores are shifted by is at least `LOWEST`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs, Value
from asg.op import Array, Attention, BadSample, ByExpansion, Example, Op, Sample
from asg.ops.arithmetic import add, maximum, mul, sub
from asg.ops.elementwise import exp, log, reciprocal
from asg.ops.linear import matmul_, swap_last
from asg.ops.logic import equal, greater_equal, select
from asg.ops.movement import broadcast, reshape
from asg.ops.reduction import reduce_max, reduce_sum
from asg.ops.rules import FLOAT, accept
from asg.ops.sources import constant, iota
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType

HIDDEN = -1e30  # the score of a hidden key; WGSL has no infinity that can be written
LOWEST = HIDDEN / 2  # scores below it are those of hidden keys


# -- what all three share -----------------------------------------------------------------------


def _check(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[Shape, Shape, Shape]:
    """Check q [*batch, S, D], k [*batch, T, D], v [*batch, T, E]; return their shapes."""
    for type_ in types[:3]:
        accept(type_, FLOAT)
    q, k, v = (type_.shape for type_ in types[:3])
    listed = ", ".join(map(str, types[:3]))
    if len(q) < 2 or len(q) != len(k) or len(q) != len(v) or not q[:-2] == k[:-2] == v[:-2]:
        raise ShapeError(f"needs [*batch, S, D], [*batch, T, D] and [*batch, T, E], got {listed}")
    if q[-1] != k[-1]:
        raise ShapeError(f"queries have {q[-1]} channels, keys {k[-1]}: {listed}")
    if k[-2] != v[-2]:
        raise ShapeError(f"there are {k[-2]} keys and {v[-2]} values: {listed}")
    if set(attrs) != {"causal", "scale"}:
        raise ShapeError(f"takes causal and scale, got {', '.join(attrs) or 'nothing'}")
    return q, k, v


def _check_mask(mask: TensorType, q: Shape, k: Shape) -> None:
    if mask.dtype not in (DType.BOOL, DType.F32):
        raise DTypeError(f"a mask is bool (true: visible) or f32 (added to scores), got {mask}")
    if mask.shape != (*q[:-1], k[-2]):
        raise ShapeError(f"the mask must have shape {[*q[:-1], k[-2]]}, got {mask}")


def _expect(found: int, count: int) -> None:
    if found not in (count, count + 1):
        raise ShapeError(f"takes {count} operands and perhaps a mask, got {found}")


def _along(x: Tensor, shape: Shape) -> Tensor:
    """Repeat one number per row along the last axis of `shape`."""
    result: Tensor = broadcast(reshape(x, shape=(*x.shape, 1)), shape=shape)
    return result


def _scores(attrs: Attrs, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Return the scores of all queries and keys; a hidden key has a score of HIDDEN or less."""
    scores: Tensor = mul(matmul_(q, swap_last(k)), attrs["scale"])
    if mask is not None and mask.dtype.is_float:
        scores = add(scores, mask)
    elif mask is not None:
        scores = select(mask, scores, HIDDEN)
    if attrs["causal"]:
        rank = scores.ndim
        query, key = (
            iota(shape=scores.shape, axis=axis, dtype=DType.U32) for axis in (rank - 2, rank - 1)
        )
        scores = select(greater_equal(query, key), scores, HIDDEN)
    return scores


def single(scale: float) -> float:
    """Return the f32 that kernels multiply by."""
    return float(np.float32(scale))


def _scores_numpy(q: Array, k: Array, mask: Array | None, causal: bool, scale: float) -> Array:
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * single(scale)
    if mask is not None:
        scores = np.where(mask, scores, HIDDEN) if mask.dtype == bool else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, HIDDEN)
    return np.asarray(scores, q.dtype)


def _weights(attrs: Attrs, q: Tensor, k: Tensor, lse: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights of all keys, given the logarithms of the sums."""
    scores = _scores(attrs, q, k, mask)
    result: Tensor = exp(sub(scores, _along(lse, scores.shape)))
    return result


def _weights_numpy(
    q: Array, k: Array, lse: Array, mask: Array | None, causal: bool, scale: float
) -> Array:
    return np.asarray(np.exp(_scores_numpy(q, k, mask, causal, scale) - lse[..., None]))


# -- forward --------------------------------------------------------------------------------------


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    _expect(len(types), 3)
    q, k, v = _check(types, attrs)
    for mask in types[3:]:
        _check_mask(mask, q, k)
    return TensorType((*q[:-1], v[-1]), DType.F32), TensorType(q[:-1], DType.F32)


def _expand(
    attrs: Attrs, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    rows, out_shape = q.shape[:-1], (*q.shape[:-1], v.shape[-1])
    if k.shape[-2] == 0:
        zero = constant(0.0)
        return broadcast(zero, shape=out_shape), broadcast(zero, shape=rows)
    scores = _scores(attrs, q, k, mask)
    largest = maximum(reduce_max(scores, axes=(scores.ndim - 1,)), LOWEST)
    powers = exp(sub(scores, _along(largest, scores.shape)))
    total = reduce_sum(powers, axes=(scores.ndim - 1,))
    is_empty = equal(total, 0.0)
    factor = select(is_empty, 0.0, reciprocal(total))
    out = mul(matmul_(powers, v), _along(factor, out_shape))
    return out, select(is_empty, 0.0, add(largest, log(total)))


def _numpy(
    q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool, scale: float
) -> tuple[Array, Array]:
    scores = _scores_numpy(q, k, mask, causal, scale)
    largest = scores.max(-1, initial=LOWEST)
    powers = np.exp(scores - largest[..., None])
    total = powers.sum(-1)
    is_empty = total == 0.0
    with np.errstate(divide="ignore"):
        out = np.matmul(powers, v) * np.where(is_empty, 0.0, 1.0 / total)[..., None]
        return out, np.where(is_empty, 0.0, largest + np.log(total))


def _grad(
    node: Tensor,
    g: tuple[Tensor, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
) -> list[Tensor | None]:
    """With weights P and dP = dO Vᵀ: dS = P (dP - sum(dO O) + dlse), dQ = dS K, dK = dSᵀ Q and
    dV = Pᵀ dO."""
    attrs, lse = node.attrs, Tensor(Value(node.node, 1))
    delta = sub(reduce_sum(mul(g[0], node), axes=(node.ndim - 1,)), g[1])
    operands = [q, k, v, lse, g[0], delta, *([] if mask is None else [mask])]
    dk, dv = attention_key_grad(*operands, **attrs)
    found: list[Tensor | None] = [attention_query_grad(*operands, **attrs), dk, dv]
    if mask is not None:
        is_float = mask.dtype.is_float
        found.append(_score_grad(attrs, *operands)[1] if is_float else None)
    return found


attention: Op = Op(
    name="attention",
    doc="`softmax(q kᵀ scale + mask) v` of q [*batch, S, D], k [*batch, T, D], v [*batch, T, E]"
    " and, as second result, the logarithm of the sum of each query's weights. A mask"
    " [*batch, S, T] is bool (true: visible) or f32 (added); `causal` hides keys that come later."
    " A query that sees no key gets zeros, in both results. A NaN in what is hidden may show.",
    kind=Attention("forward", _expand),
    shape=_rule,
    numpy=_numpy,
    grad=_grad,
    examples=[
        # Weights 1/4 and 3/4: scores 0 and log 3.
        Example(
            [[[1.0]], [[0.0], [1.0986123]], [[4.0, 0.0], [8.0, 4.0]]],
            ([[7.0, 3.0]], [1.3862944]),
            {"causal": False, "scale": 1.0},
        ),
        # The first query sees the first key only, the second one both, equally.
        Example(
            [[[5.0], [0.0]], [[2.0], [7.0]], [[2.0], [4.0]]],
            ([[2.0], [3.0]], [5.0, 0.6931472]),
            {"causal": True, "scale": 0.5},
        ),
        Example(
            [[[1.0]], [[1.0], [2.0]], [[3.0], [4.0]], [[False, False]]],
            ([[0.0]], [0.0]),
            {"causal": False, "scale": 1.0},
            dtypes=["f32", "f32", "f32", "bool"],
        ),
    ],
    samples=[
        Sample(["f32[3, 2]", "f32[4, 2]", "f32[4, 3]"], {"causal": False, "scale": 0.5}),
        Sample(["f32[2, 2, 3]", "f32[2, 2, 3]", "f32[2, 2, 1]"], {"causal": True, "scale": 1.0}),
        Sample(
            ["f32[3, 2]", "f32[2, 2]", "f32[2, 2]", "f32[3, 2]"], {"causal": True, "scale": 0.7}
        ),
        Sample(
            ["f32[2, 3, 1]", "f32[2, 2, 1]", "f32[2, 2, 2]", "bool[2, 3, 2]"],
            {"causal": False, "scale": 1.0},
        ),
        Sample(["f32[2, 3]", "f32[0, 3]", "f32[0, 2]"], {"causal": False, "scale": 1.0}),
    ],
    errors=[
        BadSample(
            ["f32[2, 3]", "f32[4, 2]", "f32[4, 2]"],
            "attention: queries have 3 channels, keys 2",
            {"causal": False, "scale": 1.0},
        ),
        BadSample(
            ["f32[2, 3]", "f32[4, 3]", "f32[5, 2]"],
            "attention: there are 4 keys and 5 values",
            {"causal": False, "scale": 1.0},
        ),
        BadSample(
            ["f32[2, 3]", "f32[4, 3]", "f32[4, 2]", "bool[4]"],
            "attention: the mask must have shape [2, 4]",
            {"causal": False, "scale": 1.0},
        ),
        BadSample(
            ["f32[2, 3]", "f32[4, 3]", "f32[4, 2]", "i32[2, 4]"],
            "attention: a mask is bool",
            {"causal": False, "scale": 1.0},
        ),
    ],
)


# -- gradients ------------------------------------------------------------------------------------


def _grad_shapes(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[Shape, Shape, Shape]:
    """Check q, k, v, lse, dout, delta and perhaps a mask; return the shapes of q, k, v."""
    _expect(len(types), 6)
    q, k, v = _check(types, attrs)
    wanted = {"lse": q[:-1], "dout": (*q[:-1], v[-1]), "delta": q[:-1]}
    for (name, shape), type_ in zip(wanted.items(), types[3:6], strict=True):
        accept(type_, FLOAT)
        if type_.shape != shape:
            raise ShapeError(f"{name} must have shape {list(shape)}, got {type_}")
    for mask in types[6:]:
        _check_mask(mask, q, k)
    return q, k, v


def _score_grad(
    attrs: Attrs,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    dout: Tensor,
    delta: Tensor,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the weights and the gradient of the scores."""
    weights = _weights(attrs, q, k, lse, mask)
    change = sub(matmul_(dout, swap_last(v)), _along(delta, weights.shape))
    return weights, mul(weights, change)


def _score_grad_numpy(*operands: Array, causal: bool, scale: float) -> tuple[Array, Array]:
    q, k, v, lse, dout, delta, *rest = operands
    weights = _weights_numpy(q, k, lse, rest[0] if rest else None, causal, scale)
    return weights, weights * (np.matmul(dout, np.swapaxes(v, -1, -2)) - delta[..., None])


def _query_grad_expand(attrs: Attrs, *operands: Tensor) -> Tensor:
    change = mul(_score_grad(attrs, *operands)[1], attrs["scale"])
    result: Tensor = matmul_(change, operands[1])
    return result


def _query_grad_numpy(*operands: Array, causal: bool, scale: float) -> Any:
    change = _score_grad_numpy(*operands, causal=causal, scale=scale)[1]
    return np.matmul(change * single(scale), operands[1])


def _key_grad_expand(attrs: Attrs, *operands: Tensor) -> tuple[Tensor, Tensor]:
    weights, change = _score_grad(attrs, *operands)
    dk = matmul_(swap_last(mul(change, attrs["scale"])), operands[0])
    return dk, matmul_(swap_last(weights), operands[4])


def _key_grad_numpy(*operands: Array, causal: bool, scale: float) -> tuple[Any, Any]:
    weights, change = _score_grad_numpy(*operands, causal=causal, scale=scale)
    dk = np.matmul(np.swapaxes(change * single(scale), -1, -2), operands[0])
    return dk, np.matmul(np.swapaxes(weights, -1, -2), operands[4])


_GRAD_EXAMPLE = (
    # One query with weights 1/4 and 3/4, dP = (4, 8), delta = 7: dS = (-3/4, 3/4).
    [[[0.5]], [[0.0], [1.0986123]], [[4.0], [8.0]], [1.3862944], [[1.0]], [7.0]],
    {"causal": False, "scale": 2.0},
)
_MASKED = (["f32[2, 1]", "f32[3, 1]", "f32[3, 2]", "f32[2]", "f32[2, 2]", "f32[2]"], "[2, 3]")


def _grad_sample(types: list[str], causal: bool, scale: float) -> Sample:
    """Draw logarithms of sums that belong to weights below 1."""
    lows = [1.0 if place == 3 else -1.0 for place in range(len(types))]
    highs = [2.0 if place == 3 else 1.0 for place in range(len(types))]
    return Sample(types, {"causal": causal, "scale": scale}, lows=lows, highs=highs)


_GRAD_SAMPLES = [
    _grad_sample(
        ["f32[3, 2]", "f32[4, 2]", "f32[4, 3]", "f32[3]", "f32[3, 3]", "f32[3]"], False, 0.5
    ),
    _grad_sample(
        ["f32[2, 2, 3]", "f32[2, 2, 3]", "f32[2, 2, 1]", "f32[2, 2]", "f32[2, 2, 1]", "f32[2, 2]"],
        True,
        1.0,
    ),
    _grad_sample([*_MASKED[0], f"f32{_MASKED[1]}"], True, 0.7),
    _grad_sample([*_MASKED[0], f"bool{_MASKED[1]}"], False, 1.0),
    _grad_sample(
        ["f32[2, 3]", "f32[0, 3]", "f32[0, 2]", "f32[2]", "f32[2, 2]", "f32[2]"], False, 1.0
    ),
]


def _grad_errors(name: str) -> list[BadSample]:
    attrs = {"causal": False, "scale": 1.0}
    return [
        BadSample(
            ["f32[2, 3]", "f32[4, 3]", "f32[4, 2]", "f32[2, 1]", "f32[2, 2]", "f32[2]"],
            f"{name}: lse must have shape [2]",
            attrs,
        ),
        BadSample(["f32[2, 3]", "f32[4, 3]", "f32[4, 2]"], f"{name}: takes 6 operands", attrs),
    ]


attention_query_grad = Op(
    name="attention_query_grad",
    doc="Gradient of `attention` by q, from q, k, v, the logarithms of the sums, the gradient of"
    " the result and, for every query, the sum of that gradient times the result.",
    kind=Attention("query_grad", _query_grad_expand),
    shape=lambda types, attrs: TensorType(_grad_shapes(types, attrs)[0], DType.F32),
    numpy=_query_grad_numpy,
    grad=ByExpansion(),
    # dQ = 2 * 3/4 * log 3
    examples=[Example(_GRAD_EXAMPLE[0], [[1.6479184]], _GRAD_EXAMPLE[1])],
    samples=_GRAD_SAMPLES,
    errors=_grad_errors("attention_query_grad"),
)

attention_key_grad = Op(
    name="attention_key_grad",
    doc="Gradients of `attention` by k and v, from the operands of `attention_query_grad`.",
    kind=Attention("key_grad", _key_grad_expand),
    shape=lambda types, attrs: tuple(
        TensorType(shape, DType.F32) for shape in _grad_shapes(types, attrs)[1:]
    ),
    numpy=_key_grad_numpy,
    grad=ByExpansion(),
    examples=[Example(_GRAD_EXAMPLE[0], ([[-0.75], [0.75]], [[0.25], [0.75]]), _GRAD_EXAMPLE[1])],
    samples=_GRAD_SAMPLES,
    errors=_grad_errors("attention_key_grad"),
)

OPS = (attention, attention_query_grad, attention_key_grad)
