"""`asg doctor`: what this machine offers, what is missing, and how to get it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from asg.cli import output
from asg.cli.options import device_option, json_option

_NO_DEVICE = 4


@click.command("doctor")
@device_option
@json_option
def doctor_command(device: str | None, as_json: bool) -> None:
    """Show adapters, limits and versions, and say what is missing."""
    from asg.machine import examine

    report = examine(device)
    if as_json:
        output.write_json(report)
    else:
        _write(report)
    sys.exit(_NO_DEVICE if report["chosen"] is None else 0)


def _write(report: Mapping[str, Any]) -> None:
    output.write_title("versions")
    output.write_table(("what", "version"), list(report["versions"].items()))
    output.write_title("optional packages")
    output.write_table(
        ("package", "version", "for", "install"),
        [
            (name, each["version"] or "missing", each["use"], each["install"])
            for name, each in report["optional"].items()
        ],
    )
    output.write_title("adapters")
    rows = [
        (
            "*" if adapter["index"] == report["chosen"] else "",
            adapter["index"],
            adapter["name"],
            adapter["type"],
            adapter["backend"],
            adapter["driver"],
            adapter["is_capable"],
        )
        for adapter in report["adapters"]
    ]
    output.write_table(("", ">#", "name", "type", "backend", "driver", "usable"), rows)
    if report["chosen"] is not None:
        _write_chosen(report)
    caches = report["caches"]
    output.write_title(f"caches: {caches['folder'] or 'off'}")
    held = [(name, each["files"], each["size"]) for name, each in caches["holding"].items()]
    output.write_table(("cache", ">files", ">bytes"), held)
    if report["environment"]:
        output.write_title("environment")
        output.write_table(("variable", "value"), list(report["environment"].items()))
    output.write_title("problems" if report["problems"] else "no problems")
    for problem in report["problems"]:
        output.write_text(f"- {problem}")


def _write_chosen(report: Mapping[str, Any]) -> None:
    chosen = next(each for each in report["adapters"] if each["index"] == report["chosen"])
    output.write_title(f"limits of {chosen['name']}")
    rows = [(name, both["default"], both["adapter"]) for name, both in report["limits"].items()]
    output.write_table(("limit", ">WebGPU's default", ">adapter"), rows)
    useful = ("subgroups", "shader-f16", "shader-int64", "timestamp-query")
    output.write_title("features that kernels may use")
    output.write_table(
        ("feature", "there"), [(name, name in chosen["features"]) for name in useful]
    )
    output.write_text(f"subgroups (probed): {report['subgroups']['detail']}")
    output.write_text(f"schedules: {report['adapter_class']}")
