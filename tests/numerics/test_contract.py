"""What every op promises (asg/contract.py), held against exact arithmetic on a device."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import asg
from asg.comparison import compare as judge_by_yardstick
from asg.contract import EXACT, FUNCTIONS, SPELT, Contract, contract, contracts
from asg.errors import AsgError
from asg.graph import Graph
from asg.op import Elementwise, Op, Procedure, Reduction, Sample, Source
from asg.ops import TABLE
from asg.runtime.interpreter import run
from asg.tolerances import STORED
from asg.types import DType, as_dtype, is_floating, parse_type
from asg.yardstick import measure
from support.samples import draw, name_sample, sample_graph
from support.targets import evaluate

Array = np.ndarray[Any, Any]
LARGEST = STORED[DType.F32][2]
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30], np.float32)
HUGE = np.array([1e30, -1e30, 2.0**-126, 3e38], np.float32)


def is_float(sample: Sample, op: Op) -> bool:
    outputs = sample_graph(op, sample).outputs.values()
    narrow = any(parse_type(text).dtype.is_narrow for text in sample.types)
    return not narrow and any(value.type.dtype is DType.F32 for value in outputs)


FLOATS = [
    (op, sample)
    for op in TABLE.values()
    for sample in op.samples
    if not isinstance(op.kind, Source) and op.name != "cut" and is_float(sample, op)
]


def test_every_op_promises_something() -> None:
    assert set(contracts()) == set(TABLE)
    for each in contracts().values():
        assert each.bound.text


def takes(op: Op, dtype: DType) -> bool:
    """Whether an op takes this type in the place of the floats of its samples."""
    for sample in op.samples:
        types = [parse_type(text) for text in sample.types]
        if any(each.dtype is dtype for each in types) and types:
            try:
                op.shape(tuple(types), sample.attrs or {})
            except AsgError:
                continue
            return True
    return False


@pytest.mark.parametrize("op", TABLE.values(), ids=str)
def test_integers_that_do_not_fit_are_spoken_of(op: Op) -> None:
    computes = isinstance(op.kind, (Elementwise, Reduction, Procedure))
    if computes and takes(op, DType.I32) and contract(op).bound is not EXACT:
        assert contract(op).integers


@pytest.mark.device
@pytest.mark.parametrize(
    ("op", "sample"), FLOATS, ids=[name_sample(op, sample) for op, sample in FLOATS]
)
def test_bound(op: Op, sample: Sample) -> None:
    promise = contract(op)
    graph = sample_graph(op, sample)
    if promise.bound is SPELT:
        check_by_rounding(graph, list(map(single, draw(op, sample))))
        return
    chance = np.random.default_rng(zlib.crc32(repr((op.name, sample.types)).encode()))
    ordinary = [single(array) for array in draw(op, sample)]
    draws = [ordinary, [wide(chance, x) for x in ordinary], special(chance, op, promise, ordinary)]
    with asg.compile(graph, target="wgpu") as exe:
        for operands in draws:
            names = {f"a{i}": x for i, x in enumerate(operands)}
            found = exe({name: names[name] for name in graph.input_names()})
            judge(op, sample.attrs or {}, operands, list(map(np.asarray, found.values())))


def check_by_rounding(graph: Graph, operands: list[Array]) -> None:
    """A result as exact as the roundings of what it is made of let it be."""
    given = {f"a{i}": x for i, x in enumerate(operands)}
    yardsticks = measure(graph, given)
    found = evaluate(graph, given, "wgpu")
    for name, value in graph.outputs.items():
        verdict = judge_by_yardstick(name, value.type, found[name], yardsticks[value])
        assert not verdict.is_wrong, str(verdict)


def single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def wide(chance: np.random.Generator, x: Array) -> Array:
    """Numbers of very different sizes."""
    if x.dtype.kind != "f":
        return x
    return single(x * np.exp2(chance.integers(-9, 10, x.shape)))


def special(
    chance: np.random.Generator, op: Op, promise: Contract, ordinary: list[Array]
) -> list[Array]:
    """Numbers that are none, and for ops that combine none also such as overflow."""
    is_single = isinstance(op.kind, Elementwise) or promise.bound is EXACT
    values = np.concatenate([SPECIAL, HUGE]) if is_single else SPECIAL
    return [
        np.where(chance.random(x.shape) < 0.3, chance.choice(values, x.shape), x)
        if x.dtype.kind == "f"
        else x
        for x in ordinary
    ]


def judge(op: Op, attrs: Any, operands: list[Array], found: list[Array]) -> None:
    """Compare with the op's meaning in float64, whose range is made that of f32."""
    exactly = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in operands]
    limit = contract(op).bound.limit
    assert limit is not None
    with np.errstate(all="ignore"):
        results = op.numpy(*exactly, **attrs)
        results = results if isinstance(results, tuple) else (results,)
        for got, wanted in zip(found, results, strict=True):
            if got.dtype.kind != "f":
                assert np.array_equal(got, wanted)
                continue
            allowed = np.nan_to_num(limit(op, attrs, exactly, np.asarray(wanted)), nan=0.0)
            compare(op.name, got, np.asarray(wanted, np.float64), allowed)


