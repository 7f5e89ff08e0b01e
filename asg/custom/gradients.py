"""Functions over tensors whose gradient is given, not derived.

    def backward(cotangent, result, x, *, top):
        return cotangent * result

    @asg.custom_gradient(backward)
    def clipped_exp(x, *, top=10.0):
        return asg.exp(asg.minimum(x, top))

The function becomes an op that is spelt out when it is compiled. Differentiation sees it whole and
calls `backward`, which builds a graph of ordinary ops, so second derivatives come for free.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from asg.custom.rules import (
    Signature,
    as_tensors,
    check_name,
    guard_expansion,
    guard_gradient,
    type_of,
)
from asg.errors import GraphError
from asg.evaluate import Precision, evaluate
from asg.format import format_attribute
from asg.graph import Attrs, Graph, Node
from asg.op import Array, Composite, Op, ShapeRule
from asg.ops.sources import input
from asg.types import TensorType

Function = Callable[..., Any]
CACHED = 64  # graphs that a function keeps


def custom_gradient(backward: Function, *, name: str | None = None) -> Callable[[Function], Op]:
    """Return a decorator that makes an op of a function over tensors.

    Tensors are given by position, static attributes by keyword-only parameters. What the function
    computes may depend on these alone: a tensor from outside would get no gradient, and is refused.

    Args:
        backward: `backward(cotangent, result, *operands, **attributes)` gives a cotangent for
            each operand, or None; with several results, the first two are tuples.
        name: of the op; that of the function unless told.
    """

    def decorate(function: Function) -> Op:
        op_name = check_name(name or function.__name__)
        signature = Signature.of(op_name, function)
        body = Body(op_name, signature, function)
        return Op(
            name=op_name,
            doc=inspect.getdoc(function) or "A function with a gradient of its own.",
            kind=Composite(guard_expansion(op_name, body.types, function), is_call=True),
            shape=body.types,
            numpy=body.run,
            grad=guard_gradient(op_name, backward),
            examples=(), samples=(), errors=(),
            defaults=signature.defaults,
        )  # fmt: skip

    return decorate


class Body:
    """A function over tensors as a graph of its own, for operands of given types."""

    def __init__(self, name: str, signature: Signature, function: Function) -> None:
        self.name = name
        self.signature = signature
        self.function = function
        self._graphs: dict[object, Graph] = {}

    @property
    def types(self) -> ShapeRule:
        """The type rule: what the function gives."""
        return self._types

    def _types(
        self, types: tuple[TensorType, ...], attrs: Attrs
    ) -> TensorType | tuple[TensorType, ...]:
        self.signature.check(len(types), attrs)
        found = tuple(value.type for value in self.graph(types, attrs).outputs.values())
        return found if len(found) > 1 else found[0]

    def run(self, *arrays: Array, **attrs: Any) -> Any:
        """Compute the function with NumPy."""
        types = tuple(type_of(array) for array in arrays)
        graph = self.graph(types, attrs)
        given = dict(zip(self.names(len(arrays)), arrays, strict=True))
        is_double = any(array.dtype == np.float64 for array in arrays)
        precision: Precision = "f64" if is_double else "f32"
        found = evaluate(graph, given, precision)
        return tuple(found) if len(found) > 1 else found[0]

    def graph(self, types: tuple[TensorType, ...], attrs: Attrs) -> Graph:
        """Return what the function makes of operands of these types.

        Raises:
            GraphError: it uses a tensor from outside.
        """
        # As texts, 1 and 1.0 and true are three things.
        key = types, tuple((key, format_attribute(attrs[key])) for key in sorted(attrs))
        if key not in self._graphs:
            if len(self._graphs) >= CACHED:
                self._graphs.clear()
            self._graphs[key] = self._trace(types, attrs)
        return self._graphs[key]

    def _trace(self, types: tuple[TensorType, ...], attrs: Attrs) -> Graph:
        named = zip(self.names(len(types)), types, strict=True)
        operands = [input(name, type_) for name, type_ in named]
        results = as_tensors(self.name, self.function(*operands, **attrs))
        own = {operand.node for operand in operands}
        self._check_closed([result.node for result in results], own)
        outputs = {f"result {place}": each.value for place, each in enumerate(results)}
        return Graph.build(outputs, name=self.name, inputs=[each.node for each in operands])

    def _check_closed(self, roots: list[Node], own: set[Node]) -> None:
        """Refuse inputs from outside of the function, which would get no gradient."""
        seen: set[Node] = set()
        pending = list(roots)
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            pending.extend(value.node for value in node.inputs)
            if node.is_input and node not in own:
                raise GraphError(
                    f"{self.name}: uses {node.attrs['role']} {node.attrs['name']!r} from outside\n"
                    "  fix: make it an operand"
                )

    def names(self, count: int) -> list[str]:
        """Return what the operands are called inside."""
        known = self.signature.operands
        return list(known) if len(known) == count else [f"operand_{n}" for n in range(count)]
