"""Layers and losses without parameters of their own, named as in `torch.nn.functional`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from asg import functions, tracing
from asg.errors import DTypeError, ShapeError, UnsupportedError
from asg.nn.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from asg.nn.norms import batch_norm, group_norm, instance_norm, rms_norm
from asg.nn.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from asg.ops.attention import attention
from asg.ops.attention_scores import HIDDEN, LOWEST
from asg.ops.bits import threefry2x32
from asg.ops.losses import cross_entropy as cross_entropy_
from asg.ops.normalizing import standardize
from asg.random import random_bits
from asg.shaping import arange, tri
from asg.tensor import Tensor, as_tensor, broadcast_shapes
from asg.types import DType

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "causal_mask",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "dropout_mask",
    "embedding",
    "gelu",
    "group_norm",
    "instance_norm",
    "l1_loss",
    "layer_norm",
    "linear",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mse_loss",
    "nll_loss",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]

Reduction = Literal["mean", "sum", "none"]

relu = functions.relu
gelu = functions.gelu
silu = functions.silu
sigmoid = functions.sigmoid
tanh = functions.tanh


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """Return x Wᵀ + b: x [..., in], weight [out, in], bias [out]."""
    product: Tensor = functions.matmul(x, as_tensor(weight).T)
    return product if bias is None else product + bias


def embedding(index: Any, weight: Any) -> Tensor:
    """Return rows of `weight` [count, dim] for i32 or u32 indices of any shape."""
    rows: Tensor = functions.take(weight, index, axis=0)
    return rows


def softmax(x: Any, dim: int = -1) -> Tensor:
    """Return exp(x) / sum(exp(x)) along `dim`."""
    return functions.softmax(x, axis=dim)


def log_softmax(x: Any, dim: int = -1) -> Tensor:
    """Return x - log(sum(exp(x))) along `dim`."""
    return functions.log_softmax(x, axis=dim)


def layer_norm(
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias over the last axes (Ba et al. 2016).

    The variance is that of the whole population, summed over centred values.

    Raises:
        ShapeError: `x` does not end in `normalized_shape`.
    """
    tensor = as_tensor(x)
    shape = as_tuple(normalized_shape)
    if tensor.shape[tensor.ndim - len(shape) :] != shape:
        raise ShapeError(f"layer_norm: {tensor.type} does not end in {list(shape)}")
    axes = tuple(range(tensor.ndim - len(shape), tensor.ndim))
    result: Tensor = standardize(tensor, axes=axes, eps=eps)
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


