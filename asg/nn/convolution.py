"""Convolutions of one to three axes, as functions and as layers, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from asg.errors import AsgError, ShapeError
from asg.nn import init
from asg.nn.module import Module
from asg.nn.parameter import Parameter
from asg.ops.convolution import convolution
from asg.ops.movement import flip, permute, reshape
from asg.tensor import Tensor, as_tensor

Sizes = int | Sequence[int]
Padding = Sizes | Literal["same", "valid"]


def per_axis(name: str, value: Sizes, axes: int) -> tuple[int, ...]:
    """Return one entry per axis; a single number stands for all.

    Raises:
        ShapeError: there are more or fewer.
    """
    entries = (value,) * axes if isinstance(value, int) else tuple(int(each) for each in value)
    if len(entries) == 1:
        entries = entries * axes
    if len(entries) != axes:
        raise ShapeError(f"{name} needs {axes} entries or one, got {value}")
    return entries


def batched(name: str, x: Tensor, axes: int) -> Tensor:
    """Return `x` with an axis of images in front, if it lacks one.

    Raises:
        ShapeError: it has neither `axes + 2` nor `axes + 1` axes.
    """
    if x.ndim not in (axes + 1, axes + 2):
        raise ShapeError(f"{name} needs x [n, channels] and {axes} more axes, got {x.type}")
    result: Tensor = x if x.ndim == axes + 2 else reshape(x, shape=(1, *x.shape))
    return result


def unbatched(result: Tensor, x: Tensor) -> Tensor:
    """Return `result` with as many axes as `x` has."""
    single: Tensor = result if result.ndim == x.ndim else reshape(result, shape=result.shape[1:])
    return single


def conv1d(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Padding = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return kernels weight [out, in / groups, k] applied to x [n, in, length], plus bias [out].

    `padding` zeros lie on both sides; `"same"` keeps the length where the stride is 1.

    Raises:
        ShapeError: sizes or channels do not fit.
    """
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Padding = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return `conv1d` over two axes: x [n, in, height, width], weight [out, in / groups, h, w]."""
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Padding = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Return `conv1d` over three axes."""
    return _conv("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def _conv(
    name: str, axes: int, x: Any, weight: Any, bias: Any, stride: Sizes, padding: Padding,
    dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    tensor, w = as_tensor(x), as_tensor(weight)
    steps = per_axis("dilation", dilation, axes)
    strides = per_axis("stride", stride, axes)
    if w.ndim != axes + 2:
        raise ShapeError(f"{name} needs weight [out, in / groups] and {axes} more, got {w.type}")
    if isinstance(padding, str):
        pairs = _named_padding(padding, w.shape[2:], strides, steps)
    else:
        pairs = tuple((size, size) for size in per_axis("padding", padding, axes))
    y: Tensor = convolution(
        batched(name, tensor, axes), w, strides=strides, padding=pairs, dilation=steps,
        lhs_dilation=(1,) * axes, groups=groups,
    )  # fmt: skip
    return unbatched(_with_bias(y, bias), tensor)


def _named_padding(
    padding: str, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same":
        raise ShapeError(f"padding is a number, 'same' or 'valid', not {padding!r}")
    if any(stride != 1 for stride in strides):
        raise ShapeError(f"padding='same' needs a stride of 1, got {tuple(strides)}")
    totals = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _with_bias(y: Tensor, bias: Any) -> Tensor:
    if bias is None:
        return y
    flat = as_tensor(bias)
    shifted: Tensor = y + reshape(flat, shape=(*flat.shape, *(1,) * (y.ndim - 2)))
    return shifted


def conv_transpose1d(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """Return what the gradient of `conv1d` by its operand is of x [n, in, length], with weight
    [in, out / groups, k], plus bias [out].

    The length becomes (length - 1) stride - 2 padding + (k - 1) dilation + output_padding + 1.

    Raises:
        ShapeError: sizes or channels do not fit, or `output_padding` is too large to mean
            anything.
    """
    options = stride, padding, output_padding, groups, dilation
    return _conv_transpose("conv_transpose1d", 1, x, weight, bias, *options)


def conv_transpose2d(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """Return `conv_transpose1d` over two axes."""
    options = stride, padding, output_padding, groups, dilation
    return _conv_transpose("conv_transpose2d", 2, x, weight, bias, *options)


def conv_transpose3d(
    x: Any, weight: Any, bias: Any = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """Return `conv_transpose1d` over three axes."""
    options = stride, padding, output_padding, groups, dilation
    return _conv_transpose("conv_transpose3d", 3, x, weight, bias, *options)


def _conv_transpose(
    name: str, axes: int, x: Any, weight: Any, bias: Any, stride: Sizes, padding: Sizes,
    output_padding: Sizes, groups: int, dilation: Sizes,
) -> Tensor:  # fmt: skip
    tensor, w = as_tensor(x), as_tensor(weight)
    if w.ndim != axes + 2:
        raise ShapeError(f"{name} needs weight [in, out / groups] and {axes} more, got {w.type}")
    if groups < 1 or w.shape[0] % groups:
        raise ShapeError(f"{name}: {groups} groups do not divide {w.shape[0]} channels of {w.type}")
    strides, steps = per_axis("stride", stride, axes), per_axis("dilation", dilation, axes)
    extra = per_axis("output_padding", output_padding, axes)
    for more, stride_, step in zip(extra, strides, steps, strict=True):
        if not 0 <= more < max(stride_, step):
            raise ShapeError(f"{name}: output_padding {more} is not below stride or dilation")
    pairs = tuple(
        ((size - 1) * step - low, (size - 1) * step - low + more)
        for size, step, low, more in zip(
            w.shape[2:], steps, per_axis("padding", padding, axes), extra, strict=True
        )
    )
    grouped = reshape(w, shape=(groups, w.shape[0] // groups, *w.shape[1:]))
    turned = permute(grouped, axes=(0, 2, 1, *range(3, grouped.ndim)))
    kernel = reshape(turned, shape=(groups * w.shape[1], w.shape[0] // groups, *w.shape[2:]))
    y: Tensor = convolution(
        batched(name, tensor, axes), flip(kernel, axes=tuple(range(2, kernel.ndim))),
        strides=(1,) * axes, padding=pairs, dilation=steps, lhs_dilation=strides, groups=groups,
    )  # fmt: skip
    return unbatched(_with_bias(y, bias), tensor)


class _ConvNd(Module):
    """What all convolutions share: their sizes, and how they begin."""

    axes: ClassVar[int]
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes,
        padding: Padding, dilation: Sizes, groups: int, bias: bool, padding_mode: str,
        is_transposed: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if padding_mode != "zeros":
            raise AsgError(f"{name} pads with zeros only, not {padding_mode!r}")
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{name}: {groups} groups do not divide {in_channels} and {out_channels} channels"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis("kernel_size", kernel_size, self.axes)
        self.stride = per_axis("stride", stride, self.axes)
        self.dilation = per_axis("dilation", dilation, self.axes)
        self.padding: Padding = (
            padding if isinstance(padding, str) else per_axis("padding", padding, self.axes)
        )
        first, second = out_channels, in_channels // groups
        if is_transposed:
            first, second = in_channels, out_channels // groups
        shape = (first, second, *self.kernel_size)
        self.weight = Parameter(init.kaiming_uniform(shape, math.sqrt(5)))
        bound = 1.0 / math.sqrt(max(init.calculate_fan(shape)[0], 1))
        self.bias = Parameter(init.uniform((out_channels,), -bound, bound)) if bias else None

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        plain = {"stride": 1, "padding": 0, "dilation": 1}
        for name, usual in plain.items():
            if getattr(self, name) != (usual,) * self.axes:
                parts.append(f"{name}={getattr(self, name)!r}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class _Conv(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1,
        padding: Padding = 0, dilation: Sizes = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, False,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return _conv(
            type(self).__name__, self.axes, x, self.weight, self.bias, self.stride, self.padding,
            self.dilation, self.groups,
        )  # fmt: skip


class Conv1d(_Conv):
    """`conv1d` with weight [out, in / groups, k] and bias [out].

    Both begin uniformly in ±1 / sqrt(in / groups * k), as in PyTorch.
    """

    axes = 1


class Conv2d(_Conv):
    """`conv2d` with weight [out, in / groups, h, w] and bias [out]; they begin as in `Conv1d`."""

    axes = 2


class Conv3d(_Conv):
    """`conv3d` with weight [out, in / groups, d, h, w] and bias [out]."""

    axes = 3


class _ConvTranspose(_ConvNd):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1,
        padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, bias: bool = True,
        dilation: Sizes = 1, padding_mode: str = "zeros",
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, True,
        )  # fmt: skip
        self.output_padding = per_axis("output_padding", output_padding, self.axes)

    def forward(self, x: Tensor, output_size: Sizes | None = None) -> Tensor:
        assert not isinstance(self.padding, str)
        extra = self._output_padding(x, output_size)
        return _conv_transpose(
            type(self).__name__, self.axes, x, self.weight, self.bias, self.stride, self.padding,
            extra, self.groups, self.dilation,
        )  # fmt: skip

    def _output_padding(self, x: Tensor, output_size: Sizes | None) -> tuple[int, ...]:
        """Return what must be added at the end for the axes to become `output_size`."""
        if output_size is None:
            return self.output_padding
        assert not isinstance(self.padding, (str, int))
        wanted = per_axis("output_size", output_size, self.axes)
        parts = zip(
            wanted, x.shape[x.ndim - self.axes :], self.stride, self.padding, self.dilation,
            self.kernel_size, strict=True,
        )  # fmt: skip
        return tuple(
            size - ((own - 1) * stride - 2 * low + (kernel - 1) * step + 1)
            for size, own, stride, low, step, kernel in parts
        )


class ConvTranspose1d(_ConvTranspose):
    """`conv_transpose1d` with weight [in, out / groups, k] and bias [out]."""

    axes = 1


class ConvTranspose2d(_ConvTranspose):
    """`conv_transpose2d` with weight [in, out / groups, h, w] and bias [out]."""

    axes = 2


class ConvTranspose3d(_ConvTranspose):
    """`conv_transpose3d` with weight [in, out / groups, d, h, w] and bias [out]."""

    axes = 3
