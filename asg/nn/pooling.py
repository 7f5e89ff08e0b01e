"""Pooling over one to three axes, as functions and as layers, as in PyTorch.

All of it is sliding windows with a reduction over them; nothing stores the windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from asg import functions
from asg.errors import ShapeError
from asg.nn.convolution import Sizes, batched, per_axis, unbatched
from asg.nn.module import Module
from asg.ops.logic import select
from asg.ops.movement import pad, permute, reshape
from asg.ops.pooling import first_max
from asg.ops.reduction import reduce_sum
from asg.ops.windows import window_count, windows
from asg.tensor import Tensor, as_tensor

AdaptiveSizes = int | Sequence[int | None] | None


def _window_ends(
    name: str, size: int, kernel: int, stride: int, low: int, step: int, ceil_mode: bool
) -> tuple[int, int]:
    """Return how many windows an axis has, and what must be added at its end for them."""
    if kernel < 1 or stride < 1 or step < 1 or not 0 <= low <= kernel // 2:
        raise ShapeError(
            f"{name} needs positive kernel, stride and dilation, and padding up to half the "
            f"kernel, got kernel {kernel}, stride {stride}, dilation {step}, padding {low}"
        )
    count = window_count(size + 2 * low, kernel, stride, step)
    span = (kernel - 1) * step + 1
    rest = size + 2 * low - span - (count - 1) * stride
    # A window more where elements are left over, if it begins before the padding at the end.
    if ceil_mode and rest > 0 and count * stride < size + low:
        count += 1
    if count < 1:
        raise ShapeError(f"{name}: a window spans {span}, an axis with padding {size + 2 * low}")
    return count, max(low, (count - 1) * stride + span - size - low)


def _pooled_windows(
    name: str, x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...],
    padding: tuple[int, ...], dilation: tuple[int, ...], ceil_mode: bool, fill: float,
) -> Tensor:  # fmt: skip
    """Return windows [n, c, *windows, *kernel] over `x` with `fill` around it."""
    ends = [
        _window_ends(name, *sizes, ceil_mode)
        for sizes in zip(x.shape[2:], kernel, strides, padding, dilation, strict=True)
    ]
    high = tuple(end for _, end in ends)
    if any(padding) or any(high):
        x = pad(x, low=(0, 0, *padding), high=(0, 0, *high), fill=fill)
    found: Tensor = windows(x, sizes=kernel, strides=strides, dilation=dilation)
    counts = tuple(count for count, _ in ends)
    if found.shape[2 : 2 + len(counts)] != counts:  # the padding at the end holds one more
        found = found[(slice(None), slice(None), *(slice(0, count) for count in counts))]
    return found


def _max_pool(
    name: str, axes: int, x: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
    dilation: Sizes, ceil_mode: bool,
) -> Tensor:  # fmt: skip
    tensor = as_tensor(x)
    kernel = per_axis("kernel_size", kernel_size, axes)
    strides = kernel if stride is None else per_axis("stride", stride, axes)
    found = _pooled_windows(
        name, batched(name, tensor, axes), kernel, strides, per_axis("padding", padding, axes),
        per_axis("dilation", dilation, axes), ceil_mode, -math.inf,
    )  # fmt: skip
    return unbatched(_max_of_last(found, axes), tensor)


def _max_of_last(found: Tensor, axes: int) -> Tensor:
    """Return the largest elements along the last `axes` axes."""
    shape = found.shape[: found.ndim - axes]
    flat = reshape(found, shape=(*shape, math.prod(found.shape[found.ndim - axes :])))
    result: Tensor = first_max(flat, axis=len(shape))
    return result


def max_pool1d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return the largest element of each window over x [n, c, length].

    The stride is the kernel's size unless told; nothing is larger than what pads. With
    `ceil_mode`, what is left over at the end makes one more window. Of equal elements the first
    has the gradient.

    Raises:
        ShapeError: a window does not fit, or the padding exceeds half of one.
    """
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return `max_pool1d` over two axes."""
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Return `max_pool1d` over three axes."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode)


def _avg_pool(
    name: str, axes: int, x: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes,
    ceil_mode: bool, count_include_pad: bool, divisor: int | None,
) -> Tensor:  # fmt: skip
    tensor = as_tensor(x)
    kernel = per_axis("kernel_size", kernel_size, axes)
    strides = kernel if stride is None else per_axis("stride", stride, axes)
    low = per_axis("padding", padding, axes)
    images = batched(name, tensor, axes)
    found = _pooled_windows(name, images, kernel, strides, low, (1,) * axes, ceil_mode, 0.0)
    total: Tensor = reduce_sum(found, axes=tuple(range(2 + axes, found.ndim)))
    if divisor is not None:
        if divisor == 0:
            raise ShapeError(f"{name}: the divisor is zero")
        return unbatched(total * (1.0 / divisor), tensor)
    counts = np.ones((), np.int64)
    for size, window, step, start, count in zip(
        images.shape[2:], kernel, strides, low, total.shape[2:], strict=True
    ):
        first = np.arange(count) * step - start
        last = np.minimum(first + window, size + (start if count_include_pad else 0))
        counts = np.multiply.outer(counts, last - (first if count_include_pad else first.clip(0)))
    weights = (1.0 / counts).astype(np.float32)
    is_even = weights.size and (weights == weights.flat[0]).all()
    return unbatched(total * (float(weights.flat[0]) if is_even else weights), tensor)


def avg_pool1d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Return the mean of each window over x [n, c, length].

    The stride is the kernel's size unless told. Zeros pad; with `count_include_pad` they count.

    Raises:
        ShapeError: a window does not fit, or the padding exceeds half of one.
    """
    options = ceil_mode, count_include_pad, None
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, *options)


