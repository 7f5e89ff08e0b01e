"""The compiler's statistics, to be read: what `exe.report()` holds, as text and as figures.

Takes the plain data that an artefact carries, so that a bundle can be shown where there is no
compiler. Bundles of earlier versions may lack some of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One number with what it counts, and a remark that puts it into proportion."""

    label: str
    value: str
    remark: str = ""


def figures(report: Report) -> list[Figure]:
    """Return the totals of a program."""
    classes = ", ".join(f"{count} {kind}" for kind, count in report["dispatches"].items())
    found = [
        Figure("dispatches", f"{report['dispatch_count']:,}", classes),
        Figure("pipelines", f"{report['pipelines']:,}", _counted(report)),
        Figure(
            "moved", amount(report["bytes_moved"], "B"),
            times(report["bytes_moved"], report["bytes_lower_bound"], "the least"),
        ),
        Figure(
            "arithmetic", amount(report["flops"], "flop"),
            times(report["flops"], report["graph_flops"], "the graph's"),
        ),
        Figure(
            "arena", amount(report["arena_bytes"], "B"),
            times(report["arena_bytes"], report["max_live_bytes"], "what is live at once"),
        ),
    ]  # fmt: skip
    if "wgsl_bytes" in report:
        figure = Figure("of WGSL", amount(report["wgsl_bytes"], "B"), _bound(report))
        found.append(figure)
    if any(report.get("recognised", {}).values()):
        found.append(_recognised(report))
    if "compile_s" in report:
        found.append(Figure("to compile", f"{report['compile_s']:.2f} s", _slowest(report)))
    return found


def _counted(report: Report) -> str:
    copies = report["copies"]
    return f"{copies:,} {'copy' if copies == 1 else 'copies'}" if copies else ""


def _bound(report: Report) -> str:
    barriers = report["barriers"]
    return f"at most {report['max_bindings']} bindings, {barriers:,} barriers dispatched"


def _recognised(report: Report) -> Figure:
    """Count what was recognised in all entries."""
    counts: dict[str, int] = {}
    for kinds in report["recognised"].values():
        for kind, places in kinds.items():
            counts[kind] = counts.get(kind, 0) + len(places)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return Figure("recognised", f"{sum(counts.values()):,}", listed)


def _slowest(report: Report) -> str:
    """Name the stages by what they took, the slowest first."""
    stages = sorted(report.get("compile_stages", {}).items(), key=lambda stage: -stage[1])
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages)


def entry_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a heading and a row for each entry."""
    rows: list[tuple[str, ...]] = [
        ("entry", "dispatches", "pipelines", "moved", "of the least", "flops", "of the graph")
    ]
    for name, each in report.get("entries", {}).items():
        rows.append(
            (
                name,
                f"{each['dispatch_count']:,}",
                f"{each['pipelines']:,}" if "pipelines" in each else "",
                amount(each["bytes_moved"], "B"),
                times(each["bytes_moved"], each["bytes_lower_bound"], ""),
                amount(each["flops"], "flop"),
                times(each["flops"], each["graph_flops"], ""),
            )
        )
    return rows


def report_text(report: Report) -> str:
    """Return the totals as lines, and a table of the entries where there are several."""
    lines = []
    for figure in figures(report):
        remark = f"  ({figure.remark})" if figure.remark else ""
        lines.append(f"{figure.label:<11} {figure.value}{remark}")
    rows = entry_rows(report)
    if len(rows) > 2:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines.append("")
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def times(value: int, least: int, what: str) -> str:
    """Write a value as a multiple of another one; nothing where that is 0."""
    if not least:
        return ""
    return f"{value / least:.2f} × {what}".rstrip()


def amount(value: int, unit: str) -> str:
    """Write a quantity with a prefix."""
    for limit, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {prefix}{unit}"
    return f"{value} {unit}"
