"""Reverse-mode differentiation: from a graph to the graph of its gradients.

Every op has a rule that turns the cotangents of its results into those of its operands. What is
common to all of them happens here, once: which nodes lie between `wrt` and `of`, summing where a
value is used several times, operands and results that have no gradient, and who made a node.
Narrow types are widened before (`asg.passes.widen_narrow`), so that rules compute in f32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from asg.errors import GradientError, InternalError
from asg.graph import Graph, Node, Value, rewrite
from asg.op import Attention, ByExpansion, Composite, NoGradient
from asg.open_graph import OpenGraph
from asg.ops.arithmetic import add
from asg.ops.movement import broadcast
from asg.ops.sources import constant, input
from asg.passes.recognise import Recognise
from asg.passes.widen_narrow import WidenNarrow
from asg.site import inherit
from asg.tensor import Tensor
from asg.types import TensorType

NOTE = "gradient"

Seed = Mapping[str, "str | np.ndarray[Any, Any] | float"]
AnyGraph = TypeVar("AnyGraph", Graph, OpenGraph)
Cotangents = dict[Value, list[Tensor]]


def grad(
    graph: AnyGraph,
    of: str | None = "loss",
    wrt: Sequence[str] | str | None = None,
    *,
    seed: Seed | None = None,
    recognise: bool = True,
) -> AnyGraph:
    """Return a graph whose outputs are the gradients of `of`, named `w.grad` (see
    `value_and_grad`)."""
    if isinstance(graph, OpenGraph):
        _check_seed(seed)
        return graph.map(partial(grad, of=of, wrt=wrt, seed=seed, recognise=recognise))
    graph = _prepared(graph, wrt, recognise)
    gradients, inputs = _differentiate(graph, of, wrt, seed)
    return _build(graph, {}, gradients, inputs)


def value_and_grad(
    graph: AnyGraph,
    of: str | None = "loss",
    wrt: Sequence[str] | str | None = None,
    *,
    seed: Seed | None = None,
    recognise: bool = True,
) -> AnyGraph:
    """Return `graph` with the gradients of output `of` as further outputs, named `w.grad`.

    The result is an ordinary graph and can be differentiated again. Updates of state are kept.

    Args:
        of: a float output without axes.
        wrt: names of float inputs; all parameters that are floats unless told. The gradient of
            an input that `of` does not depend on is zero.
        seed: instead of `of`, the cotangents of one or more outputs: each an array, or the name
            of an input that the new graph gets for it.
        recognise: whether what is spelt out, such as attention, is differentiated as a whole.

    Raises:
        GradientError: a name is unknown, something is no float, or an op on the way has no
            gradient.
    """
    if isinstance(graph, OpenGraph):
        _check_seed(seed)
        return graph.map(partial(value_and_grad, of=of, wrt=wrt, seed=seed, recognise=recognise))
    graph = _prepared(graph, wrt, recognise)
    gradients, inputs = _differentiate(graph, of, wrt, seed)
    for name in gradients:
        if name in graph.outputs:
            raise GradientError(
                f"graph {graph.name} has an output {name!r} already; "
                "use asg.grad, which yields gradients only"
            )
    return _build(graph, graph.outputs, gradients, inputs)


def _check_seed(seed: Seed | None) -> None:
    """Refuse seeds that would add inputs of a size that nobody knows."""
    if seed is not None and any(isinstance(each, str) for each in seed.values()):
        raise GradientError("an open graph takes no seed by name; fix: bind it first")


def _build(
    graph: Graph,
    outputs: Mapping[str, Value],
    gradients: Mapping[str, Value],
    inputs: Iterable[Node],
) -> Graph:
    return Graph.build(
        {**outputs, **gradients},
        updates=graph.updates,
        name=graph.name,
        values=graph.values,
        inputs=(*graph.inputs, *inputs),
        interfaces=graph.interfaces,
    )


def _prepared(graph: Graph, wrt: Sequence[str] | str | None, recognise: bool) -> Graph:
    """Compute in wide types, and put together what has a better gradient as a whole."""
    graph = WidenNarrow()(graph)
    if recognise:
        graph = Recognise().apart_from(graph, lambda each: _depending(each, _sources(each, wrt)))
    return _spelt_out(graph, wrt)


def _spelt_out(graph: Graph, wrt: Sequence[str] | str | None) -> Graph:
    """Expand the nodes whose gradient is that of their expansion, if a gradient passes them."""
    if not any(isinstance(node.op.grad, ByExpansion) for node in graph.nodes):
        return graph
    depending = _depending(graph, _sources(graph, wrt))

    def expand(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        kind = node.op.kind
        if not isinstance(node.op.grad, ByExpansion) or depending.isdisjoint(node.values):
            return None
        if not isinstance(kind, (Composite, Attention)):
            raise InternalError(f"autodiff: {node.op.name} has no expansion to differentiate")
        found = kind.expand(node.attrs, *(Tensor(value) for value in inputs))
        return tuple(each.value for each in (found if isinstance(found, tuple) else (found,)))

    return rewrite(graph, expand)


def _differentiate(
    graph: Graph, of: str | None, wrt: Sequence[str] | str | None, seed: Seed | None
) -> tuple[dict[str, Value], list[Node]]:
    """Return the gradients by name, and the inputs that `seed` adds."""
    sources = _sources(graph, wrt)
    cotangents, inputs = _seeds(graph, of, seed)
    depending = _depending(graph, sources)
    for node in reversed(graph.nodes):
        if not node.inputs or not any(value in depending for value in node.values):
            continue
        with inherit(node.site, node.scope, NOTE):
            _pull_back(node, cotangents, depending)
    gradients: dict[str, Value] = {}
    for source in sources:
        with inherit(source.node.site, source.node.scope, NOTE):
            total = _total(cotangents.get(source, ()))
            total = _zeros(source.type) if total is None else total
        gradients[f"{source.node.attrs['name']}.grad"] = total.value
    return gradients, inputs


def _sources(graph: Graph, wrt: Sequence[str] | str | None) -> list[Value]:
    """Return the inputs to differentiate by."""
    known = graph.input_names()
    names = [wrt] if isinstance(wrt, str) else wrt
    if names is None:
        parameters = [Value(graph.input(name)) for name in graph.input_names("parameter")]
        found = [value for value in parameters if value.type.dtype.is_float]
        if not found:
            raise GradientError(
                f"graph {graph.name} has no float parameters; say by which inputs to "
                f"differentiate: wrt=[...]; inputs: {_names(known)}"
            )
        return found
    for name in names:
        if name not in known:
            raise GradientError(
                f"graph {graph.name} has no input {name!r}; inputs: {_names(known)}"
            )
    sources = [Value(graph.input(name)) for name in dict.fromkeys(names)]
    for source in sources:
        if not source.type.dtype.is_float:
            raise GradientError(
                f"input {source.node.attrs['name']!r} is {source.type}; only floats have gradients"
            )
    return sources


def _seeds(graph: Graph, of: str | None, seed: Seed | None) -> tuple[Cotangents, list[Node]]:
    """Return the cotangents of the outputs that are differentiated, and the inputs they need."""
    wanted: Seed = seed if seed is not None else {of or "": 1.0}
    cotangents: Cotangents = {}
    inputs: list[Node] = []
    for name, given in wanted.items():
        if name not in graph.outputs:
            raise GradientError(
                f"graph {graph.name} has no output {name!r}; outputs: {_names(graph.outputs)}"
            )
        value = graph.outputs[name]
        _check_output(name, value.type, is_seeded=seed is not None)
        with inherit(value.node.site, value.node.scope, NOTE):
            tensor = _seed(name, value.type, given)
        if isinstance(given, str):
            inputs.append(tensor.node)
        cotangents.setdefault(value, []).append(tensor)
    return cotangents, inputs


def _check_output(name: str, type_: TensorType, *, is_seeded: bool) -> None:
    if not type_.dtype.is_float:
        raise GradientError(f"output {name!r} is {type_}; only floats have gradients")
    if type_.shape and not is_seeded:
        raise GradientError(
            f"output {name!r} is {type_}; a gradient is taken of a scalar\n"
            "  fix: reduce it with asg.sum or asg.mean, or name its cotangent with seed="
        )


def _seed(name: str, type_: TensorType, given: str | np.ndarray[Any, Any] | float) -> Tensor:
    if isinstance(given, str):
        return input(given, type_)
    tensor = constant(given, type_.dtype)
    if tensor.shape not in ((), type_.shape):
        raise GradientError(f"output {name!r} is {type_}, its seed has shape {list(tensor.shape)}")
    return tensor if tensor.type == type_ else broadcast(tensor, shape=type_.shape)


def _depending(graph: Graph, sources: Iterable[Value]) -> set[Value]:
    """Return the float values that depend on `sources` in a way that may have a gradient."""
    depending = set(sources)
    for node in graph.nodes:
        rule = node.op.grad
        if isinstance(rule, NoGradient) and rule.is_zero:
            continue
        if any(value in depending for value in node.inputs):
            depending.update(value for value in node.values if value.type.dtype.is_float)
    return depending


def _pull_back(node: Node, cotangents: Cotangents, depending: set[Value]) -> None:
    """Run the op's rule; add what it yields to the cotangents of the operands."""
    arrived = [_total(cotangents.pop(value, ())) for value in node.values]
    if all(cotangent is None for cotangent in arrived):
        return
    rule = node.op.grad
    if isinstance(rule, NoGradient):
        raise GradientError(_refusal(node, rule))
    if isinstance(rule, ByExpansion):
        raise InternalError(f"autodiff: {node.op.name} was not spelt out")
    full = tuple(
        cotangent if cotangent is not None or not value.type.dtype.is_float else _zeros(value.type)
        for cotangent, value in zip(arrived, node.values, strict=True)
    )
    operands = [Tensor(value) for value in node.inputs]
    found = rule(Tensor(Value(node)), full if len(full) > 1 else full[0], *operands)
    if len(found) != len(node.inputs):
        raise InternalError(
            f"autodiff: the gradient of {node.op.name} yields {len(found)} cotangents "
            f"for {len(node.inputs)} operands"
        )
    for value, cotangent in zip(node.inputs, found, strict=True):
        if cotangent is None or value not in depending:
            continue
        if cotangent.type != value.type:
            raise InternalError(
                f"autodiff: the gradient of {node.op.name} for an operand {value.type} "
                f"is {cotangent.type}"
            )
        cotangents.setdefault(value, []).append(cotangent)


def _total(parts: Sequence[Tensor]) -> Tensor | None:
    """Add up the cotangents of one value, in the order in which they arrived."""
    total: Tensor | None = None
    for part in parts:
        total = part if total is None else add(total, part)
    return total


def _zeros(type_: TensorType) -> Tensor:
    zero = constant(0, type_.dtype)
    return broadcast(zero, shape=type_.shape) if type_.shape else zero


def _refusal(node: Node, rule: NoGradient) -> str:
    lines = [f"{node.op.name} has no gradient: {rule.reason}"]
    if node.site is not None:
        scope = f" ({node.scope})" if node.scope else ""
        lines.append(f"  at {node.site} in {node.site.function}{scope}:  {node.site.source}")
    lines.append("  fix: asg.stop_gradient, where none is wanted through it")
    return "\n".join(lines)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
