"""Graphs become ONNX models that others compute: op by op, then models and training steps."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

import asg
from asg import nn, optim
from asg.errors import GraphError, UnsupportedError
from asg.graph import Graph
from asg.onnx.export_rules import MISSING, RULES
from asg.onnx.saving import UPDATED, to_proto
from asg.op import Attention, Composite, Example, Op, Sample
from asg.runtime.interpreter import run, run_with_updates
from asg.tensor import as_tensor
from asg.types import as_dtype
from support.samples import draw, name_sample, results, sample_graph

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

HAS_RUNTIME = importlib.util.find_spec("onnxruntime") is not None


def compute(proto: onnx.ModelProto | Path, given: Arrays) -> Arrays:
    """What another implementation makes of a model: ONNX Runtime, or ONNX's own reference."""
    is_bf16 = any(array.dtype.name == "bfloat16" for array in given.values())
    if not HAS_RUNTIME or is_bf16 or (isinstance(proto, onnx.ModelProto) and gives_bf16(proto)):
        source = onnx.load(proto) if isinstance(proto, Path) else proto
        evaluator = onnx.reference.ReferenceEvaluator(source)
        names = evaluator.output_names
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            return dict(zip(names, evaluator.run(None, given), strict=True))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    model = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def gives_bf16(proto: onnx.ModelProto) -> bool:
    """Whether there are results of a type that ONNX Runtime can't hand to NumPy."""
    kinds = (each.type.tensor_type.elem_type for each in proto.graph.output)
    return onnx.TensorProto.BFLOAT16 in kinds


def check(graph: Graph, given: Arrays, *, rtol: float = 1e-5, **options: Any) -> onnx.ModelProto:
    """Export, check, compute elsewhere, compare; return the model."""
    proto = to_proto(graph, **options)
    onnx.checker.check_model(proto, full_check=True)
    outputs, updates = run_with_updates(graph, given)
    expected = outputs | {f"{name}{UPDATED}": array for name, array in updates.items()}
    inside = {each.name for each in proto.graph.input}
    found = compute(proto, {name: array for name, array in given.items() if name in inside})
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        compare(found[name], wanted, rtol, name)
    return proto


def compare(got: Array, wanted: Array, rtol: float, name: str) -> None:
    assert got.shape == wanted.shape, name
    assert got.dtype == wanted.dtype, name
    if wanted.dtype.kind == "f":
        scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol * scale, err_msg=name)
    else:
        np.testing.assert_array_equal(got, wanted, err_msg=name)


OPS = [op for op in asg.ops.TABLE.values() if op.name not in MISSING]
SAMPLES = [(op, sample) for op in OPS for sample in op.samples]
EXAMPLES = [(op, example) for op in OPS for example in op.examples]


@pytest.mark.parametrize("op", asg.ops.TABLE.values(), ids=str)
def test_every_op_has_an_onnx_form(op: Op) -> None:
    """An op without one is listed with the reason, which the error then tells."""
    is_spelt_out = isinstance(op.kind, (Composite, Attention))
    assert (op.name in RULES or op.name == "input" or is_spelt_out) is (op.name not in MISSING)


@pytest.mark.parametrize("name", MISSING)
def test_ops_without_one_are_named(name: str) -> None:
    op = asg.ops.TABLE[name]
    with pytest.raises(UnsupportedError, match=rf"  \w+: {name} \({MISSING[name]}\) at"):
        to_proto(sample_graph(op, op.samples[0]))


@pytest.mark.parametrize(
    ("op", "sample"), SAMPLES, ids=[name_sample(op, sample) for op, sample in SAMPLES]
)
def test_samples(op: Op, sample: Sample) -> None:
    graph = sample_graph(op, sample)
    arrays = zip(graph.inputs, draw(op, sample), strict=True)
    check(graph, {n.attrs["name"]: array.astype(n.type.dtype.numpy) for n, array in arrays})


