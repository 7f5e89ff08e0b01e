"""Models as a whole: names, constants, what is folded, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import asg
from asg.onnx.registry import converter, gather
from asg.runtime.interpreter import run
from support.onnx_checks import check_model, check_node, node_model

pytestmark = pytest.mark.device

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[6,3] x) => (float[3,8] y, int64[2] sizes)
<float[3,4] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float half = {0.5}>
{
  h = MatMul(x, w)
  sizes = Shape(h)
  wanted = Constant<value_ints=[3,-1]>()
  g = Reshape(h, wanted)
  scaled = Mul(g, half)
  r = Relu(scaled)
  y = Add(r, r)
}
"""


def test_names_and_weights_are_kept() -> None:
    graph = asg.onnx.load(parser.parse_model(MODEL))
    assert graph.input_names("input") == ["x"]
    assert graph.input_names("parameter") == ["w"]
    assert list(graph.outputs) == ["y", "sizes"]
    assert graph.values["w"].tolist() == np.arange(1, 13, dtype=np.float32).reshape(3, 4).tolist()


def test_model_beside_the_reference() -> None:
    x = np.linspace(-2, 3, 18, dtype=np.float32).reshape(6, 3)
    check_model(parser.parse_model(MODEL), {"x": x})


def test_path_bytes_and_proto_are_one(tmp_path: Path) -> None:
    proto = parser.parse_model(MODEL)
    onnx.save(proto, tmp_path / "m.onnx")
    texts = {
        str(asg.onnx.load(source)).replace("<m.onnx>", "<model>").partition("#")[0]
        for source in (proto, proto.SerializeToString(), tmp_path / "m.onnx")
    }
    assert len(texts) == 1


def test_every_unsupported_node_is_told() -> None:
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>
    g (float[2] x, double[2] d) => (float[2] y, double[2] e)
    {
      a = nobody.Strange(x)
      b = Relu(a)
      c = nobody.Odd(b)
      y = Add(c, x)
      e = Relu(d)
    }""")
    found = asg.onnx.check(proto)
    assert [(each.op, each.domain) for each in found] == [
        ("input", ""), ("Strange", "nobody"), ("Odd", "nobody")
    ]  # fmt: skip
    with pytest.raises(asg.errors.UnsupportedError, match=r"3 node\(s\)") as caught:
        asg.onnx.load(proto)
    assert all(word in str(caught.value) for word in ("Strange", "Odd", "float64"))


def test_functions_of_the_model_are_inlined() -> None:
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[3] x) => (float[3] y) { y = own.twice<factor = 3.0>(x) }
    <opset_import: ["" : 17], domain: "own">
    twice <factor> (v) => (w) {
      f = Constant<value_float: float = @factor>()
      w = Mul(v, f)
    }""")
    check_model(proto, {"x": np.array([1, -2, 3], np.float32)})


def test_functions_of_onnx_are_inlined() -> None:
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    check_node("ThresholdedRelu", [x], {"alpha": 0.5})


def test_newest_converter_that_the_opset_reaches_is_taken() -> None:
    class Module:
        __name__ = __name__

    @converter("Thing", since=13)
    def new(call: object) -> None: ...

    @converter("Thing", since=7)
    def old(call: object) -> None: ...

    module = Module()
    module.new, module.old = new, old  # type: ignore[attr-defined]
    table = gather([module])  # type: ignore[list-item]
    chosen = [table.find("", "Thing", opset) for opset in (6, 7, 12, 13, 99)]
    assert [each and each.since for each in chosen] == [None, 7, 7, 13, 13]


