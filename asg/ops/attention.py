"""Scaled dot-product attention and its gradient, kept whole so that scores need not be stored.

Attention yields its result and, for every query, the logarithm of the sum of its keys' weights.
With these the gradient recomputes weights from scores tile by tile, as the forward kernel does.
Each op is one kernel, or is spelt out by its `expand` where separate products are faster.

`attention_scores` has what all of them share: which operands there may be, and what hides a key.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs, Value
from asg.op import Array, Attention, BadSample, ByExpansion, Example, Op, Sample
from asg.ops.arithmetic import add, div, maximum, mul, sub
from asg.ops.attention_scores import (
    LOWEST,
    along,
    capped_numpy,
    capped_scores,
    check,
    check_extras,
    extras_of_arrays,
    extras_of_values,
    leaves_scores,
    scores_numpy,
    scores_of,
    single,
    weights_of,
)
from asg.ops.elementwise import exp, log, reciprocal
from asg.ops.linear import matmul_, swap_last
from asg.ops.logic import equal, select
from asg.ops.movement import broadcast
from asg.ops.reduction import reduce_max, reduce_sum
from asg.ops.rules import FLOAT, accept
from asg.ops.sources import constant
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType

# -- forward --------------------------------------------------------------------------------------


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    q, k, v = check(_at_least(types, 3), attrs)
    check_extras(types, 3, q, k)
    return TensorType((*q[:-1], v[-1]), types[0].dtype), TensorType(q[:-1], DType.F32)


def _at_least(types: tuple[TensorType, ...], count: int) -> tuple[TensorType, ...]:
    if len(types) < count:
        raise ShapeError(f"takes {count} operands and perhaps a mask and a span, got {len(types)}")
    return types


def _expand(attrs: Attrs, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    rows, out_shape = q.shape[:-1], (*q.shape[:-1], v.shape[-1])
    if k.shape[-2] == 0:
        zero = constant(0.0)
        return broadcast(zero, shape=out_shape), broadcast(zero, shape=rows)
    scores = scores_of(attrs, capped_scores(attrs, q, k), extras_of_values(rest))
    powers, total, largest = _powers(scores)
    out = mul(matmul_(powers, v), along(_reciprocal(total), out_shape))
    return out, select(equal(total, 0.0), 0.0, add(largest, log(total)))


def _powers(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return exponentials of scores less the largest of their row, their sums, the largest."""
    largest = maximum(reduce_max(scores, axes=(scores.ndim - 1,)), LOWEST)
    powers = exp(sub(scores, along(largest, scores.shape)))
    return powers, reduce_sum(powers, axes=(scores.ndim - 1,)), largest


def _reciprocal(total: Tensor) -> Tensor:
    """Return what sums are multiplied by: 0 where nothing is seen."""
    found: Tensor = select(equal(total, 0.0), 0.0, reciprocal(total))
    return found


def _numpy(
    q: Array, k: Array, v: Array, *rest: Array, causal: bool, scale: float, softcap: float = 0.0
) -> tuple[Array, Array]:
    capped = capped_numpy(q, k, scale, softcap)
    scores = scores_numpy(capped, extras_of_arrays(rest), causal, q.dtype)
    largest = scores.max(-1, initial=LOWEST)
    powers = np.exp(scores - largest[..., None])
    total = powers.sum(-1)
    is_empty = total == 0.0
    with np.errstate(divide="ignore"):
        out = np.matmul(powers, v) * np.where(is_empty, 0.0, 1.0 / total)[..., None]
        return out, np.where(is_empty, 0.0, largest + np.log(total))


def _grad(
    node: Tensor, g: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, *rest: Tensor
) -> list[Tensor | None]:
    """With weights P and dP = dO Vᵀ: dS = P (dP - sum(dO O) + dlse), dQ = dS K, dK = dSᵀ Q and
    dV = Pᵀ dO."""
    attrs, lse = node.attrs, Tensor(Value(node.node, 1))
    delta = sub(reduce_sum(mul(g[0], node), axes=(node.ndim - 1,)), g[1])
    if not all(leaves_scores(each) for each in rest if each.dtype.is_float):
        return _grad_of_weights(attrs, g[0], delta, q, k, v, *rest)
    operands = [q, k, v, lse, g[0], delta, *rest]
    dk, dv = attention_key_grad(*operands, **attrs)
    found: list[Tensor | None] = [attention_query_grad(*operands, **attrs), dk, dv]
    for each in rest:
        found.append(_score_grad(attrs, *operands)[1] if each.dtype.is_float else None)
    return found