@pytest.mark.parametrize(
    ("op", "example"), EXAMPLES, ids=[f"{op.name}-{i}" for i, (op, _) in enumerate(EXAMPLES)]
)
def test_examples_by_hand(op: Op, example: Example) -> None:
    dtypes = [as_dtype(each) for each in example.dtypes or ["f32"] * len(example.inputs)]
    arrays = [np.array(x, d.numpy) for x, d in zip(example.inputs, dtypes, strict=True)]
    tensors = [
        asg.input(f"x{place}", array.shape, dtype)
        for place, (array, dtype) in enumerate(zip(arrays, dtypes, strict=True))
    ]
    found = results(op, [as_tensor(each) for each in tensors], Sample([], example.attrs))
    graph = Graph.build({f"y{place}": y.value for place, y in enumerate(found)})
    check(graph, {f"x{place}": array for place, array in enumerate(arrays)})


@pytest.mark.parametrize("opset", [18, 19, 21, 22, 23])
def test_other_opsets(opset: int) -> None:
    x = asg.input("x", (3, 4))
    y = asg.softmax(nn.functional.layer_norm(x, (4,)) @ x.T, axis=-1)
    check(
        asg.graph({"y": y, "z": asg.max(asg.pad(y, ((1, 0), (0, 2))))}),
        {"x": normal(3, 4)},
        opset=opset,
    )


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def trained(step: Graph, batches: list[Arrays], *, rtol: float = 2e-4) -> None:
    """Run a training step elsewhere, several times, and compare every state with ours."""
    proto = to_proto(step)
    onnx.checker.check_model(proto, full_check=True)
    updates = json.loads({each.key: each.value for each in proto.metadata_props}["asg.updates"])
    assert set(updates) == set(step.updates)
    begin = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    theirs = {name: begin[name] for name in updates}
    ours = dict(theirs)
    for batch in batches:
        found = compute(proto, batch | theirs)
        outputs, ours = run_with_updates(step, batch | ours)
        for name, wanted in outputs.items():
            compare(found[name], wanted, rtol, name)
        theirs = {name: found[new] for name, new in updates.items()}
        for name, wanted in ours.items():
            compare(theirs[name], wanted, rtol, name)


def test_training_of_an_mlp_with_dropout() -> None:
    nn.manual_seed(0)
    layers = [nn.Linear(6, 12), nn.GELU(), nn.LayerNorm(12), nn.Dropout(0.3), nn.Linear(12, 3)]
    model = nn.Sequential(*layers)

    def loss(model: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    specs = {"x": asg.spec((8, 6)), "y": asg.spec((8,), "i32")}
    step = asg.training_step(model, loss, optim.AdamW(lr=0.01, clip_norm=1.0), **specs)
    labels = np.arange(8, dtype=np.int32) % 3
    trained(step, [{"x": normal(8, 6, seed=seed), "y": labels} for seed in range(3)])


def test_a_training_step_comes_back() -> None:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))

    def loss(model: Any, batch: Any) -> Any:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    specs = {"x": asg.spec((5, 3)), "y": asg.spec((5, 2))}
    step = asg.training_step(model, loss, optim.AdamW(lr=0.01), **specs)
    again = asg.onnx.load(to_proto(step))
    assert isinstance(again, Graph)
    assert set(again.updates) == set(step.updates)
    assert list(again.outputs) == list(step.outputs)
    batch = {"x": normal(5, 3), "y": normal(5, 2)}
    for ours, theirs in zip(
        run_with_updates(step, batch), run_with_updates(again, batch), strict=True
    ):
        for name, wanted in ours.items():
            compare(theirs[name], wanted, 1e-5, name)


@pytest.mark.parametrize("noted", ["{", "[1]", '{"w": 3}', '{"w": "nowhere"}', '{"x": "y"}'])
def test_damaged_notes_of_updates(noted: str) -> None:
    w = asg.input("w", (3,), role="parameter")
    graph = asg.graph({"y": w * asg.input("x", (3,))})
    proto = to_proto(graph.with_values({"w": np.ones(3, np.float32)}))
    onnx.helper.set_model_props(proto, {"asg.updates": noted})
    with pytest.raises(GraphError, match=r"its metadata asg\.updates"):
        asg.onnx.load(proto)


