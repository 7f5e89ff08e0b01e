"""What layouts of images cost, as plain numbers: measured on Mesa's software driver.

The unit is a multiply-add of a product. What takes the same time either way is left out; so are
kernels and results of products, which are read and written either way round at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from asg.graph import Node
from asg.ops.convolution import convolution
from asg.passes.convolve import is_grouped_sum
from asg.passes.known import is_known
from asg.passes.winograd import is_transformed
from asg.tensor import Tensor


@dataclass(frozen=True)
class LayoutCosts:
    """Of images with channels first or last, read and written by whom.

    Attributes:
        scattered: part of a product's multiply-adds that it takes longer where neighbours along
            places do not lie side by side: because of steps, padding, or rows of odd length.
        few: the same for images below `places`, whose rows leave tiles half empty.
        gradient: the same for gradients of kernels, whose both operands are images.
        kernel: the same where kernels of several taps are no constants, and so are not stored as
            patches with channels last want them.
        patch, result: an element of what Winograd's transforms read and write.
        sums: an element of a depthwise convolution with channels first, where it takes steps;
            `few_sums` in images below `places`; `last_sums` with channels last, where it does not.
        mixed: an element of what such maps read in one layout and write in the other.
        statistic: an element of an image with channels last whose channels are summed up;
            `standardized`: that is spelt out in several sums and maps, which are one kernel where
            the places of a channel are a row.
        turned: an element of an image that is handed out, or taken apart, in the other layout.
        margin: the part of all multiply-adds that must be saved.
    """

    scattered: float = 0.15
    few: float = 0.3
    gradient: float = 0.3
    kernel: float = 0.15
    places: int = 64
    patch: float = 3.0
    result: float = 35.0
    sums: float = 10.0
    few_sums: float = 60.0
    last_sums: float = 25.0
    mixed: float = 60.0
    statistic: float = 10.0
    standardized: float = 60.0
    turned: float = 15.0
    margin: float = 0.02


COSTS = LayoutCosts()


def convolution_cost(node: Node, operand: bool, kernel: bool | None, result: bool) -> float:
    """Return what a convolution takes more than it might.

    `operand`, `result` and `kernel` tell whether channels come last; None: the kernel is no image.
    """
    assert node.op is convolution
    x, w = (Tensor(value) for value in node.inputs)
    places = prod(node.type.shape[2:])
    if is_grouped_sum(node.attrs, w):
        return _of_sums(node, places, operand, result)
    if kernel is not None:
        return 0.0 if operand and kernel else COSTS.gradient * product_size(node)
    if is_transformed(node.attrs, x, w):
        patches = 4.0 * x.size
        reading = COSTS.mixed * x.size if operand != result else 0.0
        return reading + (0.0 if result else patches * COSTS.patch + node.type.size * COSTS.result)
    if operand:
        is_plain = prod(w.shape[2:]) == 1 or is_known(w.value)
        return 0.0 if is_plain else COSTS.kernel * product_size(node)
    if places < COSTS.places:
        return COSTS.few * product_size(node)
    return COSTS.scattered * product_size(node) if _is_scattered(node, places) else 0.0


def product_size(node: Node) -> int:
    """Return the multiply-adds of a convolution."""
    return node.type.size * prod(node.inputs[1].type.shape[1:])


def _of_sums(node: Node, places: int, operand: bool, result: bool) -> float:
    if operand != result:
        return COSTS.mixed * node.type.size
    is_strided = max(node.attrs["strides"]) > 1
    if not result:
        each = COSTS.sums if is_strided else 0.0
        return (COSTS.few_sums if places < COSTS.places else each) * node.type.size
    if not is_known(node.inputs[1]):
        return COSTS.mixed * node.type.size
    return 0.0 if is_strided or places < COSTS.places else COSTS.last_sums * node.type.size


def _is_scattered(node: Node, places: int) -> bool:
    attrs, kernel = node.attrs, node.inputs[1].type.shape[2:]
    return max(*kernel, *attrs["strides"], *attrs["lhs_dilation"]) > 1 or places % 4 != 0
