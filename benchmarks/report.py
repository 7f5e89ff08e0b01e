"""The results as tables: for the terminal, and as Markdown for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from figures import COLD
from rich.table import Table

Results = Mapping[str, Any]
BEGIN, END = "<!-- results: written by benchmarks/run.py -->", "<!-- end of results -->"
BUSY = 0.1  # share of the processors taken by others from which on a run is called noisy
TITLES = {
    "asg": "ASG",
    "tinygrad": "tinygrad",
    "onnxruntime": "onnxruntime-webgpu",
    "wonnx": "wonnx",
    "torch": "PyTorch, CPU",
    "jax": "JAX, CPU",
}
CEILING_TITLES = {
    "multiply_add": "multiply-add, f32",
    "copy_vec4": "copy 64 MiB, vec4f",
    "copy_u64": "copy 64 MiB, vec4<u64>",
    "dispatch": "one more dispatch",
    "submit_wait": "submit, run and wait",
}
Rows = list[list[str]]


def tables(results: Results) -> list[Table | str]:
    """Return what is printed at the end of a run."""
    parts: list[Table | str] = [
        as_table(title, rows) for title, rows in sections(results) if len(rows) > 1
    ]
    return [*parts, *notes(results)]


def write_page(results: Results, page: Path) -> None:
    """Replace the results on a page, between the two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [BEGIN, ""]
    for title, rows in sections(results):
        if len(rows) > 1:
            lines += [f"**{title}**", "", *as_markdown(rows), ""]
    picture = f"../benchmarks/results/{results['name']}.svg"
    lines += [f"![Speed relative to ASG]({picture})", ""]
    lines += [f"{note}\n" for note in notes(results)]
    page.write_text("\n".join([before + lines[0], *lines[1:], END]) + after, encoding="utf-8")


def unmet(results: Results) -> list[str]:
    """Return the goals that were missed."""
    return [goal["text"] for goal in results["goals"] if not goal["is_met"]]


def sections(results: Results) -> list[tuple[str, Rows]]:
    """Return titled rows, the first of each its heading."""
    return [
        ("Ceilings of the driver", ceiling_rows(results)),
        (
            "Median times, as multiples of ASG's too (lowest–highest round)",
            time_rows(results),
        ),
        ("Rates, and shares of what the ceilings allow", rate_rows(results)),
        ("Until the first result, with empty caches", first_rows(results)),
        ("From a fresh start, processes that have imported what they need", cold_rows(results)),
        *[(f"Losses of {title(task)}", training_rows(results, task)) for task in trained(results)],
        ("Goals", goal_rows(results)),
    ]


def ceiling_rows(results: Results) -> Rows:
    rows = [["", "median", "best"]]
    for task, facts in results["ceilings"].items():
        best = facts["work"] / facts["best_s"]
        rows.append([CEILING_TITLES[task], *(ceiling(task, r) for r in (facts["rate"], best))])
    return rows


def ceiling(task: str, rate: float) -> str:
    match task:
        case "multiply_add":
            return f"{rate / 1e9:.1f} GFLOP/s"
        case "copy_vec4" | "copy_u64":
            return f"{rate / 1e9:.1f} GB/s"
        case _:
            return f"{1e6 / rate:.1f} µs"


def time_rows(results: Results) -> Rows:
    names = contestants(results)
    rows = [["", *(TITLES[name] for name in names)]]
    for task, facts in results["tasks"].items():
        found = facts["contestants"]
        cells = [duration(found[name]) if name in found else "–" for name in names]
        rows.append([title(task), *cells])
    return rows


def duration(result: Mapping[str, Any]) -> str:
    text = in_units(result["median_s"])
    if "ratio" in result:
        low, high = result["ratio_range"]
        text += f", {result['ratio']:.1f}× ({low:.1f}–{high:.1f})"
    return text


