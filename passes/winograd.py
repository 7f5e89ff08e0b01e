"""Winograd's minimal filtering F(2x2, 3x3): a 3x3 convolution with 2.25 times fewer products.

Four results of a tile come of sixteen products: Y = Aᵀ [(G g Gᵀ) * (Bᵀ d B)] A, where d is a 4x4
tile of the image and g a kernel (Lavin and Gray, Fast Algorithms for Convolutional Neural
Networks, 2015, section 4.1). Summed over channels, the sixteen are matrix products. The matrices
A and B hold 0, 1 and -1: their products are a few sums, spelt out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from asg.graph import Attrs
from asg.ops.arithmetic import add, mul, sub
from asg.ops.join import pack
from asg.ops.linear import matmul_, swap_last
from asg.ops.movement import broadcast, pad, permute, reshape, slice_
from asg.ops.sources import constant, iota
from asg.ops.windows import windows
from asg.passes.known import is_known
from asg.passes.layouts import to_first, to_last
from asg.tensor import Tensor
from asg.types import DType, Shape

TILE, PATCH, KERNEL = 2, 4, 3  # results, image elements and kernel elements along an axis
QUAD = 4  # products want rows of whole vectors
MOST_BYTES = 96 << 20  # of what is transformed, which is four times the image; a kernel binds it


@dataclass(frozen=True)
class Costs:
    """What the parts of a convolution take, in multiply-adds of a product.

    Measured on Mesa's software driver; on a graphics card, memory and arithmetic are about as far
    apart.

    Attributes:
        patch, kernel: an element of a transformed image or kernel. Kernels that are constants are
            transformed by the compiler.
        result: an element of the result, from nine products.
        rows: what tiles of products round a number of places up to.
        start: three further kernels.
        margin: how much less than the plain products all of it must be.
    """

    patch: int = 15
    kernel: int = 12
    result: int = 100
    rows: int = 16
    start: int = 1_000_000
    margin: float = 0.87


COSTS = Costs()


def winograd(attrs: Attrs, x: Tensor, w: Tensor, is_last: bool = False) -> Tensor | None:
    """Spell a convolution out over tiles of four results, where that pays; with `is_last`, so that
    channels are the last axis of all that is stored on the way."""
    if not is_transformed(attrs, x, w):
        return None
    images, out = x.shape[0], w.shape[0]
    sizes = _sizes(x, attrs["padding"])
    tiles = tuple(-(-size // TILE) for size in sizes)
    columns, count = _image_tiles(x, attrs["padding"], tiles, is_last), images * prod(tiles)
    if is_last:
        products = matmul_(columns, swap_last(_kernel_tiles(w)))
        products = reshape(products, shape=(PATCH, PATCH, images, *tiles, out))
        return to_first(_results(products, sizes, is_last))
    products = matmul_(_kernel_tiles(w), columns)
    if columns.shape[2] != count:
        stops = (PATCH**2, out, count)
        products = slice_(products, starts=(0, 0, 0), stops=stops, steps=(1, 1, 1))
    products = reshape(products, shape=(PATCH, PATCH, out, images, *tiles))
    return _results(permute(products, axes=(0, 1, 3, 2, 4, 5)), sizes, is_last)


def is_transformed(attrs: Attrs, x: Tensor, w: Tensor) -> bool:
    """Tell whether the transforms can be taken, and pay."""
    if w.shape[2:] != (KERNEL, KERNEL) or attrs["groups"] != 1:
        return False
    if x.dtype is not DType.F32:
        return False  # what is transformed would be rounded to numbers of fewer bits
    if any(step != 1 for name in ("strides", "dilation", "lhs_dilation") for step in attrs[name]):
        return False
    places = x.shape[0] * prod(_sizes(x, attrs["padding"]))
    nbytes = PATCH * places * max(w.shape[:2]) * x.dtype.numpy.itemsize
    return nbytes <= MOST_BYTES and _pays(attrs, x, w)


def _pays(attrs: Attrs, x: Tensor, w: Tensor) -> bool:
    """Tell whether the products that are saved take longer than the transforms."""
    sizes = _sizes(x, attrs["padding"])
    pairs = w.shape[0] * w.shape[1]
    places = x.shape[0] * prod(sizes)
    tiles = x.shape[0] * prod(-(-size // TILE) for size in sizes)
    plain = KERNEL**2 * pairs * _up(places, COSTS.rows)
    patches = PATCH**2 * tiles * w.shape[1] * COSTS.patch
    kernels = 0 if is_known(w.value) else PATCH**2 * pairs * COSTS.kernel
    results = places * w.shape[0] * COSTS.result
    products = PATCH**2 * pairs * _up(tiles, COSTS.rows)
    return products + patches + kernels + results + COSTS.start < COSTS.margin * plain


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _sizes(x: Tensor, padding: tuple[tuple[int, int], ...]) -> Shape:
    """Return the spatial sizes of the result."""
    return tuple(
        size + low + high - KERNEL + 1
        for size, (low, high) in zip(x.shape[2:], padding, strict=True)
    )


def _image_tiles(
    x: Tensor, padding: tuple[tuple[int, int], ...], tiles: tuple[int, ...], is_last: bool
) -> Tensor:
    """Return Bᵀ d B of every tile: [16, c, n * tiles], made up to whole vectors, or
    [16, n * tiles, c]."""
    lows = [low for low, _ in padding]
    ends = [
        TILE * (count - 1) + PATCH - size - low
        for count, size, low in zip(tiles, x.shape[2:], lows, strict=True)
    ]
    whole = pad(x, low=(0, 0, *lows), high=(0, 0, *ends), fill=0.0)
    found = windows(whole, sizes=(PATCH, PATCH), strides=(TILE, TILE), dilation=(1, 1))
    lead = found.ndim - 2
    patch = [[_at(found, lead, i, j) for j in range(PATCH)] for i in range(PATCH)]
    half = [_image_axis([patch[i][j] for i in range(PATCH)]) for j in range(PATCH)]
    members = [
        part for i in range(PATCH) for part in _image_axis([half[j][i] for j in range(PATCH)])
    ]
    count = x.shape[0] * prod(tiles)
    return _stacked([_in_row(member, count, is_last) for member in members])


def _in_row(member: Tensor, count: int, is_last: bool) -> Tensor:
    """Return [n, c, *tiles] as [c, n * tiles], with zeros up to whole vectors, or as
    [n * tiles, c]."""
    if is_last:
        rows: Tensor = reshape(to_last(member), shape=(count, member.shape[1]))
        return rows
    turned = permute(member, axes=(1, 0, 2, 3))
    row: Tensor = reshape(turned, shape=(member.shape[1], count))
    extra = _up(count, QUAD) - count
    if extra:
        row = pad(row, low=(0, 0), high=(0, extra), fill=0.0)
    return row


def _image_axis(d: list[Tensor]) -> list[Tensor]:
    """Return Bᵀ d along an axis."""
    return [sub(d[0], d[2]), add(d[1], d[2]), sub(d[2], d[1]), sub(d[1], d[3])]


def _kernel_tiles(w: Tensor) -> Tensor:
    """Return G g Gᵀ of every kernel: [16, o, c]."""
    taps = [[_at(w, 2, i, j) for j in range(KERNEL)] for i in range(KERNEL)]
    half = [_kernel_axis([taps[i][j] for i in range(KERNEL)]) for j in range(KERNEL)]
    members = [
        part for i in range(PATCH) for part in _kernel_axis([half[j][i] for j in range(KERNEL)])
    ]
    return _stacked(members)


def _kernel_axis(g: list[Tensor]) -> list[Tensor]:
    """Return G g along an axis."""
    outer, half = add(g[0], g[2]), constant(0.5)
    return [g[0], mul(add(outer, g[1]), half), mul(sub(outer, g[1]), half), g[2]]


def _results(products: Tensor, sizes: Shape, is_last: bool) -> Tensor:
    """Return Aᵀ m A of every tile, where the results lie: [n, o, *sizes] or [n, *sizes, o].

    Along an axis these are m1 + m2 + m0 and m1 - m2 - m3: one expression with a sign, and with
    every third product. Views come first, so that the sums are one kernel over the results.
    """

    def spread(i: int, j: int) -> Tensor:
        return _interleaved(_part(products, i, j), sizes, is_last)

    def sign(axis: int) -> Tensor:
        """Return 1 for a tile's first result along an axis, -1 for the second."""
        shape = (TILE, TILE, *products.shape[2:])
        second = iota(shape=shape, axis=axis, dtype=products.dtype)
        result: Tensor = sub(1.0, mul(2.0, _interleaved(second, sizes, is_last)))
        return result

    rows = [[spread(i, j) for j in range(3)] for i in range(3)]
    sign_of_row, sign_of_column = sign(0), sign(1)
    sums = [add(first, mul(sign_of_column, add(second, outer))) for first, second, outer in rows]
    result: Tensor = add(sums[0], mul(sign_of_row, add(sums[1], sums[2])))
    return result


