"""Tiny ONNX models, judged by ONNX's own reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

import asg

Array = np.ndarray[Any, Any]
NEWEST = 21  # what tests ask for unless told: known to every version of the package that is allowed


def node_model(
    op: str,
    operands: Sequence[Array | None],
    attrs: Mapping[str, Any] | None = None,
    *,
    constants: Sequence[int] = (),
    outputs: int = 1,
    opset: int = NEWEST,
    domain: str = "",
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a model of one node, and what its inputs are fed; `constants` are initialisers."""
    names = [f"x{i}" if each is not None else "" for i, each in enumerate(operands)]
    inputs, weights, feeds = [], [], {}
    for place, (name, each) in enumerate(zip(names, operands, strict=True)):
        if each is None:
            continue
        if place in constants:
            weights.append(onnx.numpy_helper.from_array(each, name))
            continue
        code = helper.np_dtype_to_tensor_dtype(each.dtype)
        inputs.append(helper.make_tensor_value_info(name, code, each.shape))
        feeds[name] = each
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="node", domain=domain, **dict(attrs or {}))
    declared = [helper.make_empty_tensor_value_info(name) for name in results]
    graph = helper.make_graph([node], "one_node", inputs, declared, weights)
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def check_node(
    op: str,
    operands: Sequence[Array | None],
    attrs: Mapping[str, Any] | None = None,
    *,
    expected: Sequence[Array] | None = None,
    tolerance: float = 1e-6,
    device: bool = True,
    **options: Any,
) -> None:
    """Compare a node, imported, with the reference evaluator or with what is expected.

    `tolerance` is relative to 1 and to the result. Test modules that use it are marked `device`,
    unless they pass `device=False`.
    """
    model, feeds = node_model(op, operands, attrs, **options)
    check_model(model, feeds, expected=expected, tolerance=tolerance, device=device)


def check_model(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    expected: Sequence[Array] | None = None,
    tolerance: float = 1e-6,
    device: bool = True,
) -> None:
    """Compare a model, imported, with the reference evaluator or with what is expected."""
    if expected is None:
        expected = ReferenceEvaluator(model).run(None, dict(feeds))
    names = [each.name for each in model.graph.output]
    graph = asg.onnx.load(model)
    asg.verify(graph)
    runs: list[dict[str, Any]] = [{"target": "numpy"}]
    if device:
        runs += [{"schedule": "cpu"}, {"schedule": "gpu"}]
    for options in runs:
        with asg.compile(graph, **options) as exe:
            found = exe(dict(feeds))
        for name, wanted in zip(names, expected, strict=True):
            assert_near(found[name], np.asarray(wanted), tolerance, f"{name} {options}")


def assert_near(found: Array, wanted: Array, tolerance: float, what: str) -> None:
    """Compare shapes, element types, and values."""
    assert found.shape == wanted.shape, what
    assert found.dtype == wanted.dtype, what
    if found.dtype.kind in "fV":  # V: bfloat16 and the like
        pair = found.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(*pair, tolerance, tolerance, err_msg=what)
    else:
        np.testing.assert_array_equal(found, wanted, err_msg=what)
