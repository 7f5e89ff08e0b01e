"""The compiler's statistics: what is counted, and how it reads."""

from __future__ import annotations

from collections.abc import Mapping

import asg
from asg import nn, optim
from asg.codegen.context import Target
from asg.compiler import lower
from asg.html_report import html_report
from asg.report_view import report_text
from asg.tensor import Tensor


def test_a_map_moves_what_it_reads_and_writes() -> None:
    x, y = asg.input("x", (4, 8)), asg.input("y", (4, 8))
    report = lower({"main": asg.graph(outputs={"z": x * y + 1.0})}).report
    wanted = {
        "dispatch_count": 1,
        "dispatches": {"map": 1},
        "pipelines": 1,
        "copies": 0,
        "bytes_moved": 3 * 128,
        "bytes_lower_bound": 3 * 128,
        "bytes_saved": 0,
        "flops": 64,
        "graph_flops": 64,
        "max_bindings": 3,
        "barriers": 0,
    }
    assert {key: report[key] for key in wanted} == wanted
    assert list(report["compile_stages"]) == ["passes", "fusion", "order", "memory", "codegen"]


def test_what_is_computed_twice_counts_twice() -> None:
    h = asg.input("x", (64, 64)) * 2.0  # cheap: both products compute it again
    products = {name: h @ asg.input(name, (64, 64 + size)) for size, name in enumerate("ab")}
    report = lower({"main": asg.graph(outputs=products)}).report
    assert report["flops"] - report["graph_flops"] == 64 * 64


def test_barriers_are_counted_per_dispatch() -> None:
    x = asg.input("x", (64, 4096))
    y = asg.exp(x - asg.max(x, axis=-1, keepdims=True))
    graph = asg.graph(outputs={"y": y})
    assert lower({"main": graph}, target=Target("cpu", 8)).report["barriers"] == 0
    artefact = lower({"main": graph}, target=Target("gpu"))
    (kernel,) = artefact.kernels.values()
    assert artefact.report["barriers"] == kernel.variants[0].wgsl.count("workgroupBarrier();") > 0
    assert artefact.report["wgsl_bytes"] == sum(len(v.wgsl.encode()) for v in kernel.variants)


def step() -> asg.Graph:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    return asg.training_step(
        model, loss, optim.SGD(lr=0.1), x=asg.spec((32, 8)), y=asg.spec((32, 4))
    )


def test_what_the_backward_part_reads_is_saved() -> None:
    """The hidden layer is kept; the loss's own gradient needs the prediction."""
    report = lower({"main": step()}).report
    assert report["bytes_saved"] == 32 * 16 * 4 + 32 * 4 * 4
    sizes = 8 * 16 + 16 + 16 * 4 + 4
    outside = 32 * 8 + 32 * 4 + 1 + 2 * sizes  # batch, loss, parameters before and after
    assert report["bytes_lower_bound"] - 2 * report["bytes_saved"] == 4 * outside


def test_it_reads_well() -> None:
    x = asg.input("x", (4, 8))
    entries = {
        "double": asg.graph(outputs={"y": x * 2.0}),
        "row": asg.graph(outputs={"y": x[0] + 1.0}),
    }
    artefact = lower(entries)
    lines = report_text({**artefact.report, "compile_s": 1.25, "compile_stages": {}}).splitlines()
    assert lines[:2] == ["dispatches  2  (2 map)", "pipelines   2"]
    assert "to compile  1.25 s" in lines
    table = [" ".join(line.split()) for line in lines[-3:]]
    assert table[0] == "entry dispatches pipelines moved of the least flops of the graph"
    assert table[1] == "double 1 1 256 B 1.00 × 32 flop 1.00 ×"
    page = html_report(artefact, {}, "both")
    assert "<b>2</b><span>dispatches; 2 map</span>" in page
    assert "of the least" in page
