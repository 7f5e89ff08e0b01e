"""Images in other sizes: resizing, sampling at given places, patches put back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.operators.sources import LARGEST_RANGE
from asg.onnx.registry import converter
from asg.tensor import Tensor


@converter("Resize", since=11, statics=(1, 2, 3))
def resize(call: Call) -> Tensor:
    """Nearest, linear or cubic, along the axes that are named."""
    x = call[0]
    axes = [axis % x.ndim for axis in call.get_ints("axes", tuple(range(x.ndim)))]
    coordinates = call.get_text("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_half_pixel_for_nn":
        raise call.unsupported("tf_half_pixel_for_nn", "convert the model to opset 13 or newer")
    regions = [(0.0, 1.0)] * x.ndim
    if coordinates == "tf_crop_and_resize":
        roi = [float(each) for each in call.static(1, "the region").reshape(-1)]
        for axis, start, end in zip(axes, roi, roi[len(axes) :], strict=False):
            regions[axis] = (start, end)
    shape, scales = list(x.shape), [1.0] * x.ndim
    for axis, (size, scale) in zip(axes, _targets(call, x, axes), strict=True):
        shape[axis], scales[axis] = size, scale
    _check_axes(call, shape)
    mode: Any = call.get_text("mode", "nearest")
    found: Tensor = F.resize(
        x,
        shape,
        mode=mode,
        coordinates=coordinates,
        nearest=call.get_text("nearest_mode", "round_prefer_floor"),
        cubic_a=call.get_float("cubic_coeff_a", -0.75),
        exclude_outside=bool(call.get_int("exclude_outside", 0)),
        antialias=call.opset >= 18 and bool(call.get_int("antialias", 0)),
        scales=scales,
        roi=regions,
        extrapolation=call.get_float("extrapolation_value", 0.0),
    ).astype(x.dtype)
    return found


def _check_axes(call: Call, shape: Sequence[int]) -> None:
    for size in shape:
        if size > LARGEST_RANGE:
            raise call.unsupported(f"an axis of {size} elements", f"at most {LARGEST_RANGE}")


def _targets(call: Call, x: Tensor, axes: Sequence[int]) -> list[tuple[int, float]]:
    """Return the new size and the scale of each axis."""
    old = [x.shape[axis] for axis in axes]
    scales = call.static(2, "the scales").reshape(-1) if call.has(2) else np.zeros(0)
    if scales.size:
        given = [float(each) for each in scales]
        if len(given) != len(axes):
            raise call.malformed(f"{len(given)} scales for {len(axes)} axes")
        return [(math.floor(n * s), s) for n, s in zip(old, given, strict=True)]
    sizes = [int(each) for each in call.static(3, "the sizes").reshape(-1)]
    if len(sizes) != len(axes):
        raise call.malformed(f"{len(sizes)} sizes for {len(axes)} axes")
    policy = call.get_text("keep_aspect_ratio_policy", "stretch")
    ratios = [new / n for new, n in zip(sizes, old, strict=True)]
    if policy == "stretch":
        return list(zip(sizes, ratios, strict=True))
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(scale * n + 0.5), scale) for n in old]


@converter("Upsample", since=7, statics=(1,))
def upsample(call: Call) -> Tensor:
    """`Resize` as it was before opset 10."""
    x = call[0]
    given = call.get_floats("scales") if call.opset < 9 else call.static(1, "the scales")
    scales = [float(each) for each in given]
    if len(scales) != x.ndim:
        raise call.malformed(f"{len(scales)} scales for {x.ndim} axes")
    shape = [math.floor(n * s) for n, s in zip(x.shape, scales, strict=True)]
    _check_axes(call, shape)
    mode: Any = call.get_text("mode", "nearest")
    return F.resize(x, shape, mode=mode, coordinates="asymmetric", nearest="floor", scales=scales)


@converter("GridSample", since=16)
def grid_sample(call: Call) -> Tensor:
    """Elements at the positions of a grid, each from -1 to 1; the last axis comes first."""
    mode: Any = call.get_text("mode")
    padding: Any = call.get_text("padding_mode", "zeros")
    return F.grid_sample(call[0], call[1], mode, padding, bool(call.get_int("align_corners", 0)))


@converter("AffineGrid", since=20, statics=(1,))
def affine_grid(call: Call) -> Tensor:
    """The grid that matrices make of the places of an image."""
    size = [int(each) for each in call.static(1, "the size")]
    return F.affine_grid(call[0], size, bool(call.get_int("align_corners", 0)))


@converter("Col2Im", since=18, statics=(1, 2))
def col2im(call: Call) -> Tensor:
    """Sums of the patches that cover each element."""
    image = tuple(int(each) for each in call.static(1, "the image's shape"))
    block = tuple(int(each) for each in call.static(2, "the block's shape"))
    axes = len(image)
    pads = call.get_ints("pads", (0,) * 2 * axes)
    return F.col2im(
        call[0],
        image,
        block,
        call.get_ints("dilations", (1,) * axes),
        tuple(zip(pads[:axes], pads[axes:], strict=True)),
        call.get_ints("strides", (1,) * axes),
    )