_PARTS = ((1, 2, 1), (2, 3, 1), (0, 4, 3))  # m1, m2, and m0 with m3


def _part(products: Tensor, i: int, j: int) -> Tensor:
    """Return a part of the products along either axis, for both results along it."""
    (first, end, step), (other_first, other_end, other_step) = _PARTS[i], _PARTS[j]
    lead = products.shape[2:]
    cut = slice_(
        products,
        starts=(first, other_first, *(0 for _ in lead)),
        stops=(end, other_end, *lead),
        steps=(step, other_step, *(1 for _ in lead)),
    )
    result: Tensor = broadcast(cut, shape=(TILE, TILE, *lead))
    return result


def _interleaved(x: Tensor, sizes: Shape, is_last: bool) -> Tensor:
    """Return [2, 2, n, o, *tiles] as [n, o, *sizes], or [2, 2, n, *tiles, o] as [n, *sizes, o]; the
    last tiles may stand over."""
    down, across = x.shape[3:5] if is_last else x.shape[4:]
    whole = (TILE * down, TILE * across)
    axes = (2, 3, 0, 4, 1, 5) if is_last else (2, 3, 4, 0, 5, 1)
    shape = (x.shape[2], *whole, x.shape[5]) if is_last else (*x.shape[2:4], *whole)
    result: Tensor = reshape(permute(x, axes=axes), shape=shape)
    if whole != sizes:
        stops = (shape[0], *sizes, shape[3]) if is_last else (*shape[:2], *sizes)
        result = slice_(result, starts=(0, 0, 0, 0), stops=stops, steps=(1, 1, 1, 1))
    return result


def _at(x: Tensor, lead: int, i: int, j: int) -> Tensor:
    """Return element i, j of the last two axes, which go."""
    cut = slice_(
        x,
        starts=(*(0,) * lead, i, j),
        stops=(*x.shape[:lead], i + 1, j + 1),
        steps=(1,) * x.ndim,
    )
    result: Tensor = reshape(cut, shape=x.shape[:lead])
    return result


def _stacked(members: list[Tensor]) -> Tensor:
    size = members[0].size
    offsets = tuple(size * position for position in range(len(members)))
    whole = pack(*members, offsets=offsets, total=size * len(members))
    result: Tensor = reshape(whole, shape=(len(members), *members[0].shape))
    return result
