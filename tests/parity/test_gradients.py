"""Gradients and second derivatives of every differentiable function and op beside PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

import asg
from asg import functions
from asg.comparison import compare
from asg.departures import DEPARTURES, Departure
from asg.graph import Graph, Node, Value
from asg.nn import functional
from asg.op import NoGradient, Source
from asg.ops import TABLE
from asg.runtime.interpreter import run, run_with_updates
from asg.tolerances import EPSILON, TINY
from asg.verify import verify
from asg.yardstick import measure
from support.gradient_cases import FUNCTIONS
from support.targets import Arrays, evaluate, reference

CASES = reference("gradients")
EXACT = 1e-11  # two computations in float64, neither of which cancels

# Public functions whose result is no differentiable function of their operands.
FLAT = {
    "truth values": "all any equal greater greater_equal isfinite isinf isnan less less_equal "
    "logical_and logical_not logical_or logical_xor not_equal tri causal_mask dropout_mask",
    "integers or bits": "argmax argmin argsort bitcast bitwise_and bitwise_not bitwise_or "
    "bitwise_xor floor_divide fold_in key nonzero non_max_suppression random_bits "
    "random_bernoulli searchsorted shift_left shift_right trunc_divide unique",
    "a length that the numbers decide": "compress masked_select",
    "constants": "arange constant eye one_hot ones ones_like random_uniform zeros zeros_like",
    "a mask times its operand (tests/nn)": "dropout",
}


TWICE = [case for case in CASES if any(field.endswith(".dir") for field in CASES[case])]


def operands(case: str) -> Arrays:
    """What the function of a case takes."""
    fields = CASES[case]
    return {
        key: array
        for key, array in fields.items()
        if "." not in key and not (key[0] in "yw" and key[1:].isdigit())
    }


@cache
def derivatives(case: str) -> tuple[Graph, Graph, Graph | None]:
    """The graph of a case with its gradients, and that of its second derivatives."""
    fields, given = CASES[case], operands(case)
    tensors = {key: asg.input(key, array.shape, array.dtype) for key, array in given.items()}
    found = FUNCTIONS[case](*tensors.values())
    results = found if isinstance(found, tuple) else (found,)
    outputs = {f"y{place}": y.value for place, y in enumerate(results)}
    graph = Graph.build(outputs, inputs=[tensor.node for tensor in tensors.values()])
    wanted = [key for key in given if f"{key}.grad" in fields]
    seed = {f"y{place}": fields[f"w{place}"] for place in range(len(results))}
    first = asg.value_and_grad(graph, None, wanted, seed=seed)
    directions = {f"{key}.grad": fields[f"{key}.dir"] for key in wanted if f"{key}.dir" in fields}
    if not directions:
        return graph, first, None
    again = asg.grad(asg.grad(graph, None, wanted, seed=seed), None, wanted, seed=directions)
    return graph, first, again


def exact(graph: Graph, given: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Outputs in float64, and how far they move when constants, which are f32, do so by what they
    were rounded. Numbers of few bits were not."""
    wide = {key: x.astype(np.float64) if x.dtype.kind == "f" else x for key, x in given.items()}
    found = run(graph, wide, dtype="f64")
    spread = {key: np.zeros(array.shape) for key, array in found.items()}
    for seed in range(8):
        signs = np.random.default_rng(seed)

        def move(node: Node, _: Any, results: Any, signs: Any = signs) -> Any:
            value = results[0]
            if not isinstance(node.op.kind, Source) or value.dtype.kind != "f":
                return results
            if node.op.name != "constant" or not np.isfinite(value).all():
                return results
            few = value.astype(np.float32).view(np.uint32) & 0xFFF == 0
            moved = value * (1.0 + EPSILON * signs.choice([-1.0, 1.0], value.shape))
            return (np.where(few, value, moved),)

        moved = run_with_updates(graph, wide, dtype="f64", adjust=move)[0]
        with np.errstate(invalid="ignore"):
            for key in found:
                apart = np.nan_to_num(np.abs(moved[key] - found[key]))
                spread[key] = np.maximum(spread[key], apart)
    return {key: (found[key], 4.0 * spread[key]) for key in found}


