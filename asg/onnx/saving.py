"""`save` and `to_proto`: graphs become ONNX models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from asg.errors import GraphError, UnsupportedError
from asg.graph import Graph, Node, Value, rewrite
from asg.onnx.export_rules import MISSING, rule_for
from asg.onnx.patterns import Match, find_patterns
from asg.onnx.updates import note_updates
from asg.onnx.writer import DOMAIN, ELEMENT, Writer, rename, value_info
from asg.op import Attention, Composite, Cut
from asg.ops.sources import input
from asg.tensor import Tensor
from asg.types import TensorType

OPSET = 20
OPSETS = range(18, 24)
DIRECT = ("cast", "constant", "iota", "stop_gradient", "copy")  # rules that know narrow types
UPDATED = ".new"  # ends the name of the output that a state becomes
LARGEST = (2 << 30) - (64 << 20)  # bytes in one file; its format allows 2 GiB

Array = np.ndarray[Any, Any]


def save(
    graph: Graph,
    path: str | os.PathLike[str],
    *,
    opset: int = OPSET,
    external_data: bool | None = None,
) -> Path:
    """Write a graph as an ONNX model, and return the path.

    Inputs, outputs and weights keep their names. What a run changes (the parameters and the
    optimizer's state of a training step, running statistics) is an input of that name, with an
    initializer for its first value, and an output `NAME.new` to be given for it the next time.

    Args:
        graph: what `asg.graph`, `asg.trace`, `asg.grad` or `asg.training_step` yields.
        opset: of ONNX's own operators, from 18 to 23.
        external_data: whether numbers lie in a file of their own, `NAME.onnx.data`; unless told,
            where there are more than fit into one file.

    Raises:
        UnsupportedError: ops that ONNX does not have, all of them.
        GraphError: it is no graph, or two names meet.
    """
    target = Path(path)
    proto = to_proto(graph, opset=opset)
    size = sum(len(each.raw_data) for each in proto.graph.initializer)
    is_outside = size > LARGEST if external_data is None else external_data
    if is_outside:
        data = target.with_name(f"{target.name}.data")
        data.unlink(missing_ok=True)  # or numbers would be added to those that are there
        onnx.save_model(
            proto, target, save_as_external_data=True, all_tensors_to_one_file=True,
            location=data.name, size_threshold=0,
        )  # fmt: skip
    else:
        onnx.save_model(proto, target)
    return target


def to_proto(graph: Graph, *, opset: int = OPSET) -> onnx.ModelProto:
    """Return a graph as an ONNX model in memory (see `save`)."""
    if not isinstance(graph, Graph):
        raise GraphError(
            f"a Graph is saved, not {type(graph).__name__}; one with open sizes is bound first"
        )
    if opset not in OPSETS:
        raise GraphError(f"opset {opset} can't be written; from {OPSETS[0]} to {OPSETS[-1]}")
    graph, patterns = _spelt_out(graph, opset)
    nodes = _needed(graph, patterns)
    _check_supported(graph, [node for node in nodes if node not in patterns])
    to = Writer(opset)
    tensors = {Value(node): node.attrs["name"] for node in graph.inputs}
    for node in nodes:
        _write(to, graph, node, patterns.get(node), tensors)
    outputs = _outputs(to, graph, tensors)
    model = helper.make_model(
        helper.make_graph(to.nodes, graph.name, _inputs(graph), outputs, _initializers(graph)),
        functions=list(to.functions.values()),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)],
        producer_name="asg",
        ir_version=min(10, onnx.IR_VERSION),
    )
    note_updates(model, {name: f"{name}{UPDATED}" for name in graph.updates})
    return model


def _spelt_out(graph: Graph, opset: int) -> tuple[Graph, dict[Node, Match]]:
    """Spell out composites and attention that have no rule; return what is written as a whole."""
    while True:
        patterns = find_patterns(graph, opset)
        chosen = {node for node in graph.nodes if _is_whole(node) and node not in patterns}
        if not chosen:
            return graph, patterns
        graph = rewrite(graph, partial(_expand, chosen))


def _is_whole(node: Node) -> bool:
    return isinstance(node.op.kind, (Composite, Attention)) and rule_for(node) is None


def _expand(chosen: set[Node], node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
    kind = node.op.kind
    if node not in chosen or not isinstance(kind, (Composite, Attention)):
        return None
    found = kind.expand(node.attrs, *map(Tensor, inputs))
    return tuple(each.value for each in (found if isinstance(found, tuple) else (found,)))


def _needed(graph: Graph, patterns: Mapping[Node, Match]) -> list[Node]:
    """Return the nodes to write, in order."""
    wanted: set[Node] = set()
    pending = [value.node for value in graph.results]
    while pending:
        node = pending.pop()
        if node in wanted:
            continue
        wanted.add(node)
        pending += [value.node for value in _operands(node, patterns.get(node))]
    return [node for node in graph.nodes if node in wanted and not node.is_input]


def _operands(node: Node, match: Match | None) -> tuple[Value, ...]:
    """Return what a node is written from. Operators broadcast by themselves, where an operand
    shows them to which shape."""
    if match is not None:
        return match.operands
    if not node.op.broadcasts:
        return node.inputs
    sources = [
        value.node.inputs[0] if value.node.op.name == "broadcast" else value
        for value in node.inputs
    ]
    is_shown = any(value.type.shape == node.type.shape for value in sources)
    return tuple(sources) if is_shown else node.inputs


def _check_supported(graph: Graph, nodes: list[Node]) -> None:
    missing = [
        f"  {graph.names[Value(node)]}: {node.op.name}"
        + (f" ({MISSING[node.op.name]})" if node.op.name in MISSING else "")
        + (f" at {node.site}: {node.site.source}" if node.site else "")
        for node in nodes
        if not _has_form(node)
    ]
    if missing:
        raise UnsupportedError(
            "\n".join([f"{len(missing)} node(s) of graph {graph.name} have no ONNX form", *missing])
        )


def _has_form(node: Node) -> bool:
    """Tell whether there is a rule; the bits of narrow numbers have none."""
    return rule_for(node) is not None and not (_is_narrow(node) and node.op.name == "bitcast")


def _write(
    to: Writer, graph: Graph, node: Node, match: Match | None, tensors: dict[Value, str]
) -> None:
    """Write a node; its results take the names of its values where they are new."""
    names = [graph.names[value] for value in node.values]
    to.label = names[0]
    to.note = " ".join(filter(None, [str(node.site or ""), node.scope, node.note]))
    first = len(to.nodes)
    if all(value.type.size == 0 for value in node.values):
        found = tuple(_empty(to, value) for value in node.values)
    else:
        operands = [tensors[value] for value in _operands(node, match)]
        if match is not None:
            found = (match.write(to, operands),)
        elif _is_narrow(node):
            found = _write_wide(to, node, operands)
        else:
            found = _apply(to, node, operands)
    # A pattern has the first result of its last node only.
    for value, name, result in zip(node.values, names, found, strict=match is None):
        is_new = not to.is_shared(result) and rename(to.nodes[first:], result, name)
        tensors[value] = name if is_new else result


def _apply(to: Writer, node: Node, operands: list[str]) -> tuple[str, ...]:
    choice = rule_for(node)
    assert choice is not None
    return choice.write(to, node, operands)


def _is_narrow(node: Node) -> bool:
    """Tell whether a node computes with narrow types, for which runtimes have few operators."""
    types = (*(value.type for value in node.inputs), *node.types)
    return node.op.name not in DIRECT and any(each.dtype.is_narrow for each in types)


def _write_wide(to: Writer, node: Node, operands: list[str]) -> tuple[str, ...]:
    """Write a node as one of the types that its own are computed in, between casts."""
    wide = [
        to.cast(name, ELEMENT[value.type.dtype.compute]) if value.type.dtype.is_narrow else name
        for name, value in zip(operands, node.inputs, strict=True)
    ]
    stand_ins = [input("x", _widened(value.type)).value for value in node.inputs]
    types = tuple(map(_widened, node.types))
    found = _apply(to, Node(node.op, tuple(stand_ins), node.attrs, types), wide)
    return tuple(
        to.cast(name, ELEMENT[type_.dtype]) if type_.dtype.is_narrow else name
        for name, type_ in zip(found, node.types, strict=True)
    )


def _widened(type_: TensorType) -> TensorType:
    return TensorType(type_.shape, type_.dtype.compute)


def _empty(to: Writer, value: Value) -> str:
    return to.constant(np.zeros(value.type.shape, value.type.dtype.numpy))


def _inputs(graph: Graph) -> list[Any]:
    """Return what is given to a run: inputs, what it changes, and what has no value."""
    return [
        value_info(node.attrs["name"], node.type.shape, node.type.dtype)
        for node in graph.inputs
        if node.attrs["name"] in graph.updates or _initial(graph, node) is None
    ]


def _initializers(graph: Graph) -> list[Any]:
    found = ((node.attrs["name"], _initial(graph, node)) for node in graph.inputs)
    return [
        numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        for name, array in found
        if array is not None
    ]


def _initial(graph: Graph, node: Node) -> Array | None:
    """Return what an input begins with; state without a value begins at zero."""
    found = graph.values.get(node.attrs["name"])
    if found is None and node.attrs["role"] == "state":
        return np.zeros(node.type.shape, node.type.dtype.numpy)
    return found


def _outputs(to: Writer, graph: Graph, tensors: Mapping[Value, str]) -> list[Any]:
    """Give every output a tensor of its name."""
    wanted = [*graph.outputs.items()]
    wanted += [(f"{name}{UPDATED}", value) for name, value in graph.updates.items()]
    taken = {name for node in to.nodes for name in node.output}
    taken |= set(graph.input_names())
    seen: set[str] = set()
    found: list[Any] = []
    for name, value in wanted:
        if name in seen:
            raise GraphError(f"two outputs would be called {name!r}")
        seen.add(name)
        is_there = tensors[value] == name and not value.node.is_input
        if not is_there and name in taken:
            raise GraphError(f"an output and another tensor would be called {name!r}")
        if not is_there:
            to.label = to.note = ""
            rename(to.nodes, to("Identity", tensors[value]), name)
        found.append(value_info(name, _open_shape(value), value.type.dtype))
    return found


def _open_shape(value: Value) -> list[int | str]:
    """Return a result's shape, with a name for a size that only a run finds out."""
    shape: list[int | str] = list(value.type.shape)
    if isinstance(value.node.op.kind, Cut):
        shape[value.node.attrs["axis"]] = "count"
    return shape
