"""The graph: immutable nodes in SSA form, their values, and what goes in and out.

A `Node` has an op, operands, attributes, one or more results, the user's source line and the
module scope. Within a `Graph` equal nodes are one node: line and scope do not count, the first
is kept and remembers the others. Nobody edits a graph; passes build new ones with `rewrite`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from asg.errors import GraphError
from asg.format import format_graph
from asg.site import Site, current_note, current_scope, current_site, inherit
from asg.types import TensorType, check_interface

if TYPE_CHECKING:
    from asg.op import Op

Attrs = Mapping[str, Any]
ROLES = ("input", "parameter", "state")
_serial = itertools.count()
_SAMPLE = 64  # elements of an array that tell it from most others


class Literal:
    """The contents of a constant: an array that can be compared and hashed by content.

    Hashing all of a model's weights takes long, so that is done where a text shows them, or where
    arrays agree in a sample of their elements.
    """

    __slots__ = ("_content", "_sample", "array")

    def __init__(self, array: np.ndarray) -> None:
        contiguous = np.ascontiguousarray(array).reshape(np.shape(array))
        contiguous.setflags(write=False)
        self.array = contiguous
        flat = contiguous.reshape(-1)
        some = flat[:: max(1, flat.size // _SAMPLE)]
        self._sample = (contiguous.dtype.str, contiguous.shape, some.tobytes())
        self._content: str | None = None

    @property
    def content(self) -> str:
        """The hash of all of it."""
        if self._content is None:
            found = hashlib.sha256(f"{self.array.dtype.str}{self.array.shape}".encode())
            # As it lies in memory: may be large.
            found.update(self.array.reshape(-1).view(np.uint8).data)
            self._content = found.hexdigest()
        return self._content

    @property
    def digest(self) -> str:
        """The part of the hash that texts show."""
        return self.content[:16]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Literal) or self._sample != other._sample:
            return False
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self._sample)

    def __repr__(self) -> str:
        return f"#{self.digest}"


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node:
    """One computation. Compared by identity; `key` is what interning compares."""

    op: Op
    inputs: tuple[Value, ...]
    attrs: Attrs
    types: tuple[TensorType, ...]
    site: Site | None = field(default_factory=current_site)
    scope: str = field(default_factory=current_scope)
    note: str = field(default_factory=current_note)
    also: tuple[Site, ...] = ()
    serial: int = field(default_factory=lambda: next(_serial))

    @property
    def type(self) -> TensorType:
        """Type of the first result."""
        return self.types[0]

    @property
    def is_input(self) -> bool:
        """Tell whether the node is an input of the graph: given, a parameter, or state."""
        return self.op.name == "input"

    @property
    def values(self) -> tuple[Value, ...]:
        """All results."""
        if len(self.types) == 1:  # nearly always
            return (Value(self),)
        return tuple(Value(self, index) for index in range(len(self.types)))

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two nodes equal."""
        return self.op, self.inputs, tuple(sorted(self.attrs.items())), self.types

    def __repr__(self) -> str:
        return f"<{self.op.name} {', '.join(map(str, self.types))}>"


@dataclass(frozen=True, slots=True)
class Value:
    """One result of a node."""

    node: Node
    index: int = 0

    def __hash__(self) -> int:
        return hash(self.node) + self.index

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        return self.node is other.node and self.index == other.index

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    def __repr__(self) -> str:
        suffix = f".{self.index}" if len(self.node.types) > 1 else ""
        return f"<{self.node.op.name}{suffix} {self.type}>"