def wanted(case: str, name: str) -> np.ndarray:
    """PyTorch's numbers, or `asg`'s own where it departs from them."""
    numbers = CASES[case][name].copy()
    for departure in DEPARTURES:
        for place, number in departure.cases.get(case, {}).get(name, {}).items():
            numbers.flat[place] = number
    return numbers


def same(case: str, name: str, got: tuple[np.ndarray, np.ndarray], numbers: np.ndarray) -> None:
    found, allowed = got
    assert found.shape == numbers.shape, f"{case}: {name}"
    with np.errstate(invalid="ignore"):
        sizes = np.abs(np.where(np.isfinite(numbers), numbers, 0.0))
        near = np.abs(found - numbers) <= allowed + EXACT * (sizes + sizes.mean() + TINY)
    right = near | (found == numbers) | (np.isnan(found) & np.isnan(numbers))
    assert right.all(), f"{case}: {name} is\n{found}\nnot\n{numbers}"


def test_every_case_is_there() -> None:
    assert set(FUNCTIONS) == set(CASES)


def test_every_public_function_is_covered() -> None:
    """A new function needs a case, or a word that it has no gradient."""
    flat = {name for names in FLAT.values() for name in names.split()}
    public = {*functions.__all__, *functional.__all__}
    covered = {case.split(".")[0] for case in CASES}
    assert flat <= public
    assert not flat & covered
    assert public - flat - covered == set()
    # The others are ops that no public function bears the name of.
    assert covered - public <= set(TABLE)


def test_every_differentiable_op_is_covered() -> None:
    """A cotangent passes the rule of each op in a case, or in its second derivatives."""
    passed: set[str] = set()
    for case in CASES:
        graph, first, again = derivatives(case)
        passed |= passed_ops(graph, case)
        if again is not None:
            passed |= passed_ops(first, case)
    rules = {name for name, op in TABLE.items() if not isinstance(op.grad, NoGradient)}
    assert rules - passed == set()


def passed_ops(graph: Graph, case: str) -> set[str]:
    """The ops between the inputs with gradients and the outputs."""
    names = {key for key in operands(case) if f"{key}.grad" in CASES[case]}
    depending: set[Value] = set()
    found: set[str] = set()
    for node in graph.nodes:
        is_source = node.op.name == "input" and node.attrs["name"] in names
        if is_source or not depending.isdisjoint(node.inputs):
            if isinstance(node.op.grad, NoGradient) and not is_source:
                continue
            depending.update(value for value in node.values if value.type.dtype.is_float)
            found.add(node.op.name)
    return found


@pytest.mark.parametrize("departure", DEPARTURES, ids=lambda each: each.functions[0])
def test_departures_are_some(departure: Departure) -> None:
    """What is listed does differ from PyTorch."""
    for case, fields in departure.cases.items():
        assert case.split(".")[0] in departure.functions
        for name, numbers in fields.items():
            for place, number in numbers.items():
                theirs = CASES[case][name].flat[place]
                assert theirs != number
                assert not (np.isnan(theirs) and np.isnan(number))


@pytest.mark.parametrize("case", CASES)
def test_gradient(case: str) -> None:
    _, graph, _ = derivatives(case)
    verify(graph)
    for name, found in exact(graph, operands(case)).items():
        same(case, name, found, wanted(case, name))


@pytest.mark.parametrize("case", TWICE)
def test_second_derivative(case: str) -> None:
    graph = derivatives(case)[2]
    assert graph is not None
    verify(graph)
    for name, found in exact(graph, operands(case)).items():
        field = name.removesuffix(".grad") + ".second"
        numbers = CASES[case].get(field)
        same(case, field, found, np.zeros_like(found[0]) if numbers is None else numbers)


@pytest.mark.device
@pytest.mark.parametrize("case", CASES)
def test_gradient_on_a_device(case: str) -> None:
    """As exact as the rounding of each node explains (`asg.tolerances`)."""
    _, graph, _ = derivatives(case)
    given = operands(case)
    found = evaluate(graph, given, "wgpu")
    yardsticks = measure(graph, given)
    for name, value in graph.outputs.items():
        difference = compare(name, value.type, found[name], yardsticks[value])
        assert difference.verdict == "right", f"{case}: {difference}"
