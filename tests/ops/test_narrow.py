"""Narrow element types: conversions to the bit, and every op's samples on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg.graph import Graph
from asg.op import Contraction, NoGradient, Op, Sample
from asg.ops.bits import bitcast
from asg.runtime.interpreter import run
from asg.types import DType, as_dtype, bfloat16, is_floating, parse_type
from support.narrow_samples import narrow_samples
from support.samples import draw, name_sample, operands, results, sample_graph

Array = np.ndarray[Any, Any]

FLOATS = [DType.F16, DType.BF16]
NARROW = [dtype for dtype in DType if dtype.is_narrow]
ODD = [0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 64, 127]
# Half the distance of neighbours, twice: both sides round, and may do so differently where the
# f32 results on either side of a tie are a unit apart.
RELATIVE = {DType.F16: 2.0**-10, DType.BF16: 2.0**-7}


def on_device(graph: Graph, inputs: dict[str, Array], schedule: str) -> dict[str, Array]:
    with asg.compile(graph, target="wgpu", schedule=schedule) as executable:
        return {name: np.asarray(array) for name, array in executable(inputs).items()}


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        if is_floating(array):
            epsilon = RELATIVE.get(as_dtype(array.dtype), 1e-6)
            wide = [x.astype(np.float64) for x in (found[name], array)]
            np.testing.assert_allclose(*wide, rtol=epsilon, atol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], array)


CASES = narrow_samples()
OF_EVERY_KIND = {
    "add", "exp", "maximum", "select", "equal", "cast", "bitcast", "shift_left", "floor_divide",
    "reshape", "permute", "pad", "flip", "concatenate", "pack", "sum", "prod", "max", "argmax",
    "matmul", "convolution", "gather", "scatter_add", "softmax", "attention", "sort",
}  # fmt: skip


def test_ops_of_every_kind_take_narrow_types() -> None:
    assert {op.name for op, _ in CASES} >= OF_EVERY_KIND


@pytest.mark.device
@pytest.mark.parametrize(
    ("op", "sample"), CASES, ids=[name_sample(op, sample) for op, sample in CASES]
)
def test_sample_on_a_device(op: Op, sample: Sample) -> None:
    graph = sample_graph(op, sample)
    arrays = {f"a{i}": array for i, array in enumerate(draw(op, sample))}
    inputs = {
        node.attrs["name"]: arrays[node.attrs["name"]].astype(node.type.dtype.numpy)
        for node in graph.inputs
    }
    expected = run(graph, inputs)
    for name, value in graph.outputs.items():
        assert expected[name].dtype == value.type.dtype.numpy
    assert_same(on_device(graph, inputs, "cpu"), expected)
    if not isinstance(op.kind, Contraction):
        return
    assert_same(on_device(graph, inputs, "gpu"), expected)


@pytest.mark.device
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_number_is_loaded_and_stored_exactly(dtype: DType) -> None:
    for count in (1 << 16, (1 << 16) - 1):
        bits = np.arange(count, dtype=np.uint16)
        x = asg.input("x", (count,), dtype)
        wide = bitcast(asg.cast(x, "f32"), dtype=DType.U32)
        graph = asg.graph(outputs={"wide": wide, "turned": asg.flip(x)})
        numbers = bits.view(dtype.numpy)
        found = on_device(graph, {"x": numbers}, "cpu")
        is_nan = np.isnan(numbers.astype(np.float32))
        expected = numbers.astype(np.float32).view(np.uint32)
        np.testing.assert_array_equal(found["wide"][~is_nan], expected[~is_nan])
        assert np.isnan(found["wide"].view(np.float32)[is_nan]).all()
        turned = found["turned"][::-1]
        np.testing.assert_array_equal(turned.view(np.uint16)[~is_nan], bits[~is_nan])
        assert np.isnan(turned[is_nan].astype(np.float32)).all()


def _telling(dtype: DType) -> Array:
    """Numbers on, between and beside all that `dtype` has, and random bits."""
    own = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy).astype(np.float32)
    half = 1 << (12 if dtype is DType.F16 else 15)
    steps = [own.view(np.uint32) + np.uint32(step % 2**32) for step in (-1, 0, 1)]
    steps += [own.view(np.uint32) + np.uint32(half + step) for step in (-1, 0, 1)]
    small = (np.arange(4096) * 2.0**-26).astype(np.float32)
    near = [small, -small, np.nextafter(small, np.float32(1)), np.nextafter(small, np.float32(-1))]
    drawn = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint64)
    parts = [*steps, *(each.view(np.uint32) for each in near), drawn.astype(np.uint32)]
    return np.concatenate(parts).view(np.float32)


@pytest.mark.device
@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_is_to_nearest_even(dtype: DType) -> None:
    numbers = _telling(dtype)
    graph = asg.graph(outputs={"y": asg.cast(asg.input("x", numbers.shape), dtype)})
    found = on_device(graph, {"x": numbers}, "cpu")["y"]
    with np.errstate(all="ignore"):
        expected = numbers.astype(dtype.numpy)
    is_nan = np.isnan(numbers)
    np.testing.assert_array_equal(found.view(np.uint16)[~is_nan], expected.view(np.uint16)[~is_nan])
    assert np.isnan(found[is_nan].astype(np.float32)).all()


@pytest.mark.device
@pytest.mark.parametrize("target", list(DType))
@pytest.mark.parametrize("source", list(DType))
def test_cast_between_all_types(source: DType, target: DType) -> None:
    low, high = (-300.0, 300.0) if source.is_float else (0, 1)
    if source.is_integer:
        limits = np.iinfo(source.numpy)
        low, high = max(limits.min, -70000), min(limits.max, 70000)
    drawn = np.random.default_rng(0).uniform(low, high, 37)
    numbers = (drawn if source.is_float else np.rint(drawn)).astype(source.numpy)
    if source.is_float:
        numbers[:4] = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(source.numpy)
    x = asg.input("x", (37,), source)
    graph = asg.graph(outputs={"y": asg.cast(x, target)})
    expected = run(graph, {"x": numbers})
    assert_same(on_device(graph, {"x": numbers}, "cpu"), expected)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("dtype", NARROW)
def test_odd_sizes(dtype: DType, schedule: str) -> None:
    outputs: dict[str, Any] = {}
    inputs: dict[str, Array] = {}
    for size in ODD:
        x = asg.input(f"x{size}", (size,), dtype)
        inputs[f"x{size}"] = _numbers((size,), dtype)
        outputs[f"sum{size}"] = x + x
        outputs[f"turned{size}"] = asg.flip(x)
        outputs[f"rest{size}"] = x[1:]
        outputs[f"each{size}"] = x[::2]
        outputs[f"wide{size}"] = asg.cast(x, "f32")
    graph = asg.graph(outputs=outputs)
    assert_same(on_device(graph, inputs, schedule), run(graph, inputs))


@pytest.mark.device
@pytest.mark.parametrize("dtype", NARROW)
def test_odd_offsets(dtype: DType) -> None:
    x = asg.input("x", (5, 7), dtype)
    y = asg.input("y", (3, 7), dtype)
    joined = asg.concatenate([x, y[:1], x[1:2]], axis=0)
    graph = asg.graph(
        outputs={
            "joined": joined,
            "part": joined[2:5],
            "column": joined[:, 3:6],
            "across": asg.concatenate([x[:, 1:4], x[:, :2]], axis=1),
            "turned": x.T,
            "padded": asg.pad(y, ((1, 0), (0, 2))),
            "flat": asg.reshape(x[1:], (28,))[3:],
            "packed": asg.ops.join.pack(x, y, offsets=(1, 38), total=63),
            "aligned": asg.ops.join.pack(x[:4], y[:, :4], offsets=(4, 32), total=63),
        }
    )
    inputs = {"x": _numbers((5, 7), dtype), "y": _numbers((3, 7), dtype)}
    assert_same(on_device(graph, inputs, "cpu"), run(graph, inputs))


def _numbers(shape: Sequence[int], dtype: DType) -> Array:
    source = np.random.default_rng(len(shape))
    if dtype.is_float:
        return source.uniform(-3, 3, shape).astype(dtype.numpy)
    return source.integers(0, 128, shape).astype(dtype.numpy)


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (16, 12, 8), (33, 64, 17), (64, 128, 96)])
def test_layer(sizes: tuple[int, int, int], dtype: DType, schedule: str) -> None:
    """A product with an epilogue, then rows: results of every kernel class are narrow."""
    rows, inner, columns = sizes
    x, w = asg.input("x", (rows, inner), dtype), asg.input("w", (inner, columns), dtype)
    bias = asg.input("b", (columns,), dtype)
    hidden = asg.relu(x @ w + bias)
    graph = asg.graph(
        outputs={
            "hidden": hidden,
            "soft": asg.softmax(hidden, axis=-1),
            "total": asg.sum(hidden, axis=-1),
            "columns": asg.sum(hidden, axis=0),
            "best": asg.argmax(hidden, axis=-1),
        }
    )
    inputs = {
        "x": (_numbers((rows, inner), dtype).astype(np.float32) / inner).astype(dtype.numpy),
        "w": _numbers((inner, columns), dtype),
        "b": _numbers((columns,), dtype),
    }
    found, expected = on_device(graph, inputs, schedule), run(graph, inputs)
    del found["best"], expected["best"]  # two elements may be as large but for rounding
    for name, array in expected.items():
        wide = [each.astype(np.float64) for each in (found[name], array)]
        scale = 1 + np.abs(wide[1]).max(initial=0)
        assert found[name].dtype == array.dtype
        # Hidden numbers may round either way, and sums of them follow.
        assert np.abs(wide[0] - wide[1]).max(initial=0) <= 2 * RELATIVE[dtype] * scale, name


def test_bf16_is_a_numpy_type() -> None:
    assert DType.BF16.numpy == bfloat16()
    assert as_dtype(bfloat16()) is DType.BF16
    assert asg.constant(np.ones(3, bfloat16())).dtype is DType.BF16


GRADIENTS = [
    (op, sample)
    for op, sample in CASES
    if not isinstance(op.grad, NoGradient)
    and DType.F16 in {parse_type(text).dtype for text in sample.types}
]


@pytest.mark.parametrize(
    ("op", "sample"), GRADIENTS, ids=[name_sample(op, sample) for op, sample in GRADIENTS]
)
def test_gradients_have_the_types_of_their_inputs(op: Op, sample: Sample) -> None:
    """And are those of the same op on f32, but for rounding."""
    found, wide = (_gradients(op, sample, is_wide) for is_wide in (False, True))
    assert found.keys() == wide.keys()
    for name, array in found.items():
        assert array.dtype == np.float16
        scale = 1 + np.abs(wide[name]).max(initial=0)
        # Operands of steep functions are rounded too.
        np.testing.assert_allclose(
            array.astype(np.float64), wide[name], rtol=0.02, atol=0.02 * scale
        )


def _gradients(op: Op, sample: Sample, is_wide: bool) -> dict[str, Array]:
    types = [parse_type(text) for text in sample.types]
    arrays = [
        array.astype(type_.dtype.numpy)
        for array, type_ in zip(draw(op, sample), types, strict=True)
    ]
    if is_wide:
        types = [replace(type_, dtype=type_.dtype.compute) for type_ in types]
        arrays = [x.astype(type_.dtype.numpy) for x, type_ in zip(arrays, types, strict=True)]
    tensors = operands([str(type_) for type_ in types])
    attrs = dict(sample.attrs or {})
    if is_wide and isinstance(attrs.get("dtype"), DType):
        attrs["dtype"] = attrs["dtype"].compute
    results_ = results(op, tensors, replace(sample, attrs=attrs))
    sums = [asg.sum(asg.cast(each, "f32")) for each in results_ if each.dtype.is_float]
    floats = [f"a{i}" for i, type_ in enumerate(types) if type_.dtype.is_float]
    if not sums or not floats:
        return {}
    graph = Graph.build({"loss": sum(sums[1:], sums[0]).value}, inputs=[t.node for t in tensors])
    gradient = asg.grad(graph, "loss", floats)
    inputs = {f"a{i}": array for i, array in enumerate(arrays)}
    found = run(gradient, {name: inputs[name] for name in gradient.input_names()})
    return found


@pytest.mark.device
def test_saved_and_loaded(tmp_path: Path) -> None:
    """Graph files and bundles hold narrow parameters, constants and state."""
    source = np.random.default_rng(0)
    outputs: dict[str, Any] = {}
    updates: dict[str, Any] = {}
    values: dict[str, Array] = {}
    for dtype in NARROW:
        values[f"w_{dtype}"] = _numbers((3, 5), dtype)
        values[f"s_{dtype}"] = _numbers((7,), dtype)
        w = asg.input(f"w_{dtype}", (3, 5), dtype, role="parameter")
        s = asg.input(f"s_{dtype}", (7,), dtype, role="state")
        big = asg.constant(source.integers(0, 100, 99).astype(dtype.numpy))
        outputs[f"y_{dtype}"] = w + w
        outputs[f"z_{dtype}"] = asg.flip(big)
        updates[f"s_{dtype}"] = s + asg.constant(1, dtype)
    graph = asg.graph(outputs=outputs, updates=updates).with_values(values)
    asg.save_graph(graph, tmp_path / "model.graph")
    again = asg.load_graph(tmp_path / "model.graph")
    assert str(again) == str(graph)
    expected = run(graph, {})
    assert_same(run(again, {}), expected)
    with asg.compile(again) as executable:
        assert_same(executable({}), expected)
        executable.save(tmp_path / "model.asg")
        state = executable.state_dict()
    with asg.load(tmp_path / "model.asg") as loaded:
        assert_same(loaded.state_dict(), state)
        assert_same(loaded({}), expected)
        for dtype in NARROW:
            one = np.ones((), dtype.numpy)
            np.testing.assert_array_equal(
                loaded.state_dict()[f"s_{dtype}"].astype(np.float32),
                (values[f"s_{dtype}"] + one + one).astype(np.float32),
            )


@pytest.mark.device
def test_outputs_in_64_bits(tmp_path: Path) -> None:
    x, n = asg.input("x", (3,)), asg.input("n", (3,), "i32")
    u = asg.input("u", (3,), "u8")
    interfaces = {"count": "i64", "mean": "f64", "seen": "u64", "wide": "i64"}
    graph = asg.graph(
        outputs={"count": n + 1, "mean": x * 0.5, "seen": u, "wide": u, "plain": n},
        interfaces=interfaces,
    )
    assert "return count: i64, mean: f64, seen=u: u64, wide=u: i64, plain=n" in str(graph)
    assert asg.parse_graph(str(graph)).interfaces == interfaces
    inputs = {"x": np.ones(3, np.float32), "n": np.arange(3), "u": np.full(3, 255)}
    kinds = {"count": "int64", "mean": "float64", "seen": "uint64", "wide": "int64"}
    with asg.compile(graph) as executable:
        executable.save(tmp_path / "model.asg")
        results_ = [executable(inputs), asg.compile(graph, target="numpy")(inputs)]
    with asg.load(tmp_path / "model.asg") as loaded:
        results_.append(loaded(inputs))
    for found in results_:
        assert {name: str(found[name].dtype) for name in kinds} == kinds
        assert found["plain"].dtype == np.int32
        assert found["count"].tolist() == [1, 2, 3]
        assert found["seen"].tolist() == found["wide"].tolist() == [255, 255, 255]
        assert found["mean"].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "interface", "message"),
    [
        ("y", "i64", "output 'y' is f32, and can't be handed out as i64"),
        ("n", "u64", "output 'n' is i32, and can't be handed out as u64"),
        ("n", "i128", "output 'n': an interface is one of i64, u64, f64, got 'i128'"),
        ("z", "i64", "graph graph has no output 'z'; outputs: y, n"),
    ],
)
def test_interfaces_must_fit(name: str, interface: str, message: str) -> None:
    outputs = {"y": asg.input("x", (3,)), "n": asg.input("m", (), "i32")}
    with pytest.raises(asg.errors.AsgError) as caught:
        asg.graph(outputs=outputs, interfaces={name: interface})
    assert str(caught.value) == message


@pytest.mark.device
@pytest.mark.parametrize("target", ["wgpu", "numpy"])
def test_wide_inputs_are_checked(target: str) -> None:
    graph = asg.graph(outputs={"y": asg.input("n", (2,), "i32"), "z": asg.input("b", (), "u8")})
    executable = asg.compile(graph, target=target)
    assert executable({"n": np.array([1, -(2**31)]), "b": np.int64(7)})["z"] == 7
    with pytest.raises(
        asg.errors.InputError, match="input 'n' holds 4294967296, outside the range"
    ):
        executable({"n": np.array([1, 2**32]), "b": 0})
    with pytest.raises(asg.errors.InputError, match="input 'b' holds 256, outside the range of u8"):
        executable({"n": np.array([1, 2]), "b": 256})


@pytest.mark.device
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sizes", [(5, 7, 6, 3), (33, 40, 16, 8)])
def test_attention_kernels_store_narrow_results(
    sizes: tuple[int, int, int, int], dtype: DType
) -> None:
    """No kernel stores f32 for another to round; gradients have one kernel for two results."""
    queries, keys, inner, width = sizes
    shapes = {"q": (2, queries, inner), "k": (2, keys, inner), "v": (2, keys, width)}
    q, k, v = (asg.input(name, shape, dtype) for name, shape in shapes.items())
    out = asg.nn.functional.scaled_dot_product_attention(q, k, v)
    loss = asg.sum(asg.cast(out, "f32") * asg.cast(asg.input("t", out.shape), "f32"))
    graph = asg.graph(outputs={"out": out, "loss": loss})
    inputs = {name: _numbers(shape, dtype) for name, shape in shapes.items()}
    inputs["t"] = _numbers(out.shape, DType.F32)
    gradients = asg.grad(graph, "loss", ["q", "k", "v"])
    with asg.compile(graph, schedule="gpu") as executable:
        assert executable.report()["dispatches"]["attention"] == 1
        assert "map" not in executable.report()["dispatches"]
        assert_same(executable(inputs), run(graph, inputs))
    with asg.compile(gradients, schedule="gpu") as executable:
        assert executable.report()["dispatches"]["attention"] == 3
        assert "map" not in executable.report()["dispatches"]
        found, expected = executable(inputs), run(gradients, inputs)
    for name, array in expected.items():
        wide = [each.astype(np.float64) for each in (found[name], array)]
        assert found[name].dtype == array.dtype
        bound = 2 * RELATIVE[dtype] * np.abs(wide[1]).max()
        assert np.abs(wide[0] - wide[1]).max() <= bound, name
