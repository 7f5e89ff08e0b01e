"""Whatever is wrong with a graph is found, and the message shows the node."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from asg.errors import GraphError
from asg.functions import exp
from asg.graph import Graph, Literal, Node, Value
from asg.ops import TABLE
from asg.ops.sources import constant_
from asg.parse import parse_graph
from asg.types import DType, TensorType
from asg.verify import verify

F32_2 = TensorType((2,), DType.F32)

GOOD = parse_graph("""
graph g(x: f32[2], w: parameter f32[2], unused: state i32[]) {
  h = mul(x, w)
  y = exp(h)
  return y, h
  update w = h
}
""")
X, W, UNUSED, H, Y = GOOD.nodes


def node(op: str, /, *inputs: Value, types: tuple[TensorType, ...] = (F32_2,), **attrs) -> Node:
    return Node(TABLE[op], inputs, attrs, types, site=None, scope="", note="")


def test_good_graphs_pass() -> None:
    verify(GOOD)
    verify(GOOD.with_values({"w": np.ones(2, np.float32)}))


WRONG: dict[str, Callable[[], Graph]] = {
    "an operand of exp (<mul f32[2]>) is defined only later\n  y = exp(h)  : f32[2]":
        lambda: replace(GOOD, nodes=(X, W, UNUSED, Y, H)),
    "an operand of exp (<mul f32[2]>) is no node of the graph\n  y = exp(mul)  : f32[2]":
        lambda: replace(GOOD, nodes=(X, W, UNUSED, Y), outputs={"y": Value(Y)}, updates={}),
    "output 'z' (<exp f32[2]>) is no node of the graph":
        lambda: replace(GOOD, outputs={"z": exp_of(H)}),
    "output 'z' is result 1 of 1":
        lambda: replace(GOOD, outputs={"z": Value(H, 1)}),
    "node 4 stands twice in the list of nodes":
        lambda: replace(GOOD, nodes=(X, W, UNUSED, H, H)),
    "the list of inputs is not that of the input nodes":
        lambda: replace(GOOD, inputs=(X, W)),
    "input 'q' has role 'thing', not input, parameter, state":
        lambda: with_input(node("input", name="q", role="thing", type=F32_2)),
    "two inputs are called 'x'":
        lambda: with_input(node("input", name="x", role="state", type=F32_2)),
    "exp gives f32[2], the node says f32[3]\n  y = exp(x)  : f32[3]":
        lambda: of(node("exp", Value(X), types=(TensorType((3,), DType.F32),))),
    "exp refuses its operands: takes 1 operand, got 2":
        lambda: of(node("exp", Value(X), Value(X))),
    "sum refuses its operands: KeyError('axes')":
        lambda: of(node("sum", Value(X))),
    "a node equals another one: h = mul(x, w)  : f32[2]\n  mul_1 = mul(x, w)":
        lambda: replace(GOOD, nodes=(*GOOD.nodes, node("mul", Value(X), Value(W)))),
    "update of 'x', which is neither parameter nor state":
        lambda: replace(GOOD, updates={"x": Value(H)}),
    "update of 'h', which is no input":
        lambda: replace(GOOD, updates={"h": Value(H)}),
    "'unused' is i32[], its update is f32[2]\n  h = mul(x, w)":
        lambda: replace(GOOD, updates={"unused": Value(H)}),
    "a value for 'v', which is no input":
        lambda: GOOD.with_values({"v": np.ones(2, np.float32)}),
    "'w' is f32[2], its value is float64[2]":
        lambda: GOOD.with_values({"w": np.ones(2)}),
    "'w' is f32[2], its value is float32[3]":
        lambda: GOOD.with_values({"w": np.ones(3, np.float32)}),
}  # fmt: skip


def exp_of(below: Node) -> Value:
    return Value(node("exp", Value(below), types=(F32_2,)))


def of(last: Node) -> Graph:
    return replace(GOOD, nodes=(*GOOD.nodes, last), outputs={"y": Value(last)})


def with_input(extra: Node) -> Graph:
    return replace(GOOD, nodes=(*GOOD.nodes, extra), inputs=(*GOOD.inputs, extra))


@pytest.mark.parametrize("message", WRONG)
def test_faults_are_named(message: str) -> None:
    with pytest.raises(GraphError, match=re.escape(f"graph g: {message}")):
        verify(WRONG[message]())


def test_faults_name_the_users_line() -> None:
    y = exp(constant_(value=Literal(np.ones(2, np.float32))))
    wrong = replace(y.node, types=(TensorType((3,), DType.F32),))
    graph = Graph("g", (), {"y": Value(wrong)}, {}, (y.node.inputs[0].node, wrong), {})
    with pytest.raises(GraphError, match=r"at test_verify.py:\d+ in test_faults\w+:  y = exp\("):
        verify(graph)
