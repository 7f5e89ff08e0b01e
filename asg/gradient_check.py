"""Gradient rules beside central differences, node by node, at the values that the nodes see.

Roof: uses differentiation and the interpreter, in float64. A rule that is wrong makes a gradient
graph that is wrong everywhere alike: the interpreter and the device agree on it. So each node is
differentiated by itself, in a random direction, and compared with its own forward rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asg.checks import Check
from asg.comparison import Array, Difference, Verdict
from asg.errors import AsgError
from asg.extract import extract
from asg.graph import Graph, Node, Value
from asg.op import NoGradient
from asg.passes.autodiff import grad
from asg.runtime.interpreter import run
from asg.types import DType
from asg.yardstick import collect

STEP = 1e-5  # of the difference, relative to the operand
# Central differences in float64 are good to STEP squared and 1e-16 / STEP.
TOLERANCE = 1e-6
# Two steps that disagree by this much have a kink between them, where no rule can be checked.
KINK = 1e-4

_SEEDS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # numbers that f32 holds exactly


def check_gradients(entry: str, graph: Graph, given: Mapping[str, Any]) -> list[Check]:
    """Check the gradient rule of every node that has one; equal cases once."""
    chosen: dict[object, Node] = {}
    for node in graph.nodes:
        if _has_gradient(node):
            types = tuple(value.type for value in node.inputs)
            chosen.setdefault((node.op, types, tuple(node.attrs.items())), node)
    wanted = {value for node in chosen.values() for value in node.inputs}
    computed = collect(graph, given, wanted, "f64")
    return [_check_node(entry, graph, node, computed) for node in chosen.values()]


def _has_gradient(node: Node) -> bool:
    if isinstance(node.op.grad, NoGradient) or not node.type.size:
        return False
    is_float = any(value.type.dtype.is_float for value in node.inputs)
    return is_float and any(type_.dtype.is_float for type_ in node.types)


def _check_node(entry: str, graph: Graph, node: Node, computed: Mapping[Value, Array]) -> Check:
    part = extract(graph, {f"r{n}": value for n, value in enumerate(node.values)}, node.inputs)
    operands = {graph.names[value]: computed[value] for value in node.inputs}
    source = np.random.default_rng(0)
    label = f"{graph.names[node.values[0]]} ({node.op.name})"
    seeds = {
        key: source.choice(_SEEDS, value.type.shape)
        for key, value in part.outputs.items()
        if value.type.dtype.is_float
    }
    floats = [key for key, array in operands.items() if array.dtype.kind == "f" and array.size]
    moves = {key: source.choice(_SEEDS, operands[key].shape) for key in floats}
    place = "" if node.site is None else f"at {node.site}: {node.site.source}"
    try:
        arrays = {key: value.astype(np.float32) for key, value in seeds.items()}
        pulled = run(grad(part, None, floats, seed=arrays), operands, dtype="f64")
    except (AsgError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        note = "\n".join(filter(None, [f"{type(error).__name__}: {error}", place]))
        return Check("gradients", entry, label, note=note, is_fault=True)
    with np.errstate(all="ignore"):
        products = [pulled[f"{key}.grad"] * moves[key] for key in floats]
        by_rule = float(sum(np.sum(each) for each in products))
        slopes = [_slope(part, operands, moves, seeds, STEP * factor) for factor in (1.0, 0.5)]
        size = float(sum(np.sum(np.abs(each)) for each in products)) + abs(slopes[1]) + 1e-3
    difference = _judge(by_rule, slopes, size)
    notes = {"right": "", "wrong": place, "undecided": "no slope here: a kink, or no number"}
    return Check("gradients", entry, label, (difference,), notes[difference.verdict])


def _slope(
    part: Graph,
    operands: Mapping[str, Array],
    moves: Mapping[str, Array],
    seeds: Mapping[str, Array],
    step: float,
) -> float:
    """Return how fast the seeded sum of the results changes along `moves`."""
    sums: list[float] = []
    for sign in (1.0, -1.0):
        moved = {
            key: array + sign * step * moves[key] if key in moves else array
            for key, array in operands.items()
        }
        results = run(part, moved, dtype="f64")
        sums.append(float(sum(np.sum(results[key] * seeds[key]) for key in seeds)))
    return (sums[0] - sums[1]) / (2 * step)


def _judge(by_rule: float, slopes: Sequence[float], size: float) -> Difference:
    """Compare the rule with the finer difference, unless the two differences disagree."""
    error = abs(by_rule - slopes[1])
    allowed = TOLERANCE * size
    has_kink = not abs(slopes[0] - slopes[1]) <= KINK * size
    is_right = error <= allowed
    verdict: Verdict = "right" if is_right else "undecided" if has_kink else "wrong"
    return Difference(
        name="slope along a random direction", type=f"{DType.F32}[]", verdict=verdict,
        elements=1, wrong=int(verdict == "wrong"), undecided=int(verdict == "undecided"),
        index=(), got=by_rule, expected=slopes[1], error=error, allowed=allowed,
    )  # fmt: skip
