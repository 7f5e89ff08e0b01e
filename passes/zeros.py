"""Whether a kernel writes zero where a flat join has a gap.

The gaps of a join hold zero, always: whoever sums a join sums them too. A result may take the
memory of a join only if it is zero there, as `p - lr * g` is where `p` and `g` are joins of one
layout. The test follows one gap element through the kernel: a number where it is known, else
nothing; an op with unknown operands gives zero if it does for a spread of sample values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asg.graph import Literal, Node, Value
from asg.index import flatten, unflatten, variable
from asg.narrow import evaluate
from asg.op import Elementwise, View
from asg.passes.kernels import FusedKernel, FusionPlan
from asg.types import DType

_SAMPLES: dict[DType, Sequence[float]] = {
    DType.F32: (-1e30, -3.0, -0.5, 1e-6, 0.25, 1.0, 7.0, 1e30),
    DType.I32: (-(2**31), -3, -1, 1, 2, 7, 2**31 - 1),
    DType.U32: (1, 2, 7, 2**31, 2**32 - 1),
    DType.BOOL: (False, True),
}
_MOST_UNKNOWN = 3  # operands; the samples of all of them are combined


def is_zero_in_gaps(
    plan: FusionPlan,
    kernel: FusedKernel,
    output: Value,
    is_zero_leaf: Callable[[Value], bool],
) -> bool:
    """Tell whether `output` is zero in the gaps, where the reads that `is_zero_leaf` names are.

    A false answer may only mean that nobody could tell.
    """
    if output.type.dtype is DType.BOOL:
        return False
    inside = set(kernel.nodes)
    gap: dict[Value, float | None] = {}  # the element in a gap
    uniform: dict[Value, float] = {}  # values whose elements are all the same
    for value in kernel.reads:
        if is_zero_leaf(value):
            gap[value] = 0.0
    for node in plan.graph.nodes:
        constant = _uniform_constant(node)
        if constant is not None:
            uniform[Value(node)] = constant
        if node not in inside or Value(node) in kernel.reads:
            continue
        elements = [gap.get(value, uniform.get(value)) for value in node.inputs]
        match node.op.kind:
            case Elementwise():
                gap.update(zip(node.values, _evaluate(node, elements), strict=True))
            case View():
                if node.inputs[0] in uniform and not _has_fill(node):
                    uniform[Value(node)] = uniform[node.inputs[0]]
                elif _keeps_order(node):
                    gap[Value(node)] = elements[0]
            case _:
                pass  # mixes elements: nothing is known
    element = gap.get(output)
    # Were it -0, the next run would find another number in the gap than the first one did.
    return element == 0.0 and math.copysign(1.0, element) > 0


def _uniform_constant(node: Node) -> float | None:
    if node.inputs:
        return None
    for held in node.attrs.values():
        if isinstance(held, Literal) and held.array.size:
            first = held.array.flat[0]
            return float(first) if (held.array == first).all() else None
    return None


def _evaluate(node: Node, elements: Sequence[float | None]) -> list[float | None]:
    """Return each result for operands of which some are known."""
    unknown = [position for position, element in enumerate(elements) if element is None]
    if len(unknown) > _MOST_UNKNOWN:
        return [None] * len(node.types)
    choices = [
        _SAMPLES[value.type.dtype.compute] if element is None else (element,)
        for value, element in zip(node.inputs, elements, strict=True)
    ]
    columns = list(zip(*itertools.product(*choices), strict=True))
    operands = [
        np.array(column, value.type.dtype.compute.numpy).astype(value.type.dtype.numpy)
        for column, value in zip(columns, node.inputs, strict=True)
    ]
    with np.errstate(all="ignore"):
        results = evaluate(node.op, operands, node.attrs, node.types)
    return [
        _agreed(result, type_.dtype, bool(unknown))
        for result, type_ in zip(results, node.types, strict=True)
    ]


def _agreed(result: Any, dtype: DType, is_sampled: bool) -> float | None:
    """Return the one number that all samples give; from samples only zero is believed.

    NaN is left out: an operand that makes one (infinity times zero) has spoilt all the rest too.
    """
    if is_sampled and dtype is DType.BOOL:
        return None
    numbers = np.asarray(result).astype(np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if not numbers.size or (numbers != numbers[0]).any():
        return None
    if numbers[0] == 0.0:
        return -0.0 if np.signbit(numbers).any() else 0.0
    return None if is_sampled else float(numbers[0])


def _has_fill(node: Node) -> bool:
    return bool(_access(node, None).guards)


def _keeps_order(node: Node) -> bool:
    """Tell whether a view only changes the shape."""
    source, target = node.inputs[0].type, node.type
    if source.size != target.size:
        return False
    position = variable("position", target.size)
    access = _access(node, position)
    return not access.guards and flatten(access.coordinates, source.shape) == position


def _access(node: Node, position: Any) -> Any:
    kind = node.op.kind
    assert isinstance(kind, View)
    if position is None:
        position = variable("position", node.type.size)
    coordinates = unflatten(position, node.type.shape)
    return kind.access(node.attrs, node.inputs[0].type.shape, node.type.shape, coordinates)
