"""Generated shaders, read by people: small golden files, one for each kind of kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import asg
from asg import functions, nn
from asg.codegen.context import Target
from asg.compiler import lower
from asg.graph import Graph
from asg.ops.sorting import merge_rows

Golden = Callable[[str, str], None]


def _texts(graph: Graph, target: Target) -> str:
    artefact = lower({"main": graph}, target=target)
    return "\n".join(kernel.variants[0].wgsl for kernel in artefact.kernels.values())


def _x(*shape: int) -> asg.Tensor:
    return asg.input("x", shape)


GRAPHS: dict[str, Callable[[], asg.Tensor]] = {
    "map": lambda: _x(6, 8) * 2.0 + asg.input("b", (8,)),
    "map_of_odd_size": lambda: _x(3, 5) - 1.0,
    "mask": lambda: functions.where(functions.tri(4, 8), _x(4, 8), -1e30),
    "transposed": lambda: _x(6, 8).T + 1.0,
    "pad": lambda: functions.pad(_x(4), ((1, 2),)),
    "concatenate": lambda: functions.concatenate([_x(4, 8), asg.input("y", (4, 4))], 1),
    "gather": lambda: functions.take(_x(10, 8), asg.input("index", (5,), "i32"), 0),
    "scatter": lambda: functions.scatter_add(
        _x(7, 64), asg.input("index", (5,), "i32"), asg.input("updates", (5, 64)), 0
    ),
    "sort": lambda: functions.argsort(asg.input("x", (2, 4), "u32")),
    "merge": lambda: merge_rows(
        asg.input("keys", (3, 2, 6), "u32"), asg.input("order", (3, 2, 6), "i32"), count=12
    )[1],
    "running_sum": lambda: functions.cumsum(_x(6, 5)),
    "search": lambda: functions.searchsorted(
        asg.input("keys", (9,), "u32"), asg.input("x", (3,), "u32")
    ),
    "columns": lambda: _x(16, 8).sum(axis=0),
    "argmax": lambda: functions.argmax(_x(6, 5), axis=1),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_text(name: str, golden: Golden) -> None:
    golden(f"{name}.wgsl", _texts(asg.graph(outputs={"out": GRAPHS[name]()}), Target("cpu")))


@pytest.mark.parametrize(
    ("family", "target"),
    [("serial", Target("cpu")), ("subgroup", Target("cpu", 8)), ("staged", Target("gpu"))],
)
def test_row_families(family: str, target: Target, golden: Golden) -> None:
    graph = asg.graph(outputs={"out": nn.functional.layer_norm(_x(6, 64), (64,))})
    golden(f"layer_norm_{family}.wgsl", _texts(graph, target))


def test_same_graph_same_bytes() -> None:
    first, second = (
        _texts(asg.graph(outputs={"out": functions.softmax(_x(6, 8))}), Target("cpu", 8))
        for _ in range(2)
    )
    assert first == second


def test_a_user_name_never_reaches_the_text_raw() -> None:
    """Reserved words, odd characters and clashes with the template's own names."""
    names = ("var", "fn", "i", "group", "thread", "enable", "größe", "a.b", "a_b", "__x")
    total = functions.sum(asg.input("row", (8, 4)), axis=1)
    for name in names:
        total = total + asg.input(name, (8,))
    text = _texts(asg.graph(outputs={"return": total}), Target("cpu"))
    for line in text.splitlines():
        if "var<storage" in line:
            assert " t_" in line
    assert "größe" not in "".join(part for part in text.splitlines() if not part.startswith("//"))


def test_twins_are_one_kernel() -> None:
    """Layers of one shape share their pipelines; the kernel names the nodes of all."""
    y = _x(8, 16)
    for position in range(4):
        w = asg.input(f"w{position}", (16, 16))
        y = functions.relu(y @ w)
    artefact = lower({"main": asg.graph(outputs={"out": y})}, target=Target("cpu"))
    assert len(artefact.entries["main"].steps) == 4
    assert len(artefact.kernels) == 3  # the first reads an input, which is bound read-only
