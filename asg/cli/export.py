"""`asg export`: a model becomes an ONNX model."""

from __future__ import annotations

import click

from asg.cli import output
from asg.cli.models import load_model, read_inputs
from asg.cli.options import dims_option, json_option, model_argument, static_option
from asg.errors import GraphError


@click.command("export")
@model_argument
@click.option(
    "-o", "--output", "path", required=True, metavar="FILE", help="Where to write: NAME.onnx."
)
@click.option(
    "--opset", type=int, default=20, show_default=True, help="Of ONNX's own operators, 18 to 23."
)
@click.option("--entry", help="Which entry, of a model that has several.")
@dims_option
@static_option
@json_option
def export_command(
    model: str,
    path: str,
    opset: int,
    entry: str | None,
    dims: dict[str, int],
    statics: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL as an ONNX model, which other runtimes compute.

    Of a training step, what a run changes is an input and an output NAME.new.
    """
    from asg.onnx import save

    loaded = load_model(model, dims, read_inputs(statics))
    if loaded.artefact is not None:
        raise GraphError(f"{model} is a bundle; export the model that it came from")
    name = entry or next(iter(loaded.entries))
    if name not in loaded.entries or (entry is None and len(loaded.entries) > 1):
        known = ", ".join(loaded.entries)
        raise GraphError(f"{model} has the entries {known}; fix: choose one with --entry")
    graph = loaded.entries[name]
    written = save(graph, path, opset=opset)
    size = written.stat().st_size
    if as_json:
        output.write_json({"file": path, "bytes": size, "inputs": graph.input_names("input")})
        return
    output.write_text(f"wrote {path}: {size:,} bytes")
