"""Write the pages of docs/ that are printed from the code, so that they cannot go stale.

With --check, write nothing and fail where a page differs from what would be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from asg.cli import main as command_line
from asg.op import NoGradient
from asg.ops import TABLE

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Written by `make docs`. -->\n"


def main() -> int:
    """Write or check every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which pages are stale")
    options = parser.parse_args()
    stale = []
    for name, make_page in PAGES.items():
        path = DOCS / name
        text = make_page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"docs/{name} is stale: run `make docs`" if options.check else f"wrote docs/{name}")
    return 1 if stale and options.check else 0


def ops_page() -> str:
    """The op table."""
    rows = ["| op | meaning | lowered as | gradient |", "| --- | --- | --- | --- |"]
    for name, op in TABLE.items():
        meaning = op.doc.strip().split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        gradient = op.grad.reason if isinstance(op.grad, NoGradient) else "yes"
        rows.append(f"| `{name}` | {meaning} | {type(op.kind).__name__} | {gradient} |")
    return f"{NOTE}\n# Ops\n\n" + "\n".join(rows) + "\n"


def command_page() -> str:
    """The help of every command, as the command line prints it."""
    parts = [f"{NOTE}\n# Command line\n"]
    for title, text in help_texts(command_line, "asg"):
        parts.append(f"## {title}\n\n```\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def help_texts(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Each command's name and help, the outer ones first."""
    context = click.Context(command, info_name=name, max_content_width=90, terminal_width=90)
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from help_texts(found, f"{name} {inner}")


PAGES: dict[str, Callable[[], str]] = {"ops.md": ops_page, "commands.md": command_page}


if __name__ == "__main__":
    sys.exit(main())
