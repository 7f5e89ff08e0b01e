"""The convolution of one to three axes, kept whole until gradients are taken.

Both gradients are convolutions again: of the result's cotangent with the kernel turned round, and
of the operand with the cotangent. So one op, with dilation on either side, serves forward and
backward, transposed convolution, and the derivatives of derivatives.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from asg.errors import ShapeError
from asg.graph import Attrs
from asg.op import Array, BadSample, Composite, Example, Op, Sample
from asg.ops.linear import matmul_
from asg.ops.movement import broadcast, dilate, flip, pad, permute, reshape, slice_
from asg.ops.rules import FLOAT, accept, expect, same_dtype
from asg.ops.windows import window_count, windows
from asg.tensor import Tensor, as_tensor
from asg.types import Shape, TensorType

Pairs = tuple[tuple[int, int], ...]


def _rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 2)
    for type_ in types:
        accept(type_, FLOAT)
    same_dtype(types)
    x, w = types[0].shape, types[1].shape
    axes = len(x) - 2
    if axes not in (1, 2, 3) or len(w) != len(x):
        raise ShapeError(
            f"needs x [n, c, *spatial] and w [o, c / groups, *kernel] with 1 to 3 spatial axes, "
            f"got {types[0]} and {types[1]}"
        )
    _check_attrs(attrs, axes)
    _check_channels(types, attrs["groups"])
    sizes: list[int] = []
    for axis, (low, high), lhs_step, stride, step in zip(
        range(2, len(x)), attrs["padding"], attrs["lhs_dilation"], attrs["strides"],
        attrs["dilation"], strict=True,
    ):  # fmt: skip
        if not w[axis]:
            raise ShapeError(f"axis {axis} of w, {types[1]}, is empty")
        size = low + dilated_size(x[axis], lhs_step) + high
        sizes.append(window_count(size, w[axis], stride, step))
        if sizes[-1] < 1:
            span = dilated_size(w[axis], step)
            raise ShapeError(
                f"the kernel spans {span} along axis {axis}, where x has {size} with padding: "
                f"x is {types[0]}, w {types[1]}"
            )
    return TensorType((x[0], w[0], *sizes), types[0].dtype)


def _check_attrs(attrs: Attrs, axes: int) -> None:
    for name in ("strides", "padding", "dilation", "lhs_dilation"):
        if len(attrs[name]) != axes:
            raise ShapeError(f"{name} needs {axes} entries, got {attrs[name]}")
        if name != "padding" and any(entry < 1 for entry in attrs[name]):
            raise ShapeError(f"{name} is positive, got {attrs[name]}")


def _check_channels(types: Sequence[TensorType], groups: int) -> None:
    channels, (out, own) = types[0].shape[1], types[1].shape[:2]
    if groups < 1 or channels % groups or out % groups:
        raise ShapeError(
            f"{groups} groups do not divide {channels} channels of x, {types[0]}, and {out} of w, "
            f"{types[1]}"
        )
    if own != channels // groups:
        of = f" / {groups} groups" if groups > 1 else ""
        raise ShapeError(f"channels differ: x has {channels}{of} (axis 1), w takes {own} (axis 1)")


def dilated_size(size: int, step: int) -> int:
    """Return an axis's size with `step - 1` zeros between neighbours."""
    return (size - 1) * step + 1 if size else 0


def padded(x: Tensor, padding: Pairs, lhs_dilation: Shape) -> Tensor:
    """Return `x` with zeros between neighbours and around them, along its last axes."""
    if any(step > 1 for step in lhs_dilation):
        x = dilate(x, steps=(1, 1, *lhs_dilation))
    if any(any(pair) for pair in padding):
        low, high = zip(*padding, strict=True)
        x = pad(x, low=(0, 0, *low), high=(0, 0, *high), fill=0.0)
    return x


def patches(attrs: Attrs, x: Tensor, kernel: Shape) -> Tensor:
    """Return what the kernel meets at each place: [n, c, *places, *kernel]."""
    x = padded(x, attrs["padding"], attrs["lhs_dilation"])
    if any(size > 1 for size in kernel):
        result: Tensor = windows(
            x, sizes=kernel, strides=attrs["strides"], dilation=attrs["dilation"]
        )
        return result
    if any(step > 1 for step in attrs["strides"]):
        x = slice_(x, starts=(0,) * x.ndim, stops=x.shape, steps=(1, 1, *attrs["strides"]))
    flat: Tensor = reshape(x, shape=(*x.shape, *kernel))
    return flat


