"""Which inputs of a model decide shapes: found by walking back from where values become sizes.

A `Reshape` needs the value of its second operand before there is a graph. The walk starts at all
such operands, follows them through the nodes that make them, and stops at weights, constants and
at `Shape`, which needs sizes only. The inputs that it ends at are *static*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asg.onnx.model import Model, all_nodes, domain_of
from asg.onnx.registry import Table

_ONLY_SIZES = ("Shape", "Size")
# Operands of functions of ONNX that have no converter here.
_OF_FUNCTIONS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
}
_ALL = -1


class Walk:
    """Makers of values by name, in one graph with all those inside it, or one function."""

    def __init__(
        self,
        model: Model,
        table: Table,
        nodes: Iterable[Any],
        known: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._model, self._table = model, table
        self._known = {} if known is None else known  # operands of the model's functions
        self._nodes = list(all_nodes(nodes))
        self._makers = {name: node for node in self._nodes for name in node.output if name}

    def reached(self) -> set[str]:
        """Return every name whose value decides a shape, with those that it is made of."""
        pending = [name for node in self._nodes for name in self._roots(node)]
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if name in seen or not name:
                continue
            seen.add(name)
            node = self._makers.get(name)
            if node is not None and node.op_type not in _ONLY_SIZES:
                pending.extend(_read(node))
        return seen

    def _roots(self, node: Any) -> list[str]:
        """Return the operands of a node whose values decide shapes."""
        domain = domain_of(node)
        places = self._places(domain, node)
        return [
            name
            for place, name in enumerate(node.input)
            if name and (place in places or _ALL in places)
        ]

    def _places(self, domain: str, node: Any) -> tuple[int, ...]:
        local = self._model.functions.get((domain, node.op_type, node.overload))
        if local is not None:
            key = f"{domain}.{node.op_type}.{node.overload}"
            if key not in self._known:
                self._known[key] = ()  # a function that calls itself is refused later
                inner = Walk(self._model, self._table, local.node, self._known).reached()
                places = (place for place, name in enumerate(local.input) if name in inner)
                self._known[key] = tuple(places)
            return self._known[key]
        found = self._table.find(domain, node.op_type, self._model.opsets.get(domain, 1))
        if found is not None:
            return found.statics
        return _OF_FUNCTIONS.get(node.op_type, ()) if not domain else ()


def static_inputs(model: Model, table: Table) -> list[str]:
    """Return the inputs of a model whose values decide shapes. They have one axis at most."""
    reached = Walk(model, table, model.graph.node).reached()
    return [
        each.name
        for each in model.inputs
        if each.name in reached
        and len(each.type.tensor_type.shape.dim) <= 1
        and each.type.tensor_type.HasField("shape")
    ]


def _read(node: Any) -> list[str]:
    """Return what a node reads, with what the graphs inside it read."""
    names = list(node.input)
    for inner in all_nodes([node]):
        names += inner.input
        for each in inner.attribute:
            if each.HasField("g"):
                names += [output.name for output in each.g.output]
    return names
