"""What the op table says about every op, checked op by op and sample by sample."""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asg import ops
from asg.errors import AsgError
from asg.graph import Graph
from asg.op import BadSample, Elementwise, Example, NoGradient, Op, Sample
from asg.passes.autodiff import grad
from asg.runtime.interpreter import run
from asg.tensor import Tensor, as_tensor
from asg.types import DType, TensorType, as_dtype, parse_type
from asg.verify import verify
from support.samples import draw, name_sample, operands, results, sample_graph

Array = np.ndarray[Any, Any]
HELPERS = Path(__file__).resolve().parents[2] / "shaders" / "helpers"

SAMPLES = [(op, sample) for op in ops.TABLE.values() for sample in op.samples]
EXAMPLES = [(op, example) for op in ops.TABLE.values() for example in op.examples]
ERRORS = [(op, bad) for op in ops.TABLE.values() for bad in op.errors]


def _ids(cases: list[tuple[Op, Sample]]) -> list[str]:
    return [name_sample(op, sample) for op, sample in cases]


@pytest.mark.parametrize("op", ops.TABLE.values(), ids=str)
def test_op_is_complete(op: Op) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", op.name)
    assert op.doc[0].isupper() or op.doc[0] in "`0123456789-"
    assert op.doc.endswith(".")
    if op.name != "input":
        assert op.samples
        assert op.examples
    if op.samples and op.samples[0].types:
        assert op.errors


@pytest.mark.parametrize(("op", "sample"), SAMPLES, ids=_ids(SAMPLES))
def test_type_rule_agrees_with_numpy(op: Op, sample: Sample) -> None:
    graph = sample_graph(op, sample)
    verify(graph)
    arrays = [_single(array) for array in draw(op, sample)]
    with np.errstate(all="ignore"):
        found = op.numpy(*arrays, **(sample.attrs or {}))
    arrays = list(found) if isinstance(found, tuple) else [found]
    for value, array in zip(graph.outputs.values(), arrays, strict=True):
        assert np.shape(array) == value.type.shape
        assert np.asarray(array).dtype.kind == value.type.dtype.numpy.kind


def _single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


@pytest.mark.parametrize(
    ("op", "example"), EXAMPLES, ids=[f"{op.name}-{i}" for i, (op, _) in enumerate(EXAMPLES)]
)
def test_example_by_hand(op: Op, example: Example) -> None:
    dtypes = example.dtypes or ["f32"] * len(example.inputs)
    arrays = [np.array(x, as_dtype(d).numpy) for x, d in zip(example.inputs, dtypes, strict=True)]
    tensors = [as_tensor(array) for array in arrays]
    found = results(op, tensors, Sample([], example.attrs))
    outputs = run(Graph.build({str(i): y.value for i, y in enumerate(found)}), {})
    expected = example.output if isinstance(example.output, tuple) else (example.output,)
    for array, wanted in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(array, np.array(wanted), rtol=1e-6, atol=1e-30)
        assert array.shape == np.shape(wanted)


@pytest.mark.parametrize(
    ("op", "bad"), ERRORS, ids=[f"{op.name}-{i}" for i, (op, _) in enumerate(ERRORS)]
)
def test_bad_operands_are_refused(op: Op, bad: BadSample) -> None:
    tensors = operands(bad.types)
    with pytest.raises(AsgError) as caught:
        op(*tensors, **(bad.attrs or {}))
    first, *rest = str(caught.value).splitlines()
    assert bad.match in first
    assert first.startswith(f"{op.name}: ")
    assert any(line.startswith("  at test_table.py:") for line in rest)
    assert sum(re.match(r"  \w+: \w+\[", line) is not None for line in rest) == len(tensors)


@pytest.mark.parametrize("op", ops.TABLE.values(), ids=str)
def test_expressions_cover_the_samples(op: Op) -> None:
    if not isinstance(op.kind, Elementwise):
        return
    expressions = op.kind.wgsl
    if isinstance(expressions, dict):
        for sample in op.samples:
            assert parse_type(sample.types[0]).dtype in expressions
        texts = list(expressions.values())
    else:
        texts = [op.kind.expression(*pair) for pair in _dtypes(op)]
    for text in texts:
        for name in re.findall(r"asg_\w+", text):
            assert (HELPERS / f"{name}.wgsl.j2").exists(), name