def dropout(x: Any, p: float = 0.5, training: bool = True, *, key: Any = None) -> Tensor:
    """Return `x` with elements zeroed with probability `p` and the others scaled by 1 / (1 - p).

    The mask comes from `key` u32[2], by default the next one of the trace; in evaluation and
    for p = 0 nothing happens.

    Raises:
        ValueError: `p` is no probability.
        AsgError: no key is given outside a trace.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout takes a probability, got {p}")
    tensor = as_tensor(x)
    if not training or p == 0.0:
        return tensor
    if p == 1.0:
        return tensor * 0.0
    keep = dropout_mask(tensor.shape, p, key)
    result: Tensor = functions.where(keep, tensor * (1.0 / (1.0 - p)), 0.0)
    return result


def dropout_mask(shape: Sequence[int], p: float, key: Any = None) -> Tensor:
    """Return bool `shape`, true with probability 1 - p: 32 random bits below a threshold."""
    sizes = tuple(shape)
    threshold = min(round((1.0 - p) * 2.0**32), 2**32 - 1)
    if key is not None:
        bits = random_bits(key, sizes)
    else:
        source, number = tracing.random_stream()
        counter = functions.reshape(arange(math.prod(sizes), dtype="u32"), sizes)
        words = threefry2x32(source[0], source[1], np.uint32(number), counter)
        bits = words[0] ^ words[1]
    mask: Tensor = bits < np.uint32(threshold)
    return mask


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    softcap: float = 0.0,
    span: Any = None,
) -> Tensor:
    """Return softmax(Q Kᵀ scale + mask) V: Q [..., L, D], K [..., S, D], V [..., S, E].

    A bool mask [..., L, S] is true where attention is allowed; a float mask is added. A query
    that may attend to nothing (scores below -5e29 count as none) gets zeros. `scale` is
    1 / sqrt(D) unless told (Vaswani et al. 2017). Dropout falls on the weights; pass 0 in
    evaluation. With `enable_gqa`, a head of K and V [..., H, S, D] serves as many neighbouring
    heads of Q as there are more of them.

    With `softcap` c, scores become c tanh(score / c) before they are masked. `span`, integers [2]
    or [batch, 2], says at run time where the first query stands and how many keys there are:
    others are not looked at, and `is_causal` counts from there. So K and V can be a cache that
    fills up (`nn.KeyValueCache`).
    """
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    if enable_gqa:
        k, v = (_repeat_heads(x, q) for x in (k, v))
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    mask = None if attn_mask is None else as_tensor(attn_mask)
    if dropout_p == 0.0:
        extras = _Extras(mask, None if span is None else as_tensor(span), float(softcap))
        return _attention(q, k, v, extras, is_causal, factor)
    if softcap or span is not None:
        raise UnsupportedError("dropout of attention's weights goes with no softcap and no span")
    return _attention_with_dropout(q, k, v, mask, dropout_p, is_causal, factor)


def _repeat_heads(x: Tensor, q: Tensor) -> Tensor:
    """Repeat each head of keys or values for the query heads that share it: a view."""
    if x.ndim < 3 or q.ndim < 3 or x.shape[-3] == 0 or q.shape[-3] % x.shape[-3]:
        raise ShapeError(f"the heads of {q.type} can't share those of {x.type}")
    heads, rest = x.shape[-3], x.shape[-2:]
    each = functions.expand_dims(x, -3)
    spread = functions.broadcast_to(each, (*x.shape[:-2], q.shape[-3] // heads, *rest))
    repeated: Tensor = functions.reshape(spread, (*x.shape[:-3], q.shape[-3], *rest))
    return repeated


@dataclass(frozen=True)
class _Extras:
    """What else decides which keys are seen, and how scores grow."""

    mask: Tensor | None
    span: Tensor | None
    softcap: float


def _attention(
    q: Tensor, k: Tensor, v: Tensor, extras: _Extras, causal: bool, scale: float
) -> Tensor:
    """Broadcast what attention takes to equal batch axes; the op wants them equal."""
    parts = [each.shape[:-2] for each in (q, k, v)]
    if extras.mask is not None:
        parts.append(extras.mask.shape[:-2])
    batch = broadcast_shapes(*parts)
    operands = [functions.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (q, k, v)]
    if extras.mask is not None:
        shape = (*batch, q.shape[-2], k.shape[-2])
        operands.append(functions.broadcast_to(extras.mask, shape))
    if extras.span is not None:
        operands.append(extras.span)
    attrs: dict[str, Any] = {"causal": causal, "scale": float(scale)}
    if extras.softcap:
        attrs["softcap"] = extras.softcap
    out: Tensor = attention(*operands, **attrs)[0]
    return out


def _attention_with_dropout(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    given: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    factor: float,
) -> Tensor:
    """Spell attention out, to drop some of its weights."""
    scores = functions.matmul(q, functions.swapaxes(k, -1, -2)) * factor
    if is_causal:
        scores = functions.where(causal_mask(*scores.shape[-2:]), scores, HIDDEN)
    allowed: Tensor | None = None
    if given is not None:
        mask = given
        if mask.dtype.is_float:
            scores = functions.maximum(scores + mask, HIDDEN)
            allowed = scores > LOWEST
        else:
            allowed = mask
            scores = functions.where(allowed, scores, HIDDEN)
            if is_causal:
                allowed = functions.logical_and(allowed, causal_mask(*scores.shape[-2:]))
    weights = functions.softmax(scores, axis=-1)
    if allowed is not None:
        weights = functions.where(allowed, weights, 0.0)
    return functions.matmul(dropout(weights, dropout_p), v)


def causal_mask(length: int, keys: int) -> Tensor:
    """Return bool [length, keys], true where a key comes no later than the query."""
    return tri(length, keys)


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    ignore_index: int | None = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross entropy of logits [C], [N, C] or [N, C, d...] and labels without axis C.

    A label y costs -log softmax(x)[y]; smoothing e mixes it with the mean over all classes,
    (1 - e) * that - e / C * sum(log softmax(x)), as in PyTorch. Labels equal to `ignore_index`
    cost nothing and do not count in the mean (None spares the comparison); other labels must
    lie in 0 … C - 1.

    Raises:
        ShapeError: labels do not match the logits.
        DTypeError: labels are no integers.
    """
    x, label = as_tensor(logits), as_tensor(target)
    axis = _class_axis("cross_entropy", x, label)
    loss = cross_entropy_(x, label, axis=axis, smoothing=label_smoothing)
    return _reduce_labelled(loss, label, ignore_index, reduction)