def _grad_of_weights(
    attrs: Attrs, dout: Tensor, delta: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor
) -> list[Tensor | None]:
    """Return the gradients by weights that are summed again.

    Where finite numbers hide a whole row, the logarithm of its sum is lost beside them.
    """
    capped = capped_scores(attrs, q, k)
    powers, total, _ = _powers(scores_of(attrs, capped, extras_of_values(rest)))
    weights = mul(powers, along(_reciprocal(total), powers.shape))
    change, before_cap = _changes(attrs, weights, capped, dout, delta, v)
    scaled = mul(before_cap, attrs["scale"])
    found = [matmul_(scaled, k), matmul_(swap_last(scaled), q), matmul_(swap_last(weights), dout)]
    return [*found, *(change if each.dtype.is_float else None for each in rest)]


def _spanned(types: list[str], span: str, *, causal: bool) -> Sample:
    """Draw spans of up to four keys."""
    return Sample(
        [*types, span], {"causal": causal, "scale": 0.7},
        lows=[*(-1.0 for _ in types), 0.0], highs=[*(1.0 for _ in types), 4.0],
    )  # fmt: skip


attention: Op = Op(
    name="attention",
    doc="`softmax(q kᵀ scale + mask) v` of q [*batch, S, D], k [*batch, T, D], v [*batch, T, E]"
    " and, as second result, the logarithm of the sum of each query's weights. A mask"
    " [*batch, S, T] is bool (true: visible) or f32 (added); `causal` hides keys that come later."
    " A span (integers [2], or [batch, 2]) says at run time where the first query stands and how"
    " many keys there are: query i sees key j if j < span[1] and, with `causal`, j <= span[0] + i."
    " With `softcap` c, scores become c tanh(score / c) before the mask."
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
        # The first query stands at position 1 of three keys: it sees two, the second one all.
        Example(
            [[[0.0], [0.0]], [[2.0], [7.0], [9.0], [1.0]], [[2.0], [4.0], [6.0], [9.0]], [1, 3]],
            ([[3.0], [4.0]], [0.6931472, 1.0986123]),
            {"causal": True, "scale": 1.0},
            dtypes=["f32", "f32", "f32", "i32"],
        ),
        # 2 tanh(1.2347742 / 2) is log 3.
        Example(
            [[[1.0]], [[0.0], [1.2347742]], [[4.0, 0.0], [8.0, 4.0]]],
            ([[7.0, 3.0]], [1.3862944]),
            {"causal": False, "scale": 1.0, "softcap": 2.0},
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
        Sample(
            ["f32[2, 2, 2]", "f32[2, 3, 2]", "f32[2, 3, 1]"],
            {"causal": True, "scale": 1.5, "softcap": 1.5},
        ),
        _spanned(["f32[2, 2, 3]", "f32[2, 5, 3]", "f32[2, 5, 2]"], "i32[2, 2]", causal=True),
        _spanned(["f32[2, 1, 3]", "f32[2, 5, 3]", "f32[2, 5, 2]"], "u32[2]", causal=False),
        _spanned(
            ["f32[3, 1]", "f32[4, 1]", "f32[4, 2]", "bool[3, 4]"],
            "i32[2]",
            causal=True,
        ),
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
            ["f32[2, 3]", "f32[4, 3]", "f32[4, 2]", "i32[4]"],
            "attention: the span is an offset and a length, [2] or",
            {"causal": False, "scale": 1.0},
        ),
        BadSample(
            ["f32[2, 3]", "f32[4, 3]", "f32[4, 2]", "i32[2]", "bool[2, 4]"],
            "attention: after q, k, v come a mask (bool or f32), then a span",
            {"causal": False, "scale": 1.0},
        ),
        BadSample(
            ["f32[2, 3]", "f32[4, 3]", "f32[4, 2]"],
            "attention: softcap is positive",
            {"causal": False, "scale": 1.0, "softcap": -1.0},
        ),
    ],
)


# -- gradients ------------------------------------------------------------------------------------


