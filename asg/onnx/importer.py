"""From the nodes of an ONNX model to those of a graph.

An `Importer` makes one graph: it goes through the nodes in order, asks the table of converters
for each, and keeps what is known already (constants, shapes) as arrays beside tensors. A node
that can't be converted is noted down, and what depends on it is skipped, so that one run finds
every such node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from asg.errors import AsgError, DTypeError, GraphError, InputError, ShapeError
from asg.graph import Graph, Literal, Node
from asg.onnx import folding, schemas
from asg.onnx.call import Call, Operand, Typed
from asg.onnx.dtypes import (
    PACKED,
    WIDE,
    Array,
    NumpyType,
    computed_type,
    constant_type,
    in_type,
    narrowed,
    numpy_type,
)
from asg.onnx.model import Model, all_nodes, domain_of, graph_nodes
from asg.onnx.problems import NodeUnsupportedError, Problem
from asg.onnx.registry import Converter, Table
from asg.onnx.updates import changing
from asg.ops.sources import constant_, input
from asg.site import Site, inherit
from asg.tensor import Tensor
from asg.types import TensorType, check_interface

NODES = 500_000  # with functions and loops written out
DEPTH = 64  # of graphs within graphs and functions within functions


@dataclass
class Scope:
    """The values by name that nodes of one graph or function body can read."""

    values: dict[str, Operand | None] = field(default_factory=dict)  # None: it can't be made
    outer: Scope | None = None
    opsets: Mapping[str, int] = field(default_factory=dict)
    path: str = ""
    depth: int = 0

    def find(self, name: str) -> Operand | None:
        """Return a value; None where it depends on what can't be converted.

        Raises:
            GraphError: nothing makes it before it is read.
        """
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        raise GraphError(f"{name!r} is read, but nothing makes it before")

    def inside(self, name: str, opsets: Mapping[str, int], outer: Scope | None) -> Scope:
        """Return a scope for a body of a node here."""
        if self.depth >= DEPTH:
            raise GraphError(f"graphs or functions stand {DEPTH} deep in each other")
        return Scope({}, outer, opsets, f"{self.path}{name}/", self.depth + 1)


class Importer:
    """Makes one graph of a model, with sizes of dimensions and values of inputs as given."""

    def __init__(
        self,
        model: Model,
        table: Table,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        known: Mapping[str, Array] | None = None,
        allow_float64: bool = False,
        probe: Iterable[str] | None = None,
    ) -> None:
        self.model, self.table = model, table
        self.shapes, self.known = shapes, known or {}
        self.allow_float64 = allow_float64
        # A probe only looks for what can't be converted; some inputs have no value then.
        self.is_probe, self.unknown = probe is not None, frozenset(probe or ())
        self.problems: list[Problem] = []
        self.values: dict[str, Array] = {}
        self._inputs: list[Node] = []
        self._count = 0
        self._noted: set[tuple[str, ...]] = set()

    # -- values -------------------------------------------------------------------------------

    def tensor(self, operand: Operand) -> Tensor:
        """Return a value as a tensor of the graph; weights become parameters at first use."""
        if operand.items is not None:
            raise NodeUnsupportedError("a sequence is no tensor")
        if operand.tensor is None:
            assert operand.array is not None
            dtype = constant_type(operand.dtype, self.allow_float64)
            key = operand.name, dtype
            array = self.model.narrowed.get(key) if operand.is_parameter else None
            if array is None:
                array = narrowed(operand.array, dtype, operand.name)
            if operand.is_parameter:
                self.model.narrowed[key] = array
                type_ = TensorType(array.shape, dtype)
                operand.tensor = input(operand.name, type_, role="parameter")
                self.values[operand.name] = array
            else:
                operand.tensor = self.constant_tensor(array)
        return operand.tensor

    def constant_tensor(self, array: Array) -> Tensor:
        """Return an array of a type that is computed as a constant of the graph."""
        found: Tensor = constant_(value=Literal(array))
        return found

    def array(self, proto: Any, name: str) -> Array:
        """Return the contents of a tensor in the model."""
        return self.model.array(proto, name)

    def opset(self, domain: str) -> int:
        """Return the version of a domain's operators that the model asks for."""
        return self.model.opsets.get(domain, 0)

    # -- graphs -------------------------------------------------------------------------------

    def run(self) -> Graph | None:
        """Return the graph, or None where `problems` says why there is none."""
        scope = Scope(opsets=self.model.opsets)
        proto = self.model.graph
        self._declare_inputs(scope)
        self._add_weights(proto, scope)
        self.convert(proto.node, scope)
        found = {each.name: self._result(each, scope) for each in proto.output}
        outputs = {}
        interfaces: dict[str, str] = {}
        for name, operand in found.items():
            if operand is None:  # what it depends on was noted, or this is a probe
                continue
            try:
                outputs[name] = self.tensor(operand).value
                if operand.dtype.name in PACKED:
                    raise NodeUnsupportedError(f"{operand.dtype.name} is not computed")
                if operand.dtype.name in WIDE:
                    interfaces[name] = WIDE[operand.dtype.name]
                    check_interface(name, outputs[name].type.dtype, interfaces[name])
            except (NodeUnsupportedError, DTypeError) as error:
                self._note(f"output {name}", error)
        if self.problems or self.is_probe:
            return None
        return Graph.build(
            outputs,
            name=self.model.name,
            values=self.values,
            inputs=self._inputs,
            interfaces=interfaces,
        )

    def _result(self, declared: Any, scope: Scope) -> Operand | None:
        """Return an output of the model, which must have the type that it is declared with."""
        name, code = declared.name, declared.type.tensor_type.elem_type
        try:
            found = scope.find(name)
        except GraphError as error:
            raise GraphError(f"{self.model.label}: output {name!r}: {error}") from error
        if found is None or found.items is not None or code in (0, onnx.TensorProto.STRING):
            return found
        wanted = numpy_type(code)
        if wanted != found.dtype:
            raise GraphError(
                f"{self.model.label}: output {name!r} is declared {wanted.name}, "
                f"but {found.dtype.name} is computed"
            )
        return found

    def _declare_inputs(self, scope: Scope) -> None:
        for proto in self.model.inputs:
            name = proto.name
            if name in self.unknown:
                scope.values[name] = None
                continue
            try:
                dtype = numpy_type(proto.type.tensor_type.elem_type)
                if name in self.known:
                    array = _as_declared(name, np.asarray(self.known[name]), dtype)
                    scope.values[name] = Operand(name, dtype, array=array)
                    continue
                computed = computed_type(dtype, self.allow_float64)
            except NodeUnsupportedError as error:
                self._note(f"input {name}", error)
                scope.values[name] = None
                continue
            tensor = input(name, TensorType(self.shapes[name], computed))
            self._inputs.append(tensor.node)
            scope.values[name] = Operand(name, dtype, tensor=tensor)

    def _add_weights(self, proto: Any, scope: Scope) -> None:
        """Make the initialisers known. Those of rank 0 and few whole numbers are constants."""
        count = len(proto.initializer)
        changed = changing(self.model.proto)
        for place, each in enumerate((*proto.initializer, *proto.sparse_initializer)):
            name = each.name if place < count else each.values.name
            try:
                is_top = scope.outer is None and place < count
                array = self.model.weight(place) if is_top else self.array(each, name)
            except NodeUnsupportedError as error:
                self._note(f"initialiser {name}", error)
                scope.values[name] = None
                continue
            is_number = array.dtype.kind in "iub" and array.size <= folding.LIMIT
            is_weight = not is_number and array.ndim > 0 and scope.outer is None
            is_weight = is_weight or (scope.outer is None and name in changed)
            scope.values[name] = Operand(name, array.dtype, array=array, is_parameter=is_weight)

    def subgraph(self, proto: Any, arguments: Sequence[Operand], outer: Scope) -> list[Operand]:
        """Convert the graph of an `If`, `Loop` or `Scan`, which reads what stands around it."""
        scope = outer.inside(proto.name or "body", outer.opsets, outer)
        if len(arguments) > len(proto.input):
            raise GraphError(f"{len(arguments)} arguments for a body of {len(proto.input)}")
        for given, argument in zip(proto.input, arguments, strict=False):
            scope.values[given.name] = argument
        self._add_weights(proto, scope)
        return self._results(proto.node, [each.name for each in proto.output], scope)

    def function(self, body: Any, call: Call) -> list[Operand | None]:
        """Convert the body of a function in place of a call."""
        name = call.node.name or call.op
        opsets = {domain_of(each): each.version for each in body.opset_import}
        scope = call.scope.inside(name, opsets or call.scope.opsets, None)
        for position, parameter in enumerate(body.input):
            given = call.operands[position] if position < call.count else None
            if given is not None:
                scope.values[parameter] = given
            else:
                scope.values[parameter] = _ABSENT
        attributes = _attributes(call, body)
        nodes = [bind_attributes(node, attributes) for node in body.node]
        # A body that ONNX makes for a call leaves out what makes results that nobody wants.
        names = [name for i, name in enumerate(body.output) if call.wants(i)]
        found = iter(self._results(nodes, names, scope))
        return [next(found) if call.wants(i) else None for i in range(len(body.output))]

    def _results(self, nodes: Iterable[Any], names: Sequence[str], scope: Scope) -> list[Operand]:
        before = len(self.problems)
        self.convert(nodes, scope)
        found = [scope.find(name) for name in names]
        if any(each is None for each in found) or len(self.problems) > before:
            raise _PoisonedError
        return [each for each in found if each is not None]

    # -- nodes --------------------------------------------------------------------------------

    def convert(self, nodes: Iterable[Any], scope: Scope) -> None:
        """Convert nodes one after the other; what can't be is noted and skipped."""
        for node in nodes:
            self._count += 1
            if self._count > NODES:
                raise GraphError(
                    f"{self.model.label}: functions and loops written out are more than "
                    f"{NODES:,} nodes"
                )
            title = f"{scope.path}{node.name or node.op_type}"
            site = Site(f"<{self.model.label}>", self._count, node.op_type)
            with inherit(site, title.strip("/")):
                results = self._tried(node, scope, title)
            for position, name in enumerate(node.output):
                if name and name in scope.values:
                    raise GraphError(f"{self.model.label}: two nodes make {name!r}")
                if name:
                    scope.values[name] = results[position] if position < len(results) else None

    def _tried(self, node: Any, scope: Scope, title: str) -> Sequence[Operand | None]:
        """Return the results of a node, None for each where it can't be converted."""
        try:
            return self._converted(node, scope)
        except _PoisonedError:
            self._survey(node, scope)
        except (NodeUnsupportedError, DTypeError) as error:
            self._note(title, error, node, scope)
            self._survey(node, scope)
        except AsgError as error:
            # The sizes of a probe are not those of the user.
            if not self.is_probe:
                raise _located(error, title, node, self.model.label) from error
            self._survey(node, scope)
        except MemoryError as error:
            wrapped = GraphError("it takes more memory than there is")
            raise _located(wrapped, title, node, self.model.label) from error
        except (IndexError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            if not self.is_probe:
                wrapped = GraphError(f"it makes no sense: {error}")
                raise _located(wrapped, title, node, self.model.label) from error
            self._survey(node, scope)
        return [None] * len(node.output)

    def _survey(self, node: Any, scope: Scope) -> None:
        """Note the operators without converter in the graphs of a node that is skipped."""
        for inner in all_nodes(graph_nodes(node)):
            domain = domain_of(inner)
            opset = scope.opsets.get(domain, 1)
            if not self._is_known(domain, inner, opset):
                schema = schemas.find_schema(domain, inner.op_type, opset)
                error = self._unknown(domain, inner.op_type, opset, schema)
                title = f"{scope.path}{inner.name or inner.op_type}"
                self._note(title, error, inner, Scope(opsets=scope.opsets))

    def _is_known(self, domain: str, node: Any, opset: int) -> bool:
        local = (domain, node.op_type, node.overload) in self.model.functions
        schema = schemas.find_schema(domain, node.op_type, opset)
        found = self.table.find(domain, node.op_type, opset)
        is_folded = not domain and node.op_type in folding.TABLE
        return local or found is not None or is_folded or _may_be_function(schema)

    def _converted(self, node: Any, scope: Scope) -> Sequence[Operand | None]:
        domain = domain_of(node)
        if domain not in scope.opsets and domain != "com.microsoft":
            raise GraphError(f"no version of the operators of {domain or 'ai.onnx'!r} is given")
        opset = scope.opsets.get(domain, 1)
        names = list(node.input)
        while names and not names[-1]:
            names.pop()
        operands = [scope.find(name) if name else _ABSENT for name in names]
        found = self.table.find(domain, node.op_type, opset)
        local = self.model.functions.get((domain, node.op_type, node.overload))
        schema = schemas.find_schema(domain, node.op_type, opset)
        if any(each is None for each in operands):
            if self._is_known(domain, node, opset):
                raise _PoisonedError
            raise self._unknown(domain, node.op_type, opset, schema)
        given = [None if each is _ABSENT else each for each in operands]
        call = Call(self, scope, node, opset, schema, given)
        _check_count(call)
        if local is not None:
            return self.function(local, call)
        return self._results_of(call, found)

    def _results_of(self, call: Call, found: Converter | None) -> Sequence[Operand | None]:
        present = [each for each in call.operands if each is not None]
        is_known = all(each.is_constant for each in present)
        if is_known:
            folded = folding.fold(call)
            if folded is not None:
                return self._operands(call, folded)
        if found is None:
            # ONNX's own meaning of the operator, where it is one of others.
            body = schemas.function_body(call)
            if body is None:
                raise self._unknown(domain_of(call.node), call.op, call.opset, call.schema)
            return self.function(body, call)
        results = found.convert(call)
        listed = results if isinstance(results, (tuple, list)) else [results]
        operands = self._operands(call, listed)
        return folding.evaluated(operands) if is_known and present else operands

    def _operands(self, call: Call, results: Sequence[Any]) -> list[Operand | None]:
        """Give results the names and types that the node says they have."""
        if len(results) < sum(map(bool, call.node.output)):
            raise call.unsupported(f"only {len(results)} of {call.output_count} results are made")
        found: list[Operand | None] = []
        for position, (name, result) in enumerate(zip(call.node.output, results, strict=False)):
            if result is None and name:
                raise call.unsupported(f"its result {position} is not computed")
            if isinstance(result, Operand) or result is None:
                found.append(result)
                continue
            dtype = result.dtype if isinstance(result, Typed) else None
            value = result.value if isinstance(result, Typed) else result
            if isinstance(value, Tensor):
                kind = dtype or schemas.result_type(call, position, value.dtype)
                found.append(Operand(name, kind, tensor=in_type(value, kind)))
            else:
                array = np.asarray(value)
                found.append(Operand(name, dtype or array.dtype, array=array))
        return found

    def _unknown(self, domain: str, op: str, opset: int, schema: Any) -> NodeUnsupportedError:
        first = self.table.first(domain, op)
        if first is not None:
            return NodeUnsupportedError(
                f"opset {opset} is too old", f"convert the model to opset {first} or newer"
            )
        if schema is None and domain in ("", "ai.onnx.ml"):
            return NodeUnsupportedError("ONNX has no such operator in this opset")
        return NodeUnsupportedError("there is no converter for this operator")

    def _note(
        self,
        title: str,
        error: NodeUnsupportedError | DTypeError,
        node: Any = None,
        scope: Scope | None = None,
    ) -> None:
        """Add a problem with a node, or with what `title` names; each is told once."""
        kind = title.partition(" ")[0] if node is None else node.op_type
        domain = "" if node is None else domain_of(node)
        key = (title,) if node is None else (kind, domain, *node.output)
        if key in self._noted:
            return
        self._noted.add(key)
        opset = scope.opsets.get(domain, 1) if scope is not None else 0
        dtypes = _dtypes(node, scope) if scope is not None else ()
        fix = error.fix if isinstance(error, NodeUnsupportedError) else ""
        reason = str(error).partition("\n")[0]
        self.problems.append(Problem(title, kind, domain, opset, dtypes, reason, fix))


class _PoisonedError(Exception):
    """An operand depends on a node that can't be converted."""


_ABSENT = Operand("", np.dtype(np.float32))  # stands for an optional operand left out


def _attributes(call: Call, body: Any) -> dict[str, Any]:
    """Return the attributes of a call of a function, with the defaults of those left out."""
    found: dict[str, Any] = {}
    if call.schema is not None:
        defaults = {name: each.default_value for name, each in call.schema.attributes.items()}
        found |= {name: each for name, each in defaults.items() if each.type}
    found |= {each.name: each for each in body.attribute_proto}
    return found | {each.name: each for each in call.node.attribute}


def bind_attributes(node: Any, given: Mapping[str, Any]) -> Any:
    """Return a node of a function's body with the attributes that the call gives it."""
    if not any(each.ref_attr_name or each.HasField("g") for each in node.attribute):
        return node
    bound = type(node)()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for each in node.attribute:
        source = given.get(each.ref_attr_name) if each.ref_attr_name else each
        if source is None:
            continue
        kept = bound.attribute.add()
        kept.CopyFrom(source)
        kept.name = each.name
        if each.HasField("g"):
            nodes = [bind_attributes(inner, given) for inner in each.g.node]
            del kept.g.node[:]
            kept.g.node.extend(nodes)
    return bound


def _as_declared(name: str, array: Array, dtype: NumpyType) -> Array:
    """Return the value of a static input in the type that the model says.

    Raises:
        InputError: it does not fit.
    """
    with np.errstate(all="ignore"):
        found = array.astype(dtype, copy=False)
    if not np.array_equal(found, array, equal_nan=array.dtype.kind == "f"):
        raise InputError(f"input {name!r} is {dtype.name}; {array.tolist()} does not fit")
    return found


def _may_be_function(schema: Any) -> bool:
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _check_count(call: Call) -> None:
    """Check the number of operands; ONNX's schema tells how many there must be."""
    schema = call.schema
    if schema is None:
        return
    if not schema.min_input <= call.count <= schema.max_input:
        wanted = f"{schema.min_input} to {schema.max_input}"
        raise call.malformed(f"{call.count} operands, {wanted} are allowed")


def _dtypes(node: Any, scope: Scope) -> tuple[str, ...]:
    """Return the types of what a node reads, `?` where they are not known."""
    found: list[str] = []
    for name in filter(None, node.input):
        try:
            operand = scope.find(name)
        except GraphError:
            operand = None
        found.append("?" if operand is None else operand.dtype.name)
    return tuple(found)


def _located(error: AsgError, title: str, node: Any, label: str) -> AsgError:
    """Return an error that says at which node it is; of nodes in nodes, the innermost."""
    if str(error).startswith(f"{label}: node "):
        return error
    kind = type(error) if isinstance(error, (ShapeError, GraphError, InputError)) else GraphError
    return kind(f"{label}: node {title!r} ({node.op_type}): {error}")
