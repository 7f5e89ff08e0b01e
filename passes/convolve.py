"""Choose how every convolution is computed.

A *form* spells a convolution out in other ops, or declines it. The first form that does not
decline is taken; what is left becomes products of each image's patches. Patches are views: a
product reads the image through its index map, and no matrix of them is ever stored. On a processor
too: there storing it costs about the time that the plainer reads save.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product as every

from asg.graph import Attrs, Graph, Node, Value, rewrite
from asg.ops.convolution import convolution, patches, product
from asg.ops.movement import permute, reshape, slice_
from asg.ops.reduction import reduce_sum
from asg.tensor import Tensor

Form = Callable[[Attrs, Tensor, Tensor], Tensor | None]

UNROLLED = 32  # terms of a sum that is written out
FEW_CHANNELS = 4  # results of a group for which a product's tile would be nearly empty
SMALL_IMAGE = 32  # places in the result below which images share a product


@dataclass(frozen=True)
class Convolve:
    """Spell every convolution out in the form that suits its sizes.

    Comes after differentiation, which wants convolutions whole. Afterwards no node is one.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op is convolution for node in graph.nodes):
            return graph
        return rewrite(graph, _spell_out)


def _spell_out(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if node.op is not convolution:
        return None
    x, w = (Tensor(value) for value in inputs)
    for form in FORMS:
        result = form(node.attrs, x, w)
        if result is not None:
            return (result.value,)
    return (product(node.attrs, x, w).value,)


def channelwise(attrs: Attrs, x: Tensor, w: Tensor) -> Tensor | None:
    """Add up few terms for each element, as depthwise convolutions do: a map, without a loop."""
    groups, own, kernel = attrs["groups"], w.shape[1], w.shape[2:]
    if w.shape[0] > groups * FEW_CHANNELS or own * math.prod(kernel) > UNROLLED:
        return None
    if groups == 1 and w.shape[0] > 1:
        return None
    if w.size == 0 or x.size == 0:
        return None
    found, rows = _by_group(attrs, x, w)
    total: Tensor | None = None
    for channel, *place in every(*map(range, (own, *kernel))):
        term = _pick(found, 3, channel, place) * _pick(rows, 3, channel, place)
        total = term if total is None else total + term
    assert total is not None
    return _ungrouped(attrs, total, w)


def grouped_sums(attrs: Attrs, x: Tensor, w: Tensor) -> Tensor | None:
    """Sum up rows where each group has one result: a product of one row would be no better."""
    if w.shape[0] != attrs["groups"]:
        return None
    found, rows = _by_group(attrs, x, w)
    axes = (3, *range(found.ndim - (w.ndim - 2), found.ndim))
    return _ungrouped(attrs, reduce_sum(found * rows, axes=axes), w)


def joint_product(attrs: Attrs, x: Tensor, w: Tensor) -> Tensor | None:
    """Multiply kernels with the patches of all images at once, where those of one are few."""
    found = patches(attrs, x, w.shape[2:])
    places = w.ndim - 2
    images, spatial, groups = x.shape[0], found.shape[2 : 2 + places], attrs["groups"]
    area = math.prod(spatial)
    if images == 1 or (area >= SMALL_IMAGE and area % 4 == 0):
        return None
    own, out = w.shape[1], w.shape[0] // groups
    inner = own * math.prod(w.shape[2:])
    found = reshape(found, shape=(images, groups, own, *found.shape[2:]))
    axes = (1, 2, *range(3 + places, found.ndim), 0, *range(3, 3 + places))
    columns = reshape(permute(found, axes=axes), shape=(groups, inner, images * area))
    rows = reshape(w, shape=(groups, out, inner))
    result = reshape(rows @ columns, shape=(groups * out, images, *spatial))
    turned: Tensor = permute(result, axes=(1, 0, *range(2, result.ndim)))
    return turned


FORMS: tuple[Form, ...] = (channelwise, grouped_sums, joint_product)


def _by_group(attrs: Attrs, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return patches and kernels, both [n, groups, out, own, *places, *kernel]; of the kernels,
    the axes of images and places are 1."""
    groups, (out, own), places = attrs["groups"], w.shape[:2], w.ndim - 2
    found = patches(attrs, x, w.shape[2:])
    found = reshape(found, shape=(x.shape[0], groups, 1, own, *found.shape[2:]))
    rows = reshape(w, shape=(1, groups, out // groups, own, *(1,) * places, *w.shape[2:]))
    return found, rows


def _ungrouped(attrs: Attrs, total: Tensor, w: Tensor) -> Tensor:
    """Return [n, groups, out, *places] as [n, groups * out, *places]."""
    result: Tensor = reshape(total, shape=(total.shape[0], w.shape[0], *total.shape[3:]))
    return result


def _pick(x: Tensor, axis: int, channel: int, place: list[int]) -> Tensor:
    """Return `x` at one channel, along `axis`, and one place in the kernel, without their axes."""
    starts = [0] * x.ndim
    stops = list(x.shape)
    for at, chosen in zip(
        (axis, *range(x.ndim - len(place), x.ndim)), (channel, *place), strict=True
    ):
        starts[at], stops[at] = chosen, chosen + 1
    part = slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.ndim)
    shape = (*x.shape[:axis], *x.shape[axis + 1 : x.ndim - len(place)])
    result: Tensor = reshape(part, shape=shape)
    return result