def test_shape_arithmetic_is_exact_and_folded() -> None:
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[4,6] x) => (float[N,M] y)
    {
      s = Shape(x)
      big = Constant<value_ints = [4000000000, 4000000000]>()
      m = Mul(s, big)
      t = Div(m, big)
      i = Constant<value_ints = [1, 0]>()
      r = Gather(t, i)
      y = Reshape(x, r)
    }""")
    graph = asg.onnx.load(proto)
    assert [node.op.name for node in graph.nodes] == ["input", "reshape"]
    assert run(graph, {"x": np.zeros((4, 6))})["y"].shape == (6, 4)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8, np.uint8, np.int16, np.float16])
def test_element_types_are_handed_out_as_the_model_says(dtype: type) -> None:
    check_node("Add", [np.array([1, 2, 100], dtype), np.array([3, 4, 5], dtype)])


def test_results_have_the_type_that_onnx_gives_them() -> None:
    """A quotient of halves is a half, however it is computed."""
    check_node("Div", [np.array([1, 2], np.float16), np.array([3, 4], np.float16)], tolerance=1e-3)


def test_inputs_out_of_range_are_refused() -> None:
    model, _ = node_model("Add", [np.array([1, 2]), np.array([3, 4])])
    with (
        asg.compile(asg.onnx.load(model)) as exe,
        pytest.raises(asg.errors.InputError, match="5000000000"),
    ):
        exe({"x0": np.array([1, 5000000000]), "x1": np.array([3, 4])})


@pytest.mark.parametrize("target", ["numpy", "wgpu"])
def test_float64_is_narrowed_when_asked(target: str) -> None:
    model, feeds = node_model("Add", [np.array([1.5, 2]), np.array([3.0, 4])])
    with pytest.raises(asg.errors.UnsupportedError, match="float64 is not computed"):
        asg.onnx.load(model)
    with asg.compile(asg.onnx.load(model, float64="narrow"), target=target) as exe:
        found = exe(feeds)["y0"]
    assert (found.dtype, found.tolist()) == (np.float64, [4.5, 6.0])


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([[1], [3]], [4, 5]),
        ([[1], [3], [0]], [4, 5]),
        ([[-1], [-9], [0], [-2]], [6, 4]),
        ([[0], [2**62], [-1], [3]], [3, 6]),
    ],
)
def test_bounds_of_folded_slices(bounds: list[list[int]], expected: list[int]) -> None:
    operands = [np.arange(3, 7), *(np.array(each) for each in bounds)]
    model, _ = node_model("Slice", operands, constants=range(5))
    graph = asg.onnx.load(model)
    assert [node.op.name for node in graph.nodes] == ["constant"]
    assert run(graph, {})["y0"].tolist() == expected


def test_attributes_of_functions_have_defaults() -> None:
    check_node("HannWindow", [np.array(6)], constants=[0], tolerance=1e-5)
    model, feeds = node_model("HannWindow", [np.array(6)])
    graph = asg.onnx.load(model)
    assert graph.statics == ("x0",)
    with asg.compile(graph, target="numpy") as exe:
        assert exe(feeds)["y0"].shape == (6,)


def test_constants_out_of_range_are_named() -> None:
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[1] x) => (int64[1] y) <int64[1] far = {5000000000}> { y = Add(x, far) }""")
    with pytest.raises(asg.errors.UnsupportedError, match=r"'far' \(int64\) holds 5000000000"):
        asg.onnx.load(proto)


@pytest.mark.parametrize("taken", [True, False])
def test_condition_that_is_known(taken: bool) -> None:
    proto = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) <bool c = {1}>
    {
      y = If (c) <
        then_branch = t () => (float[2] a) { a = Add(x, x) },
        else_branch = e () => (float[2] b) { b = Relu(x) }
      >
    }""")
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array(taken), "c"))
    check_model(proto, {"x": np.array([-1, 2], np.float32)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("h = MatMul(x, w)", "h = MatMul(x, gone)", "'gone' is read, but nothing makes it"),
        ("h = MatMul(x, w)", "h = MatMul(w, w)", "inner sizes differ"),
        ("r = Relu(scaled)", "r = Relu(scaled, scaled)", "2 operands, 1 to 1 are allowed"),
        ("r = Relu(scaled)", "g = Relu(scaled)", "two nodes make 'g'"),
        ("[3,-1]", "[5,-1]", "reshape"),
    ],
)
def test_what_makes_no_sense_is_refused(old: str, new: str, message: str) -> None:
    proto = parser.parse_model(MODEL.replace(old, new))
    with pytest.raises((asg.errors.GraphError, asg.errors.ShapeError), match=message):
        asg.onnx.load(proto)


@pytest.mark.parametrize("text", [b"", b"no model at all", b"\x08\x07\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model_is_refused(text: bytes) -> None:
    with pytest.raises(asg.errors.GraphError, match="no ONNX model"):
        asg.onnx.load(text)