def compare(name: str, got: Array, wanted: Array, allowed: Array) -> None:
    """NaN where NaN is, infinity where f32 has no such number, otherwise within the bound."""
    near = np.abs(got - wanted) <= allowed
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    beyond = np.abs(wanted) + allowed >= LARGEST
    overflows = beyond & np.isinf(got) & (np.sign(got) == np.sign(wanted))
    right = near | same | overflows
    if not right.all():
        place = tuple(np.argwhere(~right)[0])
        told = np.broadcast_to(allowed, wanted.shape)[place]
        pytest.fail(
            f"{name} at {place}: {got[place]!r}, exactly {wanted[place]!r}, allowed {told:.3g}"
        )


@pytest.mark.parametrize("name", ["sum", "matmul", "softmax", "exp", "convolution", "max"])
def test_results_beyond_a_bound_are_found(name: str) -> None:
    op = TABLE[name]
    sample = op.samples[0]
    operands = list(map(single, draw(op, sample)))
    exactly = [x.astype(np.float64) for x in operands]
    attrs = sample.attrs or {}
    result = np.asarray(op.numpy(*exactly, **attrs))
    limit = contract(op).bound.limit
    assert limit is not None
    allowed = limit(op, attrs, exactly, result)
    judge(op, attrs, operands, [result + 0.99 * allowed])
    with pytest.raises(pytest.fail.Exception):
        judge(op, attrs, operands, [result + 1.01 * allowed + 1e-12])
    with pytest.raises(pytest.fail.Exception):
        judge(
            op,
            attrs,
            operands,
            [np.where(np.arange(result.size) == 0, np.nan, result.ravel()).reshape(result.shape)],
        )


# -- long rows: bounds grow with them, and errors must not grow faster


def ramp(*shape: int) -> Array:
    """Positive numbers, whose roundings all go one way."""
    return (np.arange(math.prod(shape)) % 7 / 8 + 0.1).reshape(shape).astype(np.float32)


def mixed(*shape: int) -> Array:
    chance = np.random.default_rng(1)
    return single(chance.standard_normal(shape) * np.exp2(chance.integers(-12, 12, shape)))


LONG: dict[str, tuple[str, dict[str, Any], list[tuple[int, ...]]]] = {
    "sum": ("sum", {"axes": (1,)}, [(3, 40_001)]),
    "sum of columns": ("sum", {"axes": (0,)}, [(20_003, 5)]),
    "cumsum": ("cumsum", {"axis": 1}, [(2, 9_001)]),
    "matmul": ("matmul", {}, [(5, 3_001), (3_001, 7)]),
    "matmul of squares": ("matmul", {}, [(130, 257), (257, 129)]),
    "softmax": ("softmax", {"axis": 1}, [(3, 5_003)]),
    "long softmax": ("softmax", {"axis": 1}, [(1, 40_001)]),
    "log_softmax": ("log_softmax", {"axis": 1}, [(3, 5_003)]),
    "standardize": ("standardize", {"axes": (1,), "eps": 1e-5}, [(3, 5_003)]),
    "linear_recurrence": ("linear_recurrence", {"axis": 1}, [(2, 3_001), (2, 3_001)]),
    "max": ("max", {"axes": (1,)}, [(3, 40_001)]),
    "sort": ("sort", {"axis": 1, "descending": False, "count": 5_003}, [(2, 5_003)]),
    "convolution": (
        "convolution",
        {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "lhs_dilation": (1, 1),
         "dilation": (1, 1), "groups": 1},
        [(1, 16, 20, 21), (16, 16, 3, 3)],
    ),
}  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize("target", ["cpu", "gpu"])
@pytest.mark.parametrize("name", LONG)
def test_bound_of_long_rows(name: str, target: str) -> None:
    op_name, attrs, shapes = LONG[name]
    op = TABLE[op_name]
    tensors = [asg.input(f"a{i}", shape) for i, shape in enumerate(shapes)]
    found = op(*tensors, **attrs)
    results = found if isinstance(found, tuple) else (found,)
    graph = asg.graph(outputs={f"y{i}": y for i, y in enumerate(results)})
    with asg.compile(graph, target="wgpu", schedule=target) as exe:
        for make in (ramp, mixed):
            operands = [make(*shape) for shape in shapes]
            if op_name == "linear_recurrence":
                operands[0] = single(np.clip(operands[0], -1, 1))
            given = {f"a{i}": x for i, x in enumerate(operands)}
            judge(op, attrs, operands, list(map(np.asarray, exe(given).values())))