@dataclass(frozen=True, eq=False)
class Graph:
    """Named inputs, named outputs, state and the nodes between them, in topological order.

    `updates` maps the name of a parameter or state input to its value after a run.
    `values` holds what parameters and state start with. `interfaces` names outputs that are
    handed out as numbers of 64 bits: `i64`, `u64` or `f64`.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: Mapping[str, Value]
    updates: Mapping[str, Value]
    nodes: tuple[Node, ...]
    values: Mapping[str, np.ndarray]
    interfaces: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def build(
        outputs: Mapping[str, Value],
        *,
        updates: Mapping[str, Value] | None = None,
        name: str = "graph",
        values: Mapping[str, np.ndarray] | None = None,
        inputs: Iterable[Node] = (),
        interfaces: Mapping[str, str] | None = None,
    ) -> Graph:
        """Collect the nodes that `outputs` and `updates` need, each equal pair made one.

        `inputs` fixes the order of inputs and keeps those that nothing reads. `interfaces` may
        name outputs that the graph does not have.

        Raises:
            GraphError: two different inputs share a name, or an update has no such input.
            DTypeError: an interface can't hold its output.
        """
        updates = dict(updates or {})
        declared = tuple(inputs)
        roots = [value.node for value in (*outputs.values(), *updates.values())]
        nodes, renamed = _intern(_reachable([*declared, *roots]))
        found = {node.attrs["name"]: node for node in nodes if node.is_input}
        ordered = _input_order(declared, nodes, found)
        for missing in (name for name in updates if name not in found):
            raise GraphError(
                f"graph {name}: update of {missing!r}, which is no input of the graph; "
                f"inputs: {', '.join(found) or 'none'}"
            )
        kept = {key: value for key, value in (values or {}).items() if key in found}
        shown = {key: each for key, each in (interfaces or {}).items() if key in outputs}
        for key, each in shown.items():
            check_interface(key, outputs[key].type.dtype, each)
        return Graph(
            name=name,
            inputs=ordered,
            outputs={key: renamed[value] for key, value in outputs.items()},
            updates={key: renamed[value] for key, value in updates.items()},
            nodes=nodes,
            values=kept,
            interfaces=shown,
        )

    def input(self, name: str) -> Node:
        """Return the input node called `name`.

        Raises:
            GraphError: there is none.
        """
        node = self._by_name.get(name)
        if node is not None:
            return node
        known = ", ".join(self.input_names()) or "none"
        raise GraphError(f"graph {self.name} has no input {name!r}; inputs: {known}")

    def input_names(self, *roles: str) -> list[str]:
        """Return the names of the inputs with one of `roles` (all of them by default)."""
        wanted = roles or ROLES
        return [node.attrs["name"] for node in self.inputs if node.attrs["role"] in wanted]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.attrs["name"]: node for node in self.inputs}

    @cached_property
    def results(self) -> dict[Value, list[str]]:
        """Every value that must exist after a run, with the names it goes by."""
        named: dict[Value, list[str]] = {}
        for name, value in self.outputs.items():
            named.setdefault(value, []).append(name)
        for name, value in self.updates.items():
            named.setdefault(value, []).append(f"{name}'")
        return named

    @cached_property
    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order, each once."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users.setdefault(value, []).append(node)
        return users

    @cached_property
    def names(self) -> dict[Value, str]:
        """A readable unique name for every value: the user's where there is one."""
        return _name_values(self)

    def with_values(self, values: Mapping[str, np.ndarray]) -> Graph:
        """Return the same graph with other initial values."""
        return replace(self, values=dict(values))

    def with_interfaces(self, interfaces: Mapping[str, str]) -> Graph:
        """Return the same graph with other interfaces of its outputs, `{"total": "i64"}`.

        Raises:
            GraphError: there is no such output.
            DTypeError: an interface can't hold its output.
        """
        for name, interface in interfaces.items():
            if name not in self.outputs:
                known = ", ".join(self.outputs) or "none"
                raise GraphError(f"graph {self.name} has no output {name!r}; outputs: {known}")
            check_interface(name, self.outputs[name].type.dtype, interface)
        return replace(self, interfaces=dict(interfaces))

    def __str__(self) -> str:
        return format_graph(self)


def _reachable(roots: Iterable[Node]) -> list[Node]:
    """Return every node that `roots` need, in order of creation (a topological order)."""
    seen: dict[Node, None] = {}
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen[node] = None
        pending.extend(value.node for value in node.inputs if value.node not in seen)
    return sorted(seen, key=lambda node: node.serial)