def avg_pool2d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return `avg_pool1d` over two axes; sums are divided by `divisor_override`, if it is told."""
    options = ceil_mode, count_include_pad, divisor_override
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, *options)


def avg_pool3d(
    x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Return `avg_pool2d` over three axes."""
    options = ceil_mode, count_include_pad, divisor_override
    return _avg_pool("avg_pool3d", 3, x, kernel_size, stride, padding, *options)


def _adaptive(
    name: str, axes: int, x: Any, output_size: AdaptiveSizes, fill: float
) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
    """Return `x` as a tensor, windows [n, c, *out, *inside] that share the axes evenly, with
    `fill` where one is shorter than others, and how many elements each has.

    Window i of n over a size reaches from floor(i size / n) to before ceil((i + 1) size / n).
    """
    tensor = as_tensor(x)
    images = batched(name, tensor, axes)
    given = (output_size,) * axes if isinstance(output_size, (int, type(None))) else output_size
    if len(given) != axes:
        raise ShapeError(f"{name}: output_size needs {axes} entries or one, got {output_size}")
    sizes = [
        own if size is None else size for own, size in zip(images.shape[2:], given, strict=True)
    ]
    if any(size < 1 for size in (*sizes, *images.shape[2:])):
        raise ShapeError(f"{name}: nothing to pool from {tensor.type} to {sizes}")
    counts = np.ones((), np.int64)
    for axis, (own, size) in enumerate(zip(images.shape[2:], sizes, strict=True)):
        first = np.arange(size) * own // size
        width = -(-(np.arange(size) + 1) * own // size) - first
        counts = np.multiply.outer(counts, width)
        images = _cut(images, 2 + 2 * axis, first, width, fill)
    order = (0, 1, *range(2, images.ndim, 2), *range(3, images.ndim, 2))
    return tensor, permute(images, axes=order), counts


def _cut(
    x: Tensor, axis: int, first: np.ndarray[Any, Any], width: np.ndarray[Any, Any], fill: float
) -> Tensor:
    """Return `x` with `axis` cut into windows: two axes, of windows and of their elements."""
    own, size, widest = x.shape[axis], len(first), int(width.max())
    if own == size * widest:
        result: Tensor = reshape(x, shape=(*x.shape[:axis], size, widest, *x.shape[axis + 1 :]))
        return result
    inside = np.arange(widest)
    places = np.minimum(first[:, None] + inside, own - 1).astype(np.int32)
    taken = functions.take(x, places, axis=axis)
    shape = (size, widest, *(1,) * (x.ndim - axis - 1))
    is_inside = functions.broadcast_to(
        as_tensor((inside < width[:, None]).reshape(shape)), taken.shape
    )
    cut: Tensor = select(is_inside, taken, fill)
    return cut


def _adaptive_max_pool(name: str, axes: int, x: Any, output_size: AdaptiveSizes) -> Tensor:
    tensor, found, _ = _adaptive(name, axes, x, output_size, -math.inf)
    return unbatched(_max_of_last(found, axes), tensor)


def _adaptive_avg_pool(name: str, axes: int, x: Any, output_size: AdaptiveSizes) -> Tensor:
    tensor, found, counts = _adaptive(name, axes, x, output_size, 0.0)
    total: Tensor = reduce_sum(found, axes=tuple(range(2 + axes, found.ndim)))
    weights = (1.0 / counts).astype(np.float32)
    is_even = (weights == weights.flat[0]).all()
    return unbatched(total * (float(weights.flat[0]) if is_even else weights), tensor)


def adaptive_max_pool1d(x: Any, output_size: AdaptiveSizes) -> Tensor:
    """Return the largest elements of `output_size` windows that share the length evenly."""
    return _adaptive_max_pool("adaptive_max_pool1d", 1, x, output_size)


def adaptive_max_pool2d(x: Any, output_size: AdaptiveSizes) -> Tensor:
    """Return `adaptive_max_pool1d` over two axes; None keeps an axis's size."""
    return _adaptive_max_pool("adaptive_max_pool2d", 2, x, output_size)


def adaptive_max_pool3d(x: Any, output_size: AdaptiveSizes) -> Tensor:
    """Return `adaptive_max_pool1d` over three axes; None keeps an axis's size."""
    return _adaptive_max_pool("adaptive_max_pool3d", 3, x, output_size)


def adaptive_avg_pool1d(x: Any, output_size: AdaptiveSizes) -> Tensor:
    """Return the means of `output_size` windows that share the length evenly."""
    return _adaptive_avg_pool("adaptive_avg_pool1d", 1, x, output_size)


def adaptive_avg_pool2d(x: Any, output_size: AdaptiveSizes) -> Tensor:
    """Return `adaptive_avg_pool1d` over two axes; None keeps an axis's size."""
    return _adaptive_avg_pool("adaptive_avg_pool2d", 2, x, output_size)


def adaptive_avg_pool3d(x: Any, output_size: AdaptiveSizes) -> Tensor:
    """Return `adaptive_avg_pool1d` over three axes; None keeps an axis's size."""
    return _adaptive_avg_pool("adaptive_avg_pool3d", 3, x, output_size)


class _MaxPool(Module):
    axes: ClassVar[int]

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
        dilation: Sizes = 1, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return _max_pool(
            type(self).__name__, self.axes, x, self.kernel_size, self.stride, self.padding,
            self.dilation, self.ceil_mode,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(_MaxPool):
    """`max_pool1d`."""

    axes = 1


class MaxPool2d(_MaxPool):
    """`max_pool2d`."""

    axes = 2


class MaxPool3d(_MaxPool):
    """`max_pool3d`."""

    axes = 3


class _AvgPool(Module):
    axes: ClassVar[int]

    def __init__(
        self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def forward(self, x: Tensor) -> Tensor:
        return _avg_pool(
            type(self).__name__, self.axes, x, self.kernel_size, self.stride, self.padding,
            self.ceil_mode, self.count_include_pad, self.divisor_override,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """`avg_pool1d`."""

    axes = 1


class AvgPool2d(_AvgPool):
    """`avg_pool2d`."""

    axes = 2


class AvgPool3d(_AvgPool):
    """`avg_pool3d`."""

    axes = 3


class _AdaptivePool(Module):
    axes: ClassVar[int]

    def __init__(self, output_size: AdaptiveSizes) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveMaxPool(_AdaptivePool):
    def forward(self, x: Tensor) -> Tensor:
        return _adaptive_max_pool(type(self).__name__, self.axes, x, self.output_size)


class _AdaptiveAvgPool(_AdaptivePool):
    def forward(self, x: Tensor) -> Tensor:
        return _adaptive_avg_pool(type(self).__name__, self.axes, x, self.output_size)


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """`adaptive_max_pool1d`."""

    axes = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """`adaptive_max_pool2d`."""

    axes = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """`adaptive_max_pool3d`."""

    axes = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """`adaptive_avg_pool1d`."""

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """`adaptive_avg_pool2d`."""

    axes = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """`adaptive_avg_pool3d`."""

    axes = 3
