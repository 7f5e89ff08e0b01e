"""How long the compiler takes, stage by stage, as graphs grow.

    .venv/bin/python benchmarks/compile_speed.py
    .venv/bin/python benchmarks/compile_speed.py --only wide --nodes 1000 --nodes 10000

Nothing is dispatched, so no device is needed. Times are processor seconds of one process. The last
columns say how the time per node has grown since the smallest graph of the kind.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asg.artefact import Artefact
from asg.codegen.build import Generate
from asg.codegen.context import Target
from asg.compiler import prepare
from asg.graph import Graph
from asg.passes.fuse import Fuse
from asg.passes.order import OrderKernels

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from support.large_graphs import GRAPHS

SIZES = (1000, 3000, 10_000, 30_000)
STAGES = ("build", "passes", "fusion", "order", "memory", "codegen")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", choices=GRAPHS, action="append", help="only this graph (may be repeated)")
    add("--nodes", type=int, action="append", help=f"sizes (default {SIZES})")
    add("--json", type=Path, metavar="FILE", help="write the figures there as well")
    add("--profile", type=int, metavar="LINES", help="print what takes longest, too")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or GRAPHS:
        for size in options.nodes or SIZES:
            rows.append(measured(name, size, options.profile))
            print(f"{name}, {rows[-1]['nodes']} nodes: {rows[-1]['total']:.2f} s", flush=True)
    Console(width=140).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measured(name: str, size: int, profiled: int | None) -> Row:
    """Build a graph, compile it and return what each stage took."""
    seconds: dict[str, float] = {}

    def stage(title: str, function: Callable[..., Any], *arguments: Any) -> Any:
        # Other programs may take the processors: this counts what the process gets.
        start = time.process_time()
        result = function(*arguments)
        seconds[title] = time.process_time() - start
        return result

    def run() -> tuple[Graph, Artefact]:
        generate = Generate(Target())
        graph = stage("build", GRAPHS[name], size)
        prepared = stage("passes", prepare, graph)
        plans = {"main": stage("order", OrderKernels(), stage("fusion", Fuse(), prepared))}
        storage = stage("memory", generate.assign, plans)
        return graph, stage("codegen", generate.write, name, plans, storage)

    profiler = cProfile.Profile()
    graph, artefact = profiler.runcall(run) if profiled else run()
    if profiled:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(profiled)
    return {
        "graph": name,
        "nodes": len(graph.nodes),
        "dispatches": artefact.report["dispatch_count"],
        "pipelines": artefact.report["pipelines"],
        **seconds,
        "total": sum(seconds.values()),
    }


def table(rows: list[Row]) -> Table:
    result = Table(title="processor seconds by stage")
    titles = ("graph", "nodes", "dispatches", "pipelines", *STAGES, "total", "ms/node", "growth")
    for title in titles:
        result.add_column(title, justify="left" if title == "graph" else "right")
    smallest: dict[str, float] = {}
    for row in rows:
        per_node = 1e3 * row["total"] / row["nodes"]
        first = smallest.setdefault(row["graph"], per_node)
        times = [f"{row[stage]:.2f}" for stage in (*STAGES, "total")]
        counts = [f"{row[key]:,}" for key in ("nodes", "dispatches", "pipelines")]
        result.add_row(row["graph"], *counts, *times, f"{per_node:.2f}", f"{per_node / first:.2f}")
    return result


if __name__ == "__main__":
    main()
