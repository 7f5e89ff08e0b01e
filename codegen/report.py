"""The compiler's statistics: exact, free of noise, fit to be budgets in tests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from asg.artefact import Copy, Kernel
from asg.codegen.context import bytes_moved, flops
from asg.graph import Graph
from asg.ops.sources import constant_
from asg.passes.cost import node_flops
from asg.passes.kernels import FusedKernel
from asg.passes.rematerialize import recomputed
from asg.passes.storage import EntryStorage, KernelStep
from asg.passes.tile_moments import find_moments

GRADIENT = "gradient"  # what differentiation remarks on the nodes that it makes
BARRIER = re.compile(r"\b(?:workgroup|storage|subgroup)Barrier\(\)|\bworkgroupUniformLoad\(")


def entry_report(storage: EntryStorage, dispatched: Sequence[Kernel]) -> dict[str, Any]:
    """Return one entry's statistics; `dispatched` has the kernel of each dispatch.

    Bytes count every operand and result of a dispatch once. Flops count each node once for every
    kernel that evaluates it, so they exceed `graph_flops` where something is computed again.
    `tile_statistics` are products that sum up their tiles for a norm.
    Barriers are those in the texts of the variants that are tried first.
    """
    steps = [step for step in storage.steps if isinstance(step, KernelStep)]
    kernels = [step.kernel for step in steps]
    copies = [step for step in storage.steps if isinstance(step, Copy)]
    graph = storage.plan.graph
    saved = saved_bytes(kernels)
    return {
        "dispatches": dict(sorted(Counter(kernel.kind for kernel in dispatched).items())),
        "dispatch_count": len(kernels),
        "pipelines": len({kernel.name for kernel in dispatched}),
        "copies": len(copies),
        "bytes_moved": sum(map(bytes_moved, kernels)) + sum(2 * c.source.size for c in copies),
        "bytes_lower_bound": bytes_in_and_out(graph) + constant_bytes(kernels) + 2 * saved,
        "bytes_saved": saved,
        "flops": sum(map(flops, kernels)),
        "recomputed_flops": sum(map(flops, recomputed(kernels))),
        "graph_flops": sum(map(node_flops, graph.nodes)),
        "max_bindings": max((len(step.bindings) for step in steps), default=0),
        "tile_statistics": sum(_has_moments(kernel) for kernel in kernels),
        "barriers": sum(len(BARRIER.findall(each.variants[0].wgsl)) for each in dispatched),
    }


def _has_moments(kernel: FusedKernel) -> bool:
    """Tell whether a product's kernel sums up its tiles for a norm."""
    return kernel.kind == "contract" and bool(find_moments(kernel.nodes))


def bytes_in_and_out(graph: Graph) -> int:
    """Return the bytes that any program must move: what goes in and what comes out, each once."""
    read = sum(node.type.nbytes for node in graph.inputs)
    return read + sum(value.type.nbytes for value in graph.results)


def constant_bytes(kernels: Sequence[FusedKernel]) -> int:
    """Return the bytes of the constants that kernels read from memory."""
    read = dict.fromkeys(value for kernel in kernels for value in kernel.reads)
    return sum(value.type.nbytes for value in read if value.node.op is constant_)


def saved_bytes(kernels: Sequence[FusedKernel]) -> int:
    """Return the bytes that the forward part keeps for the backward part of a training step."""
    backward = {
        value
        for kernel in kernels
        if any(output.node.note == GRADIENT for output in kernel.outputs)
        for value in kernel.reads
    }
    made = dict.fromkeys(value for kernel in kernels for value in kernel.outputs)
    return sum(
        value.type.nbytes for value in made if value in backward and value.node.note != GRADIENT
    )


def total_report(
    reports: Mapping[str, Mapping[str, Any]],
    kernels: Mapping[str, Kernel],
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the statistics of a whole program: sums over entries, and each entry's own."""
    dispatches: Counter[str] = Counter()
    for report in reports.values():
        dispatches.update(report["dispatches"])
    sums = (
        "dispatch_count", "copies", "bytes_moved", "bytes_lower_bound", "bytes_saved", "flops",
        "recomputed_flops", "graph_flops", "barriers", "tile_statistics",
    )  # fmt: skip
    texts = [variant.wgsl for kernel in kernels.values() for variant in kernel.variants]
    return {
        "dispatches": dict(sorted(dispatches.items())),
        **{key: sum(report[key] for report in reports.values()) for key in sums},
        "pipelines": len(kernels),
        "max_bindings": max((report["max_bindings"] for report in reports.values()), default=0),
        "wgsl_bytes": sum(len(text.encode()) for text in texts),
        "arena_bytes": plan["arena_bytes"],
        "max_live_bytes": plan["max_live_bytes"],
        "entries": {key: dict(report) for key, report in reports.items()},
        "plan": dict(plan),
    }
