"""What becomes one kernel, and what must not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import asg
from asg import functions, nn, optim
from asg.compiler import fuse, prepare
from asg.graph import Graph
from asg.ops import TABLE
from asg.passes.fuse import Fuse
from asg.passes.kernels import FusionPlan
from asg.tensor import Tensor


def kernels(graph: Graph, *, is_prepared: bool = False) -> str:
    """The kernels of a graph: class, what is stored, what is loaded."""
    return show(Fuse()(graph if is_prepared else prepare(graph)))


def show(plan: FusionPlan) -> str:
    names = plan.graph.names
    lines = []
    for kernel in plan.kernels:
        outputs = ", ".join(names[value] for value in kernel.outputs)
        reads = ", ".join(names[value] for value in kernel.reads)
        lines.append(f"{kernel.kind}: {outputs} <- {reads}")
    return "\n".join(lines)


def x(*shape: int) -> Tensor:
    return asg.input("x", shape)


def test_maps_and_views_are_one_kernel() -> None:
    y = ((x(4, 6) + 1.0).exp().reshape(24) * 2.0).reshape(6, 4)
    assert kernels(asg.graph(outputs={"y": y.T})) == "map: y <- x"


def test_a_map_goes_behind_the_contraction() -> None:
    w, b, r = asg.input("w", (8, 16)), asg.input("b", (16,)), asg.input("r", (4, 16))
    y = functions.gelu(x(4, 8) @ w + b) + r
    assert kernels(asg.graph(outputs={"y": y})) == "contract: y <- x, w, b, r"


def test_a_contraction_writes_through_a_permutation() -> None:
    w = asg.input("w", (2, 3, 8, 5))
    y = (asg.input("x", (2, 3, 4, 8)) @ w).permute(0, 2, 1, 3)
    assert kernels(asg.graph(outputs={"y": y})) == "contract: y <- x, w"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_is_one_kernel(axis: int) -> None:
    y = functions.softmax(x(4, 6, 8), axis=axis)
    assert kernels(asg.graph(outputs={"y": y})) == "row: y <- x"


def _gradient(build: Callable[[Tensor], Tensor], *shape: int) -> Graph:
    g = asg.input("g", shape)
    graph = asg.graph(outputs={"loss": functions.sum(build(x(*shape)) * g)})
    return asg.grad(graph, of="loss", wrt=["x"])


def test_softmax_backward_is_one_kernel() -> None:
    gradient = _gradient(lambda t: functions.softmax(t, axis=-1), 4, 8)
    assert kernels(gradient) == "row: x.grad <- x, g"


def test_layer_norm_is_one_kernel_forward_and_backward() -> None:
    def norm(t: Tensor) -> Tensor:
        return nn.functional.layer_norm(t, (8,))

    assert kernels(asg.graph(outputs={"y": norm(x(4, 8))})) == "row: y <- x"
    assert kernels(_gradient(norm, 4, 8)) == "row: x.grad <- x, g"


def test_cross_entropy_is_one_kernel_forward_and_backward() -> None:
    labels = asg.input("labels", (4,), "i32")
    loss = nn.functional.cross_entropy(x(4, 10), labels, reduction="none", ignore_index=None)
    graph = asg.graph(outputs={"loss": loss})
    assert kernels(graph) == "reduce: loss <- x, labels"
    total = asg.graph(outputs={"loss": functions.sum(loss)})
    assert kernels(asg.grad(total, of="loss", wrt=["x"])) == "row: x.grad <- x, labels"


def test_sums_of_one_tensor_share_its_read() -> None:
    t = x(4, 8)
    y = asg.graph(outputs={"a": t.sum(axis=1), "b": (t * t).sum(axis=1)})
    assert kernels(y) == "reduce: a, b <- x"


def _step(layers: int, optimizer: optim.optimizer.Optimizer) -> Graph:
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(layers)))

    def loss(module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.mse_loss(module(batch["x"]), batch["y"])

    spec = asg.spec((4, 64))
    return asg.training_step(model, loss, optimizer, x=spec, y=spec)


@pytest.mark.parametrize("layers", [1, 12])
def test_adamw_is_one_kernel_and_clipping_two_more(layers: int) -> None:
    def of_optimizer(step: Graph) -> list[str]:
        plan = fuse(prepare(step))
        found = []
        for kernel in plan.kernels:
            reads = {plan.graph.names[value] for value in kernel.reads}
            if any(name.startswith("pack") for name in reads):
                found.append(kernel.kind)
        return found

    plain = of_optimizer(_step(layers, optim.AdamW(lr=1e-3)))
    assert plain == ["map"]
    clipped = of_optimizer(_step(layers, optim.AdamW(lr=1e-3, clip_norm=1.0)))
    assert clipped == ["reduce", "map"]  # the second sum reads partial sums, not the gradients


def test_a_cheap_node_is_computed_twice_rather_than_stored() -> None:
    t = asg.input("x", (4, 8)) * 2.0
    y = asg.graph(outputs={"a": t.sum(axis=1), "b": t.T @ asg.input("w", (4, 3))})
    assert kernels(y) == "reduce: a <- x\ncontract: b <- x, w"


def test_what_a_contraction_reads_is_stored_if_it_is_dear() -> None:
    y = asg.input("x", (4, 8)).exp() @ asg.input("w", (8, 3))
    assert kernels(asg.graph(outputs={"y": y})) == "map: exp_1 <- x\ncontract: y <- exp_1, w"


@pytest.mark.parametrize("norm", [nn.LayerNorm(24, elementwise_affine=False), nn.RMSNorm(24)])
def test_a_product_reads_rows_that_a_norm_stored(norm: nn.Module) -> None:
    graph = asg.trace(nn.Sequential(norm, nn.Linear(24, 8)), x=asg.spec((20, 24)))
    row, product = kernels(graph).split("\n")
    stored = re.match(r"row: (\w+) <- x", row)
    assert stored
    assert re.match(rf"contract: output <- {stored[1]}, 1.weight, 1.bias", product)


def test_a_flipped_reader_is_no_part_of_the_kernel() -> None:
    dear = functions.erf(x(16).exp() * asg.input("z", (16,)))
    y = asg.graph(outputs={"a": dear, "b": functions.erf(functions.flip(dear, 0)) + dear})
    assert kernels(y) == "map: a <- x, z\nmap: b <- a"


def test_equal_sizes_are_not_equal_loops() -> None:
    """The mask has as many elements as the scores have rows, but is no row value."""
    t = asg.input("x", (4, 4, 4))
    mask = functions.tri(4, 4)
    y = functions.softmax(functions.where(mask, t, -1e30), axis=-1)
    graph = asg.grad(
        asg.graph(outputs={"loss": functions.sum(y * asg.input("g", (4, 4, 4)))}),
        of="loss",
        wrt=["x"],
    )
    plan = Fuse()(prepare(graph))
    for kernel in plan.kernels:
        assert not any(node.op.name == "greater_equal" for node in kernel.per_row)


def test_at_most_eight_bindings() -> None:
    parts = [functions.erf(asg.input(f"x{i}", (16,)).exp()) for i in range(12)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    plan = Fuse()(prepare(asg.graph(outputs={"y": total})))
    assert len(plan.kernels) > 1
    for kernel in plan.kernels:
        assert len(kernel.reads) + len(kernel.outputs) <= 8


def test_no_kernel_waits_for_itself() -> None:
    """`a` feeds a contraction whose result meets `a` again: not one kernel."""
    a = functions.erf(asg.input("x", (8, 8)).exp() * asg.input("z", (8, 8)))
    y = functions.erf((a @ asg.input("w", (8, 8))) * a)
    assert kernels(asg.graph(outputs={"y": y})) == "map: erf_1 <- x, z\ncontract: y <- erf_1, w"


def test_a_join_is_read_only_when_it_is_whole() -> None:
    """A member of a flat join may not share a kernel with a reader of the join."""
    total = TABLE["prod"](asg.input("x", (3, 2)), axes=(0, 1))
    joined = TABLE["pack"](functions.reshape(total, 1), total, offsets=(3, 4), total=6)
    plan = Fuse()(prepare(asg.graph(outputs={"y": joined - total})))
    assert [kernel.kind for kernel in plan.kernels] == ["reduce", "map"]


def test_unfused_every_node_has_its_kernel() -> None:
    y = functions.erf(x(4, 6).exp()).sum(axis=0)
    plan = Fuse(enabled=False)(prepare(asg.graph(outputs={"y": y})))
    assert [len(kernel.outputs) for kernel in plan.kernels] == [1] * len(plan.kernels)


def test_the_same_graph_gives_the_same_plan() -> None:
    first, second = (show(fuse(prepare(_step(3, optim.AdamW(lr=1e-3))))) for _ in range(2))
    assert first == second


def test_values_are_stored_once() -> None:
    plan = fuse(prepare(_step(3, optim.AdamW(lr=1e-3, clip_norm=1.0))))
    written = Counter(value for kernel in plan.kernels for value in kernel.outputs)
    assert set(written.values()) == {1}
    known = set(plan.stored) | set(plan.placed)
    for kernel in plan.kernels:
        assert set(kernel.reads) <= known
    assert np.all([value.type.size > 0 for value in written])


def test_a_training_step_of_two_layers_is_nine_kernels() -> None:
    """Forward 2, loss 2, gradients 3 with the biases' in the weights', optimizer 2."""
    asg.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    step = asg.training_step(
        model,
        lambda model, batch: nn.functional.cross_entropy(model(batch["x"]), batch["y"]),
        optim.AdamW(lr=1e-3),
        x=asg.spec((32, 784)),
        y=asg.spec((32,), "i32"),
    )
    kinds = [kernel.kind for kernel in fuse(prepare(step)).kernels]
    assert kinds == [
        "contract", "contract", "row", "reduce", "contract", "contract", "contract", "map", "map",
    ]  # fmt: skip