def _grad_shapes(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[Shape, Shape, Shape]:
    """Check q, k, v, lse, dout, delta and what may follow; return the shapes of q, k, v."""
    q, k, v = check(_at_least(types, 6), attrs)
    wanted = {"lse": q[:-1], "dout": (*q[:-1], v[-1]), "delta": q[:-1]}
    for (name, shape), type_ in zip(wanted.items(), types[3:6], strict=True):
        accept(type_, FLOAT)
        if type_.shape != shape:
            raise ShapeError(f"{name} must have shape {list(shape)}, got {type_}")
    check_extras(types, 6, q, k)
    return q, k, v


def _score_grad(attrs: Attrs, *operands: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights, the gradient of the scores, and that of the scores before the cap."""
    q, k, v, lse, dout, delta, *rest = operands
    weights, capped = weights_of(attrs, q, k, lse, extras_of_values(rest))
    return weights, *_changes(attrs, weights, capped, dout, delta, v)


def _changes(
    attrs: Attrs, weights: Tensor, capped: Tensor, dout: Tensor, delta: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the scores, and that of the scores before the cap."""
    change = mul(weights, sub(matmul_(dout, swap_last(v)), along(delta, weights.shape)))
    cap = attrs.get("softcap", 0.0)
    if not cap:
        return change, change
    share = div(capped, cap)
    return change, mul(change, sub(1.0, mul(share, share)))


def _score_grad_numpy(
    *operands: Array, causal: bool, scale: float, softcap: float = 0.0
) -> tuple[Array, Array]:
    q, k, v, lse, dout, delta, *rest = operands
    capped = capped_numpy(q, k, scale, softcap)
    scores = scores_numpy(capped, extras_of_arrays(rest), causal, q.dtype)
    weights = np.asarray(np.exp(scores - lse[..., None]))
    change = weights * (np.matmul(dout, np.swapaxes(v, -1, -2)) - delta[..., None])
    if softcap:
        change = change * (1.0 - (capped / single(softcap)) ** 2)
    return weights, np.asarray(change, q.dtype)


def _query_grad_expand(attrs: Attrs, *operands: Tensor) -> Tensor:
    change = mul(_score_grad(attrs, *operands)[2], attrs["scale"])
    result: Tensor = matmul_(change, operands[1])
    return result


def _query_grad_numpy(*operands: Array, **attrs: Any) -> Any:
    change = _score_grad_numpy(*operands, **attrs)[1]
    return np.matmul(change * single(attrs["scale"]), operands[1])


def _key_grad_expand(attrs: Attrs, *operands: Tensor) -> tuple[Tensor, Tensor]:
    weights, _, change = _score_grad(attrs, *operands)
    dk = matmul_(swap_last(mul(change, attrs["scale"])), operands[0])
    return dk, matmul_(swap_last(weights), operands[4])


def _key_grad_numpy(*operands: Array, **attrs: Any) -> tuple[Any, Any]:
    weights, change = _score_grad_numpy(*operands, **attrs)
    dk = np.matmul(np.swapaxes(change * single(attrs["scale"]), -1, -2), operands[0])
    return dk, np.matmul(np.swapaxes(weights, -1, -2), operands[4])


_GRAD_EXAMPLE = (
    # One query with weights 1/4 and 3/4, dP = (4, 8), delta = 7: dS = (-3/4, 3/4).
    [[[0.5]], [[0.0], [1.0986123]], [[4.0], [8.0]], [1.3862944], [[1.0]], [7.0]],
    {"causal": False, "scale": 2.0},
)
_MASKED = (["f32[2, 1]", "f32[3, 1]", "f32[3, 2]", "f32[2]", "f32[2, 2]", "f32[2]"], "[2, 3]")


def _grad_sample(types: list[str], causal: bool, scale: float, **others: float) -> Sample:
    """Draw logarithms of sums that belong to weights below 1, and spans of up to two keys."""
    lows, highs = [-1.0] * len(types), [1.0] * len(types)
    lows[3], highs[3] = 1.0, 2.0
    if types[-1].startswith("i32"):
        lows[-1], highs[-1] = 0.0, 2.0
    return Sample(types, {"causal": causal, "scale": scale, **others}, lows=lows, highs=highs)


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
    _grad_sample([*_MASKED[0], "i32[2]"], True, 1.0),
    _grad_sample(_MASKED[0], False, 1.0, softcap=1.5),
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
    shape=lambda types, attrs: TensorType(_grad_shapes(types, attrs)[0], types[0].dtype),
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
        TensorType(shape, types[0].dtype) for shape in _grad_shapes(types, attrs)[1:]
    ),
    numpy=_key_grad_numpy,
    grad=ByExpansion(),
    examples=[Example(_GRAD_EXAMPLE[0], ([[-0.75], [0.75]], [[0.25], [0.75]]), _GRAD_EXAMPLE[1])],
    samples=_GRAD_SAMPLES,
    errors=_grad_errors("attention_key_grad"),
)

OPS = (attention, attention_query_grad, attention_key_grad)
