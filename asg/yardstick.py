"""How exactly a graph can be computed at all: the reference, and what rounding does to it.

Roof: uses the interpreter. The reference is a run in float64. Beside it stand the run in float32
and some in float64 in which every node is off by what `asg.tolerances` lets it round. Where
these scatter, the graph is ill-conditioned, and nobody can ask a device for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from asg.comparison import Array, Yardstick
from asg.evaluate import Precision
from asg.graph import Graph, Node, Value
from asg.runtime.interpreter import run_with_updates
from asg.tolerances import EPSILON, SAMPLES, STORED, TINY, rounding, terms
from asg.types import DType


def measure(
    graph: Graph,
    given: Mapping[str, Any],
    wanted: Iterable[Value] | None = None,
    samples: int = SAMPLES,
) -> dict[Value, Yardstick]:
    """Return the yardsticks of `wanted` values; by default those of outputs and updates.

    `given` has arrays by name for the inputs, and for parameters and state where they are not to
    be those that the graph starts with.
    """
    kept = list(dict.fromkeys(graph.results if wanted is None else wanted))
    exact = collect(graph, given, kept, "f64")
    single = collect(graph, given, kept, "f32")
    spread = {value: _no_spread(exact[value], single[value]) for value in kept}
    for seed in range(samples):
        disturbed = collect(graph, given, kept, "f64", np.random.default_rng(seed))
        for value in kept:
            spread[value] = _widen(spread[value], exact[value], disturbed[value])
    return {value: Yardstick(exact[value], single[value], spread[value]) for value in kept}


def collect(
    graph: Graph,
    given: Mapping[str, Any],
    wanted: Iterable[Value],
    dtype: Precision = "f32",
    noise: np.random.Generator | None = None,
) -> dict[Value, Array]:
    """Return some values of a graph as the interpreter computes them, disturbed by `noise`.

    Float64 has the range of float32 here, so that the reference overflows where a device does.
    """
    kept = set(wanted)
    found: dict[Value, Array] = {}

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        found.update((v, a) for v, a in zip(node.values, results, strict=True) if v in kept)

    def adjust(node: Node, operands: Any, results: tuple[Array, ...]) -> tuple[Array, ...]:
        moved = results if noise is None else disturb(node, operands, results, noise)
        if dtype == "f32":
            return moved
        dtypes = [type_.dtype for type_ in node.types]
        return tuple(_in_range(*pair) for pair in zip(moved, dtypes, strict=True))

    run_with_updates(graph, given, dtype=dtype, observe=observe, adjust=adjust)
    return found


def disturb(
    node: Node, operands: list[Array], results: tuple[Array, ...], noise: np.random.Generator
) -> tuple[Array, ...]:
    """Return the results of a node, each float off by what the node may round."""
    rule = rounding(node.op)
    if not (rule.result or rule.terms or rule.operands):
        return results
    if not any(result.dtype.kind == "f" for result in results):
        return results
    with np.errstate(all="ignore"):
        if rule.operands and any(operand.dtype.kind == "f" for operand in operands):
            moved = [_moved(operand, rule.operands, noise) for operand in operands]
            found = node.op.numpy(*moved, **node.attrs)
            results = tuple(map(np.asarray, found if len(node.types) > 1 else (found,)))
        sizes = [rule.result * np.abs(result) for result in results]
        if rule.terms:
            root, count = terms(node, operands, results[0])
            sizes[0] = sizes[0] + rule.terms * np.sqrt(count) * (root + np.abs(results[0]))
        computed = tuple(
            _off(result, EPSILON * size + TINY, noise) if result.dtype.kind == "f" else result
            for result, size in zip(results, sizes, strict=True)
        )
        dtypes = [type_.dtype for type_ in node.types]
        return tuple(_rounded(*pair, noise) for pair in zip(computed, dtypes, strict=True))


def _moved(array: Array, epsilons: float, noise: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    return _off(array, epsilons * EPSILON * np.abs(array), noise)


def _off(array: Array, by: Array, noise: np.random.Generator) -> Array:
    """Move every element by at least half of `by`, so that no deviation is small by chance."""
    drawn = noise.uniform(-0.5, 0.5, array.shape)
    moved: Array = array + by * (drawn + np.copysign(0.5, drawn))
    return np.where(np.isfinite(array), moved, array)


def _rounded(array: Array, dtype: DType, noise: np.random.Generator) -> Array:
    """Move every element by what a type of fewer bits rounds it."""
    if not (dtype.is_float and dtype.is_narrow):
        return array
    relative, least, _ = STORED[dtype]
    return _off(array, relative * np.abs(array) + least, noise)


def _in_range(array: Array, dtype: DType) -> Array:
    if not dtype.is_float or array.size == 0:
        return array
    with np.errstate(all="ignore"):
        is_beyond = np.abs(array) >= STORED[dtype][2]
    return np.where(is_beyond, np.copysign(np.inf, array), array) if is_beyond.any() else array


def _no_spread(exact: Array, single: Array) -> Array:
    """Return the spread between the interpreter's two runs."""
    if exact.dtype.kind != "f":
        return np.asarray(exact != single)
    return _distance(exact, single.astype(np.float64))


def _widen(spread: Array, exact: Array, disturbed: Array) -> Array:
    if exact.dtype.kind != "f":
        return np.asarray(spread | (exact != disturbed))
    return np.maximum(spread, _distance(exact, disturbed))


def _distance(exact: Array, other: Array) -> Array:
    """Return how far apart two arrays are; infinite where only one of them is finite."""
    with np.errstate(all="ignore"):
        apart = np.abs(exact - other)
    is_same = (exact == other) | (np.isnan(exact) & np.isnan(other))
    return np.where(is_same, 0.0, np.where(np.isnan(apart), np.inf, apart))
