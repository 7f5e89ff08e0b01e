"""Elements read between places that are computed: regions of interest, deformed kernels."""

from __future__ import annotations

import functools
import math

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.operators.windows import sizes_of, with_bias
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

Corner = tuple[Tensor, Tensor]  # positions in a flat image, and their weights


def pixels(x: Tensor, index: Tensor) -> Tensor:
    """Return x [n, c, height, width] at flat positions [n, *places] as [n, c, *places]."""
    n, c = x.shape[:2]
    places = index.shape[1:]
    flat = F.reshape(x, (n, c, math.prod(x.shape[2:])))
    spread = F.broadcast_to(F.reshape(index, (n, 1, -1)), (n, c, math.prod(places)))
    return F.reshape(F.take_along_axis(flat, spread, 2), (n, c, *places))


@converter("RoiAlign", since=10)
def roi_align(call: Call) -> Tensor:
    """Means or maxima of points inside regions [count, 4] of images."""
    x, regions, owners = call[0], call[1], F.cast(call[2], DType.I32)
    points = call.get_int("sampling_ratio", 0)
    if points <= 0:
        raise call.unsupported(
            "how many points are read depends on the regions", "set sampling_ratio"
        )
    default = "half_pixel" if call.opset >= 16 else "output_half_pixel"
    is_half = call.get_text("coordinate_transformation_mode", default) == "half_pixel"
    shift = 0.5 if is_half else 0.0
    edges = regions * call.get_float("spatial_scale", 1.0) - shift
    counts = call.get_int("output_width", 1), call.get_int("output_height", 1)
    across, down = (
        _points(edges[:, i], edges[:, i + 2], count, points, is_half)
        for i, count in enumerate(counts)
    )
    rows, columns = F.unsqueeze(down, 2), F.unsqueeze(across, 1)  # [count, height or 1, …]
    images = F.take(x, owners, 0)
    terms = [
        pixels(images, index) * F.unsqueeze(weight, 1)
        for index, weight in _corners(rows, columns, x.shape[2], x.shape[3])
    ]
    grid = (counts[1], points, counts[0], points)
    if call.get_text("mode", "avg") == "avg":
        total = functools.reduce(F.add, terms)
        return F.mean(F.reshape(total, (*total.shape[:2], *grid)), (3, 5))
    largest = functools.reduce(F.maximum, terms)
    return F.max(F.reshape(largest, (*largest.shape[:2], *grid)), (3, 5))


def _points(start: Tensor, end: Tensor, bins: int, points: int, is_half: bool) -> Tensor:
    """Return [count, bins * points] positions, evenly spaced in each bin."""
    length = end - start if is_half else F.maximum(end - start, 1.0)
    steps = (F.cast(F.arange(bins * points), DType.F32) + 0.5) * (1.0 / (bins * points))
    return F.reshape(start, (-1, 1)) + F.reshape(length, (-1, 1)) * F.reshape(steps, (1, -1))


def _corners(rows: Tensor, columns: Tensor, height: int, width: int) -> list[Corner]:
    """Return the four neighbours of points; points far outside have no weight."""
    seen = functools.reduce(
        F.logical_and,
        (rows >= -1.0, rows <= float(height), columns >= -1.0, columns <= float(width)),
    )
    (y0, y1, ly), (x0, x1, lx) = _between(rows, height), _between(columns, width)
    shape = seen.shape
    found = []
    for y, wy in ((y0, 1.0 - ly), (y1, ly)):
        for x, wx in ((x0, 1.0 - lx), (x1, lx)):
            index = F.broadcast_to(y * width + x, shape)
            found.append((index, F.where(seen, wy * wx, 0.0)))
    return found


def _between(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places before and after, and how far the position is from the first."""
    inside = F.clip(at, 0.0, size - 1.0)
    low = F.floor(inside)
    high = F.minimum(low + 1.0, size - 1.0)
    return F.cast(low, DType.I32), F.cast(high, DType.I32), inside - low


@converter("DeformConv", since=19)
def deform_conv(call: Call) -> Tensor:
    """A convolution whose kernels read at places moved by offsets (Dai et al. 2017)."""
    x, w, offset = call[0], call[1], call[2]
    if x.ndim != 4:
        raise call.unsupported(f"{x.ndim - 2} axes", "two are")
    sizes = sizes_of(call, x.shape[2:], w.shape[2:])
    groups, own = call.get_int("group", 1), call.get_int("offset_group", 1)
    n, c, height, width = x.shape
    kernel, counts = sizes.kernel, sizes.counts
    area = kernel[0] * kernel[1]
    moved = F.reshape(offset, (n * own, kernel[0], kernel[1], 2, *counts))
    rows, columns = (
        _kernel_places(axis, kernel, counts, sizes.strides, sizes.dilation, sizes.padding)
        for axis in range(2)
    )
    y, z = moved[:, :, :, 0] + rows, moved[:, :, :, 1] + columns
    images = F.reshape(x, (n * own, c // own, height, width))
    found = _bilinear(images, y, z)  # [n * own, c / own, *kernel, *counts]
    if call.has(4):
        found = found * F.reshape(call[4], (n * own, 1, *kernel, *counts))
    patches = F.reshape(found, (n, groups, c // groups * area, math.prod(counts)))
    rows_of = F.reshape(w, (1, groups, w.shape[0] // groups, c // groups * area))
    kernels = F.broadcast_to(rows_of, (n, *rows_of.shape[1:]))
    result = F.reshape(F.matmul(kernels, patches), (n, w.shape[0], *counts))
    return with_bias(result, call.optional(3))


def _kernel_places(
    axis: int,
    kernel: tuple[int, ...],
    counts: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> Tensor:
    """Return where a kernel reads without offsets, [kernel, kernel, places, places] or 1s."""
    inside, outside = [1] * 4, [1] * 4
    inside[axis], outside[2 + axis] = kernel[axis], counts[axis]
    steps = F.reshape(F.arange(kernel[axis]) * dilation[axis], inside)
    starts = F.reshape(F.arange(counts[axis]) * strides[axis] - padding[axis][0], outside)
    return F.cast(F.unsqueeze(steps + starts, 0), DType.F32)


def _bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return x between places; what lies outside counts as zeros."""
    height, width = x.shape[2:]
    y, z = F.floor(rows), F.floor(columns)
    total: Tensor | None = None
    for dy in (0.0, 1.0):
        for dx in (0.0, 1.0):
            at, beside = y + dy, z + dx
            weight = (1.0 - F.abs(rows - at)) * (1.0 - F.abs(columns - beside))
            seen = functools.reduce(
                F.logical_and,
                (at >= 0.0, at <= height - 1.0, beside >= 0.0, beside <= width - 1.0),
            )
            index = F.cast(F.clip(at, 0.0, height - 1.0), DType.I32) * width + F.cast(
                F.clip(beside, 0.0, width - 1.0), DType.I32
            )
            part = pixels(x, index) * F.unsqueeze(F.where(seen, weight, 0.0), 1)
            total = part if total is None else total + part
    assert total is not None
    return total
