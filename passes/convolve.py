"""Choose how every convolution is computed.

A *form* spells a convolution out in other ops, or declines it. The first form that does not
decline is taken; what is left becomes products of each image's patches. Patches are views: a
product reads the image through its index map, and no matrix of them is ever stored. On a processor
too: there storing it costs about the time that the plainer reads save.

A form follows the order in which its operand lies in memory and its result is read: of an image
with channels last, patches have their channels last too, so that neighbours of the inner axis are
neighbours in memory; results whose channels should come last are the transposed product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asg.graph import Attrs, Graph, Literal, Node, Value, rewrite
from asg.ops.convolution import convolution, patches, product
from asg.ops.linear import matmul_, swap_last
from asg.ops.movement import permute, reshape
from asg.ops.reduction import reduce_sum
from asg.ops.sources import constant_
from asg.passes.known import viewed_constant
from asg.passes.layouts import dense_axis, first_axes, is_read_last, last_axes, to_first
from asg.passes.winograd import winograd as transformed
from asg.tensor import Tensor

IMAGES, CHANNELS = 0, 1


@dataclass(frozen=True)
class Order:
    """How a convolution's operand lies in memory, and how its result should.

    Attributes:
        dense: the axis along which neighbours of the operand lie beside each other: places, or
            channels, which come last then; of the gradient of a kernel, whose operand has images
            for channels and channels for images, the images.
        result_last: the result's channels come last.
    """

    dense: int | None = None
    result_last: bool = False


Form = Callable[[Attrs, Tensor, Tensor, Order], Tensor | None]

FEW_ROWS, FEW_COLUMNS = 4, 32  # of a group's kernels, for which a tile would be nearly empty
SMALL_IMAGE = 32  # places in the result below which images share a product


@dataclass(frozen=True)
class Convolve:
    """Spell every convolution out in the form that suits its sizes and the order in memory.

    Comes after differentiation, which wants convolutions whole. Afterwards no node is one.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op is convolution for node in graph.nodes):
            return graph

        def spell_out(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if _is_turned_result(node, inputs):
                return inputs[0].node.inputs  # as it is stored
            if node.op is not convolution:
                return None
            is_image = math.prod(node.inputs[0].type.shape[2:]) > 1
            dense = dense_axis(inputs[0]) if is_image else None
            order = Order(dense, is_read_last(graph, Value(node)))
            return (_spelt_out(node.attrs, Tensor(inputs[0]), Tensor(inputs[1]), order).value,)

        return rewrite(graph, spell_out)


def _is_turned_result(node: Node, inputs: tuple[Value, ...]) -> bool:
    """Tell whether a node moves a convolution's channels to where they lie already."""
    if node.op is not permute or node.inputs[0].node.op is not convolution:
        return False
    below = inputs[0].node
    is_first = below.op is permute and below.attrs["axes"] == first_axes(node.type.rank)
    return is_first and node.attrs["axes"] == last_axes(node.type.rank)


def _spelt_out(attrs: Attrs, x: Tensor, w: Tensor, order: Order) -> Tensor:
    for form in FORMS:
        result = form(attrs, x, w, order)
        if result is not None:
            return result
    return product(attrs, x, w)


def grouped_sums(attrs: Attrs, x: Tensor, w: Tensor, order: Order) -> Tensor | None:
    """Sum up products element by element, as depthwise convolutions want it. `UnrollWindows` takes
    it on."""
    if not is_grouped_sum(attrs, w):
        return None
    places, out, own = w.ndim - 2, w.shape[0] // attrs["groups"], w.shape[1]
    found = patches(attrs, x, w.shape[2:])
    found = reshape(found, shape=(x.shape[0], attrs["groups"], 1, own, *found.shape[2:]))
    rows = reshape(w, shape=(1, attrs["groups"], out, own, *(1,) * places, *w.shape[2:]))
    if order.result_last:
        return _sums_last(found, rows)
    axes = (3, *range(found.ndim - places, found.ndim))
    total = reduce_sum(found * rows, axes=axes)
    result: Tensor = reshape(total, shape=(x.shape[0], w.shape[0], *total.shape[3:]))
    return result


def _sums_last(found: Tensor, rows: Tensor) -> Tensor:
    """Return the sums of patches [n, groups, 1, own, *places, *kernel] times kernels, whose groups
    come last."""
    places = (found.ndim - 4) // 2
    spatial, kernel = range(4, 4 + places), range(4 + places, found.ndim)
    axes = (0, *spatial, 3, *kernel, 1, 2)
    rows = arranged(rows, axes)
    inner = tuple(range(1 + places, found.ndim - 2))
    total = reduce_sum(permute(found, axes=axes) * rows, axes=inner)
    lead = total.shape[: 1 + places]
    return to_first(reshape(total, shape=(*lead, math.prod(total.shape[1 + places :]))))


def is_grouped_sum(attrs: Attrs, w: Tensor) -> bool:
    """Tell whether a group has so few results that products of matrices are no better than sums."""
    out = w.shape[0] // attrs["groups"]
    is_small = attrs["groups"] > 1 and out <= FEW_ROWS and math.prod(w.shape[1:]) <= FEW_COLUMNS
    return out == 1 or is_small


def arranged(w: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return kernels with permuted axes; constants are stored that way."""
    array = viewed_constant(w.value)
    result: Tensor
    if array is None:
        result = permute(w, axes=axes)
    else:
        result = constant_(value=Literal(np.ascontiguousarray(array.transpose(axes))))
    return result


def ordered_product(attrs: Attrs, x: Tensor, w: Tensor, order: Order) -> Tensor | None:
    """Multiply kernels with the patches of all images at once, where channels are last in operand
    or result, or where one image has few places."""
    found = patches(attrs, x, w.shape[2:])
    places = w.ndim - 2
    images, spatial, groups = x.shape[0], found.shape[2 : 2 + places], attrs["groups"]
    area = math.prod(spatial)
    is_joint = images > 1 and (area < SMALL_IMAGE or area % 4 != 0)
    if not (is_joint or order.dense in (IMAGES, CHANNELS) or order.result_last):
        return None
    own, out = w.shape[1], w.shape[0] // groups
    inner = own * math.prod(w.shape[2:])
    found = reshape(found, shape=(images, groups, own, *found.shape[2:]))
    spread, kernel = range(3, 3 + places), range(3 + places, found.ndim)
    within = (*kernel, 2) if order.dense == CHANNELS else (2, *kernel)
    across = (*spread, 0) if order.dense == IMAGES else (0, *spread)
    columns = reshape(
        permute(found, axes=(1, *within, *across)), shape=(groups, inner, images * area)
    )
    rows = reshape(w, shape=(groups, out, *w.shape[1:]))
    if order.dense == CHANNELS and inner > own:
        rows = arranged(rows, (0, 1, *range(3, rows.ndim), 2))
    rows = reshape(rows, shape=(groups, out, inner))
    sizes = (*spatial, images) if order.dense == IMAGES else (images, *spatial)
    if order.result_last and order.dense != IMAGES:
        result = matmul_(swap_last(columns), swap_last(rows))
        result = reshape(result, shape=(groups, *sizes, out))
        result = permute(result, axes=(*range(1, 2 + places), 0, 2 + places))
        return to_first(reshape(result, shape=(*sizes, groups * out)))
    result = reshape(matmul_(rows, columns), shape=(groups * out, *sizes))
    turned: Tensor
    if order.dense == IMAGES:
        turned = permute(result, axes=(1 + places, 0, *range(1, 1 + places)))
    else:
        turned = permute(result, axes=(1, 0, *range(2, result.ndim)))
    return turned


def winograd(attrs: Attrs, x: Tensor, w: Tensor, order: Order) -> Tensor | None:
    """Take Winograd's transforms, where they pay."""
    return transformed(attrs, x, w, order.result_last)


FORMS: tuple[Form, ...] = (grouped_sums, winograd, ordered_product)
