"""Normalisation by the statistics of batches, groups, instances and rows, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from asg import functions
from asg.errors import AsgError, ShapeError
from asg.nn import init
from asg.nn.module import Module
from asg.nn.parameter import Buffer, Parameter
from asg.ops.movement import reshape
from asg.ops.normalizing import moments, standardize
from asg.shaping import broadcast_to
from asg.tensor import Tensor, as_tensor


def batch_norm(
    x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return (x - mean) / sqrt(var + eps) * weight + bias for each channel of x [n, c, …].

    In training, mean and variance are the batch's, and the running ones, where they are buffers,
    become `(1 - momentum) * running + momentum * batch`; theirs is the unbiased variance.
    Otherwise the running ones serve.

    Raises:
        ShapeError: `x` has no channels, or in training only one element for each.
        AsgError: there are no running statistics to use.
    """
    tensor = as_tensor(x)
    if tensor.ndim < 2:
        raise ShapeError(f"batch_norm needs x [n, channels, …], got {tensor.type}")
    if not training:
        if running_mean is None or running_var is None:
            raise AsgError("batch_norm needs running statistics unless it is training")
        centred = tensor - _channels(running_mean, tensor)
        variance = _channels(running_var, tensor)
        return _affine(centred * functions.rsqrt(variance + eps), weight, bias)
    axes = (0, *range(2, tensor.ndim))
    count = math.prod(tensor.shape[axis] for axis in axes)
    if count < 2:
        raise ShapeError(f"batch_norm needs more than one element per channel, got {tensor.type}")
    mean, _, variance = moments(tensor, axes)
    _follow(running_mean, mean, momentum)
    _follow(running_var, variance * (count / (count - 1)), momentum)
    return _affine(standardize(tensor, axes=axes, eps=eps), weight, bias)


def _follow(running: Any, batch: Tensor, momentum: Any) -> None:
    """Let a buffer move towards the batch's statistic."""
    if isinstance(running, Buffer):
        old = running.latest()
        new = functions.stop_gradient(reshape(batch, shape=running.shape))
        running.update(old * (1.0 - momentum) + new * momentum)


def _channels(value: Any, x: Tensor) -> Tensor:
    """Return [c] spread over x [n, c, …]. Over all elements, it is one more operand of the kernel
    that makes `x`; [c] by itself would be a kernel of its own."""
    tensor = as_tensor(value)
    return broadcast_to(reshape(tensor, shape=(*tensor.shape, *(1,) * (x.ndim - 2))), x.shape)


def _affine(x: Tensor, weight: Any, bias: Any) -> Tensor:
    """Return `x` times weight [c] plus bias [c], where there are any."""
    if weight is not None:
        x = x * _channels(weight, x)
    return x if bias is None else x + _channels(bias, x)


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """Return x [n, c, …] normalised over each of `num_groups` groups of channels, and over all
    places (Wu, He 2018); then times weight [c] plus bias [c].

    Raises:
        ShapeError: the groups do not divide the channels.
    """
    tensor = as_tensor(x)
    if tensor.ndim < 2 or num_groups < 1 or tensor.shape[1] % num_groups:
        raise ShapeError(f"group_norm: {num_groups} groups do not divide axis 1 of {tensor.type}")
    inner = math.prod(tensor.shape[1:]) // num_groups
    grouped = reshape(tensor, shape=(tensor.shape[0], num_groups, inner))
    result = reshape(standardize(grouped, axes=(2,), eps=eps), shape=tensor.shape)
    return _affine(result, weight, bias)