def test_training_of_a_convolutional_network() -> None:
    nn.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip

    def loss(model: Any, batch: Any) -> Any:
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    specs = {"x": asg.spec((4, 2, 8, 8)), "y": asg.spec((4,), "i32")}
    step = asg.training_step(model, loss, optim.SGD(lr=0.1, momentum=0.9), **specs)
    labels = np.arange(4, dtype=np.int32) % 3
    trained(step, [{"x": normal(4, 2, 8, 8, seed=seed), "y": labels} for seed in range(3)])


def test_training_of_a_transformer() -> None:
    nn.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.block = nn.TransformerBlock(8, 2, causal=True)
            self.head = nn.Linear(8, 11)

        def forward(self, index: Any) -> Any:
            return self.head(self.block(self.embedding(index)))

    def loss(model: Any, batch: Any) -> Any:
        logits = model(batch["x"])
        return nn.functional.cross_entropy(logits.reshape(-1, 11), batch["y"].reshape(-1))

    specs = {"x": asg.spec((2, 5), "i32"), "y": asg.spec((2, 5), "i32")}
    # The gradient of the keys' bias is zero but for rounding, which AdamW would make much of.
    step = asg.training_step(Model(), loss, optim.AdamW(lr=0.01, eps=1e-3), **specs)
    rng = np.random.default_rng(0)
    batches = [
        {name: rng.integers(0, 11, (2, 5)).astype(np.int32) for name in "xy"} for _ in range(3)
    ]
    trained(step, batches)


def test_second_derivatives() -> None:
    x = asg.input("x", (5,))
    once = asg.grad(asg.graph({"loss": asg.sum(asg.tanh(x) * asg.exp(x))}), wrt="x")
    twice = asg.grad(asg.graph({"s": asg.sum(asg.Tensor(once.outputs["x.grad"]))}), "s", "x")
    check(twice, {"x": normal(5)})


def classifier() -> Graph:
    nn.manual_seed(0)
    layers = [
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), nn.Softmax(-1),
    ]  # fmt: skip
    return asg.trace(nn.Sequential(*layers).eval(), asg.spec((2, 1, 8, 8)))


def test_round_trip() -> None:
    graph = classifier()
    proto = to_proto(graph)
    again = asg.onnx.load(proto)
    assert isinstance(again, Graph)
    assert again.input_names("input") == graph.input_names("input")
    assert set(again.input_names("parameter")) >= {"0.weight", "6.weight"}
    x = {graph.input_names("input")[0]: normal(2, 1, 8, 8)}
    expected = run(graph, x)
    for found in (run(again, x), compute(proto, x), run(asg.onnx.load(to_proto(again)), x)):
        for name, wanted in expected.items():
            compare(found[name], wanted, 1e-5, name)
    assert {"Conv", "Softmax"} <= {node.op_type for node in proto.graph.node}


def test_files(tmp_path: Path) -> None:
    graph = classifier()
    x = {graph.input_names("input")[0]: normal(2, 1, 8, 8)}
    expected = run(graph, x)
    for external in (None, True, True):
        path = asg.onnx.save(graph, tmp_path / "model.onnx", external_data=external)
        assert path == tmp_path / "model.onnx"
        assert (tmp_path / "model.onnx.data").exists() is bool(external)
        onnx.checker.check_model(str(path), full_check=True)
        found = compute(path, x)
        for name, wanted in expected.items():
            compare(found[name], wanted, 1e-5, name)
    assert asg.onnx.load(tmp_path / "model.onnx").values.keys() == graph.values.keys()


def test_names() -> None:
    x = asg.input("x", (3,))
    w = asg.input("w", (3,), role="parameter")
    s = asg.input("s", (), role="state")
    y = x * w
    graph = Graph.build(
        {"same": x.value, "y": y.value, "again": y.value, "one": asg.full((), 1.0).value},
        updates={"s": (s + asg.sum(y)).value, "w": (w - y).value},
        values={"w": np.ones(3, np.float32)},
    )
    proto = check(graph, {"x": normal(3), "s": np.array(2, np.float32), "w": normal(3, seed=1)})
    assert [each.name for each in proto.graph.input] == ["x", "w", "s"]
    assert {each.name for each in proto.graph.initializer} == {"w", "s"}
    outputs = ["same", "y", "again", "one", "s.new", "w.new"]
    assert [each.name for each in proto.graph.output] == outputs
    compute(proto, {"x": normal(3)})  # what it begins with stands in the model


