"""`asg run` and `asg profile`: a model on the device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from asg.cli import output
from asg.cli.models import Array, Loaded, Preparation, load_model, read_inputs
from asg.cli.options import (
    device_option,
    dims_option,
    either_argument,
    entry_option,
    family_option,
    input_option,
    json_option,
    prepared_model,
    seed_option,
)

if TYPE_CHECKING:
    from asg.runtime.executor import Executor
    from asg.runtime.profile import Timing


@click.command("run")
@either_argument
@input_option
@dims_option
@click.option(
    "-o", "--output-dir", metavar="FOLDER",
    help="Write every output to FOLDER/NAME.npy, and what states become to NAME'.npy.",
)  # fmt: skip
@entry_option
@device_option
@family_option
@prepared_model
@json_option
def run_command(
    model: str,
    inputs: tuple[str, ...],
    dims: dict[str, int],
    output_dir: str | None,
    entry: str | None,
    device: str | None,
    target_family: str | None,
    preparation: Preparation,
    as_json: bool,
) -> None:
    """Run MODEL or BUNDLE once and show its outputs.

    State begins where the model says, and is not kept.
    """
    loaded, arrays = _loaded(model, dims, inputs, preparation)
    with _open(loaded, target_family, device) as executor:
        from asg.cli.build import find_entry

        found = find_entry(executor.artefact, entry)
        results = dict(executor.run(found.name, arrays))
        description = executor.device.description
        results |= {f"{name}'": executor.read(name) for name in found.updates}
    if output_dir is not None:
        _write_arrays(Path(output_dir), results)
    rows = [_describe(name, array) for name, array in results.items()]
    if as_json:
        output.write_json({"device": description, "entry": found.name, "outputs": rows})
        return
    columns = ("output", "type", ">least", ">greatest", ">mean", ">not finite")
    keys = ("name", "type", "least", "greatest", "mean", "not_finite")
    output.write_table(columns, [[_number(row[key]) for key in keys] for row in rows])
    output.write_text(f"on {description}")


def _loaded(
    model: str, dims: Mapping[str, int], inputs: Sequence[str], preparation: Preparation
) -> tuple[Loaded, dict[str, Array]]:
    """Return a model of known sizes and the arrays that it takes."""
    arrays = read_inputs(inputs)
    loaded = load_model(model, dims, arrays, preparation)
    return loaded, loaded.inputs(arrays)


def _open(loaded: Loaded, family: str | None, device: str | None) -> Executor:
    from asg.cli.build import build
    from asg.runtime.devices import shared_device
    from asg.runtime.executor import Executor

    opened = shared_device(device)  # first, so that a missing device is told at once
    artefact = build(loaded, family, device)
    return Executor(artefact, opened)


def _write_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        path = folder / f"{name.replace('/', '_')}.npy"
        np.save(path, array)


def _describe(name: str, array: Array) -> dict[str, Any]:
    """Return what an output holds, in a few numbers."""
    row: dict[str, Any] = {
        "name": name, "type": f"{array.dtype}{list(array.shape)}",
        "least": None, "greatest": None, "mean": None, "not_finite": 0,
    }  # fmt: skip
    finite = array[np.isfinite(array)]
    row["not_finite"] = int(array.size - finite.size)
    if finite.size:
        row["least"], row["greatest"] = finite.min().item(), finite.max().item()
        row["mean"] = float(finite.mean())
    return row


def _number(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


@click.command("profile")
@either_argument
@input_option
@dims_option
@entry_option
@click.option(
    "--repeat", type=click.IntRange(1), default=5, show_default=True,
    help="Runs, of which each kernel's best counts.",
)  # fmt: skip
@click.option("--trace", metavar="FILE", help="Write a timeline for chrome://tracing or Perfetto.")
@seed_option
@device_option
@family_option
@prepared_model
@json_option
def profile_command(
    model: str,
    inputs: tuple[str, ...],
    dims: dict[str, int],
    entry: str | None,
    repeat: int,
    trace: str | None,
    seed: int,
    device: str | None,
    target_family: str | None,
    preparation: Preparation,
    as_json: bool,
) -> None:
    """Time every kernel of MODEL or BUNDLE.

    Inputs that are not given are random.
    """
    from asg.cli.build import find_entry

    loaded, arrays = _loaded(model, dims, inputs, preparation)
    with _open(loaded, target_family, device) as executor:
        found = find_entry(executor.artefact, entry)
        graphs = _graphs(executor)
        if found.name in graphs:
            from asg.sample_inputs import sample_inputs

            drawn = sample_inputs(graphs[found.name], arrays, seed=seed)
            known = {slot.name for slot in found.inputs}
            arrays = {name: array for name, array in drawn.items() if name in known} | arrays
        executor.run(found.name, arrays)  # compiles, and warms caches
        timings = executor.profile(found.name, arrays, repeat)
        description = executor.device.description
    if trace is not None:
        Path(trace).write_text(json.dumps(chrome_trace(timings)), encoding="utf-8")
    total = sum(timing.seconds for timing in timings)
    if as_json:
        rows = [vars_of(timing) for timing in timings]
        output.write_json({"device": description, "seconds": total, "steps": rows})
        return
    _write_timings(timings, total)
    output.write_text(f"{total * 1e3:.3f} ms in all, on {description}")


def _graphs(executor: Executor) -> Mapping[str, Any]:
    from asg.verification import artefact_graphs

    return artefact_graphs(executor.artefact) if executor.artefact.sources else {}


def vars_of(timing: Timing) -> dict[str, Any]:
    """Return a timing as plain data."""
    names = ("step", "name", "kind", "seconds", "flops", "bytes_moved")
    return {name: getattr(timing, name) for name in names}


def _write_timings(timings: Sequence[Timing], total: float) -> None:
    rows = []
    for timing in sorted(timings, key=lambda each: -each.seconds):
        seconds = max(timing.seconds, 1e-12)
        rows.append(
            (
                timing.step,
                timing.name,
                timing.kind,
                f"{timing.seconds * 1e6:,.1f}",
                f"{timing.seconds / max(total, 1e-12):.1%}",
                output.si(timing.flops / seconds, "flop/s"),
                output.si(timing.bytes_moved / seconds, "B/s"),
            )
        )
    columns = (">step", "kernel", "class", ">µs", ">share", ">arithmetic", ">traffic")
    output.write_table(columns, rows)


def chrome_trace(timings: Sequence[Timing]) -> dict[str, Any]:
    """Return the steps one after the other as trace events."""
    events: list[dict[str, Any]] = []
    start = 0.0
    for timing in timings:
        times = {"ts": start * 1e6, "dur": timing.seconds * 1e6}
        args = {"flops": timing.flops, "bytes": timing.bytes_moved, "step": timing.step}
        head = {"name": timing.name, "cat": timing.kind, "ph": "X", "pid": 1, "tid": 1}
        events.append({**head, **times, "args": args})
        start += timing.seconds
    return {"traceEvents": events, "displayTimeUnit": "ms"}