# -- functions made of several ops

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], list[tuple[int, ...]]]] = {
    "mean": (asg.mean, {"axis": 1}, [(3, 4_001)]),
    "mean.all": (asg.mean, {}, [(30, 41)]),
    "var": (asg.var, {"axis": 1}, [(3, 4_001)]),
    "var.unbiased": (asg.var, {"axis": 0, "ddof": 1}, [(1_003, 3)]),
    "var.long": (asg.var, {"axis": 1}, [(1, 40_001)]),
    "std": (asg.std, {"axis": 1}, [(3, 4_001)]),
    "logsumexp": (asg.logsumexp, {"axis": 1}, [(3, 4_001)]),
    "logsumexp.long": (asg.logsumexp, {"axis": 1}, [(1, 40_001)]),
    "rms_norm": (partial(asg.nn.functional.rms_norm, normalized_shape=257), {}, [(5, 257)]),
    "resize": (asg.resize, {"shape": (1, 2, 17, 9), "mode": "linear"}, [(1, 2, 7, 12)]),
    "resize.cubic": (asg.resize, {"shape": (1, 2, 17, 9), "mode": "cubic"}, [(1, 2, 7, 12)]),
    "resize.antialias": (
        asg.resize, {"shape": (1, 1, 5, 4), "mode": "linear", "antialias": True}, [(1, 1, 40, 31)],
    ),
    "grid_sample": (asg.grid_sample, {"mode": "bilinear"}, [(1, 2, 9, 300), (1, 5, 7, 2)]),
    "grid_sample.bicubic": (
        asg.grid_sample, {"mode": "bicubic"}, [(1, 1, 9, 12), (1, 2, 3, 2)],
    ),
    "grid_sample.border": (
        asg.grid_sample, {"mode": "bilinear", "padding_mode": "border"},
        [(1, 2, 9, 30), (1, 5, 7, 2)],
    ),
}  # fmt: skip


def test_every_function_with_a_bound_is_called() -> None:
    assert {name.split(".")[0] for name in CALLS} == set(FUNCTIONS)


@pytest.mark.device
@pytest.mark.parametrize("name", CALLS)
def test_bound_of_functions(name: str) -> None:
    """Beside the interpreter in float64; offsets of 10,000 leave few digits to a spread."""
    function, options, shapes = CALLS[name]
    tensors = [asg.input(f"a{i}", shape) for i, shape in enumerate(shapes)]
    graph = asg.graph(outputs={"y": function(*tensors, **options)})
    limit = FUNCTIONS[name.split(".")[0]].limit
    with asg.compile(graph, target="wgpu") as exe:
        for make in (ramp, mixed, lambda *shape: ramp(*shape) + np.float32(1e4)):
            operands = [make(*shape) for shape in shapes]
            if len(operands) == 2:
                operands[1] = single(np.tanh(mixed(*shapes[1])) * 1.5)
            given = {f"a{i}": x for i, x in enumerate(operands)}
            exactly = [x.astype(np.float64) for x in operands]
            exact = run(graph, dict(zip(given, exactly, strict=True)), dtype="f64")["y"]
            compare(name, np.asarray(exe(given)["y"]), exact, limit(options, exactly, exact))


# -- numbers of 16 bits: the same bound, and one rounding more


def narrowed(op: Op, dtype: DType) -> Sample | None:
    """The first sample of an op with its floats in another type, if the op takes them."""
    for each in op.samples:
        types = [parse_type(text) for text in each.types]
        if not any(type_.dtype is DType.F32 for type_ in types):
            continue
        tried = [replace(t, dtype=dtype) if t.dtype is DType.F32 else t for t in types]
        sample = replace(each, types=[str(type_) for type_ in tried])
        try:
            results = sample_graph(op, sample).outputs.values()
        except AsgError:
            continue
        if any(value.type.dtype is dtype for value in results):
            return sample
    return None


