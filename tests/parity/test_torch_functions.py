"""Functions and their gradients against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asg
from support.targets import evaluate, on_targets, reference

CASES = reference("functions")

SAME: dict[str, Callable[..., Any]] = {
    "sort": lambda x: asg.sort(x, 1),
    "sort_descending": lambda x: asg.sort(x, 0, descending=True),
    "sort_ties": lambda x: asg.sort(x, 1),
    "sort_special": lambda x: asg.sort(x, 1, descending=True),
    "cumsum": lambda x: asg.cumsum(x, 1),
    "cumprod": lambda x: asg.cumprod(x, 1),
    "cummax": lambda x: asg.cummax(x, 1),
    "cummin": lambda x: asg.cummin(x, 0),
    "cummax_special": lambda x: asg.cummax(x, 1),
    "topk": lambda x: asg.topk(x, 5, 1),
    "topk_smallest": lambda x: asg.topk(x, 3, 1, largest=False),
}


def test_every_case_is_there() -> None:
    assert set(SAME) == set(CASES)


@pytest.mark.parametrize("name", SAME)
@on_targets
def test_function(name: str, target: str) -> None:
    case = CASES[name]
    names = [key for key in case if key.split(".")[0] not in ("y0", "y1", "w0", "w1")]
    names = [key for key in names if not key.endswith(".grad")]
    operands = {key: asg.input(key, case[key].shape, case[key].dtype) for key in names}
    found = SAME[name](**operands)
    results = found if isinstance(found, tuple) else (found,)
    outputs: dict[str, asg.Tensor] = {f"y{i}": y for i, y in enumerate(results)}
    total: Any = 0.0
    for i, y in enumerate(results):
        if f"w{i}" in case:
            total = total + (y * case[f"w{i}"]).sum()
    graph = asg.graph(outputs=outputs | {"total": asg.functions.constant(0.0) + total})
    wanted = [key for key in names if f"{key}.grad" in case]
    if wanted:
        graph = asg.value_and_grad(graph, of="total", wrt=wanted)
    given = evaluate(graph, {key: case[key] for key in names}, target)
    for field in (*outputs, *(f"{key}.grad" for key in wanted)):
        assert given[field].shape == case[field].shape, field
        np.testing.assert_allclose(given[field], case[field], 1e-5, 1e-5, err_msg=field)
