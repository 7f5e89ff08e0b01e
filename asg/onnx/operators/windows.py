"""Convolution and pooling: what is computed of sliding windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Typed
from asg.onnx.operators.sources import LARGEST_RANGE
from asg.onnx.registry import converter
from asg.ops.convolution import convolution
from asg.ops.pooling import first_max
from asg.ops.windows import windows
from asg.tensor import Tensor
from asg.types import DType

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Windows:
    """Sizes, one entry for each axis with windows."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    counts: tuple[int, ...]


def sizes_of(call: Call, spatial: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Return the windows that a node's attributes describe.

    `auto_pad` as in the specification of Conv: SAME makes ceil(size / stride) windows.
    """
    axes = len(spatial)
    strides = call.get_ints("strides", (1,) * axes)
    dilation = call.get_ints("dilations", (1,) * axes)
    pads = call.get_ints("pads", (0,) * 2 * axes)
    if not len(strides) == len(dilation) == len(kernel) == axes or len(pads) != 2 * axes:
        raise call.malformed(f"kernel, strides, dilations or pads are not for {axes} axes")
    if any(each < 1 for each in (*strides, *dilation, *kernel)):
        raise call.malformed("kernel, strides and dilations are positive")
    auto = call.get_text("auto_pad", "NOTSET")
    is_ceil = bool(call.get_int("ceil_mode", 0)) and auto in ("NOTSET", "VALID")
    padding: list[tuple[int, int]] = []
    counts: list[int] = []
    for axis in range(axes):
        size, stride = spatial[axis], strides[axis]
        span = (kernel[axis] - 1) * dilation[axis] + 1
        low, high = pads[axis], pads[axes + axis]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-size // stride) - 1) * stride + span - size, 0)
            small, large = total // 2, total - total // 2
            low, high = (small, large) if auto == "SAME_UPPER" else (large, small)
        elif auto == "VALID":
            low = high = 0
        elif auto != "NOTSET":
            raise call.malformed(f"auto_pad {auto!r}")
        room = size + low + high - span
        if room < 0:
            raise call.malformed(f"a window spans {span}, axis {axis + 2} with pads {room + span}")
        count = -(-room // stride) + 1 if is_ceil else room // stride + 1
        if is_ceil and (count - 1) * stride >= size + low:
            count -= 1  # it would begin in what pads the end
        padding.append((low, high))
        counts.append(count)
    return Windows(tuple(kernel), strides, dilation, tuple(padding), tuple(counts))


def view(x: Tensor, sizes: Windows, fill: float | None) -> Tensor:
    """Return windows [n, c, *counts, *kernel] over `x` with `fill` around it."""
    axes = len(sizes.kernel)
    widths = []
    for size, (low, _), kernel, stride, step, count in zip(
        x.shape[2:], sizes.padding, sizes.kernel, sizes.strides, sizes.dilation, sizes.counts,
        strict=True,
    ):  # fmt: skip
        needed = (count - 1) * stride + (kernel - 1) * step + 1
        widths.append((low, needed - size - low))
    if any(any(pair) for pair in widths):
        x = F.pad(x, [(0, 0), (0, 0), *widths], 0.0 if fill is None else fill)
    found: Tensor = windows(x, sizes=sizes.kernel, strides=sizes.strides, dilation=sizes.dilation)
    return found[(slice(None), slice(None), *(slice(0, each) for each in sizes.counts[:axes]))]


# -- convolution ------------------------------------------------------------------------------


@converter("Conv", since=1)
def conv(call: Call) -> Tensor:
    """Kernels [out, in / groups, *sizes] applied at every place."""
    return with_bias(convolved(call, call[0], call[1]), call.optional(2))


def convolved(call: Call, x: Tensor, w: Tensor) -> Tensor:
    """Return the convolution that a node's attributes describe."""
    if x.ndim < 3 or w.ndim != x.ndim:
        raise call.malformed(f"x has {x.ndim} axes, the kernels {w.ndim}")
    sizes = sizes_of(call, x.shape[2:], call.get_ints("kernel_shape", w.shape[2:]))
    if sizes.kernel != w.shape[2:]:
        raise call.malformed(f"kernel_shape is {sizes.kernel}, the kernels are {w.shape[2:]}")
    if x.ndim > 5:
        raise call.unsupported(f"{x.ndim - 2} axes are convolved", "at most three can be")
    result: Tensor = convolution(
        x, w, strides=sizes.strides, padding=sizes.padding, dilation=sizes.dilation,
        lhs_dilation=(1,) * (x.ndim - 2), groups=call.get_int("group", 1),
    )  # fmt: skip
    return result


def with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Add [channels] to [n, channels, …]."""
    return y if bias is None else y + F.reshape(bias, (-1, *(1,) * (y.ndim - 2)))


@converter("ConvTranspose", since=1)
def conv_transpose(call: Call) -> Tensor:
    """The gradient of a convolution with kernels [in, out / groups, *sizes] by its operand."""
    x, w, groups = call[0], call[1], call.get_int("group", 1)
    axes = x.ndim - 2
    if axes not in (1, 2, 3):
        raise call.unsupported(f"{axes} axes are convolved", "at most three can be")
    if groups < 1 or w.shape[0] % groups or w.shape[0] != x.shape[1]:
        raise call.malformed(f"{groups} groups, kernels {w.shape} and {x.shape[1]} channels")
    strides = call.get_ints("strides", (1,) * axes)
    dilation = call.get_ints("dilations", (1,) * axes)
    extra = call.get_ints("output_padding", (0,) * axes)
    spans = [(size - 1) * step + 1 for size, step in zip(w.shape[2:], dilation, strict=True)]
    pads = _transposed_pads(call, x.shape[2:], spans, strides, extra)
    padding = tuple(
        (span - 1 - low, span - 1 - high + more)
        for span, (low, high), more in zip(spans, pads, extra, strict=True)
    )
    grouped = F.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))
    turned = F.permute(grouped, (0, 2, 1, *range(3, grouped.ndim)))
    kernel = F.reshape(turned, (groups * w.shape[1], w.shape[0] // groups, *w.shape[2:]))
    y: Tensor = convolution(
        x, F.flip(kernel, tuple(range(2, kernel.ndim))), strides=(1,) * axes, padding=padding,
        dilation=dilation, lhs_dilation=strides, groups=groups,
    )  # fmt: skip
    return with_bias(y, call.optional(2))


def _transposed_pads(
    call: Call,
    spatial: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
    extra: Sequence[int],
) -> Pairs:
    axes, auto = len(spatial), call.get_text("auto_pad", "NOTSET")
    full = [(n - 1) * s + k + e for n, s, k, e in zip(spatial, strides, spans, extra, strict=True)]
    if call.has_attribute("output_shape"):
        wanted = list(call.get_ints("output_shape"))[-axes:]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(spatial, strides, strict=True)]
    else:
        pads = call.get_ints("pads", (0,) * 2 * axes) if auto == "NOTSET" else (0,) * 2 * axes
        return tuple(zip(pads[:axes], pads[axes:], strict=True))
    found = []
    for size, target in zip(full, wanted, strict=True):
        total = size - target
        half = total // 2
        found.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    return tuple(found)


# -- pooling ----------------------------------------------------------------------------------


def _by_places(x: Tensor) -> Tensor:
    """Return [n, c, …] as [n, c, places]."""
    return F.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))


def _per_channel(x: Tensor, like: Tensor) -> Tensor:
    return F.reshape(x, (*like.shape[:2], *(1,) * (like.ndim - 2)))


@converter("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(call: Call) -> Tensor:
    """One window of all places."""
    x = call[0]
    flat = _by_places(x)
    if call.op == "GlobalAveragePool":
        found = F.mean(flat, 2)
    elif call.op == "GlobalMaxPool":
        found = F.max(flat, 2)
    else:
        found = _norm(flat, 2, call.get_int("p", 2))
    return _per_channel(found, x)


def _norm(x: Tensor, axis: int | tuple[int, ...], p: int) -> Tensor:
    if p == 1:
        return F.sum(F.abs(x), axis)
    if p == 2:
        found: Tensor = F.sqrt(F.sum(F.square(x), axis))
        return found
    return F.pow(F.sum(F.pow(F.abs(x), float(p)), axis), 1.0 / p)


@converter("AveragePool", since=7)
def average_pool(call: Call) -> Tensor:
    """The mean of each window; what pads counts where it is asked for."""
    x = call[0]
    sizes = sizes_of(call, x.shape[2:], call.get_ints("kernel_shape"))
    found = view(x, sizes, 0.0)
    total = F.sum(found, tuple(range(x.ndim, found.ndim)))
    _check_tables(call, sizes)
    counts = np.ones((), np.int64)
    is_padded = bool(call.get_int("count_include_pad", 0))
    for axis, (low, high) in enumerate(sizes.padding):
        size = x.shape[2 + axis]
        starts = np.arange(sizes.counts[axis]) * sizes.strides[axis]
        places = starts[:, None] + np.arange(sizes.kernel[axis]) * sizes.dilation[axis]
        first, last = (0, low + size + high) if is_padded else (low, low + size)
        inside = ((places >= first) & (places < last)).sum(1)
        counts = np.multiply.outer(counts, inside)
    weights = (1.0 / np.maximum(counts, 1)).astype(np.float32)
    if weights.size and (weights == weights.flat[0]).all():
        return total * float(weights.flat[0])
    return total * call.constant_tensor(weights, DType.F32)


def _check_tables(call: Call, sizes: Windows, depth: int = 1) -> None:
    """Refuse tables of numbers that are too large: of places by axis, and of all windows."""
    axes = [count * size for count, size in zip(sizes.counts, sizes.kernel, strict=True)]
    largest = max([*axes, math.prod(sizes.counts) * depth])
    if largest > LARGEST_RANGE:
        raise call.unsupported(f"windows with {largest} places", f"at most {LARGEST_RANGE}")


@converter("LpPool", since=2)
def lp_pool(call: Call) -> Tensor:
    """The p-norm of each window."""
    x = call[0]
    found = view(x, sizes_of(call, x.shape[2:], call.get_ints("kernel_shape")), 0.0)
    return _norm(found, tuple(range(x.ndim, found.ndim)), call.get_int("p", 2))


@converter("MaxPool", since=1)
def max_pool(call: Call) -> list[Tensor | Typed | None]:
    """The largest element of each window, and where it stands."""
    x = call[0]
    sizes = sizes_of(call, x.shape[2:], call.get_ints("kernel_shape"))
    lowest = -math.inf if x.dtype.is_float else int(np.iinfo(x.dtype.numpy).min)
    found = view(x, sizes, lowest)
    shape = (*found.shape[: x.ndim], math.prod(sizes.kernel))
    flat = F.reshape(found, shape)
    if x.dtype.is_float:
        largest: Tensor = first_max(flat, axis=x.ndim)
    else:
        largest = F.max(flat, x.ndim)
    if not call.wants(1):
        return [largest]
    return [largest, Typed(_where_largest(call, x, sizes, flat), np.dtype(np.int64))]


def _where_largest(call: Call, x: Tensor, sizes: Windows, flat: Tensor) -> Tensor:
    """Return the position of each window's largest element in the whole tensor."""
    _check_tables(call, sizes, math.prod(sizes.kernel))
    spatial, lead = x.shape[2:], math.prod(x.shape[:2])
    order = range(len(spatial))
    if call.get_int("storage_order", 0):
        strides = [math.prod(spatial[:axis]) for axis in order]
    else:
        strides = [math.prod(spatial[axis + 1 :]) for axis in order]
    total = np.zeros((1,) * 2 * len(spatial), np.int64)
    for axis, (low, _) in enumerate(sizes.padding):
        starts = np.arange(sizes.counts[axis]) * sizes.strides[axis] - low
        places = starts[:, None] + np.arange(sizes.kernel[axis]) * sizes.dilation[axis]
        shape = [1] * 2 * len(spatial)
        shape[axis], shape[len(spatial) + axis] = places.shape
        total = total + places.reshape(shape) * strides[axis]
    places = total.reshape((*sizes.counts, math.prod(sizes.kernel)))
    best = F.expand_dims(F.argmax(flat, -1), -1)
    table = F.broadcast_to(call.constant_tensor(places, DType.I32), flat.shape)
    inside = F.squeeze(F.take_along_axis(table, best, -1), -1)
    images = F.arange(lead).reshape((*x.shape[:2], *(1,) * len(spatial))) * math.prod(spatial)
    found: Tensor = inside + images
    return found


@converter("MaxUnpool", since=9, statics=(2,))
def max_unpool(call: Call) -> Tensor:
    """Elements put back where `MaxPool` found them, zeros elsewhere."""
    x, index = call[0], call[1]
    axes = x.ndim - 2
    kernel = call.get_ints("kernel_shape")
    strides = call.get_ints("strides", (1,) * axes)
    pads = call.get_ints("pads", (0,) * 2 * axes)
    natural = [
        (size - 1) * stride - pads[i] - pads[axes + i] + kernel[i]
        for i, (size, stride) in enumerate(zip(x.shape[2:], strides, strict=True))
    ]
    inner = (*x.shape[:2], *natural)
    shape = inner
    if call.has(2):
        shape = tuple(int(each) for each in call.static(2, "the shape of the result"))
    zeros = F.zeros((math.prod(shape),), x.dtype)
    places = F.reshape(F.cast(index, DType.I32), (-1,))
    if shape != inner:  # positions count in the natural shape
        flat = F.zeros((math.prod(inner),), x.dtype)
        put = F.reshape(F.scatter_add(flat, places, F.reshape(x, (-1,))), inner)
        widths = [(0, wanted - size) for wanted, size in zip(shape, inner, strict=True)]
        return F.pad(put, widths)
    return F.reshape(F.scatter_add(zeros, places, F.reshape(x, (-1,))), shape)