NARROW = [
    (op, dtype, sample)
    for op in TABLE.values()
    for dtype in (DType.F16, DType.BF16)
    for sample in [narrowed(op, dtype)]
    if sample is not None and op.name != "cut" and contract(op).bound is not SPELT
]


@pytest.mark.device
@pytest.mark.parametrize(
    ("op", "dtype", "sample"), NARROW, ids=[f"{op.name}-{dtype}" for op, dtype, _ in NARROW]
)
def test_bound_of_narrow_floats(op: Op, dtype: DType, sample: Sample) -> None:
    operands = [x.astype(dtype.numpy) if x.dtype.kind == "f" else x for x in draw(op, sample)]
    given = {f"a{i}": x for i, x in enumerate(operands)}
    graph = sample_graph(op, sample)
    found = evaluate(graph, {name: given[name] for name in graph.input_names()}, "wgpu")
    exactly = [x.astype(np.float64) if is_floating(x) else x for x in map(np.asarray, operands)]
    limit = contract(op).bound.limit
    assert limit is not None
    relative, least, _ = STORED[dtype]
    with np.errstate(all="ignore"):
        results = op.numpy(*exactly, **(sample.attrs or {}))
        results = results if isinstance(results, tuple) else (results,)
        for got, wanted in zip(found.values(), results, strict=True):
            if not is_floating(got):
                assert np.array_equal(got, wanted)
                continue
            exact = np.asarray(wanted, np.float64)
            allowed = limit(op, sample.attrs or {}, exactly, exact)
            once = relative * (np.abs(exact) + allowed) + least
            compare(op.name, got.astype(np.float64), exact, allowed + once)


# -- integers, by Python's own, which have no size

INTEGERS = [dtype for dtype in DType if dtype.is_integer]
Rule = Callable[[int, int], int]


def towards_zero(x: int, y: int) -> int:
    size = abs(x) // abs(y)
    return size if (x < 0) == (y < 0) else -size


BINARY: dict[str, Rule] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "floor_divide": lambda x, y: x // y if y else 0,
    "remainder": lambda x, y: x % y if y else 0,
    "trunc_divide": lambda x, y: towards_zero(x, y) if y else 0,
    "fmod": lambda x, y: x - y * towards_zero(x, y) if y else 0,
    "maximum": max,
    "minimum": min,
    "bitwise_and": lambda x, y: x & y,
    "bitwise_or": lambda x, y: x | y,
    "bitwise_xor": lambda x, y: x ^ y,
    "shift_left": lambda x, y: x << y if 0 <= y < 32 else 0,
    "shift_right": lambda x, y: x >> (y if 0 <= y < 32 else 99),
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
}
UNARY: dict[str, Callable[[int], int]] = {
    "neg": lambda x: -x,
    "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
    "bitwise_not": lambda x: ~x,
}


def wrapped(values: list[int], dtype: DType) -> Array:
    """The lower bits of whole numbers."""
    if dtype is DType.BOOL:
        return np.array(values, np.bool_)
    bits = np.iinfo(dtype.numpy).bits
    low = [value % 2**bits for value in values]
    return np.array(low, f"u{bits // 8}").view(dtype.numpy)


def edges(dtype: DType) -> list[int]:
    limits = np.iinfo(dtype.numpy)
    near = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 100]
    both = [*near, *(-x for x in near), limits.min, limits.min + 1, limits.max, limits.max - 1]
    return sorted({x for x in both if limits.min <= x <= limits.max})


@pytest.mark.device
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers(dtype: DType) -> None:
    """Every elementwise op of integers, at the ends of the range, on all pairs."""
    pairs = list(itertools.product(edges(dtype), repeat=2))
    x, y = (asg.input(name, (len(pairs),), dtype) for name in "xy")
    outputs: dict[str, Any] = {}
    for name in BINARY:
        outputs[name] = TABLE[name](x, y)
    for name in UNARY:
        if dtype.is_signed or name == "bitwise_not":
            outputs[name] = TABLE[name](x)
    given = {
        "x": np.array([a for a, _ in pairs], dtype.numpy),
        "y": np.array([b for _, b in pairs], dtype.numpy),
    }
    for target in ("numpy", "wgpu"):
        found = evaluate(asg.graph(outputs=outputs), given, target)
        for name, tensor in outputs.items():
            if name in BINARY:
                values = [BINARY[name](a, b) for a, b in pairs]
            else:
                values = [UNARY[name](a) for a, _ in pairs]
            expected = wrapped(values, tensor.dtype)
            wrong = np.flatnonzero(found[name] != expected)
            told = [(pairs[i], found[name][i], expected[i]) for i in wrong[:3]]
            assert not wrong.size, f"{name} of {dtype} on {target}: {told}"


