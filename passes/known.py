"""What is known of values before a program runs, however large they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from asg.graph import Node, Value
from asg.narrow import evaluate
from asg.op import Elementwise, View
from asg.ops.sources import constant_

Array = np.ndarray[Any, Any]


def viewed_constant(value: Value) -> Array | None:
    """Return the array that `value` always is, where it is a constant seen through views.

    What is broadcast keeps strides of zero, so that nothing large is made of something small.
    """
    chain = _views(value)
    if not is_known(value):
        return None
    array: Array = chain.pop().attrs["value"].array
    for view in reversed(chain):
        array = view.op.numpy(array, **view.attrs)
    return array


def is_known(value: Value) -> bool:
    """Tell whether `value` is a constant, maybe seen through views."""
    return _views(value)[-1].op is constant_


def _views(value: Value) -> list[Node]:
    """Return the views that a value is made by, and last what they look at."""
    chain = [value.node]
    while isinstance(chain[-1].op.kind, View) and len(chain[-1].inputs) == 1:
        chain.append(chain[-1].inputs[0].node)
    return chain


def per_channel(value: Value, axis: int) -> Array | None:
    """Return the numbers of a value that is known and varies along `axis` only, as [size].

    It may be computed elementwise from others of that kind.
    """
    found: dict[Value, Array | None] = {}
    pending = [value]
    while pending:
        last = pending[-1]
        if last in found:
            pending.pop()
            continue
        node = last.node
        if not isinstance(node.op.kind, Elementwise) or len(node.types) > 1:
            found[last] = _along(viewed_constant(last), last, axis)
            continue
        waiting = [each for each in node.inputs if each not in found]
        if waiting:
            pending.extend(waiting)
            continue
        found[last] = _computed(node, [found[each] for each in node.inputs])
    return found[value]


def _computed(node: Node, operands: list[Array | None]) -> Array | None:
    arrays = [each for each in operands if each is not None]
    if not arrays or len(arrays) < len(operands):
        return None
    with np.errstate(all="ignore"):  # shapes are not those of the node: axes that repeat are gone
        (found,) = evaluate(node.op, arrays, node.attrs, node.types)
    return found.astype(node.type.dtype.numpy)


def _along(array: Array | None, value: Value, axis: int) -> Array | None:
    if array is None or array.ndim <= axis or array.size == 0:
        return None
    steps = [
        stride
        for position, (stride, size) in enumerate(zip(array.strides, array.shape, strict=True))
        if position != axis and size > 1
    ]
    if any(steps):
        return None
    first: tuple[int | slice, ...] = (0,) * axis
    last: tuple[int | slice, ...] = (0,) * (array.ndim - axis - 1)
    return np.ascontiguousarray(array[(*first, slice(None), *last)])
