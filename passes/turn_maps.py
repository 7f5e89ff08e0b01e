"""Compute maps and reductions the way round in which they are read."""

from __future__ import annotations

from dataclasses import dataclass

from asg.graph import Graph, Node, Value, rewrite
from asg.op import Elementwise, Reduction
from asg.ops.join import concatenate
from asg.ops.movement import permute
from asg.passes.spaces import reduced_axes
from asg.tensor import Tensor, build

Axes = tuple[int, ...]


@dataclass(frozen=True)
class TurnMaps:
    """Compute in another order of axes what should be stored in it.

    A permutation that is undone at once, which is how `ChooseLayouts` writes down its choice, is
    the wish to have its operand stored so. Where everyone who reads an elementwise node, a
    reduction or a concatenation has the same wish, it is computed from permuted operands, which
    are read through index maps or turned in their turn. `Simplify` has to follow, which merges the
    permutations.
    """

    def __call__(self, graph: Graph) -> Graph:
        if not any(node.op is permute for node in graph.nodes):
            return graph
        turned = _wishes(graph)
        if not turned:
            return graph

        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if node not in turned:
                found = _reduced_as_stored(node, inputs)
                return None if found is None else (found.value,)
            axes = turned[node]
            result: Tensor = permute(_turned(node, inputs, axes), axes=_inverse(axes))
            return (result.value,)

        return rewrite(graph, change)


def _wishes(graph: Graph) -> dict[Node, Axes]:
    """Return the nodes to turn and how, by asking readers first."""
    turned: dict[Node, Axes] = {}
    for node in reversed(graph.nodes):
        value = Value(node)
        if not _can_turn(node) or value in graph.results:
            continue
        users = graph.users.get(value, ())
        wishes = {_wish(graph, user, turned) for user in users if not _is_free(user, turned)}
        if len(wishes) == 1:
            (axes,) = wishes
            if axes is None or axes == tuple(range(node.type.rank)):
                continue
            free = (user for user in users if _is_free(user, turned))
            if all(_reads_any(user, axes) for user in free):
                turned[node] = axes
    return turned


def _can_turn(node: Node) -> bool:
    kind = node.op.kind
    if len(node.types) > 1 or node.type.size == 0:
        return False
    if isinstance(kind, Elementwise):
        return all(value.type.shape == node.type.shape for value in node.inputs)
    return isinstance(kind, Reduction) or node.op is concatenate


def _is_free(user: Node, turned: dict[Node, Axes]) -> bool:
    """Tell whether a reader is a reduction, which may take its operand's axes in another order."""
    return isinstance(user.op.kind, Reduction) and user not in turned


def _reads_any(node: Node, axes: Axes) -> bool:
    """Tell whether the axes that a reduction keeps stay in order where its operand's do not."""
    reduced = reduced_axes(node)
    kept = [axis for axis in axes if axis not in reduced]
    return kept == sorted(kept)


def _reduced_as_stored(node: Node, inputs: tuple[Value, ...]) -> Tensor | None:
    """Return a reduction of what a permutation shows as it is stored, where its results allow."""
    if not isinstance(node.op.kind, Reduction) or inputs[0].node.op is not permute:
        return None
    axes = inputs[0].node.attrs["axes"]
    below = inputs[0].node.inputs[0]
    if not _reads_any(node, _inverse(axes)):
        return None
    attrs = {**node.attrs, "axes": tuple(sorted(axes[axis] for axis in reduced_axes(node)))}
    return _with(node, [Tensor(below)], attrs)


def _wish(graph: Graph, user: Node, turned: dict[Node, Axes]) -> Axes | None:
    """Return the order in which `user` wants to read its operand; None where as it is."""
    if user.op is permute:
        axes: Axes = user.attrs["axes"]
        return axes if _is_undone(graph, user) else None
    if user not in turned:
        return None
    if isinstance(user.op.kind, Reduction):
        return _operand_axes(user, turned[user])
    return turned[user]


def _is_undone(graph: Graph, node: Node) -> bool:
    """Tell whether all that reads a permutation is its inverse."""
    value, inverse = Value(node), _inverse(node.attrs["axes"])
    users = graph.users.get(value, ())
    is_undone = all(each.op is permute and each.attrs["axes"] == inverse for each in users)
    return bool(users) and is_undone and value not in graph.results


def _inverse(axes: Axes) -> Axes:
    return tuple(axes.index(axis) for axis in range(len(axes)))


def _operand_axes(node: Node, axes: Axes) -> Axes:
    """Return the order of a reduction's operand that brings its result into the order `axes`."""
    reduced = reduced_axes(node)
    kept = [axis for axis in range(node.inputs[0].type.rank) if axis not in reduced]
    order = iter(kept[axis] for axis in axes)
    return (*order, *sorted(reduced))


def _turned(node: Node, inputs: tuple[Value, ...], axes: Axes) -> Tensor:
    if isinstance(node.op.kind, Reduction):
        order, attrs = _operand_axes(node, axes), dict(node.attrs)
        attrs["axes"] = tuple(range(len(axes), len(order)))
        return _with(node, [_permuted(inputs[0], order)], attrs)
    operands = [_permuted(value, axes) for value in inputs]
    if node.op is concatenate:
        return _with(node, operands, {**node.attrs, "axis": axes.index(node.attrs["axis"])})
    return _with(node, operands, dict(node.attrs))


def _permuted(value: Value, axes: Axes) -> Tensor:
    result: Tensor = permute(Tensor(value), axes=axes)
    return result


def _with(node: Node, operands: list[Tensor], attrs: dict[str, object]) -> Tensor:
    result: Tensor = build(node.op, [each.value for each in operands], attrs)
    return result
