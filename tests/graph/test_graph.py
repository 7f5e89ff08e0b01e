"""Building graphs: what is equal is one node, what nobody needs is gone."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg.errors import DTypeError, GraphError, ShapeError
from asg.functions import exp
from asg.graph import Graph, Literal, Value, rewrite
from asg.ops.elementwise import log
from asg.ops.sources import constant, constant_, input
from asg.parse import parse_graph
from asg.tensor import as_tensor
from asg.types import DType


def names(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def test_equal_nodes_become_one() -> None:
    x = input("x", (2,))
    graph = Graph.build({"y": (exp(x + 1.0) * exp(x + 1.0)).value})
    assert names(graph) == ["input", "constant", "broadcast", "add", "exp", "mul"]
    assert graph.outputs["y"].node.inputs[0] == graph.outputs["y"].node.inputs[1]


def test_attributes_and_types_tell_nodes_apart() -> None:
    x = input("x", (2, 2))
    graph = Graph.build({"y": (x.sum(axis=0) + x.sum(axis=1)).value})
    assert names(graph).count("sum") == 2


def test_constants_are_equal_by_content() -> None:
    one, two = Literal(np.zeros(3, np.float32)), Literal(np.zeros(3, np.float32))
    assert one == two
    assert hash(one) == hash(two)
    assert one != Literal(np.zeros(3, np.int32))
    assert one != Literal(np.zeros((1, 3), np.float32))
    assert one != Literal(np.full(3, -0.0, np.float32))


@pytest.mark.parametrize("place", [0, 1, 500, 997, 998])
def test_constants_that_differ_in_one_element(place: int) -> None:
    one = np.arange(999, dtype=np.float32)
    other = one.copy()
    other[place] += 1.0
    assert Literal(one) != Literal(other)
    y = [constant_(value=Literal(each)).value for each in (one, other, one.copy())]
    graph = Graph.build({f"y{position}": value for position, value in enumerate(y)})
    assert graph.outputs["y0"] == graph.outputs["y2"] != graph.outputs["y1"]


def test_large_constants_are_hashed_for_texts_only() -> None:
    arrays = [np.random.default_rng(seed).standard_normal(999) for seed in (1, 2, 3)]
    held = [Literal(each.astype(np.float32)) for each in arrays]
    values = {f"y{number}": constant_(value=each).value for number, each in enumerate(held)}
    graph = Graph.build(values)
    assert [each._content for each in held] == [None] * 3
    text = str(graph)
    assert all(f"#{each.digest}" in text for each in held)
    assert held[0].content == Literal(held[0].array).content


def test_what_nobody_needs_is_gone() -> None:
    x = input("x", (2,))
    exp(x)
    assert names(Graph.build({"y": (x + x).value})) == ["input", "add"]


def test_inputs_are_kept_in_order_when_declared() -> None:
    a, b, c = (input(name, (2,)) for name in "abc")
    graph = Graph.build({"y": (c + a).value}, inputs=[b.node, c.node])
    assert graph.input_names() == ["b", "c", "a"]


def test_updates_need_an_input() -> None:
    with pytest.raises(GraphError, match="update of 'w', which is no input of the graph; inp"):
        Graph.build({}, updates={"w": input("x", (2,)).value})


def test_unknown_inputs_are_named() -> None:
    with pytest.raises(GraphError, match="graph g has no input 'z'; inputs: x"):
        parse_graph("graph g(x: f32[2]) { return x }").input("z")


def test_users_and_results() -> None:
    graph = parse_graph(
        "graph g(x: state f32[2]) { a = exp(x) b = mul(a, a) return b, c=b update x = b }"
    )
    x, a, b = (Value(node) for node in graph.nodes)
    assert graph.users == {x: [a.node], a: [b.node]}
    assert graph.results == {b: ["b", "c", "x'"]}


def test_rewrite_keeps_lines_and_order() -> None:
    x = input("x", (2,))
    kept = exp(x)
    graph = Graph.build({"y": (kept * constant(2.0)).value, "z": (kept + x).value})

    def change(node, inputs):
        return (log(*map(_tensor, inputs)).value,) if node.op.name == "exp" else None

    changed = rewrite(graph, change, note="tested")
    assert sorted(names(changed)) == sorted("log" if n == "exp" else n for n in names(graph))
    found = next(node for node in changed.nodes if node.op is log)
    assert found.site == kept.node.site
    assert found.note == "tested"


def _tensor(value):
    from asg.tensor import Tensor

    return Tensor(value)


def test_order_of_the_text_outlives_building_again() -> None:
    """Merging equal nodes must not move those that read them to the end."""
    x = input("x", (2,))
    first = exp(x + 1.0)
    middle = (x + 1.0) * 2.0
    last = first * 3.0
    graph = Graph.build({"a": middle.value, "b": last.value})
    again = Graph.build(graph.outputs)
    assert names(again) == names(graph)


def test_a_wanted_dtype_is_what_tensors_have_or_get() -> None:
    """Narrowing is never done in silence, and nothing else is."""
    wide, narrow = asg.input("wide", (2,)), asg.input("narrow", (2,), "f16")
    assert as_tensor(wide, DType.F32) is wide
    assert as_tensor(narrow) is narrow
    assert as_tensor(narrow, DType.F32).type == asg.spec((2,))
    assert as_tensor(np.ones(2, np.float32), DType.F16).dtype is DType.F16
    with pytest.raises(DTypeError, match=r"f16 is needed, got .*f32\[2\].*\n  fix: asg.cast"):
        as_tensor(wide, DType.F16)
    x, index = asg.input("x", (3,)), np.array([2, 0])
    assert asg.scatter(x, index, narrow).dtype is DType.F32
    with pytest.raises(DTypeError, match="i32 is needed, got"):
        asg.scatter(asg.input("n", (3,), "i32"), index, wide)


def test_a_constant_of_lists_of_unequal_lengths() -> None:
    with pytest.raises(ShapeError, match=r"constant: no array: .*inhomogeneous"):
        asg.constant([[1], [2, 3]])