def product(attrs: Attrs, x: Tensor, w: Tensor) -> Tensor:
    """Spell a convolution out as products of matrices: kernels times patches.

    An image is a product of its own, so that its result lies as it is wanted.
    """
    groups, out, places = attrs["groups"], w.shape[0], len(w.shape) - 2
    found = patches(attrs, x, w.shape[2:])
    batch, spatial = x.shape[0], found.shape[2 : 2 + places]
    inner = int(np.prod(w.shape[1:], dtype=np.int64))
    # [n, c, *places, *kernel] to [n, c, *kernel, *places]
    axes = (0, 1, *range(2 + places, found.ndim), *range(2, 2 + places))
    area = int(np.prod(spatial, dtype=np.int64))
    columns = reshape(permute(found, axes=axes), shape=(batch, groups, inner, area))
    rows = reshape(w, shape=(1, groups, out // groups, inner))
    rows = broadcast(rows, shape=(batch, groups, out // groups, inner))
    result: Tensor = reshape(matmul_(rows, columns), shape=(batch, out, *spatial))
    return result


def _numpy(
    x: Array, w: Array, strides: Shape, padding: Pairs, dilation: Shape, lhs_dilation: Shape,
    groups: int,
) -> Array:  # fmt: skip
    axes = x.ndim - 2
    x = dilate.numpy(x, (1, 1, *lhs_dilation))
    low, high = zip(*padding, strict=True)
    x = pad.numpy(x, (0, 0, *low), (0, 0, *high), 0)
    found = windows.numpy(x, w.shape[2:], strides, dilation)
    found = found.reshape(x.shape[0], groups, w.shape[1], *found.shape[2:])
    grouped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    places, kernel = string.ascii_lowercase[:axes], string.ascii_lowercase[axes : 2 * axes]
    formula = f"ngx{places}{kernel},gox{kernel}->ngo{places}"
    result: Array = np.einsum(formula, found, grouped, optimize=True)
    return result.reshape(x.shape[0], w.shape[0], *result.shape[3:])


def _grad(node: Tensor, g: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    if node.size == 0 or x.size == 0 or w.size == 0:
        return [broadcast(as_tensor(0.0), shape=each.shape) for each in (x, w)]
    return [_grad_x(node.attrs, g, x, w), _grad_w(node.attrs, g, x, w)]


def _grad_x(attrs: Attrs, g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """dx[i] is the sum of g[p] w[k] over i = p stride + k dilation - low: g dilated by the stride
    meets the kernel turned round, with inputs and outputs exchanged within each group."""
    groups, (out, own) = attrs["groups"], w.shape[:2]
    turned = reshape(w, shape=(groups, out // groups, *w.shape[1:]))
    turned = permute(turned, axes=(0, 2, 1, *range(3, turned.ndim)))
    turned = reshape(turned, shape=(groups * own, out // groups, *w.shape[2:]))
    padding: list[tuple[int, int]] = []
    for axis, ((low, _), lhs_step) in enumerate(
        zip(attrs["padding"], attrs["lhs_dilation"], strict=True), start=2
    ):
        reach = (w.shape[axis] - 1) * attrs["dilation"][axis - 2]
        given = dilated_size(g.shape[axis], attrs["strides"][axis - 2])
        wanted = dilated_size(x.shape[axis], lhs_step) + reach
        padding.append((reach - low, wanted - given - (reach - low)))
    result: Tensor = convolution(
        g, flip(turned, axes=tuple(range(2, w.ndim))), strides=attrs["lhs_dilation"],
        padding=tuple(padding), dilation=attrs["dilation"], lhs_dilation=attrs["strides"],
        groups=groups,
    )  # fmt: skip
    return result


def _grad_w(attrs: Attrs, g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """dw[k] is the sum of g[p] x[p stride + k dilation - low] over images and places: x meets g,
    dilated by the stride, as a kernel; the images are its channels."""
    groups, batch, own = attrs["groups"], x.shape[0], w.shape[1]
    lhs = reshape(x, shape=(batch, groups, own, *x.shape[2:]))
    lhs = permute(lhs, axes=(2, 1, 0, *range(3, lhs.ndim)))
    lhs = reshape(lhs, shape=(own, groups * batch, *x.shape[2:]))
    kernel = permute(g, axes=(1, 0, *range(2, g.ndim)))
    padding: list[tuple[int, int]] = []
    for axis, ((low, _), lhs_step) in enumerate(
        zip(attrs["padding"], attrs["lhs_dilation"], strict=True), start=2
    ):
        span = dilated_size(g.shape[axis], attrs["strides"][axis - 2])
        wanted = (w.shape[axis] - 1) * attrs["dilation"][axis - 2] + span
        padding.append((low, wanted - low - dilated_size(x.shape[axis], lhs_step)))
    found = convolution(
        lhs, kernel, strides=attrs["dilation"], padding=tuple(padding),
        dilation=attrs["strides"], lhs_dilation=attrs["lhs_dilation"], groups=groups,
    )  # fmt: skip
    result: Tensor = permute(found, axes=(1, 0, *range(2, found.ndim)))
    return result


def _attrs(
    strides: Shape = (1,), padding: Pairs = ((0, 0),), dilation: Shape = (1,),
    lhs_dilation: Shape = (1,), groups: int = 1,
) -> Attrs:  # fmt: skip
    """Return attributes for samples; what is told for one axis holds for all."""
    count = max(map(len, (strides, padding, dilation, lhs_dilation)))

    def every(part: tuple[object, ...]) -> tuple[object, ...]:
        return part * count if len(part) == 1 else part

    return {
        "strides": every(strides), "padding": every(padding), "dilation": every(dilation),
        "lhs_dilation": every(lhs_dilation), "groups": groups,
    }  # fmt: skip


convolution: Op = Op(
    name="convolution",
    doc="Sums of products of x [n, c, *spatial], `lhs_dilation - 1` zeros between neighbours and "
    "`padding` around, with kernels w [o, c / groups, *kernel] that lie on it in `strides`, their "
    "own elements `dilation` apart. Kept whole until gradients are taken, which are convolutions.",
    kind=Composite(product, is_sum=True),
    shape=_rule,
    numpy=_numpy,
    grad=_grad,
    examples=[
        Example([[[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, 10.0]]]], [[[21.0, 32.0, 43.0]]], _attrs()),
        Example([[[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, 10.0]]]], [[[10.0, 32.0, 4.0]]],
                _attrs(strides=(2,), padding=((1, 1),))),
        Example([[[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, 10.0]]]], [[[31.0, 42.0]]],
                _attrs(dilation=(2,))),
        Example([[[[1.0, 2.0]]], [[[1.0, 10.0]]]], [[[1.0, 20.0]]],
                _attrs(lhs_dilation=(2,))),
        Example([[[[1.0], [2.0]]], [[[3.0]], [[5.0]]]], [[[3.0], [10.0]]], _attrs(groups=2)),
        Example([[[[[1.0, 2.0], [3.0, 4.0]]]], [[[[1.0, 0.0], [0.0, 1.0]]]]],
                [[[[5.0, 2.0], [3.0, 4.0]]]], _attrs(padding=((0, 1), (0, 1)))),
        Example([[[[1.0, 2.0, 3.0]]], [[[4.0]]]], [[[8.0, 12.0]]], _attrs(padding=((-1, 0),))),
    ],
    samples=[
        Sample(["f32[2, 3, 7]", "f32[4, 3, 3]"], _attrs(padding=((1, 1),))),
        Sample(["f32[2, 2, 5, 4]", "f32[3, 2, 3, 2]"], _attrs((2, 1), ((1, 2), (0, 1)), (1, 2))),
        Sample(["f32[1, 4, 3, 3]", "f32[6, 2, 2, 2]"], _attrs((1, 1), groups=2)),
        Sample(["f32[2, 3, 4, 3]", "f32[6, 1, 3, 3]"], _attrs((1, 1), ((1, 1),) * 2, groups=3)),
        Sample(["f32[1, 2, 3, 2]", "f32[3, 2, 3, 3]"],
               _attrs((1, 2), ((2, 2), (1, 2)), (1, 1), (2, 3))),
        Sample(["f32[1, 2, 3, 4, 3]", "f32[2, 2, 2, 2, 3]"],
               _attrs((2, 1, 1), ((0, 1), (1, 1), (1, 0)))),
        Sample(["f32[2, 3, 4, 5]", "f32[4, 3, 1, 1]"], _attrs((1, 2))),
        Sample(["f32[1, 1, 6]", "f32[1, 1, 2]"], _attrs(padding=((-2, -1),))),
        Sample(["f32[0, 2, 4]", "f32[3, 2, 2]"], _attrs()),
        Sample(["f32[2, 0, 4]", "f32[3, 0, 2]"], _attrs()),
    ],
    errors=[
        BadSample(["f32[1, 3, 8]", "f32[4, 2, 3]"],
                  "convolution: channels differ: x has 3 (axis 1), w takes 2 (axis 1)", _attrs()),
        BadSample(["f32[1, 4, 8]", "f32[4, 4, 3]"],
                  "x has 4 / 2 groups (axis 1), w takes 4 (axis 1)", _attrs(groups=2)),
        BadSample(["f32[1, 3, 8]", "f32[4, 3, 3]"],
                  "2 groups do not divide 3 channels of x", _attrs(groups=2)),
        BadSample(["f32[1, 3, 4]", "f32[4, 3, 3]"],
                  "the kernel spans 5 along axis 2, where x has 4 with padding",
                  _attrs(dilation=(2,))),
        BadSample(["f32[1, 3, 4]", "f32[4, 3, 0]"], "axis 2 of w, f32[4, 3, 0], is empty",
                  _attrs()),
        BadSample(["f32[3, 4]", "f32[4, 3]"], "with 1 to 3 spatial axes", _attrs()),
        BadSample(["f32[1, 3, 4, 4]", "f32[4, 3, 3, 3]"], "strides needs 2 entries", _attrs()),
        BadSample(["f32[1, 3, 4]", "f32[4, 3, 3]"], "strides is positive", _attrs(strides=(0,))),
        BadSample(["i32[1, 3, 4]", "i32[4, 3, 3]"], "convolution: needs a float input", _attrs()),
    ],
)  # fmt: skip

OPS = (convolution,)
