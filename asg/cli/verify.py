"""`asg verify` and `asg bisect`: a model beside the interpreter."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from asg.cli import output
from asg.cli.models import Loaded, Preparation, load_model, read_inputs
from asg.cli.options import (
    device_option,
    dims_option,
    either_argument,
    family_option,
    input_option,
    json_option,
    numerics_option,
    prepared_model,
    seed_option,
)
from asg.errors import DeviceError
from asg.tolerances import Numerics

if TYPE_CHECKING:
    from asg.checks import DifferentialReport
    from asg.graph import Graph
    from asg.passes.pipeline import Pass

STAGES = ("gradients", "passes", "kernels", "memory", "whole")
DIFFERS = 1


@click.command("verify")
@either_argument
@input_option
@dims_option
@click.option(
    "--stage", "stages", type=click.Choice(STAGES), multiple=True,
    help="Only these comparisons; may be repeated. By default all but gradients.",
)  # fmt: skip
@click.option("--gradients", is_flag=True, help="Check the gradient rule of every node as well.")
@seed_option
@device_option
@family_option
@prepared_model
@numerics_option
@json_option
def verify_command(
    model: str,
    inputs: tuple[str, ...],
    dims: dict[str, int],
    stages: tuple[str, ...],
    gradients: bool,
    seed: int,
    device: str | None,
    target_family: str | None,
    preparation: Preparation,
    numerics: Numerics,
    as_json: bool,
) -> None:
    """Compare MODEL or BUNDLE with the NumPy interpreter.

    Pass by pass: each must leave the results as they were. Kernel by kernel: each must make the
    right results of the right operands, with memory reused and not. Memory: a value must not be
    overwritten before it is read. As a whole. Inputs that are not given are random; integers
    that choose something are in its range. With --precision, what follows the rounding is
    compared with the graph in which values are rounded.
    """
    arrays = read_inputs(inputs)
    loaded = load_model(model, dims, arrays, preparation)
    arrays = loaded.inputs(arrays)
    wanted = [*(stages or STAGES[1:]), *(["gradients"] if gradients else [])]
    try:
        report = _verify(loaded, arrays, wanted, seed, device, target_family, numerics)
    except DeviceError:
        # Before it is said that there is none, check what needs no device.
        rest = [stage for stage in wanted if stage in ("gradients", "passes")]
        if rest and loaded.artefact is None:
            _write(
                model, _verify(loaded, arrays, rest, seed, device, target_family, numerics), as_json
            )
        raise
    _write(model, report, as_json)
    sys.exit(0 if report.is_right else DIFFERS)


def _verify(
    loaded: Loaded,
    arrays: dict[str, Any],
    stages: list[Any],
    seed: int,
    device: str | None,
    family: str | None,
    numerics: Numerics,
) -> DifferentialReport:
    from asg.runtime.devices import shared_device
    from asg.verification import verify

    if set(stages) & {"kernels", "memory", "whole"}:
        shared_device(device)  # fails at once where there is none
    options: dict[str, Any] = {"device": device, "schedule": family, "seed": seed}
    options["numerics"] = numerics
    if loaded.precision is None:
        return verify(loaded.artefact or loaded.entries, arrays, stages=stages, **options)
    # Rounding is meant to change results: it is part of what everything behind it is compared with.
    before, rounded, behind = _parted(loaded)
    early = [stage for stage in stages if stage in ("gradients", "passes")]
    first = verify(loaded.entries, arrays, stages=early, passes=before, **options)
    late = [stage for stage in stages if stage != "gradients"]
    second = verify(rounded, arrays, stages=late, passes=behind, **options)
    return replace(second, checks=(*first.checks, *second.checks))


def _parted(loaded: Loaded) -> tuple[tuple[Pass, ...], dict[str, Graph], tuple[Pass, ...]]:
    """Return the passes before values are rounded, the graphs with rounded values, and the
    passes that follow."""
    from asg.compiler import as_entries, prepare
    from asg.cutting import uncut_entries
    from asg.passes.mixed_precision import MixedPrecision

    place = next(i for i, each in enumerate(loaded.passes) if isinstance(each, MixedPrecision))
    before, behind = loaded.passes[:place], loaded.passes[place + 1 :]
    entries = uncut_entries(as_entries(loaded.entries))
    rounded = {key: prepare(each, (), loaded.passes[: place + 1]) for key, each in entries.items()}
    return before, rounded, behind


def _write(model: str, report: DifferentialReport, as_json: bool) -> None:
    if as_json:
        output.write_json({"model": model, **report.to_dict()})
        return
    for name, origin in report.inputs.items():
        output.write_text(f"input {name}: {origin}")
    output.write_verdict(report.verdict, str(report))


@click.command("bisect")
@either_argument
@click.option(
    "-o", "--output", "folder", required=True, metavar="FOLDER",
    help="Where to write what reproduces the fault.",
)  # fmt: skip
@input_option
@dims_option
@seed_option
@device_option
@family_option
@prepared_model
@numerics_option
@json_option
def bisect_command(
    model: str,
    folder: str,
    inputs: tuple[str, ...],
    dims: dict[str, int],
    seed: int,
    device: str | None,
    target_family: str | None,
    preparation: Preparation,
    numerics: Numerics,
    as_json: bool,
) -> None:
    """Find the first wrong pass, kernel and node of MODEL or BUNDLE.

    FOLDER gets a graph of a few nodes that shows the fault, its arrays, the kernels, and
    reproduce.py, which runs it again.
    """
    from asg.bisection import bisect
    from asg.reproducer import write_reproducer

    arrays = read_inputs(inputs)
    loaded = load_model(model, dims, arrays, preparation)
    arrays = loaded.inputs(arrays)
    options: dict[str, Any] = {"device": device, "schedule": target_family, "seed": seed}
    options["numerics"] = numerics
    if loaded.precision is None:
        found = bisect(loaded.artefact or loaded.entries, arrays, **options)
    else:
        _, rounded, behind = _parted(loaded)
        found = bisect(rounded, arrays, passes=behind, **options)
    if found is None:
        if as_json:
            output.write_json({"model": model, "finding": None})
        else:
            output.write_verdict("right", "nothing is wrong")
        return
    write_reproducer(found, folder)
    if as_json:
        output.write_json({"model": model, "finding": found.to_dict(), "folder": folder})
    else:
        output.write_verdict("wrong", str(found))
        output.write_text(f"wrote {folder}; run {folder}/reproduce.py to see it again")
    sys.exit(DIFFERS)
