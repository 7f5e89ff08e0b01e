"""The compiler's statistics: exact, free of noise, fit to be budgets in tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from asg.artefact import Copy, Kernel
from asg.codegen.context import bytes_moved, flops
from asg.graph import Graph
from asg.passes.cost import node_flops
from asg.passes.storage import EntryStorage, KernelStep


def entry_report(storage: EntryStorage, kinds: list[str]) -> dict[str, Any]:
    """Return one entry's statistics; bytes count every operand and result of a dispatch once."""
    kernels = [step.kernel for step in storage.steps if isinstance(step, KernelStep)]
    copies = [step for step in storage.steps if isinstance(step, Copy)]
    graph = storage.plan.graph
    return {
        "dispatches": dict(sorted(Counter(kinds).items())),
        "dispatch_count": len(kernels),
        "copies": len(copies),
        "bytes_moved": sum(map(bytes_moved, kernels)) + sum(2 * c.source.size for c in copies),
        "bytes_lower_bound": bytes_lower_bound(graph),
        "flops": sum(map(flops, kernels)),
        "graph_flops": sum(map(node_flops, graph.nodes)),
        "max_bindings": max(
            (len(step.bindings) for step in storage.steps if isinstance(step, KernelStep)),
            default=0,
        ),
    }


def bytes_lower_bound(graph: Graph) -> int:
    """Return the bytes that any program must move: what goes in and what comes out, each once."""
    read = sum(node.type.nbytes for node in graph.inputs)
    return read + sum(value.type.nbytes for value in graph.results)


def total_report(
    reports: Mapping[str, Mapping[str, Any]],
    kernels: Mapping[str, Kernel],
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the statistics of a whole program: sums over entries, and each entry's own."""
    dispatches: Counter[str] = Counter()
    for report in reports.values():
        dispatches.update(report["dispatches"])
    sums = ("dispatch_count", "copies", "bytes_moved", "bytes_lower_bound", "flops", "graph_flops")
    return {
        "dispatches": dict(sorted(dispatches.items())),
        **{key: sum(report[key] for report in reports.values()) for key in sums},
        "pipelines": len(kernels),
        "arena_bytes": plan["arena_bytes"],
        "max_live_bytes": plan["max_live_bytes"],
        "entries": {key: dict(report) for key, report in reports.items()},
        "plan": dict(plan),
    }
