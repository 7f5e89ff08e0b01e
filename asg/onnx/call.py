"""What a converter sees: one node with its operands, attributes and declared results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from asg.errors import GraphError
from asg.onnx.dtypes import Array, NumpyType
from asg.onnx.problems import NodeUnsupportedError
from asg.tensor import Tensor
from asg.types import DType, Shape

if TYPE_CHECKING:
    from asg.onnx.importer import Importer, Scope

_KINDS = onnx.AttributeProto


@dataclass(eq=False)
class Operand:
    """A value while a model is imported: known already (`array`), or a tensor of the graph.

    `dtype` is the type that ONNX gives it, which may be wider than the one computed here.
    `is_parameter`: it is a weight, which is no constant to the graph although it is known.
    `items`: it is a sequence of others.
    """

    name: str
    dtype: NumpyType
    array: Array | None = None
    tensor: Tensor | None = None
    is_parameter: bool = False
    items: tuple[Operand, ...] | None = None

    @property
    def shape(self) -> Shape:
        if self.array is not None:
            return tuple(self.array.shape)
        if self.tensor is None:
            raise GraphError(f"{self.name!r} is a sequence, which has no shape")
        return self.tensor.shape

    @property
    def is_constant(self) -> bool:
        return self.array is not None and not self.is_parameter


@dataclass(frozen=True)
class Typed:
    """A result with the ONNX type that it has, where the schema does not tell."""

    value: Any
    dtype: NumpyType


class Call:
    """One ONNX node, as its converter sees it.

    Operands: `call[i]` is a tensor; `call.optional(i)` a tensor or None; `call.constant(i)` an
    array where the value is known now, else None; `call.static(i, "the axes")` insists on one.
    Attributes: `call.get_int("axis", 0)`, `call.get_ints("perm")` … take the model's value, else
    the default given, else that of ONNX. `raise call.unsupported(reason, fix)` where a node
    means something that can't be compiled, `call.malformed(reason)` where it means nothing.
    """

    def __init__(
        self,
        importer: Importer,
        scope: Scope,
        node: Any,
        opset: int,
        schema: Any,
        operands: Sequence[Operand | None],
    ) -> None:
        self.importer, self.scope = importer, scope
        self.node, self.opset, self.schema = node, opset, schema
        self.operands = tuple(operands)
        self.op: str = node.op_type
        self._attributes = {each.name: each for each in node.attribute}

    # -- operands -----------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of operands, absent ones at the end not counted."""
        return len(self.operands)

    def has(self, position: int) -> bool:
        """Tell whether an operand is given."""
        return position < len(self.operands) and self.operands[position] is not None

    def operand(self, position: int) -> Operand:
        """Return an operand that must be given."""
        found = self.operands[position] if position < len(self.operands) else None
        if found is None:
            raise self.malformed(f"operand {position} is missing")
        return found

    def __getitem__(self, position: int) -> Tensor:
        return self.importer.tensor(self.operand(position))

    def optional(self, position: int) -> Tensor | None:
        """Return an operand as a tensor, or None where it is left out."""
        return self[position] if self.has(position) else None

    @property
    def tensors(self) -> list[Tensor]:
        """All operands, each of which must be given."""
        return [self[position] for position in range(self.count)]

    def constant(self, position: int) -> Array | None:
        """Return the value of an operand where it is known when the graph is made, else None.

        Whole numbers keep ONNX's width: bounds of int64 need not fit i32.
        """
        return self.operand(position).array if self.has(position) else None

    def static(self, position: int, what: str) -> Array:
        """Return the value of an operand that must be known when the graph is made."""
        found = self.operand(position).array
        if found is None:
            raise self.unsupported(
                f"{what} (operand {position}) depends on what is computed at run time",
                "make it a constant or an input of the model",
            )
        return found

    def shape(self, position: int) -> Shape:
        """Return the shape of an operand."""
        return self.operand(position).shape

    def dtype(self, position: int) -> NumpyType:
        """Return the element type that ONNX gives an operand."""
        return self.operand(position).dtype

    def constant_tensor(self, value: Any, dtype: DType) -> Tensor:
        """Return a number or array as a constant of the graph."""
        from_array = self.importer.constant_tensor
        return from_array(np.asarray(value, dtype.numpy))

    # -- attributes ---------------------------------------------------------------------------

    def has_attribute(self, name: str) -> bool:
        """Tell whether the model gives the attribute a value."""
        return name in self._attributes

    def get_int(self, name: str, *default: int) -> int:
        """Return an attribute that is a whole number."""
        return int(self._attribute(name, _KINDS.INT, "i", default))

    def get_float(self, name: str, *default: float) -> float:
        """Return an attribute that is a number."""
        return float(self._attribute(name, _KINDS.FLOAT, "f", default))

    def get_text(self, name: str, *default: str) -> str:
        """Return an attribute that is a text."""
        found = self._attribute(name, _KINDS.STRING, "s", default)
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)

    def get_ints(self, name: str, *default: Sequence[int]) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        return tuple(map(int, self._attribute(name, _KINDS.INTS, "ints", default)))

    def get_floats(self, name: str, *default: Sequence[float]) -> tuple[float, ...]:
        """Return an attribute that is a list of numbers."""
        return tuple(map(float, self._attribute(name, _KINDS.FLOATS, "floats", default)))

    def get_texts(self, name: str, *default: Sequence[str]) -> tuple[str, ...]:
        """Return an attribute that is a list of texts."""
        found = self._attribute(name, _KINDS.STRINGS, "strings", default)
        return tuple(
            each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in found
        )

    def get_array(self, name: str) -> Array:
        """Return an attribute that is a tensor, which may be sparse."""
        given = self._attributes.get(name)
        if given is not None and given.type == _KINDS.SPARSE_TENSOR:
            return self.importer.array(given.sparse_tensor, name)
        return self.importer.array(self._attribute(name, _KINDS.TENSOR, "t", ()), name)

    def get_graph(self, name: str) -> Any:
        """Return an attribute that is a graph."""
        return self._attribute(name, _KINDS.GRAPH, "g", ())

    def _attribute(self, name: str, kind: Any, field: str, default: Sequence[Any]) -> Any:
        found = self._attributes.get(name)
        if found is None and default:
            return default[0]
        if found is None and self.schema is not None and name in self.schema.attributes:
            found = self.schema.attributes[name].default_value
        if found is None or found.type == 0:
            raise self.malformed(f"attribute {name!r} is missing")
        if found.type != kind:
            wanted, given = (_KINDS.AttributeType.Name(each) for each in (kind, found.type))
            raise self.malformed(f"attribute {name!r} is {given}, not {wanted}")
        return getattr(found, field)

    # -- results ------------------------------------------------------------------------------

    @property
    def output_count(self) -> int:
        """Number of results that the node names, unwanted ones between counted."""
        return len(self.node.output)

    def wants(self, position: int) -> bool:
        """Tell whether anybody wants a result."""
        return position < len(self.node.output) and bool(self.node.output[position])

    def run(self, graph: Any, arguments: Sequence[Operand]) -> list[Operand]:
        """Convert a graph that is an attribute, and return its results."""
        return self.importer.subgraph(graph, arguments, self.scope)

    # -- errors -------------------------------------------------------------------------------

    def unsupported(self, reason: str, fix: str = "") -> NodeUnsupportedError:
        """Return the error for a node that means something, but can't be compiled."""
        return NodeUnsupportedError(reason, fix)

    def malformed(self, reason: str) -> GraphError:
        """Return the error for a node that means nothing."""
        return GraphError(reason)