def _intern(nodes: Iterable[Node]) -> tuple[tuple[Node, ...], dict[Value, Value]]:
    """Make equal nodes one node; return those left, and what each value became."""
    kept: dict[tuple[object, ...], Node] = {}
    sites: dict[Node, list[Site]] = {}
    renamed: dict[Value, Value] = {}
    for node in nodes:
        inputs = tuple(renamed[value] for value in node.inputs)
        # Operands only become older nodes, so the place in the order can stay.
        fresh = node if inputs == node.inputs else _with_inputs(node, inputs, node.serial)
        first = kept.setdefault(fresh.key, fresh)
        if first is not fresh and fresh.site is not None and fresh.site != first.site:
            sites.setdefault(first, []).append(fresh.site)
        for index in range(len(node.types)):
            renamed[Value(node, index)] = Value(first, index)
    for node, others in sites.items():
        merged = tuple(dict.fromkeys((*node.also, *others)))
        object.__setattr__(node, "also", merged)  # a remark about the source, no part of its key
    return tuple(kept.values()), renamed


def _with_inputs(node: Node, inputs: tuple[Value, ...], serial: int | None = None) -> Node:
    place = next(_serial) if serial is None else serial
    return Node(
        node.op, inputs, node.attrs, node.types, node.site, node.scope, node.note, node.also, place
    )


def _input_order(
    declared: tuple[Node, ...], nodes: tuple[Node, ...], found: Mapping[str, Node]
) -> tuple[Node, ...]:
    """Put declared inputs first, then the others as they were created."""
    for node in nodes:
        if node.is_input and found[node.attrs["name"]] is not node:
            other = found[node.attrs["name"]]
            raise GraphError(
                f"two inputs are called {node.attrs['name']!r}: {node.type} at {node.site} "
                f"and {other.type} at {other.site}; give one another name"
            )
    first = [found[node.attrs["name"]] for node in declared]
    return tuple(dict.fromkeys([*first, *found.values()]))


def rewrite(
    graph: Graph,
    change: Callable[[Node, tuple[Value, ...]], tuple[Value, ...] | None],
    *,
    note: str = "",
) -> Graph:
    """Return `graph` with every node passed through `change`, in topological order.

    `change(node, inputs)` gets the node with its operands already changed and returns the
    values that replace its results, or None to keep it. Nodes built inside inherit the line
    and scope of the node that they replace. An input that becomes something else is one no more.
    """
    renamed: dict[Value, Value] = {}
    is_changed = False
    for node in graph.nodes:
        inputs = tuple(renamed[value] for value in node.inputs)
        with inherit(node.site, node.scope, note or node.note):
            replaced = change(node, inputs)
            if replaced is None:
                # After the first change all nodes are copied, or those that nothing touched
                # would come before those that it did: nodes stand in order of creation.
                is_same = node.is_input or not is_changed
                replaced = (node if is_same else _with_inputs(node, inputs)).values
            is_changed = is_changed or replaced != node.values
        renamed.update(zip(node.values, replaced, strict=True))
    if not is_changed:
        return graph
    return Graph.build(
        {name: renamed[value] for name, value in graph.outputs.items()},
        updates={name: renamed[value] for name, value in graph.updates.items()},
        name=graph.name,
        values=graph.values,
        inputs=[
            node for node in (renamed[Value(each)].node for each in graph.inputs) if node.is_input
        ],
        interfaces=graph.interfaces,
    )


def _name_values(graph: Graph) -> dict[Value, str]:
    names: dict[Value, str] = {Value(node): node.attrs["name"] for node in graph.inputs}
    taken = set(names.values())
    for wanted, value in (*graph.outputs.items(), *graph.updates.items()):
        if value not in names and wanted not in taken:
            names[value] = wanted
            taken.add(wanted)
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for value in node.values:
            if value in names:
                continue
            stem = node.op.name
            name = stem
            while name in taken or name == stem:
                counts[stem] = counts.get(stem, 0) + 1
                name = f"{stem}_{counts[stem]}"
            names[value] = name
            taken.add(name)
    return names
