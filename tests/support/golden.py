"""Golden files: what a test's text was when somebody last read it and agreed."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

# Names that end so keep their ending; every other file ends in .txt.
ENDINGS = (".asg", ".json", ".wgsl")


def golden_path(module: str, name: str) -> Path:
    """Where a test module keeps the text of this name."""
    if not re.fullmatch(r"[\w.,=+-]+", name):
        raise ValueError(f"golden: {name!r} is no plain file name")
    return GOLDEN / module / (name if name.endswith(ENDINGS) else f"{name}.txt")


def difference(path: Path, text: str, update: bool) -> str | None:
    """Why the text is not the golden one, or None; with `update` it becomes the golden one."""
    if not text.endswith("\n"):
        text += "\n"
    shown = path.relative_to(GOLDEN.parents[1]).as_posix()
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return None
    if not path.exists():
        return f"{shown} does not exist: run `pytest --update-golden`, then read what it wrote"
    expected = path.read_text(encoding="utf-8")
    if text == expected:
        return None
    changes = difflib.unified_diff(
        expected.splitlines(), text.splitlines(), shown, "now", lineterm=""
    )
    return "\n".join(changes) + "\nIf this is meant: pytest --update-golden"