def instance_norm(
    x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Return x [n, c, …] normalised for each image and channel by itself.

    Running statistics, where there are any, follow the mean over the images, and serve instead
    where `use_input_stats` is off.

    Raises:
        ShapeError: `x` has no places, or one only.
    """
    tensor = as_tensor(x)
    if not use_input_stats:
        return batch_norm(tensor, running_mean, running_var, weight, bias, False, momentum, eps)
    places = math.prod(tensor.shape[2:])
    if tensor.ndim < 3 or places < 2:
        raise ShapeError(f"instance_norm needs more than one place per channel, got {tensor.type}")
    axes = tuple(range(2, tensor.ndim))
    mean, _, variance = moments(tensor, axes)
    _follow(running_mean, functions.mean(mean, axis=0), momentum)
    _follow(running_var, functions.mean(variance, axis=0) * (places / (places - 1)), momentum)
    return _affine(standardize(tensor, axes=axes, eps=eps), weight, bias)


def rms_norm(
    x: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None
) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) * weight over the last axes (Zhang, Sennrich 2019).

    `eps` is f32's distance of 1 to the next number unless told.

    Raises:
        ShapeError: `x` does not end in `normalized_shape`.
    """
    tensor = as_tensor(x)
    shape = _as_shape(normalized_shape)
    lead = tensor.ndim - len(shape)
    if tensor.shape[max(lead, 0) :] != shape:
        raise ShapeError(f"rms_norm: {tensor.type} does not end in {list(shape)}")
    squares = functions.mean(tensor * tensor, axis=tuple(range(lead, tensor.ndim)), keepdims=True)
    eps = float(np.finfo(np.float32).eps) if eps is None else eps
    result: Tensor = tensor * functions.rsqrt(squares + eps)
    return result if weight is None else result * weight


def _as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


class _Running(Module):
    """Weight and bias [c], and statistics that follow those of the batches."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None
    ranks: ClassVar[tuple[int, ...]]  # axes that the operand may have

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool,
        track_running_stats: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(init.ones((num_features,))) if affine else None
        self.bias = Parameter(init.zeros((num_features,))) if affine else None
        tracked = track_running_stats
        self.running_mean = Buffer(init.zeros((num_features,))) if tracked else None
        self.running_var = Buffer(init.ones((num_features,))) if tracked else None
        self.num_batches_tracked = Buffer(np.zeros((), np.int32)) if tracked else None

    def check(self, x: Tensor) -> None:
        """Refuse an operand of other channels or axes."""
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            ranks = " or ".join(map(str, self.ranks))
            raise ShapeError(
                f"{type(self).__name__} needs x [n, {self.num_features}, …] of {ranks} axes, "
                f"got {x.type}"
            )

    def count(self) -> Any:
        """Count a batch; return how much of its statistics the running ones take over."""
        if self.num_batches_tracked is None:
            return 0.0
        total = self.num_batches_tracked.latest() + 1
        self.num_batches_tracked.update(total)
        return 1.0 / total.cast("f32") if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        by_batch = self.training or not self.track_running_stats
        momentum = self.count() if self.training else 0.0
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_batch, momentum,
            self.eps,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """`batch_norm` of x [n, c] or [n, c, length], with weight (ones) and bias (zeros).

    In training, the running statistics are state of the traced graph and change with every run;
    `momentum=None` makes them the plain average of all batches.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """`batch_norm` of x [n, c, height, width]; see `BatchNorm1d`."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """`batch_norm` of x [n, c, depth, height, width]; see `BatchNorm1d`."""

    ranks = (5,)


class _InstanceNorm(_Running):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = False, track_running_stats: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        by_input = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum  # PyTorch counts no batches
        return instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, by_input, momentum,
            self.eps,
        )  # fmt: skip


class InstanceNorm1d(_InstanceNorm):
    """`instance_norm` of x [n, c, length]; no weight, bias or running statistics unless told."""

    ranks = (3,)


class InstanceNorm2d(_InstanceNorm):
    """`instance_norm` of x [n, c, height, width]; see `InstanceNorm1d`."""

    ranks = (4,)


class InstanceNorm3d(_InstanceNorm):
    """`instance_norm` of x [n, c, depth, height, width]; see `InstanceNorm1d`."""

    ranks = (5,)


class GroupNorm(Module):
    """`group_norm` over `num_groups` groups of channels, with weight (ones) and bias (zeros)."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: {num_groups} groups do not divide {num_channels} channels"
            )
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Parameter(init.ones((num_channels,))) if affine else None
        self.bias = Parameter(init.zeros((num_channels,))) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(f"GroupNorm needs x [n, {self.num_channels}, …], got {x.type}")
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


class RMSNorm(Module):
    """`rms_norm` over the last axes, with weight (ones)."""

    weight: Parameter | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None,
        elementwise_affine: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.weight = Parameter(init.ones(self.normalized_shape)) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"
