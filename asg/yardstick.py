"""How exactly a graph can be computed at all: the reference, and what rounding does to it.

Roof: uses the interpreter. The reference is a run in float64. Beside it stand the run in float32
and some in float64 in which every node is off by what `asg.tolerances` lets it round. Where
these scatter, the graph is ill-conditioned, and nobody can ask a device for more.

All runs round what the graph stores in f16 or bf16, and hand out what it was before: who compares
allows for the last rounding. A disturbed run rounds numbers near a tie to one side, the next run
to the other, so that all that a device might round otherwise is among what scatters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.comparison import Array, Yardstick
from asg.evaluate import Precision
from asg.graph import Graph, Node, Value
from asg.narrow import stored
from asg.runtime.interpreter import run_with_updates
from asg.tolerances import (
    EPSILON,
    FAST_SAMPLES,
    ROUNDING,
    SAFETY,
    SAMPLES,
    STORED,
    TINY,
    Numerics,
    half_step,
    rounding,
    terms,
)
from asg.types import DType


def measure(
    graph: Graph,
    given: Mapping[str, Any],
    wanted: Iterable[Value] | None = None,
    samples: int | None = None,
    numerics: Numerics = "precise",
) -> dict[Value, Yardstick]:
    """Return the yardsticks of `wanted` values; by default those of outputs and updates.

    `given` has arrays by name for the inputs, and for parameters and state where they are not to
    be those that the graph starts with. `numerics` is the mode that devices are compared in.
    """
    kept = list(dict.fromkeys(graph.results if wanted is None else wanted))
    unrounded: dict[Value, Array] = {}
    exact = collect(graph, given, kept, "f64", unrounded=unrounded)
    single = collect(graph, given, kept, "f32")
    spread = {value: _no_spread(exact[value], single[value], value.type.dtype) for value in kept}
    count = samples or (SAMPLES if numerics == "precise" else FAST_SAMPLES)
    for seed in range(count):
        noise = Noise(np.random.default_rng(seed), unrounded, 1.0 if seed % 2 else -1.0, numerics)
        disturbed = collect(graph, given, kept, "f64", noise)
        for value in kept:
            spread[value] = _widen(spread[value], exact[value], disturbed[value])
    return {value: Yardstick(exact[value], single[value], spread[value]) for value in kept}


@dataclass(frozen=True)
class Noise:
    """How a run is disturbed: random numbers; what values of narrow types are before rounding
    where nothing disturbs them; to which side such a value is rounded near a tie; and the mode of
    functions."""

    source: np.random.Generator
    unrounded: Mapping[Value, Array]
    side: float
    numerics: Numerics = "precise"


def collect(
    graph: Graph,
    given: Mapping[str, Any],
    wanted: Iterable[Value],
    dtype: Precision = "f32",
    noise: Noise | None = None,
    unrounded: dict[Value, Array] | None = None,
) -> dict[Value, Array]:
    """Return some values of a graph as the interpreter computes them, disturbed by `noise`.

    Float64 has the range of float32 here, so that the reference overflows where a device does.
    Values of narrow types are those before rounding; `unrounded` takes all that are rounded.
    """
    kept = set(wanted)
    found: dict[Value, Array] = {}

    def observe(node: Node, results: tuple[Array, ...]) -> None:
        for value, result in zip(node.values, results, strict=True):
            if value in kept:
                found.setdefault(value, result)

    def adjust(node: Node, operands: Any, results: tuple[Array, ...]) -> tuple[Array, ...]:
        moved = (
            results
            if noise is None
            else disturb(node, operands, results, noise.source, noise.numerics)
        )
        if dtype == "f32":
            return moved
        return tuple(map(settle, node.values, moved))

    def settle(value: Value, array: Array) -> Array:
        array = _in_range(array, value.type.dtype)
        is_rounded = value.type.dtype.is_float and value.type.dtype.is_narrow
        if not is_rounded or rounding(value.node.op) is ROUNDING["exact"]:
            return array
        if value in kept:
            found[value] = array
        if unrounded is not None:
            unrounded[value] = array
        return _stored(array, value, noise)

    run_with_updates(graph, given, dtype=dtype, observe=observe, adjust=adjust)
    return found


def disturb(
    node: Node,
    operands: list[Array],
    results: tuple[Array, ...],
    noise: np.random.Generator,
    numerics: Numerics = "precise",
) -> tuple[Array, ...]:
    """Return the results of a node, each float off by what the node may round."""
    rule = rounding(node.op, numerics)
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
        return tuple(
            _off(result, EPSILON * size + TINY, noise) if result.dtype.kind == "f" else result
            for result, size in zip(results, sizes, strict=True)
        )


def _moved(array: Array, epsilons: float, noise: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    return _off(array, epsilons * EPSILON * np.abs(array), noise)


def _off(array: Array, by: Array, noise: np.random.Generator) -> Array:
    """Move every element by at least half of `by`, so that no deviation is small by chance."""
    drawn = noise.uniform(-0.5, 0.5, array.shape)
    moved: Array = array + by * (drawn + np.copysign(0.5, drawn))
    return np.where(np.isfinite(array), moved, array)


def _stored(array: Array, value: Value, noise: Noise | None) -> Array:
    """Return what is stored in a narrow type. Where noise may have moved an element, it is moved
    further, by as much as a device may be off, but by no more than rounding may add."""
    dtype = value.type.dtype
    with np.errstate(all="ignore"):
        if noise is not None:
            far = (SAFETY - 1.0) * np.abs(array - noise.unrounded[value])
            push = noise.side * np.minimum(far, half_step(array, dtype))
            array = np.where(np.isfinite(push), array + push, array)
        return stored(array, dtype).astype(np.float64)


def _in_range(array: Array, dtype: DType) -> Array:
    if not dtype.is_float or array.size == 0:
        return array
    with np.errstate(all="ignore"):
        is_beyond = np.abs(array) >= STORED[dtype][2]
    return np.where(is_beyond, np.copysign(np.inf, array), array) if is_beyond.any() else array


def _no_spread(exact: Array, single: Array, dtype: DType) -> Array:
    """Return the spread between the interpreter's two runs, of which the second is rounded."""
    if exact.dtype.kind != "f":
        return np.asarray(exact != single)
    distance = _distance(exact, single.astype(np.float64))
    if not dtype.is_narrow:
        return distance
    near: Array = np.maximum(distance - half_step(exact, dtype), 0.0)
    return near


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
