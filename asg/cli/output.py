"""Writes results: in colour on a terminal, as plain text elsewhere, as JSON where asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

_STYLES = {"right": "green", "undecided": "yellow", "wrong": "bold red"}


def is_terminal() -> bool:
    """Tell whether somebody reads along."""
    return sys.stdout.isatty()


def write_json(data: Mapping[str, Any]) -> None:
    """Write data as JSON."""
    click.echo(json.dumps(data, indent=2, sort_keys=True, default=str))


def write_text(text: str = "") -> None:
    """Write text as it is."""
    click.echo(text)


def write_title(text: str) -> None:
    """Write a heading."""
    if is_terminal():
        click.secho(f"\n{text}", bold=True)
    else:
        click.echo(f"\n{text}")


def write_verdict(verdict: str, text: str) -> None:
    """Write text in the colour of a verdict."""
    if not is_terminal():
        click.echo(text)
        return
    from rich.console import Console

    Console().print(text, style=_STYLES[verdict], markup=False, highlight=False)


def write_code(text: str, language: str) -> None:
    """Write code, coloured on a terminal."""
    if not is_terminal():
        click.echo(text.rstrip("\n"))
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, language, background_color="default", word_wrap=True))


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table. Columns of numbers, and those whose title begins with `>`, end flush."""
    right = [title.startswith(">") for title in columns]
    titles = [title.removeprefix(">") for title in columns]
    cells = [[_cell(value) for value in row] for row in rows]
    if is_terminal():
        _write_rich_table(titles, right, cells)
        return
    widths = [max(len(row[n]) for row in [titles, *cells]) for n in range(len(titles))]
    for row in [titles, *cells]:
        parts = [
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def _write_rich_table(
    titles: Sequence[str], right: Sequence[bool], cells: Sequence[Sequence[str]]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, is_right in zip(titles, right, strict=True):
        table.add_column(title, justify="right" if is_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)


def si(value: float, unit: str) -> str:
    """Write a quantity with a prefix: `12.5 G` and the unit."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
