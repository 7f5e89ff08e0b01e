"""Store what kernels pass to each other in 16 bits, and compute in f32 as ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.errors import DTypeError
from asg.graph import Graph, Node, Value, rewrite
from asg.op import Contraction, Elementwise, Join, View
from asg.ops.convert import cast
from asg.ops.sources import convert_array, input
from asg.passes.inline import contiguous_base, decide, readers_of
from asg.precision import MIXED_F16, Policy
from asg.tensor import Tensor, build
from asg.types import DType, TensorType

Array = np.ndarray[Any, Any]

_QUAD = 4  # elements that a kernel stores at once: whole words in any type


@dataclass(frozen=True)
class MixedPrecision:
    """Round what will be stored, so that it can be: `cast(cast(x, f16), f32)` in the place of x.

    Comes when composites are spelt out. What is kept in f32: results of the graph, state and what
    it becomes, all that is computed of packed vectors (an optimizer's), results of attention
    kernels and scatters, small values, rows that are no multiple of four, and what the policy says.
    What is computed wherever it is needed is not rounded at all.
    """

    policy: Policy = MIXED_F16

    def __call__(self, graph: Graph) -> Graph:
        chosen = self._chosen(graph)
        if not chosen:
            return graph

        def narrowed(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if node not in chosen:
                return None
            result: Tensor = build(node.op, inputs, node.attrs)
            return (cast(cast(result, self.policy.dtype), DType.F32).value,)

        return rewrite(graph, narrowed)

    def _chosen(self, graph: Graph) -> set[Node]:
        """Return the nodes whose results are stored, and may be in fewer bits."""
        kept = _stored_as_they_are(graph)
        packed = _computed_of_packs(graph)
        work = decide(graph).work()
        passed_on = _passed_on(graph, work)
        return {
            node
            for node in work
            if self._may_be_narrow(node)
            and Value(node) not in kept
            and not (node in packed or node in passed_on or _is_rounded(graph, node))
        }

    def _may_be_narrow(self, node: Node) -> bool:
        if len(node.types) > 1 or node.type.dtype is not DType.F32:
            return False
        op, shape = _computing(node).op, node.type.shape
        if not isinstance(op.kind, (Elementwise, Contraction)) or op.name in self.policy.wide:
            return False
        return bool(shape) and shape[-1] % _QUAD == 0 and node.type.size >= self.policy.least


def _passed_on(graph: Graph, work: Sequence[Node]) -> set[Node]:
    """Return the nodes that only one map reads, which then belongs to the same kernel and is
    stored in their place."""
    makers = set(work)
    found: set[Node] = set()
    for node in work:
        readers = readers_of(graph, Value(node))
        if len(readers) == 1:
            (reader,) = readers
            is_map = isinstance(reader.op.kind, Elementwise) and reader in makers
            if is_map and reader.type.size == node.type.size:
                found.add(node)
    return found


def _is_rounded(graph: Graph, node: Node) -> bool:
    """Tell whether `node` is read in fewer bits only, as after this pass."""
    readers = graph.users.get(Value(node), ())
    return bool(readers) and all(reader.type.dtype.is_narrow for reader in readers)


def _computing(node: Node) -> Node:
    """Return the node under views that computes what `node` shows."""
    while isinstance(node.op.kind, View):
        node = node.inputs[0].node
    return node


def _stored_as_they_are(graph: Graph) -> set[Value]:
    """Return the values that results, and members of packs, are ranges of."""
    wanted = list(graph.results)
    for node in graph.nodes:
        if isinstance(node.op.kind, Join) and node.op.kind.flat:
            wanted.extend(node.inputs)
    found = set(wanted)
    for value in wanted:
        base = contiguous_base(value)
        if base is not None:
            found.add(base)
    return found


def _computed_of_packs(graph: Graph) -> set[Node]:
    found: set[Node] = set()
    for node in graph.nodes:
        kind = node.op.kind
        is_pack = isinstance(kind, Join) and kind.flat
        if is_pack or any(value.node in found for value in node.inputs):
            found.add(node)
    return found


def narrow_parameters(entries: Mapping[str, Graph], policy: Policy) -> dict[str, Graph]:
    """Return the entries with matrices that none of them updates in the policy's type.

    Raises:
        DTypeError: a weight lies beyond the largest number of that type.
    """
    if not policy.parameters:
        return dict(entries)
    updated = {name for graph in entries.values() for name in graph.updates}
    return {key: _with_narrow(graph, policy, updated) for key, graph in entries.items()}


def _with_narrow(graph: Graph, policy: Policy, updated: Collection[str]) -> Graph:
    chosen = {
        node
        for node in map(graph.input, graph.input_names("parameter"))
        if node.attrs["name"] not in updated and _is_matrix(node, policy)
    }
    chosen -= {value.node for value in graph.results}
    stored: set[Value] = set()

    def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node in chosen:
            type_ = TensorType(node.type.shape, policy.dtype)
            narrow: Value = input(node.attrs["name"], type_, role="parameter").value
            stored.add(narrow)
            return (narrow,)
        if stored.isdisjoint(inputs):
            return None
        wide = [cast(Tensor(value), DType.F32).value if value in stored else value
                for value in inputs]  # fmt: skip
        found = build(node.op, wide, node.attrs)
        return tuple(each.value for each in (found if isinstance(found, tuple) else (found,)))

    if not chosen:
        return graph
    names = [node.attrs["name"] for node in chosen]
    return rewrite(graph, change).with_values(_narrow_values(graph, names, policy))


def _is_matrix(node: Node, policy: Policy) -> bool:
    type_ = node.type
    is_float = type_.dtype is DType.F32 and type_.rank >= 2
    return is_float and type_.size >= policy.least and type_.shape[-1] % _QUAD == 0


def _narrow_values(graph: Graph, names: Collection[str], policy: Policy) -> dict[str, Array]:
    values = dict(graph.values)
    for name in names:
        if name not in values:
            continue
        try:
            values[name] = convert_array(values[name], policy.dtype)
        except DTypeError as error:
            reason = str(error).removeprefix("constant: ")
            raise DTypeError(f"{name}: {reason}; fix: use bf16, or keep parameters f32") from None
    return values
