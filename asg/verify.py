"""The grammar of graphs as code: what holds of every graph, checked after every pass in tests."""

from __future__ import annotations

from collections.abc import Iterable

from asg.errors import AsgError, GraphError
from asg.format import format_node
from asg.graph import ROLES, Graph, Node, Value
from asg.op import Op
from asg.ops.sources import input_
from asg.types import TensorType


def verify(graph: Graph) -> None:
    """Check that a graph is well formed; the first fault is told with its node in text form.

    Raises:
        GraphError: an operand is not defined before its use, two ops share a name, a type
            disagrees with the op's rule, equal nodes are not one node, a name is not unique, an
            update or an initial value does not fit its input.
    """
    _check_order(graph)
    _check_inputs(graph)
    _check_ops(graph)
    for node in graph.nodes:
        _check_types(graph, node)
    _check_interned(graph)
    _check_names(graph)
    check_updates(graph)
    _check_values(graph)


def _check_order(graph: Graph) -> None:
    defined: set[Node] = set()
    for position, node in enumerate(graph.nodes):
        if node in defined:
            raise _fault(graph, f"node {position} stands twice in the list of nodes", node)
        for value in node.inputs:
            _check_defined(graph, value, defined, f"an operand of {node.op.name}", node)
        defined.add(node)
    for kind, named in (("output", graph.outputs), ("update", graph.updates)):
        for name, value in named.items():
            _check_defined(graph, value, defined, f"{kind} {name!r}", value.node)


def _check_defined(graph: Graph, value: Value, defined: set[Node], what: str, shown: Node) -> None:
    if value.node not in defined:
        is_later = value.node in graph.nodes
        where = "defined only later" if is_later else "no node of the graph"
        raise _fault(graph, f"{what} ({value!r}) is {where}", shown)
    if not 0 <= value.index < len(value.node.types):
        raise _fault(
            graph, f"{what} is result {value.index} of {len(value.node.types)}", value.node
        )


def _check_inputs(graph: Graph) -> None:
    listed = [node for node in graph.nodes if node.op is input_]
    if set(listed) != set(graph.inputs) or len(listed) != len(graph.inputs):
        strangers = [node for node in (*listed, *graph.inputs) if node not in graph.inputs]
        shown = strangers[0] if strangers else graph.inputs[0]
        raise _fault(graph, "the list of inputs is not that of the input nodes", shown)
    seen: set[str] = set()
    for node in graph.inputs:
        name, role = node.attrs["name"], node.attrs["role"]
        if role not in ROLES:
            raise _fault(graph, f"input {name!r} has role {role!r}, not {_join(ROLES)}", node)
        if name in seen:
            raise _fault(graph, f"two inputs are called {name!r}", node)
        seen.add(name)


def _check_ops(graph: Graph) -> None:
    known: dict[str, Op] = {}
    for node in graph.nodes:
        if known.setdefault(node.op.name, node.op) is not node.op:
            raise _fault(graph, f"two different ops are called {node.op.name!r}", node)


def _check_types(graph: Graph, node: Node) -> None:
    try:
        types = node.op.shape(tuple(value.type for value in node.inputs), node.attrs)
    except (AsgError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, AsgError) else repr(error)
        raise _fault(graph, f"{node.op.name} refuses its operands: {reason}", node) from error
    expected = types if isinstance(types, tuple) else (types,)
    if expected != node.types:
        raise _fault(
            graph, f"{node.op.name} gives {_types(expected)}, the node says {_types(node.types)}",
            node,
        )  # fmt: skip


def _check_interned(graph: Graph) -> None:
    kept: dict[tuple[object, ...], Node] = {}
    for node in graph.nodes:
        try:
            first = kept.setdefault(node.key, node)
        except TypeError as error:
            raise _fault(graph, f"an attribute can't be compared: {error}", node) from error
        if first is not node:
            other = format_node(first, graph.names)
            raise _fault(graph, f"a node equals another one: {other}", node)


def _check_names(graph: Graph) -> None:
    owner: dict[str, Value] = {}
    for value, name in graph.names.items():
        if owner.setdefault(name, value) != value:
            raise _fault(graph, f"two values are called {name!r}", value.node)


def check_updates(graph: Graph) -> None:
    """Check that every update is one of a parameter or state, and of its type.

    Raises:
        GraphError: one is not.
    """
    inputs = {node.attrs["name"]: node for node in graph.inputs}
    for name, value in graph.updates.items():
        if name not in inputs:
            raise _fault(graph, f"update of {name!r}, which is no input", value.node)
        node = inputs[name]
        if node.attrs["role"] == "input":
            raise _fault(graph, f"update of {name!r}, which is neither parameter nor state", node)
        if value.type != node.type:
            raise _fault(graph, f"{name!r} is {node.type}, its update is {value.type}", value.node)


def _check_values(graph: Graph) -> None:
    inputs = {node.attrs["name"]: node for node in graph.inputs}
    for name, array in graph.values.items():
        if name not in inputs:
            raise GraphError(f"graph {graph.name}: a value for {name!r}, which is no input")
        node = inputs[name]
        if array.shape != node.type.shape or array.dtype != node.type.dtype.numpy:
            found = f"{array.dtype}{list(array.shape)}"
            raise _fault(graph, f"{name!r} is {node.type}, its value is {found}", node)


def _fault(graph: Graph, message: str, node: Node) -> GraphError:
    try:
        names = graph.names
    except (KeyError, TypeError):  # a graph too broken to be named
        names = {}
    lines = [f"graph {graph.name}: {message}", f"  {format_node(node, names)}"]
    if node.site is not None:
        scope = f" ({node.scope})" if node.scope else ""
        lines.append(f"  at {node.site} in {node.site.function}{scope}:  {node.site.source}")
    return GraphError("\n".join(lines))


def _types(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types))


def _join(words: Iterable[str]) -> str:
    return ", ".join(words)
