"""Random inputs that mean something: positions within what they index."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg.graph import Value
from asg.sample_inputs import positions, sample_inputs


def count(graph: asg.Graph, name: str) -> int | None:
    """How many positions an input chooses from."""
    return positions(graph, Value(graph.input(name)))


def test_an_index_is_drawn_from_what_it_indexes() -> None:
    table, index = asg.input("table", (50, 4)), asg.input("index", (7,), "i32")
    graph = asg.graph(outputs={"y": asg.take(table, index, axis=0)})
    assert count(graph, "index") == 50


def test_through_views_and_arithmetic() -> None:
    table, index = asg.input("table", (9, 4)), asg.input("index", (6,), "i32")
    graph = asg.graph(outputs={"y": asg.take(table, asg.reshape(index, (2, 3)) + 1, axis=0)})
    assert count(graph, "index") == 9


def test_a_label_is_compared_with_coordinates() -> None:
    logits, labels = asg.input("logits", (8, 10)), asg.input("labels", (8,), "i32")
    loss = asg.nn.functional.cross_entropy(logits, labels)
    assert count(asg.graph(outputs={"loss": loss}), "labels") == 10


def test_an_integer_that_chooses_nothing() -> None:
    x = asg.input("x", (3,), "i32")
    graph = asg.graph(outputs={"y": x * x})
    assert count(graph, "x") is None
    assert set(sample_inputs(graph)["x"]) <= set(range(8))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_draws_the_same(seed: int) -> None:
    x = asg.input("x", (5,))
    graph = asg.graph(outputs={"y": x + 1.0})
    first, second = (sample_inputs(graph, seed=seed)["x"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_values_of_the_graph_stay() -> None:
    x, w = asg.input("x", (2,)), asg.input("w", (2,), role="parameter")
    s = asg.state("s", np.zeros(2, np.float32))
    graph = asg.graph(outputs={"y": x * w + s}).with_values({"w": np.ones(2, np.float32)})
    assert list(sample_inputs(graph)) == ["x"]
    assert list(sample_inputs(graph, {"x": np.zeros(2, np.float32)})) == ["x"]
    bare = graph.with_values({})
    assert sorted(sample_inputs(bare)) == ["w", "x"]
