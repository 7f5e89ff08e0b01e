"""Parts of graphs: cut out, and cut down to where a fault is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import asg
from asg.extract import extract
from asg.parse import parse_graph
from asg.shrink import shrink
from asg.yardstick import Array

TEXT = """
graph g(x: f32[4], w: parameter f32[4]) {
  a = mul(x, w)
  b = exp(a)
  c = neg(b)
  d = tanh(c)
  e = add(d, a)
  return e
  update w = b
}
"""
GIVEN = {"x": np.ones(4, np.float32), "w": np.full(4, 2, np.float32)}


def test_extract_cuts_at_the_boundary() -> None:
    graph = parse_graph(TEXT)
    mul = graph.nodes[2].values[0]
    part = extract(graph, {"e": graph.outputs["e"]}, [mul], name="part")
    assert part.input_names() == ["mul_1"]
    assert sorted(node.op.name for node in part.nodes) == ["add", "exp", "input", "neg", "tanh"]
    assert not part.updates


def test_extract_makes_parameters_inputs() -> None:
    graph = parse_graph(TEXT)
    part = extract(graph, {"y": graph.updates["w"]})
    assert part.input_names("input") == ["x", "w"]


def test_shrink_finds_the_node() -> None:
    graph = parse_graph(TEXT)

    def has_tanh(part: asg.Graph, inputs: Mapping[str, Array]) -> list[str]:
        assert list(inputs) == part.input_names()
        return list(part.outputs) if any(n.op.name == "tanh" for n in part.nodes) else []

    found = shrink(graph, GIVEN, has_tanh)
    assert found is not None
    assert [node.op.name for node in found.graph.nodes] == ["input", "tanh"]
    np.testing.assert_allclose(found.inputs["neg_1"], -np.exp(np.full(4, 2.0)), rtol=1e-6)


def test_shrink_keeps_what_the_fault_needs() -> None:
    graph = parse_graph(TEXT)

    def has_both(part: asg.Graph, inputs: Mapping[str, Array]) -> list[str]:
        ops = {node.op.name for node in part.nodes}
        return list(part.outputs) if {"exp", "tanh"} <= ops else []

    found = shrink(graph, GIVEN, has_both)
    assert found is not None
    assert [node.op.name for node in found.graph.nodes] == ["input", "exp", "neg", "tanh"]


def test_shrink_of_what_is_right() -> None:
    assert shrink(parse_graph(TEXT), GIVEN, lambda part, inputs: []) is None