def nll_loss(
    log_probabilities: Any,
    target: Any,
    *,
    ignore_index: int | None = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return minus the log-probability of each label; shapes are those of `cross_entropy`."""
    x, label = as_tensor(log_probabilities), as_tensor(target)
    axis = _class_axis("nll_loss", x, label)
    return _reduce_labelled(-_pick(x, label, axis), label, ignore_index, reduction)


def mse_loss(x: Any, target: Any, *, reduction: Reduction = "mean") -> Tensor:
    """Return (x - target)²."""
    difference = _difference("mse_loss", x, target)
    return _reduce(difference * difference, reduction)


def l1_loss(x: Any, target: Any, *, reduction: Reduction = "mean") -> Tensor:
    """Return |x - target|."""
    return _reduce(abs(_difference("l1_loss", x, target)), reduction)


def binary_cross_entropy_with_logits(
    logits: Any, target: Any, *, reduction: Reduction = "mean"
) -> Tensor:
    """Return -y log s(x) - (1 - y) log(1 - s(x)) for the sigmoid s and targets y in 0 … 1.

    Computed as max(x, 0) - x y + log(1 + exp(-|x|)), in which nothing overflows.
    """
    x, y = as_tensor(logits), as_tensor(target)
    _same_shape("binary_cross_entropy_with_logits", x, y)
    above, rest = functions.softplus_terms(x)
    loss = above - x * y + rest
    return _reduce(loss, reduction)


def as_tuple(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return a shape given as one size or several."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _class_axis(name: str, x: Tensor, label: Tensor) -> int:
    axis = 0 if x.ndim == 1 else 1
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if x.ndim < 1 or label.shape != expected:
        fix = ""
        if x.ndim > 2 and label.shape == x.shape[:-1]:
            fix = f"\n  fix: pass x.reshape(-1, {x.shape[-1]}) and labels.reshape(-1)"
        raise ShapeError(
            f"{name}: labels of {x.type} must have shape {list(expected)}, got {label.type}; "
            f"the class axis is {axis}{fix}"
        )
    if not label.dtype.is_integer:
        raise DTypeError(f"{name}: labels are integers, got {label.type}")
    return axis


def _pick(x: Tensor, label: Tensor, axis: int) -> Tensor:
    """Return the element of each row at its label: a compare and a sum fuse where a gather
    would not."""
    column = [x.shape[axis] if position == axis else 1 for position in range(x.ndim)]
    classes = arange(x.shape[axis], dtype=label.dtype).reshape(*column)
    is_label = classes == functions.expand_dims(label, axis)
    picked: Tensor = functions.sum(functions.where(is_label, x, 0.0), axis=axis)
    return picked


def _reduce_labelled(
    loss: Tensor, label: Tensor, ignore_index: int | None, reduction: Reduction
) -> Tensor:
    if ignore_index is None or (label.dtype is DType.U32 and ignore_index < 0):
        return _reduce(loss, reduction)
    counts = label != ignore_index
    kept = functions.where(counts, loss, 0.0)
    if reduction == "mean" and kept.ndim:
        return functions.sum(kept) / functions.sum(counts.cast("f32"))
    return _reduce(kept, reduction)


def _reduce(loss: Tensor, reduction: Reduction) -> Tensor:
    match reduction:
        case "none":
            return loss
        case "sum":
            return functions.sum(loss)
        case "mean":
            return functions.mean(loss)
        case _:
            raise ValueError(f"reduction is 'mean', 'sum' or 'none', got {reduction!r}")


def _same_shape(name: str, x: Tensor, target: Tensor) -> None:
    if x.shape != target.shape:
        raise ShapeError(f"{name}: {x.type} and target {target.type} differ in shape")


def _difference(name: str, x: Any, target: Any) -> Tensor:
    left, right = as_tensor(x), as_tensor(target)
    _same_shape(name, left, right)
    return left - right
