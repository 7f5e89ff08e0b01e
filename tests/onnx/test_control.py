"""`If`, `Loop` and `Scan`, written out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

import asg
from support.onnx_checks import check_model

pytestmark = pytest.mark.device

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'

LOOP = (
    HEAD
    + """
g (float[2] x) => (float[2] y, float[N,2] all)
<int64 trips = {3}, bool go = {1}>
{
  y, all = Loop (trips, go, x) <
    body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w, float[2] kept) {
      d = Identity(c)
      s = Add(v, x)
      w = Mul(s, v)
      kept = Identity(s)
    }
  >
}"""
)
# Goes on while the turn's number is below a limit, and carries on the sum of the numbers.
COUNTED = (
    HEAD
    + """
g (float[2] x) => (float[2] y, int64 total)
<bool go = {1}, int64 start = {0}>
{
  total = Loop (, go, start) <
    body = b (int64 i, bool c, int64 t) => (bool d, int64 u) {
      limit = Constant<value_int=4>()
      d = Less(i, limit)
      u = Add(t, i)
    }
  >
  size = Cast<to=1>(total)
  y = Mul(x, size)
}"""
)
SCAN = (
    HEAD
    + """
g (float[2] start, float[4,2] xs) => (float[2] end, float[2,4] sums)
{
  end, sums = Scan (start, xs) <
    num_scan_inputs = 1, scan_input_directions = [1], scan_output_axes = [1],
    body = b (float[2] a, float[2] x) => (float[2] n, float[2] out) {
      n = Add(a, x)
      out = Mul(n, x)
    }
  >
}"""
)


def vector() -> np.ndarray:
    return np.array([1.5, -0.5], np.float32)


def test_loop_with_a_known_count() -> None:
    check_model(parser.parse_model(LOOP), {"x": vector()})


def test_loop_that_its_body_ends() -> None:
    model = parser.parse_model(COUNTED)
    check_model(model, {"x": vector()})


def test_loop_without_turns() -> None:
    x = vector()
    model = parser.parse_model(LOOP.replace("trips = {3}", "trips = {0}"))
    check_model(model, {"x": x}, expected=[x, np.zeros((0, 2), np.float32)])


def test_scan() -> None:
    model = parser.parse_model(SCAN)
    start, xs = vector(), np.arange(8, dtype=np.float32).reshape(4, 2)
    totals = start + np.cumsum(xs[::-1], axis=0)
    check_model(model, {"start": start, "xs": xs}, expected=[totals[-1], (totals * xs[::-1]).T])


def test_loops_in_functions_and_in_branches() -> None:
    text = LOOP.replace("y, all = Loop", "ly, lall = Loop").replace(
        "g (float[2] x)", "own (float[2] x)"
    )
    inner = parser.parse_model(
        text.replace("float[2] y, float[N,2] all", "float[2] ly, float[N,2] lall")
    )
    outer = parser.parse_model(
        HEAD
        + """g (float[2] x) => (float[2] y) <bool yes = {1}> {
          y = If (yes) < then_branch = t () => (float[2] a) { a = Relu(x) },
                         else_branch = e () => (float[2] b) { b = Add(x, x) } > }"""
    )
    branch = outer.graph.node[0].attribute[0].g
    del branch.node[:]
    branch.initializer.extend(inner.graph.initializer)
    branch.node.extend(inner.graph.node)
    branch.output[0].name = "ly"
    check_model(outer, {"x": vector()})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trips = {3}", "trips = {100000}", "turns of 4 nodes are too many to write out"),
        ("d = Identity(c)",
         "p = MatMul(v, x)\n zero = Constant<value_float=0.0>()\n d = Less(zero, p)",
         "whether it goes on depends on what is computed"),
    ],
)  # fmt: skip
def test_loops_that_cannot_be_written_out(old: str, new: str, message: str) -> None:
    with pytest.raises(asg.errors.UnsupportedError, match=message):
        asg.onnx.load(parser.parse_model(LOOP.replace(old, new)))


def test_trip_counts_can_be_inputs() -> None:
    model = parser.parse_model(
        LOOP.replace("(float[2] x) =>", "(float[2] x, int64 trips) =>").replace(
            "int64 trips = {3}, ", ""
        )
    )
    graph = asg.onnx.load(model)
    assert graph.statics == ("trips",)
    with asg.compile(graph, target="numpy") as exe:
        for trips in (1, 3):
            feeds = {"x": vector(), "trips": np.array(trips)}
            assert exe(feeds)["all"].shape == (trips, 2)


def test_nodes_in_bodies_are_told() -> None:
    model = parser.parse_model(LOOP.replace("w = Mul(s, v)", "w = nobody.Odd(s)"))
    model.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    assert {each.op for each in asg.onnx.check(model)} == {"Odd"}
    assert len(asg.onnx.check(model)) == 1
