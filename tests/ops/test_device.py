"""Every op compiled alone and run on a device: the same as its NumPy rule, and as by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asg
from asg import ops
from asg.graph import Graph
from asg.op import Example, Op, Sample
from asg.runtime.interpreter import run
from asg.types import TensorType, as_dtype
from support.samples import draw, name_sample, operands, results, sample_graph

Array = np.ndarray[Any, Any]

SAMPLES = [(op, sample) for op in ops.TABLE.values() for sample in op.samples]
EXAMPLES = [(op, example) for op in ops.TABLE.values() for example in op.examples]

# Helpers err by 5 units of the last place at most, NumPy's own functions by 3.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def _on_device(graph: Graph, inputs: dict[str, Array]) -> dict[str, Array]:
    with asg.compile(graph, target="wgpu") as executable:
        return {name: np.asarray(array) for name, array in executable(inputs).items()}


def _assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, **TOLERANCE)
        else:
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.device
@pytest.mark.parametrize(
    ("op", "sample"), SAMPLES, ids=[name_sample(op, sample) for op, sample in SAMPLES]
)
def test_sample_on_a_device(op: Op, sample: Sample) -> None:
    graph = sample_graph(op, sample)
    arrays = {f"a{i}": array for i, array in enumerate(draw(op, sample))}
    inputs = {
        node.attrs["name"]: arrays[node.attrs["name"]].astype(node.type.dtype.numpy)
        for node in graph.inputs
    }
    _assert_same(_on_device(graph, inputs), run(graph, inputs))


@pytest.mark.device
@pytest.mark.parametrize(
    ("op", "example"), EXAMPLES, ids=[f"{op.name}-{i}" for i, (op, _) in enumerate(EXAMPLES)]
)
def test_example_on_a_device(op: Op, example: Example) -> None:
    dtypes = [as_dtype(name) for name in example.dtypes or ["f32"] * len(example.inputs)]
    arrays = [np.array(x, dtype.numpy) for x, dtype in zip(example.inputs, dtypes, strict=True)]
    types = [TensorType(x.shape, dtype) for x, dtype in zip(arrays, dtypes, strict=True)]
    tensors = operands([str(type_) for type_ in types])
    found = results(op, tensors, Sample([], example.attrs))
    graph = Graph.build({f"y{i}": y.value for i, y in enumerate(found)})
    expected = example.output if isinstance(example.output, tuple) else (example.output,)
    wanted = {
        f"y{i}": np.array(array, y.dtype.numpy)
        for i, (array, y) in enumerate(zip(expected, found, strict=True))
    }
    _assert_same(_on_device(graph, {f"a{i}": x for i, x in enumerate(arrays)}), wanted)
