"""Show the folders of the repository as the one package that they are when installed.

Type checkers and editors do not follow the package-dir mapping of pyproject.toml. In the tree
that this makes (build/typecheck), `asg/passes` is a link to `passes`, and so on.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "typecheck"


def main() -> None:
    """Make the tree anew, so that nothing stale stays."""
    shutil.rmtree(TREE, ignore_errors=True)
    package = TREE / "asg"
    package.mkdir(parents=True)
    for entry in sorted((ROOT / "asg").iterdir()):
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for name, folder in project["tool"]["setuptools"]["package-dir"].items():
        if name != "asg":
            (package / name.removeprefix("asg.")).symlink_to(ROOT / folder)


if __name__ == "__main__":
    main()
