"""Functions and their gradients against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import asg
from support.targets import evaluate, reference

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
    "gather": lambda x, index: asg.gather_elements(x, index, 1),
    "scatter_add": lambda x, index, updates: asg.scatter(x, index, updates, 0, "add"),
    "scatter_prod": lambda x, index, updates: asg.scatter(x, index, updates, 0, "mul"),
    "scatter_max": lambda x, index, updates: asg.scatter(x, index, updates, 1, "max"),
    "searchsorted": lambda keys, x: asg.searchsorted(keys, x, right=True),
    "pad_reflect": lambda x: asg.pad(x, ((0, 0), (0, 0), (1, 4), (3, 2)), mode="reflect"),
    "pad_edge": lambda x: asg.pad(x, ((0, 0), (0, 0), (3, 2)), mode="edge"),
    "pad_wrap": lambda x: asg.pad(x, ((0, 0), (0, 0), (3, -1)), mode="wrap"),
    "pixel_shuffle": lambda x: asg.depth_to_space(x, 2, "CRD"),
    "fold": lambda x: asg.col2im(x, (5, 6), (3, 2), (1, 2), ((1, 1), (0, 0)), (2, 1)),
    "roll": lambda x: asg.roll(x, (2, -4), (0, 1)),
    "diagonal": lambda x: asg.diagonal(x, 0, 2),
    "einsum_attention": lambda x, y: asg.einsum("b...id,b...jd->b...ij", x, y),
    "einsum_chain": lambda x, y, z: asg.einsum("iij,jk,k->i", x, y, z),
    "einsum_trace": lambda x: asg.einsum("...ii->...", x),
    "einsum_outer": lambda x, y: asg.einsum("i,j", x, y),
    "affine_grid": lambda x: asg.affine_grid(x, (2, 1, 3, 5)),
    "affine_grid_corners": lambda x: asg.affine_grid(x, (2, 1, 3, 4, 2), align_corners=True),
    **{
        f"grid_sample_{mode}_{padding}_{int(align)}": partial(
            asg.grid_sample, mode=mode, padding_mode=padding, align_corners=align
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    },
    "grid_sample_volume": asg.grid_sample,
    "interpolate_linear": lambda x: asg.resize(x, (2, 3, 7, 3), mode="linear"),
    "interpolate_corners": lambda x: asg.resize(
        x, (1, 2, 7, 9), mode="linear", coordinates="align_corners"
    ),
    "interpolate_cubic": lambda x: asg.resize(x, (1, 2, 7, 9), mode="cubic"),
    "interpolate_antialias": lambda x: asg.resize(
        x, (1, 2, 3, 4), mode="linear", antialias=True, exclude_outside=True
    ),
    "interpolate_nearest": lambda x: asg.resize(
        x, (2, 3, 7), coordinates="asymmetric", nearest="floor"
    ),
    "topk": lambda x: asg.topk(x, 5, 1),
    "topk_smallest": lambda x: asg.topk(x, 3, 1, largest=False),
}


def test_every_case_is_there() -> None:
    assert set(SAME) == set(CASES)


# Drivers take ten seconds for the kernels of a bicubic grid; one of them stands for all.
QUICK = [name for name in SAME if "bicubic" not in name and name != "grid_sample_volume"]
QUICK.append("grid_sample_bicubic_border_0")


@pytest.mark.parametrize("name", SAME)
def test_function(name: str) -> None:
    check(name, "numpy")


@pytest.mark.device
@pytest.mark.parametrize("name", QUICK)
def test_function_on_a_device(name: str) -> None:
    check(name, "wgpu")


def check(name: str, target: str) -> None:
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
