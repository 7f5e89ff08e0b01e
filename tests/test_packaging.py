"""Installed, the folders are one import package, wherever Python starts."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.imports import PACKAGES, ROOT, module_files

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_package_is_listed() -> None:
    files = module_files()
    found = sorted(name for name, path in files.items() if path.name == "__init__.py")
    assert SETUPTOOLS["packages"] == found


def test_every_folder_is_mapped() -> None:
    expected = {package: folder for folder, package in PACKAGES.items()}
    assert SETUPTOOLS["package-dir"] == expected


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in module_files().values()}
    bare = [str(folder) for folder in folders if not (folder / "__init__.py").exists()]
    assert not bare, f"without __init__.py: {bare}"


@pytest.mark.parametrize("start", ["root", "elsewhere"])
def test_imports_from_anywhere(start: str, tmp_path: Path) -> None:
    folder = ROOT if start == "root" else tmp_path
    modules = ", ".join(sorted(PACKAGES.values()))
    for arguments in (["-c", f"import {modules}"], ["-m", "asg", "--help"]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stderr}"


def test_no_other_name_is_taken(tmp_path: Path) -> None:
    code = (
        "from importlib.util import find_spec\n"
        "print([name for name in ('passes', 'codegen', 'shaders', 'runtime') if find_spec(name)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
