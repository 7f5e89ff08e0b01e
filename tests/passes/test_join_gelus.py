"""Gelu becomes one function where nobody reads what lies between, however it is spelt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from asg.passes.join_gelus import JoinGelus
from asg.passes.simplify import Simplify
from asg.runtime.interpreter import run_with_updates
from asg.verify import verify

Build = Callable[[Any], Any]


def joined(build: Build) -> asg.Graph:
    graph = asg.trace(lambda x: {"y": build(x)}, asg.spec((5, 7)))
    result = JoinGelus()(Simplify()(graph))
    verify(result)
    assert JoinGelus()(result) is result
    x = np.linspace(-6, 6, 35).astype(np.float32).reshape(5, 7)
    for name, wanted in run_with_updates(graph, {"x": x})[0].items():
        found = run_with_updates(result, {"x": x})[0][name]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    return result


def ops_of(graph: asg.Graph) -> list[str]:
    plain = ("input", "constant", "broadcast")
    return [node.op.name for node in graph.nodes if node.op.name not in plain]


def imported(x: Any) -> Any:
    return x * (1.0 + asg.erf(x * math.sqrt(0.5))) * 0.5


def imported_tanh(x: Any) -> Any:
    inner = (0.044715 * x * x * x + x) * math.sqrt(2 / math.pi)
    return 0.5 * (asg.tanh(inner) + 1.0) * x


@pytest.mark.parametrize("build", [asg.gelu, imported])
def test_gelu_is_one_function(build: Build) -> None:
    assert ops_of(joined(build)) == ["gelu"]


@pytest.mark.parametrize("build", [lambda x: asg.gelu(x, approximate="tanh"), imported_tanh])
def test_gelu_by_tanh_is_one_function(build: Build) -> None:
    assert ops_of(joined(build)) == ["gelu_tanh"]


def test_gelus_of_computed_values() -> None:
    graph = joined(lambda x: asg.gelu(asg.gelu(x * 3.0) + x, approximate="tanh"))
    assert ops_of(graph) == ["mul", "gelu", "add", "gelu_tanh"]


@pytest.mark.parametrize(
    "build",
    [
        lambda x: x * (1.0 + asg.erf(x * math.sqrt(0.5))),  # no half
        lambda x: 0.5 * x * (1.0 + asg.erf(x * 0.7)),  # another scale
        lambda x: 0.5 * x * (2.0 + asg.erf(x * math.sqrt(0.5))),  # another sum
        lambda x: 0.5 * asg.exp(x) * (1.0 + asg.erf(x * math.sqrt(0.5))),  # of something else
        lambda x: 0.5 * x * (1.0 + asg.tanh(x * math.sqrt(0.5))),  # no cubic
    ],
)
def test_what_is_no_gelu_stays(build: Build) -> None:
    assert not {"gelu", "gelu_tanh"} & set(ops_of(joined(build)))


def test_what_is_read_between_stays() -> None:
    def build(x: Any) -> dict[str, Any]:
        curve = asg.erf(x * math.sqrt(0.5))
        return {"y": 0.5 * x * (1.0 + curve), "curve": curve}

    graph = Simplify()(asg.trace(build, asg.spec((5, 7))))
    assert JoinGelus()(graph) is graph
