"""Normalisation, and losses."""

from __future__ import annotations

from collections.abc import Callable

from asg import functions as F
from asg.nn import functional as nn
from asg.nn import norms
from asg.onnx.call import Call, Operand, Typed
from asg.onnx.registry import MICROSOFT, converter
from asg.ops.normalizing import standardize
from asg.tensor import Tensor
from asg.types import DType

Results = list[Tensor | Typed | Operand | None]


def _channels(value: Tensor, x: Tensor) -> Tensor:
    return F.reshape(value, (-1, *(1,) * (x.ndim - 2)))


@converter("BatchNormalization", since=7)
def batch_normalization(call: Call) -> Results:
    """With running statistics, or in training with those of the batch, which they follow."""
    x, scale, bias, mean, variance = (call[i] for i in range(5))
    eps = call.get_float("epsilon", 1e-5)
    if not call.get_int("training_mode", 0):
        return [norms.batch_norm(x, mean, variance, scale, bias, eps=eps), None, None, None, None]
    axes = (0, *range(2, x.ndim))
    keep = call.get_float("momentum", 0.9)
    found, spread = F.mean(x, axes), F.var(x, axes)
    y: Tensor = standardize(x, axes=axes, eps=eps)
    y = y * _channels(scale, x) + _channels(bias, x)
    return [y, mean * keep + found * (1 - keep), variance * keep + spread * (1 - keep)]


@converter("InstanceNormalization", since=6)
def instance_normalization(call: Call) -> Tensor:
    """Each image and channel by itself."""
    x = call[0]
    axes = tuple(range(2, x.ndim))
    y: Tensor = standardize(x, axes=axes, eps=call.get_float("epsilon", 1e-5))
    return y * _channels(call[1], x) + _channels(call[2], x)


@converter("GroupNormalization", since=18)
def group_normalization(call: Call) -> Tensor:
    """Groups of channels; before opset 21 scale and bias were per group."""
    x, groups = call[0], call.get_int("num_groups")
    eps = call.get_float("epsilon", 1e-5)
    scale, bias = call[1], call[2]
    if call.opset < 21 and scale.shape[0] == groups:
        each = x.shape[1] // groups
        scale, bias = (
            F.reshape(F.broadcast_to(F.unsqueeze(v, 1), (groups, each)), (-1,))
            for v in (scale, bias)
        )
    return norms.group_norm(x, groups, scale, bias, eps)


def _last_axes(call: Call, x: Tensor) -> tuple[int, ...]:
    axis = call.get_int("axis", -1)
    return tuple(range(axis % x.ndim if x.ndim else 0, x.ndim))


