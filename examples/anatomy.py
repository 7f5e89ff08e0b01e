"""Follow one small model through every stage, from Python to the numbers of a device.

It prints the graph as traced, its gradient, the graph after every pass, the kernels that fusion
makes of it, their WGSL, the memory plan, and at last the result beside the interpreter's.

    python examples/anatomy.py
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.table import Table
from running import console, show, target_for

import asg
from asg import nn
from asg.compiler import PIPELINE, fuse, lower
from asg.format import format_graph
from asg.passes.kernels import FusionPlan
from asg.passes.pipeline import Step, run_pipeline
from asg.plan_view import PlanView

BATCH, FEATURES, CLASSES = 8, 16, 5


class Classifier(nn.Module):
    """A normalisation, a layer, and the scores of five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES)
        self.hidden = nn.Linear(FEATURES, 12)
        self.scores = nn.Linear(12, CLASSES)

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        return self.scores(nn.functional.gelu(self.hidden(self.norm(x))))


def title(number: int, text: str) -> None:
    console.print()
    console.rule(f"{number}. {text}", align="left")


def trace() -> asg.Graph:
    """The loss of the model on a batch."""
    nn.manual_seed(0)
    model = Classifier()

    def loss(x: asg.Tensor, y: asg.Tensor) -> dict[str, asg.Tensor]:
        return {"loss": nn.functional.cross_entropy(model(x), y)}

    return asg.trace(loss, asg.spec((BATCH, FEATURES)), asg.spec((BATCH,), "i32"))


def show_pass(step: Step) -> None:
    """Print what a pass left, where it changed something."""
    if step.before is None:
        return
    before, after = format_graph(step.before), format_graph(step.after)
    console.print(
        f"\n[bold]{step.name}[/]: {len(step.before.nodes)} nodes became {len(step.after.nodes)}",
        highlight=False,
    )
    if after != before:
        show(after)


def show_kernels(plan: FusionPlan) -> None:
    names = plan.graph.names
    table = Table("kernel", "class", "computes", "reads", "writes")
    for kernel in plan.kernels:
        computed = ", ".join(node.op.name for node in kernel.nodes)
        reads, writes = (
            ", ".join(names[value] for value in values) for values in (kernel.reads, kernel.outputs)
        )
        table.add_row(kernel.name, kernel.kind, computed, reads, writes)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", help="an adapter's name, or numpy")
    options = parser.parse_args()

    title(1, "the graph, as traced")
    graph = trace()
    show(str(graph))

    title(2, "with gradients: a graph like any other")
    joint = asg.value_and_grad(graph, of="loss", wrt=["hidden.weight", "norm.weight"])
    show(str(joint))

    title(3, "after every pass")
    prepared = run_pipeline(joint, PIPELINE, [show_pass])

    title(4, "fused: each row is one dispatch")
    show_kernels(fuse(prepared))

    title(5, "the shaders")
    artefact = lower({"main": joint})
    for kernel in artefact.kernels.values():
        console.rule(kernel.name, style="dim")
        show(kernel.variants[-1].wgsl)  # the last variant runs everywhere

    title(6, "the memory plan")
    show(str(PlanView.from_report(artefact.report["plan"])))

    title(7, "the result")
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.standard_normal((BATCH, FEATURES)).astype(np.float32),
        "y": rng.integers(0, CLASSES, BATCH).astype(np.int32),
    }
    expected = asg.compile(joint, target="numpy")(inputs)
    target, device = target_for(options.device)
    with asg.compile(joint, target=target, device=device) as exe:
        found = exe(inputs)
    for name, array in expected.items():
        error = np.abs(np.asarray(found[name]) - array).max()
        console.print(f"{name}: differs from the interpreter by at most {error:.1e}")
        assert error < 1e-5


if __name__ == "__main__":
    main()
