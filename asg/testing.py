"""What tests of models and of compilers need: comparisons with the interpreter that can be trusted.

Roof: uses the compiler and the runtime.

    report = asg.testing.differential(graph, {"x": x})
    assert report.is_right, report

Tolerances are no arguments: they follow from what each node may round (`asg.tolerances`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from asg import compiler
from asg.bisection import Finding, bisect
from asg.checks import Check, DifferentialReport, Stage
from asg.comparison import Array, Difference, Yardstick, compare
from asg.errors import AsgError
from asg.gradient_check import check_gradients
from asg.graph import Graph
from asg.passes.pipeline import Pass
from asg.reproducer import write_reproducer
from asg.sample_inputs import sample_inputs
from asg.tolerances import Numerics
from asg.verification import STAGES, Model, result_values, verify
from asg.yardstick import measure

__all__ = [
    "Check",
    "Difference",
    "DifferentialReport",
    "Finding",
    "Yardstick",
    "bisect",
    "compare",
    "compare_outputs",
    "differential",
    "gradients",
    "measure",
    "sample_inputs",
    "verify",
    "write_reproducer",
]


def differential(
    graph: Model,
    inputs: Mapping[str, Any] | None = None,
    *,
    values: Mapping[str, Any] | None = None,
    target: Literal["wgpu", "numpy"] = "wgpu",
    device: str | None = None,
    schedule: str | None = None,
    passes: Sequence[Pass] = compiler.PIPELINE,
    stages: Sequence[Stage] = STAGES,
    numerics: Numerics = "precise",
) -> DifferentialReport:
    """Compile a graph (or several entries) and compare all that is computed with the interpreter.

    Every pass is judged by the graph before it, every kernel by what it makes of the right
    operands, and the whole by its results.

    Args:
        inputs: arrays by name; random ones stand in for those that are missing.
        values: parameters and state, instead of those that the graph starts with.
        target: `wgpu`; with `numpy` only what needs no device is checked, the passes.
        device: which adapter, as `ASG_DEVICE` says it.
        schedule: `cpu` or `gpu` to force a family of schedules.
        numerics: as in `asg.compile`; tolerances follow.

    Raises:
        InputError: an input is unknown or does not fit.
        DeviceError: no adapter is found.
    """
    if target not in ("wgpu", "numpy"):
        raise AsgError(f"target {target!r} is unknown; known: wgpu, numpy")
    wanted = [stage for stage in stages if target == "wgpu" or stage in ("gradients", "passes")]
    given = {**(values or {}), **(inputs or {})}
    return verify(
        graph, given, device=device, schedule=schedule, passes=passes, stages=wanted,
        numerics=numerics,
    )  # fmt: skip


def gradients(graph: Graph, inputs: Mapping[str, Any] | None = None) -> DifferentialReport:
    """Compare the gradient rule of every node with central differences in float64."""
    given = sample_inputs(graph, inputs)
    return DifferentialReport(tuple(check_gradients("main", graph, given)), "")


def compare_outputs(
    graph: Graph, inputs: Mapping[str, Any], got: Mapping[str, Array]
) -> DifferentialReport:
    """Compare arrays, wherever they come from, with what the outputs of a graph should be.

    What a state becomes goes by its name with `'`.
    """
    results = result_values(graph)
    yardsticks = measure(graph, inputs)
    differences = tuple(
        compare(name, results[name].type, array, yardsticks[results[name]])
        for name, array in got.items()
    )
    return DifferentialReport((Check("whole", "main", "results", differences),), "")
