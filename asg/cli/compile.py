"""`asg compile`: a model becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asg.cli import output
from asg.cli.models import load_model
from asg.cli.options import device_option, family_option, json_option, model_argument
from asg.errors import GraphError


@click.command("compile")
@model_argument
@click.option(
    "-o", "--output", "bundle", required=True, metavar="BUNDLE",
    help="Where to write: a folder, or one file if it ends in .asg.",
)  # fmt: skip
@family_option
@device_option
@json_option
def compile_command(
    model: str, bundle: str, target_family: str | None, device: str | None, as_json: bool
) -> None:
    """Compile MODEL ahead of time to a BUNDLE.

    The bundle runs where the compiler is not installed. It needs no adapter to be made.
    """
    from asg.cli.build import build
    from asg.runtime.bundle import save_bundle

    loaded = load_model(model)
    if loaded.artefact is not None:
        raise GraphError(f"{model} is a bundle already; compile the model that it came from")
    artefact = build(loaded, target_family, device)
    save_bundle(artefact, artefact.values, bundle)
    report = dict(artefact.report)
    size = _size(Path(bundle))
    if as_json:
        output.write_json({"bundle": bundle, "bytes": size, "report": report})
        return
    output.write_text(f"wrote {bundle}: {size:,} bytes")
    output.write_text(summary(report))


def summary(report: dict[str, Any]) -> str:
    """Return the totals of a compiled model in three lines."""
    classes = ", ".join(f"{count} {kind}" for kind, count in report["dispatches"].items())
    moved, least = report["bytes_moved"], report["bytes_lower_bound"]
    ratio = f"{moved / least:.2f} of what comes in and goes out" if least else "nothing needed"
    lines = [
        f"dispatches  {report['dispatch_count']:,} ({classes or 'none'}), "
        f"{report['pipelines']:,} kernels, {report['copies']:,} copies",
        f"traffic     {moved:,} bytes ({ratio}), {report['flops']:,} flops",
        f"memory      {report['arena_bytes']:,} bytes of arena, "
        f"{report['max_live_bytes']:,} live at the worst step",
    ]
    if "compile_s" in report:
        lines.append(f"compiled    in {report['compile_s']:.2f} s")
    return "\n".join(lines)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
