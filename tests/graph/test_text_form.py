"""A graph prints as text, and the text reads back as the same graph."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given

from asg.errors import GraphError, ParseError
from asg.format import format_graph, format_node
from asg.functions import exp
from asg.graph import Graph, Literal
from asg.graph_file import large_constants
from asg.ops import TABLE
from asg.ops.bits import threefry2x32
from asg.ops.sources import constant, constant_, input
from asg.parse import parse_graph
from asg.site import Site, scope
from asg.types import DType, parse_type
from asg.verify import verify
from support.random_graphs import RandomGraph, graphs

TEXT = """\
graph step(x: f32[2, 3], w: parameter f32[3, 4], "odd name": state i32[]) {
  constant_1 = constant(1)                      : i32[]
  h = matmul(x, w)                              : f32[2, 4]
  constant_2 = constant([0.1, -inf, nan, -0.0]) : f32[4]
  broadcast_1 = broadcast(constant_2, shape=[2, 4])  : f32[2, 4]
  add_1 = add(h, broadcast_1)                   : f32[2, 4]
  bool.like = less(h, add_1)                    : bool[2, 4]
  add_2 = add("odd name", constant_1)           : i32[]
  return h, y=add_1, bool.like
  update "odd name" = add_2
}
"""


def same(graph: Graph) -> Graph:
    """The graph, read back from its text, which is checked to be the same again."""
    text = format_graph(graph)
    constants = {key[1:]: array for key, array in large_constants(graph).items()}
    again = parse_graph(text, constants)
    assert format_graph(again) == text
    return again


def test_text_reads_back() -> None:
    graph = parse_graph(TEXT)
    assert graph.name == "step"
    assert graph.input_names() == ["x", "w", "odd name"]
    assert graph.input_names("state") == ["odd name"]
    assert list(graph.outputs) == ["h", "y", "bool.like"]
    assert list(graph.updates) == ["odd name"]
    verify(same(graph))


def test_names_of_results_name_the_nodes() -> None:
    x = input("x", (2,))
    graph = Graph.build({"y": exp(x).value, "x again": x.value})
    assert format_graph(graph, sites=False) == (
        "graph graph(x: f32[2]) {\n"
        "  y = exp(x)                                    : f32[2]\n"
        '  return y, "x again"=x\n'
        "}\n"
    )


def test_long_headers_take_a_line_per_input() -> None:
    total = sum((input(f"a_rather_long_name_{i}", (2,)) for i in range(4)), start=0.0)
    graph = Graph.build({"y": total.value})
    assert format_graph(graph).startswith(
        "graph graph(\n    a_rather_long_name_0: f32[2],\n    a_rather_long_name_1: f32[2],\n"
    )
    same(graph)


def test_lines_scopes_and_notes_read_back() -> None:
    with scope("blocks.3"), scope("mlp"):
        y = exp(input("x", (2,)))
    text = format_graph(Graph.build({"y": y.value}))
    found = re.search(r"# (test_text_form\.py:\d+) blocks\.3/mlp$", text, re.MULTILINE)
    assert found
    node = parse_graph(text).nodes[-1]
    assert str(node.site) == found[1]
    assert node.scope == "blocks.3/mlp"


def test_equal_nodes_remember_both_lines() -> None:
    x = input("x", (2,))
    first = exp(x)
    second = exp(x)
    graph = Graph.build({"y": (first + second).value})
    node = graph.nodes[1]
    assert isinstance(node.site, Site)
    assert [site.line for site in node.also] == [node.site.line + 1]
    assert f"{node.site}, {node.also[0]}\n" in format_graph(graph)
    assert same(graph).nodes[1].also[0].line == node.also[0].line


def test_other_comments_are_read_over() -> None:
    text = "# a remark\ngraph g(x: f32[2]) { # another\n  y = exp(x) # no file: 3\n  return y }"
    assert parse_graph(text).nodes[1].site is None


def test_types_may_be_left_out() -> None:
    graph = parse_graph("graph g(x: f32[2]) { c = constant([1, 2]) d = cast(c, dtype=f32)"
                        " y = add(x, d) return y }")  # fmt: skip
    assert str(graph.outputs["y"].type) == "f32[2]"
    assert str(graph.nodes[1].type) == "i32[2]"


@pytest.mark.parametrize(
    "array",
    [
        np.array(0.1, np.float32),
        np.array([1e-45, 3.4028235e38, 16777217, 1 / 3, -0.0, np.inf, -np.inf], np.float32),
        np.array([-(2**31), 2**31 - 1], np.int32),
        np.array([0, 2**32 - 1], np.uint32),
        np.array([[True], [False]]),
        np.zeros((2, 0, 3), np.float32),
        np.array([0x7FC00000, 0xFFC00000, 0x7FC00001], np.uint32).view(np.float32),
        np.linspace(-1, 1, 17, dtype=np.float32),
    ],
)
def test_constants_keep_every_bit(array: np.ndarray) -> None:
    graph = same(Graph.build({"y": constant_(value=Literal(array)).value}))
    found = graph.outputs["y"].node.attrs["value"].array
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_big_constants_go_by_digest() -> None:
    graph = Graph.build({"y": constant(np.arange(17)).value})
    digest = graph.nodes[0].attrs["value"].digest
    text = format_graph(graph)
    assert f"y = constant(#{digest}) " in text
    with pytest.raises(ParseError, match=f"contents of constant #{digest} are not given"):
        parse_graph(text)
    assert "[0, 1, 2," in format_graph(graph, inline=17)


def test_several_results() -> None:
    key, counter = (input(name, (8,), "u32") for name in ("key", "counter"))
    a, b = threefry2x32(key, key, counter, counter)
    graph = Graph.build({"a": a.value, "b": b.value})
    assert "a, b = threefry2x32(key, key, counter, counter)  : u32[8], u32[8]" in format_graph(
        graph
    )
    same(graph)


def test_format_node() -> None:
    graph = parse_graph(TEXT)
    assert format_node(graph.nodes[4], graph.names) == "h = matmul(x, w)  : f32[2, 4]"
    assert format_node(graph.nodes[4]) == "matmul = matmul(input, input)  : f32[2, 4]"


@given(graphs())
def test_random_graphs_read_back(made: RandomGraph) -> None:
    again = same(made.graph)
    verify(again)
    assert len(again.nodes) == len(made.graph.nodes)
    assert [node.types for node in again.nodes if node.inputs] == [
        node.types for node in made.graph.nodes if node.inputs
    ]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_attributes_of_every_op_read_back(name: str) -> None:
    op = TABLE[name]
    for sample in op.samples:
        operands = [input(f"x{i}", parse_type(text)) for i, text in enumerate(sample.types)]
        made = op(*operands, **(sample.attrs or {}))
        results = made if isinstance(made, tuple) else (made,)
        graph = Graph.build({f"y{i}": result.value for i, result in enumerate(results)})
        again = same(graph)
        last, first = again.outputs["y0"].node, graph.outputs["y0"].node
        assert dict(last.attrs) == dict(first.attrs)


WRONG = {
    "line 1: expected 'graph NAME(...) {', got 'grph'": "grph g() {}",
    "line 1: expected '(' after the graph's name, got '{'": "graph g { }",
    "line 1: expected a type such as f32[2, 3], got 'f64'": "graph g(x: f64[2]) {}",
    "line 1: expected a size, got '-1'": "graph g(x: f32[-1]) {}",
    "line 1: 'x' is defined twice, first on line 1": "graph g(x: f32[], x: f32[]) {}",
    "line 2: there is no op 'matmull'; near it: matmul": "graph g() {\n  y = matmull()\n}",
    "line 2: no value 'xx' is defined above; near it: x":
        "graph g(x: f32[2]) {\n  y = exp(xx)\n}",
    "line 2: exp: takes 1 operand, got 0": "graph g() {\n  y = exp()\n}",
    "line 2: exp: needs a float input, got i32[2]": "graph g(x: i32[2]) {\n  y = exp(x)\n}",
    "line 2: the text says f32[3], but exp gives f32[2]":
        "graph g(x: f32[2]) {\n  y = exp(x) : f32[3]\n}",
    "line 2: sum lacks the attribute 'axes'": "graph g(x: f32[2]) {\n  y = sum(x)\n}",
    "line 2: attribute 'axes' is given twice":
        "graph g(x: f32[2]) {\n  y = sum(x, axes=[0], axes=[0])\n}",
    "line 2: 'x' is defined twice, first on line 1": "graph g(x: f32[2]) {\n  x = exp(x)\n}",
    "line 2: exp has 1 results, the text names 2": "graph g(x: f32[2]) {\n  a, b = exp(x)\n}",
    "line 2: there are two results called 'y'": "graph g(x: f32[2]) {\n  return y=x, y=x\n}",
    "line 2: update of 'y', which is no input": "graph g(x: f32[2]) {\n  update y = x\n}",
    "line 2: the rows of a constant differ in length":
        "graph g() {\n  c = constant([[1], [1, 2]])\n}",
    "line 2: a constant of type f32[3] has 3 elements, got 2 in shape [2]":
        "graph g() {\n  c = constant([1.0, 2.0]) : f32[3]\n}",
    "line 2: an element does not fit into i32":
        "graph g() {\n  c = constant(3000000000) : i32[]\n}",
    "line 2: expected ',' after an argument, got 'x'": "graph g(x: f32[2]) {\n  y = add(x x)\n}",
    "line 2: expected '=' after y, got '('": "graph g(x: f32[2]) {\n  y (x)\n}",
    "line 2: a graph has no '%' here": "graph g(x: f32[2]) {\n  y = x % 2\n}",
    "line 2: this attribute has no text form":
        'graph g(x: f32[2]) {\n  y = exp(x, f=<"<function>">)\n}',
    "line 3: expected a node, 'return', 'update' or '}', got the end of the text":
        "graph g(x: f32[2]) {\n  y = exp(x)\n",
    "line 3: expected nothing after the closing '}', got 'graph'":
        "graph g(x: f32[2]) {\n}\ngraph",
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_errors_name_the_line(message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(WRONG[message])
    first, shown, mark = str(caught.value).split("\n")
    assert first.startswith(message)
    line = int(re.findall(r"\d+", message)[0])
    assert shown == f"  {WRONG[message].split(chr(10))[line - 1]}"
    assert mark.strip() == "^"


def test_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(GraphError, match="two inputs are called 'x'"):
        Graph.build({"y": (input("x", (2,)) + input("x", ())).value})


def test_attributes_print() -> None:
    x = input("x", (2, 3))
    y = x.cast(DType.I32).value
    assert "cast(x, dtype=i32)" in format_graph(Graph.build({"y": y}))
