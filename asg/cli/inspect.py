"""`asg inspect`: graphs, kernels, the memory plan and the totals of a model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from asg.artefact import Artefact, Dispatch, Kernel
from asg.cli import output
from asg.cli.models import Loaded, Preparation, load_model, read_inputs
from asg.cli.options import (
    device_option,
    dims_option,
    either_argument,
    entry_option,
    family_option,
    json_option,
    prepared_model,
    static_option,
)
from asg.errors import GraphError
from asg.report_view import report_text


@click.command("inspect")
@either_argument
@click.option("--after", metavar="PASS", help="Print the graph after this pass, or `trace`.")
@click.option("--kernel", metavar="NAME", help="Print this kernel: its nodes, lines and WGSL.")
@click.option("--html", metavar="FILE", help="Write all there is to see as one page.")
@click.option("--plan-svg", metavar="FILE", help="Draw the memory plan.")
@entry_option
@family_option
@dims_option
@static_option
@device_option
@prepared_model
@json_option
def inspect_command(
    model: str,
    after: str | None,
    kernel: str | None,
    html: str | None,
    plan_svg: str | None,
    entry: str | None,
    target_family: str | None,
    dims: dict[str, int],
    statics: tuple[str, ...],
    device: str | None,
    preparation: Preparation,
    as_json: bool,
) -> None:
    """Show what the compiler makes of MODEL, or what a BUNDLE holds.

    No adapter is needed.
    """
    from asg.cli.build import build, find_entry

    loaded = load_model(model, dims, read_inputs(statics), preparation)
    if after is not None:
        _write_graph(after, passes_of(loaded, entry), as_json)
        return
    artefact = build(loaded, target_family, device)
    if kernel is not None:
        _write_kernel(_find_kernel(artefact, kernel), as_json)
        return
    wrote = []
    if html is not None:
        from asg.html_report import html_report

        steps = {} if loaded.artefact else {key: passes_of(loaded, key) for key in loaded.entries}
        Path(html).write_text(html_report(artefact, steps, loaded.name), encoding="utf-8")
        wrote.append(html)
    if plan_svg is not None:
        from asg.plan_view import PlanView

        found = find_entry(artefact, entry).name
        picture = PlanView.from_report(artefact.report["plan"]).to_svg(found)
        Path(plan_svg).write_text(picture, encoding="utf-8")
        wrote.append(plan_svg)
    if as_json:
        output.write_json(_data(artefact))
    elif wrote:
        output.write_text(f"wrote {', '.join(wrote)}")
    else:
        _write_all(artefact, entry)


def passes_of(loaded: Loaded, entry: str | None) -> dict[str, str]:
    """Return an entry's graph as text as it came (`trace`), after every pass, and as kernels.

    Raises:
        GraphError: a bundle does not have them, or there is no such entry.
    """
    from asg.compiler import as_entries, fuse
    from asg.cutting import uncut_entries
    from asg.passes.pipeline import Step, run_pipeline

    if loaded.artefact is not None:
        raise GraphError(
            f"{loaded.text} is a bundle: it holds the graphs after all passes only\n"
            "  fix: inspect the model that it came from"
        )
    entries = uncut_entries(as_entries(loaded.entries))
    name = entry or next(iter(entries))
    if name not in entries:
        raise GraphError(f"there is no entry {name!r}; entries: {', '.join(entries)}")
    texts: dict[str, str] = {}

    def keep(step: Step) -> None:
        texts[step.name] = str(step.after)

    prepared = run_pipeline(entries[name], loaded.passes, [keep])
    plan = fuse(prepared)
    lines = []
    for fused in plan.kernels:
        names = prepared.names
        outputs = ", ".join(f"{names[value]}: {value.type}" for value in fused.outputs)
        reads = ", ".join(names[value] for value in fused.reads)
        lines.append(f"{fused.name} ({fused.kind}): {outputs} from {reads or 'nothing'}")
        for node in fused.nodes:
            if node.inputs:
                lines.append(f"    {names[node.values[0]]} = {node.op.name}")
    texts["fuse"] = "\n".join(lines) + "\n"
    return texts


def _write_graph(name: str, texts: Mapping[str, str], as_json: bool) -> None:
    known = {"fusion": "fuse"}.get(name, name)
    if known not in texts:
        near = difflib.get_close_matches(known, texts, n=1)
        hint = f"; near it: {near[0]}" if near else ""
        raise GraphError(f"there is no pass {name!r}{hint}; passes: {', '.join(texts)}")
    if as_json:
        output.write_json({"after": known, "graph": texts[known]})
    else:
        output.write_code(texts[known], "python")


def _find_kernel(artefact: Artefact, name: str) -> Kernel:
    """Return a kernel by its name or the beginning of it."""
    fitting = [each for each in artefact.kernels if each == name or each.startswith(f"{name}_")]
    if len(fitting) != 1:
        raise GraphError(
            f"there is no kernel {name!r}; kernels: {', '.join(artefact.kernels) or 'none'}"
        )
    return artefact.kernels[fitting[0]]


def _write_kernel(kernel: Kernel, as_json: bool) -> None:
    if as_json:
        output.write_json(_kernel_data(kernel))
        return
    output.write_text(f"{kernel.name} ({kernel.kind})")
    output.write_text(f"nodes: {', '.join(kernel.nodes)}")
    for site in kernel.sites:
        output.write_text(f"line: {site}")
    last = len(kernel.variants) - 1
    for position, variant in enumerate(kernel.variants):
        needs = ", ".join(variant.features) or "nothing"
        title = "portable" if position == last else f"needs {needs}"
        output.write_title(
            f"{title}; {variant.schedule}; {' x '.join(map(str, variant.workgroups))} workgroups"
        )
        output.write_code(variant.wgsl, "wgsl")


def _write_all(artefact: Artefact, entry: str | None) -> None:
    from asg.cli.build import find_entry

    chosen = [find_entry(artefact, entry)] if entry else list(artefact.entries.values())
    for each in chosen:
        output.write_title(f"entry {each.name}")
        if each.name in artefact.sources:
            output.write_code(artefact.sources[each.name], "python")
    output.write_title("kernels")
    columns = ("kernel", "class", ">dispatches", ">bytes", ">flops", "schedule", "source")
    output.write_table(columns, [_kernel_row(artefact, kernel) for kernel in artefact.kernels])
    output.write_title("memory")
    from asg.plan_view import PlanView

    output.write_text(str(PlanView.from_report(artefact.report["plan"])))
    output.write_title("totals")
    output.write_text(report_text(artefact.report))


def _kernel_row(artefact: Artefact, name: str) -> tuple[object, ...]:
    kernel = artefact.kernels[name]
    source = kernel.sites[0].partition(":  ")[0].split(": ")[0] if kernel.sites else ""
    more = f" and {len(kernel.sites) - 1} more" if len(kernel.sites) > 1 else ""
    return (
        name, kernel.kind, dispatch_count(artefact, name), kernel.bytes_moved, kernel.flops,
        kernel.variants[0].schedule, f"{source}{more}",
    )  # fmt: skip


def dispatch_count(artefact: Artefact, kernel: str) -> int:
    """Return how often all entries together dispatch a kernel."""
    return sum(
        isinstance(step, Dispatch) and step.kernel == kernel
        for entry in artefact.entries.values()
        for step in entry.steps
    )


def _data(artefact: Artefact) -> dict[str, Any]:
    return {
        "name": artefact.name,
        "entries": {
            name: {
                "inputs": {slot.name: str(slot.type) for slot in entry.inputs},
                "outputs": {slot.name: str(slot.type) for slot in entry.outputs},
                "updates": dict(entry.updates),
                "steps": [
                    step.kernel if isinstance(step, Dispatch) else "copy" for step in entry.steps
                ],
                "graph": artefact.sources.get(name),
            }
            for name, entry in artefact.entries.items()
        },
        "state": {slot.name: str(slot.type) for slot in artefact.persistent},
        "kernels": {name: _kernel_data(each) for name, each in artefact.kernels.items()},
        "report": dict(artefact.report),
    }


def _kernel_data(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "class": kernel.kind,
        "nodes": list(kernel.nodes),
        "sites": list(kernel.sites),
        "flops": kernel.flops,
        "bytes_moved": kernel.bytes_moved,
        "variants": [
            {
                "schedule": variant.schedule,
                "workgroups": list(variant.workgroups),
                "features": list(variant.features),
                "subgroup_size": variant.subgroup_size,
                "wgsl": variant.wgsl,
            }
            for variant in kernel.variants
        ],
    }
