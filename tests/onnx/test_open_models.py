"""Models with open sizes, and inputs whose values decide shapes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

import asg

pytestmark = pytest.mark.device

TARGETS = [{"target": "numpy"}, {"schedule": "cpu"}, {"schedule": "gpu"}]
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'

OPEN = (
    HEAD
    + """
g (float[batch,seq,4] x) => (float[batch,4,seq] y)
<float[4,4] w = {1,0,0,0, 0,2,0,0, 0,0,3,0, 1,1,1,1}>
{
  s = Shape(x)
  zero = Constant<value_int=0>()
  one = Constant<value_int=1>()
  four = Constant<value_ints=[4]>()
  b = Gather(s, zero)
  n = Gather(s, one)
  m = Mul(b, n)
  shape = Constant<value_ints=[-1]>()
  m1 = Reshape(m, shape)
  flat = Concat<axis=0>(m1, four)
  rows = Reshape(x, flat)
  h = MatMul(rows, w)
  b1 = Reshape(b, shape)
  n1 = Reshape(n, shape)
  back = Concat<axis=0>(b1, n1, four)
  z = Reshape(h, back)
  y = Transpose<perm=[0,2,1]>(z)
}"""
)
STATIC = (
    HEAD
    + """
g (float[n,6] x, int64[k] shape, int64 unused) => (float[a,b] y)
{ twice = Identity(shape)
  r = Relu(x)
  y = Reshape(r, twice) }"""
)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("options", TARGETS, ids=str)
def test_sizes_are_bound_at_the_call(options: dict[str, str]) -> None:
    model = parser.parse_model(OPEN)
    graph = asg.onnx.load(model)
    assert str(graph) == "open graph g(x: f32[batch, seq, 4])"
    reference = ReferenceEvaluator(model)
    with asg.compile(graph, **options) as exe:
        for shape in ((2, 3), (1, 1), (3, 2), (2, 3), (5, 7)):
            x = values(*shape, 4)
            (wanted,) = reference.run(None, {"x": x})
            np.testing.assert_allclose(exe({"x": x})["y"], wanted, 1e-5, 1e-5)
        told = exe.report()["specialisations"]
        assert (told["misses"], told["hits"]) == (4, 1)


def test_sizes_are_bound_when_compiling() -> None:
    graph = asg.onnx.load(parser.parse_model(OPEN))
    with asg.compile(graph, target="numpy", dims={"batch": 2, "seq": 3}) as exe:
        assert exe.entries["main"].outputs["y"].shape == (2, 4, 3)
    half = asg.compile(graph, target="numpy", dims={"batch": 2})
    assert half({"x": values(2, 5, 4)})["y"].shape == (2, 4, 5)
    with pytest.raises(asg.errors.InputError, match="batch is 2"):
        half({"x": values(3, 5, 4)})
    with pytest.raises(asg.errors.GraphError, match="dims names 'depth'; open dimensions: batch"):
        asg.compile(graph, target="numpy", dims={"depth": 2})


def test_sizes_are_bound_when_loading() -> None:
    model = parser.parse_model(OPEN)
    assert isinstance(asg.onnx.load(model, dims={"batch": 2, "seq": 3}), asg.Graph)
    open_graph = asg.onnx.load(model, dims={"batch": 2})
    assert str(open_graph) == "open graph g(x: f32[2, seq, 4])"
    with pytest.raises(asg.errors.GraphError, match="'depth' is no open dimension"):
        asg.onnx.load(model, dims={"depth": 2})


@pytest.mark.parametrize("options", TARGETS, ids=str)
def test_static_inputs_are_found_and_read(options: dict[str, str]) -> None:
    graph = asg.onnx.load(parser.parse_model(STATIC))
    assert graph.statics == ("shape",)
    with asg.compile(graph, **options) as exe:
        x = values(4, 6)
        for shape in ([8, 3], [-1, 2], [8, 3], [2, 12]):
            feeds = {"x": x, "shape": np.array(shape, np.int64), "unused": np.array(0)}
            found = exe(feeds)["y"]
            np.testing.assert_array_equal(found, np.maximum(x, 0).reshape(shape))
        assert exe.report()["specialisations"]["misses"] == 3
        with pytest.raises(asg.errors.InputError, match="shape missing, which decide shapes"):
            exe({"x": x})
        with pytest.raises(asg.errors.InputError, match="does not fit"):
            exe({"x": x, "shape": np.array([2.5, 2]), "unused": np.array(0)})


def test_few_executables_are_kept() -> None:
    graph = asg.trace(lambda x: x * 2.0, asg.spec(("n",)))
    with asg.compile(graph, kept=2) as exe:
        for size in (1, 2, 3, 1, 3):
            assert exe({"x": np.ones(size, np.float32)})["output"].tolist() == [2.0] * size
        told = exe.report()["specialisations"]
    assert told["bindings"] == ["n=1", "n=3"]
    assert (told["hits"], told["misses"], told["evicted"]) == (1, 4, 2)


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("options", [{"target": "numpy"}, {}], ids=str)
def test_state_goes_from_size_to_size(options: dict[str, str], kept: int) -> None:
    """One step of each size, trained through a specialiser and by hand."""
    model = asg.nn.Linear(3, 2)
    start = {name: np.array(each.data) for name, each in model.named_parameters()}

    def loss(model: asg.nn.Linear, batch: dict[str, asg.Tensor]) -> asg.Tensor:
        return asg.nn.functional.mse_loss(model(batch["x"]), batch["y"])

    step = asg.training_step(
        model, loss, asg.optim.SGD(lr=0.5), x=asg.spec(("n", 3)), y=asg.spec(("n", 2))
    )
    predict = asg.trace(model, asg.spec(("m", 3)))
    weight, bias = start["weight"], start["bias"]
    with asg.compile({"train": step, "predict": predict}, kept=kept, **options) as exe:
        for size in (2, 5, 2, 3):
            x, y = values(size, 3), values(size, 2)
            exe.train({"x": x, "y": y})
            error = (x @ weight.T + bias - y) * 2 / y.size
            weight, bias = weight - 0.5 * error.T @ x, bias - 0.5 * error.sum(0)
            found = exe.predict({predict.inputs[0].name: x})["output"]
            np.testing.assert_allclose(found, x @ weight.T + bias, 1e-5, 1e-5)
        assert exe.report()["specialisations"]["kept"] <= kept
        state = exe.state_dict()
        np.testing.assert_allclose(state["weight"], weight, 1e-5, 1e-5)
        exe.load_state_dict(start)
        for size in (3, 7):
            x = values(size, 3)
            found = exe.predict({predict.inputs[0].name: x})["output"]
            np.testing.assert_allclose(found, x @ start["weight"].T + start["bias"], 1e-5, 1e-5)


def test_gradients_of_open_graphs() -> None:
    graph = asg.trace(lambda x: {"loss": asg.sum(x * x)}, asg.spec(("n", 2)))
    with asg.compile(asg.grad(graph, wrt="x"), target="numpy") as exe:
        for size in (1, 3):
            x = values(size, 2)
            np.testing.assert_allclose(exe({"x": x})["x.grad"], 2 * x)


def test_a_bundle_of_one_size(tmp_path: object) -> None:
    graph = asg.trace(lambda x: x + 1.0, asg.spec(("n",)))
    with asg.compile(graph) as exe:
        with pytest.raises(asg.errors.GraphError, match="dimension 'n' of input 'x' is open"):
            exe.save(f"{tmp_path}/none")
        exe.save(f"{tmp_path}/bundle", dims={"n": 3})
    with asg.load(f"{tmp_path}/bundle") as loaded:
        assert loaded({"x": np.zeros(3, np.float32)})["output"].tolist() == [1.0, 1.0, 1.0]


def test_sizes_that_are_sums_of_others() -> None:
    model = parser.parse_model(
        HEAD + "g (float[past] p, float[total] t) => (float[total] y) { y = Relu(t) }"
    )
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "past + 1"
    graph = asg.onnx.load(model)
    with asg.compile(graph, target="numpy") as exe:
        assert exe({"p": values(2), "t": values(3)})["y"].shape == (3,)
        with pytest.raises(asg.errors.GraphError, match=r"'past \+ 1' is 4, but should be 3"):
            exe({"p": values(2), "t": values(4)})
    assert asg.onnx.load(model, dims={"past": 4}).input("t").type.shape == (5,)


def test_unsupported_nodes_are_told_before_sizes_are_known() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>
        g (float[n] x, int64[k] shape) => (float[a] y)
        {
          r = Reshape(x, shape)
          y = nobody.Strange(r)
        }"""
    )
    assert [each.op for each in asg.onnx.check(model)] == ["Strange"]
    with pytest.raises(asg.errors.UnsupportedError, match=r"nobody\.Strange-1"):
        asg.onnx.load(model)