@pytest.mark.device
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_sums_wrap(dtype: DType) -> None:
    values = [*edges(dtype), *edges(dtype)[::-1], 3, 5, 7]
    x = asg.input("x", (2, len(values)), dtype)
    outputs = {
        "sum": asg.sum(x, 1),
        "prod": asg.prod(x, 1),
        "cumsum": asg.cumsum(x, 1),
        "cumprod": asg.cumprod(x, 1),
        "max": asg.max(x, 1),
        "min": asg.min(x, 1),
        "argmax": asg.argmax(x, 1),
        "argmin": asg.argmin(x, 1),
    }
    odd = [each | 1 if each not in (0, dtype.numpy) else 1 for each in values]
    rows = [values, odd]
    expected = {
        "sum": wrapped([sum(row) for row in rows], dtype),
        "prod": wrapped([math.prod(row) for row in rows], dtype),
        "cumsum": np.array([wrapped(list(itertools.accumulate(row)), dtype) for row in rows]),
        "cumprod": np.array(
            [wrapped(list(itertools.accumulate(row, lambda a, b: a * b)), dtype) for row in rows]
        ),
        "max": wrapped([max(row) for row in rows], dtype),
        "min": wrapped([min(row) for row in rows], dtype),
        "argmax": np.array([row.index(max(row)) for row in rows]),
        "argmin": np.array([row.index(min(row)) for row in rows]),
    }
    given = {"x": np.array(rows, dtype.numpy)}
    for target in ("numpy", "wgpu"):
        found = evaluate(asg.graph(outputs=outputs), given, target)
        for name, wanted in expected.items():
            assert np.array_equal(found[name], wanted), f"{name} of {dtype} on {target}"


FROM_FLOATS = [
    0.0, -0.0, 0.9, -0.9, 1.5, -1.5, 127.9, 128.0, -128.9, -129.0, 255.9, 256.0, 32767.9, 32768.0,
    -32769.0, 65535.9, 65536.0, 2.0**31, -(2.0**31), 2.0**32, -(2.0**33), 3e38, -3e38, 16777217.0,
    2147483520.0, 4294967040.0, math.inf, -math.inf, math.nan,
]  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_casts(target: DType) -> None:
    """Floats towards zero and to the nearest end, NaN to 0; integers by their lower bits."""
    limits = np.iinfo(target.numpy)
    floats = np.array(FROM_FLOATS, np.float32)
    given: dict[str, Array] = {"f32": floats}
    expected = {
        "f32": [
            0 if math.isnan(x) else int(min(max(float(x), limits.min), limits.max)) for x in floats
        ]
    }
    for source in INTEGERS:
        given[str(source)] = np.array(edges(source), source.numpy)
        expected[str(source)] = edges(source)
    given["bool"] = np.array([True, False])
    expected["bool"] = [1, 0]
    tensors = {name: asg.input(name, x.shape, as_dtype(name)) for name, x in given.items()}
    outputs = {f"to.{name}": asg.cast(tensor, target) for name, tensor in tensors.items()}
    graph = asg.graph(outputs=outputs)
    for where in ("numpy", "wgpu"):
        found = evaluate(graph, given, where)
        for name, values in expected.items():
            assert np.array_equal(found[f"to.{name}"], wrapped(values, target)), (name, where)


@pytest.mark.device
@pytest.mark.parametrize("source", INTEGERS, ids=str)
def test_integers_become_the_nearest_floats(source: DType) -> None:
    values = edges(source) + [x for x in (16777217, 16777219, 2**31 - 65) if x in _range(source)]
    x = asg.input("x", (len(values),), source)
    given = {"x": np.array(values, source.numpy)}
    for where in ("numpy", "wgpu"):
        found = evaluate(asg.graph(outputs={"y": asg.cast(x, "f32")}), given, where)["y"]
        assert found.tolist() == [float(np.float32(value)) for value in values]


def _range(dtype: DType) -> range:
    limits = np.iinfo(dtype.numpy)
    return range(int(limits.min), int(limits.max) + 1)
