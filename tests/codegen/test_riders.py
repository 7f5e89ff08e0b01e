"""Sums over an operand of a product, made by the product's own kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import asg
from asg.artefact import Variant
from asg.codegen.context import KernelContext, Target
from asg.codegen.contract_kernel import contract_variants
from asg.compiler import fuse, prepare
from asg.functions import exp
from asg.graph import Graph
from asg.ops.linear import matmul
from asg.ops.reduction import reduce_max, reduce_sum
from asg.passes.schedule_contract import ContractSchedule
from asg.shaping import reshape
from asg.tensor import Tensor
from asg.tracing import graph, input
from support.one_kernel import expect_right

CPU = Target("cpu", 8)
SCHEDULES = {
    "shuffle": ContractSchedule("shuffle", 8, 4, 8),
    "shuffle-low": ContractSchedule("shuffle", 3, 4, 8),
    "shuffle-24": ContractSchedule("shuffle", 24, 8, 8),
    "shuffle-turned": ContractSchedule("shuffle", 16, 4, 8, is_transposed=True),
    "register": ContractSchedule("register", 4, 4, 8, inner_steps=1),
    "register-steps": ContractSchedule("register", 2, 8, 4, inner_steps=4, is_transposed=True),
    "staged": ContractSchedule("staged", 4, 4, 64, depth=8),
    "staged-turned": ContractSchedule("staged", 8, 4, 32, depth=4, is_transposed=True),
}
SIZES = [(5, 3, 7), (64, 33, 17), (8, 16, 64), (2, 65, 66)]


def by(schedule: ContractSchedule) -> Callable[[KernelContext], Variant]:
    return lambda context: contract_variants(context, schedule)[0]


def gradients(batch: int, rows: int, columns: int) -> dict[str, Tensor]:
    """The gradients of a linear layer, of the weight first."""
    x, g = input("x", (batch, columns)), input("g", (batch, rows))
    return {"weight": matmul(g.T, x), "bias": reduce_sum(g, axes=(0,))}


@pytest.mark.device
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_both_gradients_are_one_kernel(
    schedule: ContractSchedule, sizes: tuple[int, int, int]
) -> None:
    expect_right(gradients(*sizes), [by(schedule)], target=CPU, tolerance=3e-5)


@pytest.mark.device
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_sums_over_both_operands(schedule: ContractSchedule) -> None:
    x, y = input("x", (20, 33)), input("y", (33, 37))
    outputs = {
        "xy": matmul(x, y),
        "rows": reduce_sum(x, axes=(1,)),
        "columns": reduce_sum(y, axes=(0,)),
    }

    expect_right(outputs, [by(schedule)], target=CPU, tolerance=3e-5)


def kernels(outputs: dict[str, Tensor]) -> list[tuple[str, int]]:
    """The kind of each kernel, and how many loops' anchors it has."""
    plan = fuse(prepare(traced(outputs)))
    return [(kernel.kind, len(kernel.anchors)) for kernel in plan.kernels]


def traced(outputs: dict[str, Tensor]) -> Graph:
    return graph(outputs)


def test_views_of_one_operand_are_recognised() -> None:
    x, g = input("x", (4, 6, 5)), input("g", (4, 6, 7))
    flat = reshape(g, (24, 7))
    weight = matmul(reshape(x, (24, 5)).T, flat)
    assert kernels({"w": weight, "b": reduce_sum(g, axes=(0, 1))}) == [("contract", 2)]


def test_a_sum_over_the_other_axis_is_not_taken() -> None:
    x, g = input("x", (24, 5)), input("g", (24, 7))
    found = kernels({"w": matmul(x.T, g), "b": reduce_sum(g, axes=(1,))})
    assert found == [("contract", 1), ("reduce", 1)]


def test_what_reads_the_sum_waits_for_the_kernel() -> None:
    g = input("g", (24, 7))
    weight = matmul(input("x", (24, 1)).T, g)
    bias = reduce_sum(g, axes=(0,))
    found = kernels({"w": exp(reshape(weight, (7,))) * exp(bias)})
    assert found == [("contract", 2), ("map", 0)]


def test_a_sum_in_a_row_kernel_stays_there() -> None:
    x, y = input("x", (24, 5)), input("y", (5, 7))
    powers = exp(x - reshape(reduce_max(x, axes=(1,)), (24, 1)))
    total = exp(reduce_sum(powers, axes=(1,)) * 0.5)
    found = kernels({"t": total, "p": matmul(powers, y) * reshape(total, (24, 1))})
    assert ("contract", 1) in found


def test_long_sums_stay_whole_for_their_product() -> None:
    x, g = input("x", (4096, 8)), input("g", (4096, 12))
    assert kernels({"w": matmul(g.T, x), "b": reduce_sum(g, axes=(0,))}) == [("contract", 2)]


@pytest.mark.device
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_linear_layers_gradients(family: str) -> None:
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(3, 11, 33)), rng.normal(size=(3, 11, 22))
    layer = asg.nn.Linear(33, 22)
    made = asg.grad(
        asg.trace(layer, asg.spec((3, 11, 33)), names=["x"]),
        None,
        ["weight", "bias"],
        seed={"output": "g"},
    )
    with asg.compile(made, target="wgpu", schedule=family) as exe:
        assert len(exe.kernels) == 1
        found = exe({"x": x.astype("f4"), "g": g.astype("f4")})
    np.testing.assert_allclose(found["bias.grad"], g.sum((0, 1)), rtol=1e-5, atol=1e-5)
    wanted = np.einsum("bso,bsi->oi", g, x)
    np.testing.assert_allclose(found["weight.grad"], wanted, rtol=1e-4, atol=1e-4)
