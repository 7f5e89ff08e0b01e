"""Reads the fenced blocks of a page, and runs its Python as a reader would who copies it.

A Python block whose first line is `# NAME.py` begins a script; those after it belong to the same
one. What a block prints is what the next block that is no Python shows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(?P<kind>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r"# (?P<name>\w+\.py)\n")
SHOWN = ("asg", "text", "wgsl")  # kinds of blocks that show what was printed


@dataclass(frozen=True)
class Block:
    """A fenced block: the word behind the fence, the text, and where that begins in the page."""

    kind: str
    text: str
    start: int


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(m["kind"], m["text"], m.start("text")) for m in _FENCE.finditer(page)]


def scripts_of(page: str) -> dict[str, list[Block]]:
    """The Python blocks of a page, by the script to which they belong."""
    scripts: dict[str, list[Block]] = {}
    name = "page.py"
    for block in blocks_of(page):
        if block.kind == "python":
            title = _TITLE.match(block.text)
            name = title["name"] if title else name
            scripts.setdefault(name, []).append(block)
    return scripts


def run_script(path: Path, blocks: Sequence[Block]) -> tuple[list[str], dict[str, object]]:
    """Run the blocks of one script; return what each of them printed, and the names it leaves.

    They stand in one file, so that graphs name the lines which a reader's file has.
    """
    path.write_text("\n".join(block.text for block in blocks), encoding="utf-8")
    names: dict[str, object] = {"__name__": path.stem}
    printed: list[str] = []
    line = 0
    for block in blocks:
        output = io.StringIO()
        with redirect_stdout(output):
            exec(compile("\n" * line + block.text, str(path), "exec"), names)
        printed.append(output.getvalue())
        line += block.text.count("\n") + 1
    return printed, names


def played(page: str, folder: Path) -> str:
    """The page with every block that shows an output holding what is printed now."""
    blocks = blocks_of(page)
    changes: list[tuple[Block, str]] = []
    for name, script in scripts_of(page).items():
        for block, text in zip(script, run_script(folder / name, script)[0], strict=True):
            if text.strip():
                following = blocks[blocks.index(block) + 1 :]
                shown = following[0] if following and following[0].kind in SHOWN else None
                if shown is None:
                    raise ValueError(f"no block shows what this one prints:\n{block.text}")
                changes.append((shown, text.strip("\n") + "\n"))
    for shown, text in sorted(changes, key=lambda change: -change[0].start):
        page = page[: shown.start] + text + page[shown.start + len(shown.text) :]
    return page