def _layer_norm(
    x: Tensor, axes: tuple[int, ...], eps: float, scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    y: Tensor = standardize(x, axes=axes, eps=eps)
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


@converter("LayerNormalization", since=17)
def layer_normalization(call: Call) -> Results:
    """The last axes from one on; mean and 1 / deviation are further results."""
    given = call[0]
    x = given.astype(DType.F32)
    axes = _last_axes(call, x)
    eps = call.get_float("epsilon", 1e-5)
    y = _layer_norm(x, axes, eps, call.optional(1), call.optional(2))
    results: Results = [y.astype(given.dtype)]
    if call.wants(1) or call.wants(2):
        results += [F.mean(x, axes, True), F.rsqrt(F.var(x, axes, True) + eps)]
    return results


@converter("RMSNormalization", since=23)
@converter("SimplifiedLayerNormalization")
@converter("SimplifiedLayerNormalization", domain=MICROSOFT)
def rms_normalization(call: Call) -> Tensor:
    """X by the root of its mean square."""
    x = call[0]
    axes = _last_axes(call, x)
    return norms.rms_norm(x, [x.shape[i] for i in axes], call[1], call.get_float("epsilon", 1e-5))


@converter("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(call: Call) -> Results:
    """Layer normalisation of a sum; the sum is the fourth result."""
    x = _skipped(call, 4)
    eps = call.get_float("epsilon", 1e-5)
    y = _layer_norm(x, (x.ndim - 1,), eps, call.optional(2), call.optional(3))
    return [y, None, None, x]


@converter("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(call: Call) -> Results:
    """RMS normalisation of a sum; the sum is the fourth result."""
    x = _skipped(call, 3)
    y = norms.rms_norm(x, x.shape[-1], call[2], call.get_float("epsilon", 1e-5))
    return [y, None, None, x]


def _skipped(call: Call, bias: int) -> Tensor:
    x: Tensor = call[0] + call[1]
    more = call.optional(bias)
    return x if more is None else x + more


MOST_NEIGHBOURS = 256


@converter("LRN", since=1)
def lrn(call: Call) -> Tensor:
    """X by a power of the squares of neighbouring channels."""
    x, size = call[0], call.get_int("size")
    if size < 1 or x.ndim < 2:
        raise call.malformed(f"{size} neighbours among the channels of {x.type}")
    if size > MOST_NEIGHBOURS:
        raise call.unsupported(f"a sum over {size} neighbours", f"{MOST_NEIGHBOURS} at most")
    before = (size - 1) // 2
    widths = [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)]
    squares = F.pad(F.square(x), widths)
    total = squares[:, : x.shape[1]]
    for shift in range(1, size):
        total = total + squares[:, shift : shift + x.shape[1]]
    alpha, bias = call.get_float("alpha", 1e-4), call.get_float("bias", 1.0)
    return x / F.pow(total * (alpha / size) + bias, call.get_float("beta", 0.75))


@converter("LpNormalization", since=1)
def lp_normalization(call: Call) -> Tensor:
    """X by its norm along an axis; 0 where the norm is 0."""
    x, axis, p = call[0], call.get_int("axis", -1), call.get_int("p", 2)
    if p == 1:
        norm = F.sum(F.abs(x), axis, True)
    else:
        norm = F.sqrt(F.sum(F.square(x), axis, True))
    is_zero = F.equal(norm, 0.0)
    found: Tensor = F.where(is_zero, F.zeros_like(x), x / F.where(is_zero, F.ones_like(norm), norm))
    return found


# -- losses -----------------------------------------------------------------------------------


@converter("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy(call: Call) -> list[Tensor]:
    """Minus the logarithm of the softmax at the labels, and that logarithm."""
    loss = _labelled(call, nn.cross_entropy)
    return [loss, F.log_softmax(call[0], 1)] if call.wants(1) else [loss]


@converter("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(call: Call) -> Tensor:
    """Minus the operand at the labels."""
    return _labelled(call, nn.nll_loss)


def _labelled(call: Call, loss: Callable[..., Tensor]) -> Tensor:
    """Return a loss at labels, each weighted by its class."""
    x, labels = call[0], F.cast(call[1], DType.I32)
    ignored = call.get_int("ignore_index") if call.has_attribute("ignore_index") else None
    reduction = call.get_text("reduction", "mean")
    if not call.has(2):
        return loss(x, labels, ignore_index=ignored, reduction=reduction)
    costs = loss(x, labels, ignore_index=ignored, reduction="none")
    weights = F.take(call[2], F.clip(labels, 0, x.shape[1] - 1), 0)
    if ignored is not None:
        weights = F.where(F.equal(labels, ignored), 0.0, weights)
    costs = costs * weights
    if reduction == "none":
        return costs
    return F.sum(costs) if reduction == "sum" else F.sum(costs) / F.sum(weights)


@converter("MeanVarianceNormalization", since=9)
def mean_variance_normalization(call: Call) -> Tensor:
    """(x - mean) / deviation; ONNX adds 1e-9 to the deviation."""
    x = call[0]
    axes = tuple(axis % x.ndim for axis in call.get_ints("axes", (0, 2, 3)))
    centred = x - F.mean(x, axes, True)
    deviation = F.sqrt(F.mean(F.square(centred), axes, True))
    found: Tensor = centred / (deviation + 1e-9)
    return found