def test_a_parameter_without_a_value_is_given() -> None:
    w = asg.input("w", (3,), role="parameter")
    proto = check(asg.graph({"y": w * 2.0}), {"w": normal(3)})
    assert [each.name for each in proto.graph.input] == ["w"]


def test_names_that_meet_are_refused() -> None:
    s, other = asg.input("s", (), role="state"), asg.input("s.new", ())
    graph = Graph.build({"y": other.value}, updates={"s": (s + other).value})
    with pytest.raises(GraphError, match=r"another tensor would be called 's\.new'"):
        to_proto(graph)


def test_ops_of_ones_own() -> None:
    composed = asg.define_op("composed", expand=lambda x: asg.exp(x) + 1.0)
    x = asg.input("x", (3,))
    check(asg.graph({"y": composed(x)}), {"x": normal(3)})
    made = [
        asg.define_op(name, numpy=np.exp, wgsl="exp({0})") for name in ("first_op", "second_op")
    ]
    with pytest.raises(UnsupportedError) as caught:
        to_proto(asg.graph({"a": made[0](x), "b": made[1](x)}))
    text = str(caught.value)
    assert text.startswith("2 node(s) of graph graph have no ONNX form\n  a: first_op at test_exp")
    assert "\n  b: second_op at test_exp" in text


def test_what_can_not_be_saved() -> None:
    with pytest.raises(GraphError, match="a Graph is saved, not dict"):
        to_proto({})  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="opset 11 can't be written; from 18 to 23"):
        to_proto(classifier(), opset=11)


PATTERNS = {
    "MaxPool": (nn.MaxPool2d(3, stride=2, padding=1), (2, 3, 7, 8)),
    "AveragePool": (nn.AvgPool2d(2, padding=1), (2, 3, 6, 7)),
    "Gelu": (nn.GELU(), (3, 4)),
    "Gelu-tanh": (nn.GELU(approximate="tanh"), (3, 4)),
    "LayerNormalization": (nn.LayerNorm((3, 4)), (2, 3, 4)),
    "BatchNormalization": (nn.BatchNorm2d(3), (2, 3, 4, 5)),
    "Conv": (nn.Conv2d(4, 6, 3, groups=2, padding=1, dilation=2), (1, 4, 7, 8)),
    "Conv-1": (nn.Conv1d(2, 3, 2, stride=2), (2, 2, 9)),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_layers_that_onnx_has_as_a_whole(name: str) -> None:
    layer, shape = PATTERNS[name]
    rng = np.random.default_rng(0)
    values = {
        key: rng.uniform(0.5, 2, array.shape).astype(array.dtype)
        for key, array in layer.state_dict().items()
    }
    layer.load_state_dict(values)
    graph = asg.trace(layer.eval(), asg.spec(shape))
    proto = check(graph, {graph.input_names("input")[0]: normal(*shape)}, rtol=1e-4)
    written = [node.op_type for node in proto.graph.node if node.op_type != "Constant"]
    assert written == [name.partition("-")[0]]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_attention_as_a_whole(causal: bool, softcap: float) -> None:
    q, k, v = (asg.input(name, (2, 3, n, 4)) for name, n in (("q", 5), ("k", 7), ("v", 7)))
    y = nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=0.3, softcap=softcap
    )
    given = {"q": normal(2, 3, 5, 4), "k": normal(2, 3, 7, 4), "v": normal(2, 3, 7, 4)}
    proto = check(asg.graph({"y": y}), given, opset=23)
    assert [node.op_type for node in proto.graph.node] == ["Attention"]
    spelt = check(asg.graph({"y": y}), given, opset=22)
    assert "Attention" not in {node.op_type for node in spelt.graph.node}


