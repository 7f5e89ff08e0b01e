"""What rewrite rules are made of: a pattern, a replacement, and a look at uniform values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.graph import Node, Value
from asg.op import Op
from asg.ops.movement import broadcast, reshape
from asg.ops.sources import constant, constant_
from asg.tensor import Tensor
from asg.types import Shape, TensorType

Captures = tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """A rewrite: `pattern(node)` returns what `replace` is called with, or None.

    The operands of `node` are simplified already, so patterns look at normal forms only. A
    replacement computes the same values (rounding apart) and never reads the node itself.
    `roots` are the ops that the rule is tried on; none means all.
    """

    name: str
    roots: tuple[Op, ...]
    pattern: Callable[[Node], Captures | None]
    replace: Callable[..., Tensor]

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


def operand(node: Node, position: int) -> Tensor:
    """Return an operand as a tensor."""
    return Tensor(node.inputs[position])


def made_by(value: Value, op: Op) -> Node | None:
    """Return the node that makes `value`, if it is one of `op`."""
    return value.node if value.node.op is op else None


def uniform(value: Value) -> Any:
    """Return the number that every element of a constant value is, or None."""
    node = value.node
    while node.op is broadcast or node.op is reshape:
        node = node.inputs[0].node
    if node.op is not constant_ or node.type.size != 1:
        return None
    return node.attrs["value"].array.reshape(())[()]


def is_uniform(value: Value, number: float) -> bool:
    """Tell whether every element of a constant value is `number`."""
    found = uniform(value)
    return found is not None and bool(found == number)


def full(number: Any, type_: TensorType) -> Tensor:
    """Return a tensor with every element `number`."""
    return spread(constant(np.asarray(number).astype(type_.dtype.numpy)), type_.shape)


def spread(x: Tensor, shape: Shape) -> Tensor:
    """Return `x` broadcast to `shape`, or `x` itself where it has that shape."""
    result: Tensor = x if x.shape == shape else broadcast(x, shape=shape)
    return result


def as_scalar(x: Tensor) -> Tensor:
    """Return a tensor of one element without axes."""
    result: Tensor = reshape(x, shape=()) if x.shape else x
    return result