def _dtypes(op: Op) -> list[tuple[DType, DType]]:
    """The dtypes of operand and result of a conversion; of other ops one pair."""
    if isinstance(op.kind, Elementwise) and isinstance(op.kind.wgsl, str):
        return [(DType.F32, DType.F32)]
    found = []
    for source, target in itertools.product(DType, DType):
        with suppress(AsgError):
            op.shape((TensorType((), source),), {"dtype": target})
            found.append((source, target))
    return found


def _is_smooth(op: Op, sample: Sample) -> bool:
    """Tell whether a gradient is to be checked: the op has one, and floats go in and come out."""
    if isinstance(op.grad, NoGradient) or not sample.gradient:
        return False
    graph = sample_graph(op, sample)
    is_float = [node.type.dtype.is_float for node in graph.inputs]
    return any(is_float) and any(y.type.dtype.is_float for y in graph.outputs.values())


SMOOTH = [(op, sample) for op, sample in SAMPLES if _is_smooth(op, sample)]


def _weighted(tensors: tuple[Tensor, ...], seed: int) -> Tensor:
    """Reduce results to one number in which every element counts differently."""
    chance = np.random.default_rng(seed)
    total = as_tensor(0.0)
    for tensor in tensors:
        if not tensor.dtype.is_float:
            continue
        weights = chance.uniform(0.5, 2.0, tensor.shape).astype(np.float32)
        total = total + (tensor * weights).sum()
    return total


def _differences(graph: Graph, output: str, inputs: dict[str, Array], name: str) -> Array:
    """Central differences of a number by every element of an input."""
    step = 1e-5
    result = np.zeros(inputs[name].shape)
    for place in np.ndindex(inputs[name].shape):
        ends = []
        for sign in (-1, 1):
            moved = inputs[name].copy()
            moved[place] += sign * step
            ends.append(run(graph, inputs | {name: moved}, dtype="f64")[output])
        result[place] = (ends[1] - ends[0]) / (2 * step)
    return result


def _check(graph: Graph, inputs: dict[str, Array]) -> None:
    names = [node.attrs["name"] for node in graph.inputs if node.type.dtype.is_float]
    gradients = grad(graph, of="loss", wrt=names)
    verify(gradients)
    found = run(gradients, inputs, dtype="f64")
    for name in names:
        expected = _differences(graph, "loss", inputs, name)
        np.testing.assert_allclose(found[f"{name}.grad"], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("op", "sample"), SMOOTH, ids=_ids(SMOOTH))
def test_gradient_is_the_slope(op: Op, sample: Sample) -> None:
    tensors = operands(sample.types)
    loss = _weighted(results(op, tensors, sample), 0)
    graph = Graph.build({"loss": loss.value}, inputs=[tensor.node for tensor in tensors])
    _check(graph, _named(draw(op, sample)))


@pytest.mark.parametrize(("op", "sample"), SMOOTH, ids=_ids(SMOOTH))
def test_second_derivative_is_the_slope_of_the_first(op: Op, sample: Sample) -> None:
    tensors = operands(sample.types)
    loss = _weighted(results(op, tensors, sample), 0)
    graph = Graph.build({"loss": loss.value}, inputs=[tensor.node for tensor in tensors])
    names = [tensor.node.attrs["name"] for tensor in tensors if tensor.dtype.is_float]
    first = grad(graph, of="loss", wrt=names)
    total = _weighted(tuple(Tensor(value) for value in first.outputs.values()), 1)
    _check(Graph.build({"loss": total.value}, inputs=first.inputs), _named(draw(op, sample)))


@pytest.mark.parametrize(("op", "sample"), SMOOTH, ids=_ids(SMOOTH))
def test_gradients_of_an_input_used_twice_add_up(op: Op, sample: Sample) -> None:
    """Every float operand is also read by a square, and equal types share one input."""
    tensors = operands(sample.types)
    shared = [tensors[sample.types.index(text)] for text in sample.types]
    if len(set(sample.types)) < len(sample.types) and op.name in ("div", "pow", "remainder"):
        shared = tensors  # x / x is constant; bounds differ
    floats = [tensor for tensor in shared if tensor.dtype.is_float]
    loss = _weighted((*results(op, shared, sample), *(x * x for x in floats)), 2)
    graph = Graph.build({"loss": loss.value}, inputs=[tensor.node for tensor in shared])
    arrays = _named(draw(op, sample))
    _check(graph, {name: arrays[name] for name in graph.input_names()})


def _named(arrays: list[Array]) -> dict[str, Array]:
    return {f"a{i}": array for i, array in enumerate(arrays)}