def test_attention_that_is_read_or_masked_stays_apart() -> None:
    x, mask = asg.input("x", (1, 1, 3, 2)), asg.input("mask", (3, 3), "bool")
    given = {"x": normal(1, 1, 3, 2), "mask": np.tri(3, k=-1).astype(bool)}
    masked = asg.graph({"y": nn.functional.scaled_dot_product_attention(x, x, x, mask)})
    trained = asg.grad(
        asg.graph({"s": asg.sum(nn.functional.scaled_dot_product_attention(x, x, x))}), "s", "x"
    )
    for graph in (masked, trained):
        feeds = {name: given[name] for name in graph.input_names("input")}
        proto = check(graph, feeds, opset=23)
        assert "Attention" not in {node.op_type for node in proto.graph.node}


def test_what_others_read_stays_apart() -> None:
    x = asg.input("x", (3, 4))
    scaled = x * np.float32(np.sqrt(0.5))
    y = 0.5 * x * (1.0 + asg.erf(scaled))
    graph = asg.graph({"y": y, "scaled": scaled})
    proto = check(graph, {"x": normal(3, 4)})
    assert "Gelu" not in {node.op_type for node in proto.graph.node}
    twice = asg.graph({"y": 0.5 * x * (1.0 + asg.erf(x * np.float32(np.sqrt(0.5)))) * 2.0})
    proto = check(twice, {"x": normal(3, 4)})
    assert [n.op_type for n in proto.graph.node if n.op_type != "Constant"] == ["Gelu", "Mul"]
    assert "Gelu" not in {node.op_type for node in to_proto(twice, opset=19).graph.node}


@pytest.mark.parametrize("dtype", ["f16", "bf16", "i8", "u8", "i16", "u16"])
def test_narrow_types(dtype: str) -> None:
    x = asg.input("x", (3, 4), dtype)
    y = asg.permute(x, (1, 0)) * 2 + asg.cast(asg.input("z", (4, 3)), dtype)
    given = {"x": (normal(3, 4) * 3).astype(x.dtype.numpy), "z": np.abs(normal(4, 3)) * 30}
    check(asg.graph({"y": y, "m": asg.max(y, axis=0)}), given)


def test_special_values() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -3.5, 2.5, 88.0, 1e38], np.float32)
    a, b = asg.input("a", (10, 1)), asg.input("b", (10,))
    outputs = {
        "max": asg.maximum(a, b), "min": asg.minimum(a, b), "less": a < b, "equal": a == b,
        "sign": asg.sign(b), "trunc": asg.trunc(b), "round": asg.round(b), "log1p": asg.log1p(b),
        "expm1": asg.expm1(b), "i": asg.cast(b, "i32"), "u": asg.cast(b, "u32"),
        "bool": asg.cast(b, "bool"), "largest": asg.max(b), "smallest": asg.min(b[3:]),
        "where": asg.argmax(b), "least": asg.argmin(b), "sorted": asg.sort(b)[0],
        "rest": asg.remainder(a[6:], 2.0),
    }  # fmt: skip
    check(asg.graph(outputs), {"a": x[:, None], "b": x})


@pytest.mark.parametrize("dtype", ["i32", "u32"])
def test_integers_at_the_ends_of_their_range(dtype: str) -> None:
    limits = np.iinfo(as_dtype(dtype).numpy)
    numbers = [0, 1, 2, 7, limits.max, limits.max - 1, limits.min, limits.min + 1, limits.max // 2]
    x = np.array(numbers, as_dtype(dtype).numpy)
    a, b = asg.input("a", (9, 1), dtype), asg.input("b", (9,), dtype)
    outputs = {
        "add": a + b, "sub": a - b, "mul": a * b, "div": a // b, "mod": a % b, "less": a < b,
        "max": asg.maximum(a, b), "sum": asg.sum(a * b), "left": a << b, "right": a >> b,
        "xor": a ^ b, "not": ~a, "f": asg.cast(a, "f32"), "argmax": asg.argmax(b),
        "eq": a == b, "prod": asg.prod(b[1:4]), "trunc": asg.ops.TABLE["trunc_divide"](a, b),
        "fmod": asg.ops.TABLE["fmod"](a, b), "picked": asg.where(a < b, a, b),
    }  # fmt: skip
    check(asg.graph(outputs), {"a": x[:, None], "b": x})
