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

from asg.graph import Attrs, Graph, Node, Value, rewrite
from asg.ops.convolution import convolution, patches, product
from asg.ops.movement import permute, reshape
from asg.ops.reduction import reduce_sum
from asg.passes.winograd import winograd
from asg.tensor import Tensor

Form = Callable[[Attrs, Tensor, Tensor], Tensor | None]

FEW_ROWS, FEW_COLUMNS = 4, 32  # of a group's kernels, for which a tile would be nearly empty
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


def grouped_sums(attrs: Attrs, x: Tensor, w: Tensor) -> Tensor | None:
    """Sum up products element by element, as depthwise convolutions want it. `UnrollWindows` takes
    it on."""
    if not is_grouped_sum(attrs, w):
        return None
    places, out, own = w.ndim - 2, w.shape[0] // attrs["groups"], w.shape[1]
    found = patches(attrs, x, w.shape[2:])
    found = reshape(found, shape=(x.shape[0], attrs["groups"], 1, own, *found.shape[2:]))
    rows = reshape(w, shape=(1, attrs["groups"], out, own, *(1,) * places, *w.shape[2:]))
    axes = (3, *range(found.ndim - places, found.ndim))
    total = reduce_sum(found * rows, axes=axes)
    result: Tensor = reshape(total, shape=(x.shape[0], w.shape[0], *total.shape[3:]))
    return result


def is_grouped_sum(attrs: Attrs, w: Tensor) -> bool:
    """Tell whether a group has so few results that products of matrices are no better than sums."""
    out = w.shape[0] // attrs["groups"]
    is_small = attrs["groups"] > 1 and out <= FEW_ROWS and math.prod(w.shape[1:]) <= FEW_COLUMNS
    return out == 1 or is_small


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


FORMS: tuple[Form, ...] = (grouped_sums, winograd, joint_product)
