"""`asg compile`: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from asg.cli import output
from asg.cli.models import Preparation, load_model, read_inputs
from asg.cli.options import (
    device_option,
    dims_option,
    family_option,
    json_option,
    model_argument,
    numerics_option,
    prepared_model,
    static_option,
)
from asg.errors import GraphError
from asg.report_view import report_text
from asg.tolerances import Numerics


@click.command("compile")
@model_argument
@click.option(
    "-o", "--output", "bundle", required=True, metavar="BUNDLE",
    help="Where to write: a folder, or one file if it ends in .asg.",
)  # fmt: skip
@dims_option
@static_option
@family_option
@numerics_option
@device_option
@prepared_model
@json_option
def compile_command(
    model: str,
    bundle: str,
    dims: dict[str, int],
    statics: tuple[str, ...],
    target_family: str | None,
    numerics: Numerics,
    device: str | None,
    preparation: Preparation,
    as_json: bool,
) -> None:
    """Compile MODEL ahead of time to a BUNDLE.

    The bundle runs where the compiler is not installed. It needs no adapter to be made.
    """
    from asg.cli.build import build
    from asg.runtime.bundle import save_bundle

    loaded = load_model(model, dims, read_inputs(statics), preparation)
    if loaded.artefact is not None:
        raise GraphError(f"{model} is a bundle already; compile the model that it came from")
    artefact = build(loaded, target_family, device, numerics)
    save_bundle(artefact, artefact.values, bundle)
    report = dict(artefact.report)
    size = _size(Path(bundle))
    if as_json:
        output.write_json({"bundle": bundle, "bytes": size, "report": report})
        return
    output.write_text(f"wrote {bundle}: {size:,} bytes")
    output.write_text(report_text(report))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