def in_units(seconds: float) -> str:
    """Return a time with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1.0 else f"{seconds * 1e3:.3g} ms"


def rate_rows(results: Results) -> Rows:
    names = contestants(results)
    rows = [["", *(TITLES[name] for name in names)]]
    for task, facts in results["tasks"].items():
        if facts["flops"] is None:
            continue
        cells = []
        for name in names:
            result = facts["contestants"].get(name)
            cells.append(rate(facts["flops"], result) if result else "–")
        rows.append([title(task), *cells])
    return rows


def rate(flops: float, result: Mapping[str, Any]) -> str:
    text = f"{flops / result['median_s'] / 1e9:.1f} GFLOP/s"
    share = result.get("roofline_share")
    return text if share is None else f"{text}, {share:.0%}"


def first_rows(results: Results) -> Rows:
    """What compiling takes, weights uploaded and the first result read."""
    names = contestants(results)
    rows = [["", *(TITLES[name] for name in names)]]
    for task, facts in results["tasks"].items():
        if task.startswith(COLD):
            continue
        found = facts["contestants"]
        cells = [in_units(found[name]["first_s"]) if name in found else "–" for name in names]
        rows.append([title(task), *cells])
    return rows


def cold_rows(results: Results) -> Rows:
    """Cold starts: with empty caches, and again with those that the first start has left."""
    names = contestants(results)
    rows = [["", *(TITLES[name] for name in names)]]
    lines = {
        "": ("first_s", "imports_s"),
        ", again": ("again_first_s", "again_imports_s"),
    }
    for task, facts in results["tasks"].items():
        for suffix, (first, imports) in lines.items() if task.startswith(COLD) else ():
            cells = []
            for name in names:
                found = facts["contestants"].get(name)
                cells.append(
                    f"{in_units(found[first])} + {in_units(found[imports])}" if found else "–"
                )
            rows.append([title(task) + suffix, *cells])
    return rows


def trained(results: Results) -> list[str]:
    """Return the tasks that train."""
    return [
        task
        for task, facts in results["tasks"].items()
        if any("losses" in each for each in facts["contestants"].values())
    ]


def training_rows(results: Results, task: str) -> Rows:
    found = results["tasks"][task]["contestants"]
    rows = [["", *(TITLES[name] for name in found)]]
    losses = [f"{loss:.5f}" for loss in next(iter(found.values()))["losses"]]
    lines = {
        "kernels per step": lambda r: str(r["kernels"] or "–"),
        "until the first loss": lambda r: in_units(r["first_s"]),
        "until steps are steady": lambda r: in_units(r["warm_s"]),
        f"losses 1 … {len(losses)}": lambda r: f"{r['losses'][0]:.5f} … {r['losses'][-1]:.5f}",
        "losses apart by: first, most": lambda r: differences(r),
    }
    rows += [[label, *map(cell, found.values())] for label, cell in lines.items()]
    return rows


def differences(result: Mapping[str, Any]) -> str:
    apart = result.get("loss_differences")
    return "" if apart is None else f"{apart[0]:.1g}, {max(apart):.1g}"


def goal_rows(results: Results) -> Rows:
    rows = [["", "", "measured"]]
    for goal in results["goals"]:
        met = "met" if goal["is_met"] else "missed"
        rows.append([goal["text"], met, f"{goal['ratio']:.1f} times"])
    return rows


def notes(results: Results) -> list[str]:
    """Return what one has to know about the numbers."""
    environment = results["environment"]
    described = environment["contestants"]
    versions = ", ".join(
        f"{TITLES.get(name, 'wgpu')} {facts['version']}" for name, facts in described.items()
    )
    device = described.get("asg", {}).get("device", "no device")
    found = [
        f"{device}; {environment['cpus']} processors, {environment['system']}; {versions}; "
        f"{results['rounds']} rounds."
    ]
    share = results["bystanders"]
    if share > BUSY:
        found.append(
            f"The machine was not quiet: other programs took {share:.0%} of the processors."
        )
    return [*found, *(f"Left out: {failure}" for failure in results["failures"])]


def contestants(results: Results) -> list[str]:
    """Return the names that have any result, in a fixed order."""
    return [
        name
        for name in TITLES
        if any(name in facts["contestants"] for facts in results["tasks"].values())
    ]


def title(task: str) -> str:
    kind, _, size = task.partition("_")
    if kind == "matmul" and size.isdigit():
        return f"matmul f32 {size}³"
    return "training step" if task == "training" else task.replace("_", " ")


def as_table(caption: str, rows: Rows) -> Table:
    table = Table(title=f"\n{caption}", title_justify="left")
    for position, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if position else "left")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def as_markdown(rows: Rows) -> list[str]:
    lines = ["| " + " | ".join(row).replace("<", "&lt;") + " |" for row in rows]
    rule = "| --- |" + " ---: |" * (len(rows[0]) - 1)
    return [lines[0], rule, *lines[1:]]
