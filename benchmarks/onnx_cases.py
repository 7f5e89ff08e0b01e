"""The node tests of the `onnx` package: which are about numbers, and how they are judged."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

Array = np.ndarray[Any, Any]

NUMBERS = {
    TensorProto.DataType.Value(name)
    for name in (
        "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL", "INT8", "INT16", "INT32", "INT64",
        "UINT8", "UINT16", "UINT32", "UINT64",
    )
}  # fmt: skip
RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip
# Their number of steps, or their branch, is an input.
DECIDED_BY_INPUTS = {"If", "Loop"}


@dataclass(frozen=True)
class Case:
    """One test: a model, what goes in, and what must come out."""

    name: str
    op: str
    model: bytes
    data_sets: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...]
    rtol: float
    atol: float


def all_cases() -> Iterator[tuple[Case, str]]:
    """Yield every node test, and why it is left out (empty: it is not)."""
    with warnings.catch_warnings():
        # The package computes infinities and NaNs on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        made = load_model_tests(kind="node")
    for each in made:
        model = each.model
        data = tuple((arrays(given), arrays(wanted)) for given, wanted in each.data_sets)
        case = Case(each.name, op_of(model), model.SerializeToString(), data, each.rtol, each.atol)
        yield case, left_out(model)


def arrays(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return values as arrays; some tests hold them as messages."""
    return tuple(
        numpy_helper.to_array(each) if isinstance(each, TensorProto) else each for each in values
    )


def numeric_cases() -> list[Case]:
    """Return the tests of operators on numbers whose control flow is known."""
    return [case for case, reason in all_cases() if not reason]


def left_out(model: ModelProto) -> str:
    """Return why a model is no test of numbers, or an empty text."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return str(kind)
        if value.type.tensor_type.elem_type not in NUMBERS:
            return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type))
    nodes = [*nodes_of(model.graph), *(node for each in model.functions for node in each.node)]
    for node in nodes:
        if node.domain not in ("", "ai.onnx"):
            return node.domain
        if node.op_type in RANDOM:
            return "random"
        if node.op_type in DECIDED_BY_INPUTS:
            return "control flow"
        if node.op_type == "Dropout" and "training" in model.graph.name:
            return "random"
    return ""


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of the graphs inside."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def op_of(model: ModelProto) -> str:
    """Return which operator a test is about: `expanded` ones spell one out in many nodes."""
    nodes = model.graph.node
    if len(nodes) == 1:
        return str(nodes[0].op_type)
    return "(spelt out)"


def judge(case: Case, got: Sequence[Array], wanted: Sequence[Array]) -> str:
    """Return what is wrong with an answer, by the suite's own tolerances; empty: nothing."""
    if len(got) != len(wanted):
        return f"{len(got)} results instead of {len(wanted)}"
    for index, (mine, theirs) in enumerate(zip(got, wanted, strict=True)):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        if mine.dtype != theirs.dtype:
            return f"result {index} is {mine.dtype} instead of {theirs.dtype}"
        if mine.shape != theirs.shape:
            return f"result {index} has the shape {mine.shape} instead of {theirs.shape}"
        if not close(mine, theirs, case.rtol, case.atol):
            return f"result {index} is off by {distance(mine, theirs):.3g}"
    return ""


def close(mine: Array, theirs: Array, rtol: float, atol: float) -> bool:
    """Return whether two arrays agree; NaN equals NaN."""
    x, y = in_float64(mine), in_float64(theirs)
    return bool(np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True))


def in_float64(x: Array) -> Array:
    """Return numbers that NumPy compares; exact, but for 64-bit integers."""
    return x if x.dtype.kind in "iub" else x.astype(np.float64)


def distance(mine: Array, theirs: Array) -> float:
    """Return the largest difference."""
    with np.errstate(all="ignore"):
        gaps = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
    return float(np.max(gaps, initial=0.0))


def keep(cases: Sequence[Case], path: Path) -> None:
    """Write cases for child processes, which would take seconds to make them."""
    path.write_bytes(pickle.dumps({each.name: each for each in cases}))


def kept(path: Path) -> dict[str, Case]:
    """Return what `keep` wrote (for files of one's own only)."""
    loaded: dict[str, Case] = pickle.loads(path.read_bytes())
    return loaded
