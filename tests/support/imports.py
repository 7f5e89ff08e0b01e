"""Who imports whom, read from the syntax trees; nothing is imported to find out."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Folder at the top -> the package that it is when installed. The inner ones come first.
PACKAGES = {
    "passes": "asg.passes",
    "codegen": "asg.codegen",
    "shaders": "asg.shaders",
    "runtime": "asg.runtime",
    "asg": "asg",
}


@dataclass(frozen=True)
class Import:
    """One import statement, or one name of it."""

    source: str  # the module that imports
    target: str  # the module that is imported
    place: str  # file:line
    is_lazy: bool  # inside a function
    is_for_types: bool  # under `if TYPE_CHECKING:`


def module_files() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    files: dict[str, Path] = {}
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            files[".".join((package, *parts))] = path
    return files


def package_imports(files: dict[str, Path]) -> list[Import]:
    """Every import statement of the package."""
    return [found for module in files for found in module_imports(module, files)]


def module_imports(module: str, files: dict[str, Path]) -> Iterator[Import]:
    """The imports of one module, in the order of the text."""
    path = files[module]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    is_package = path.name == "__init__.py"
    pending: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while pending:
        node, is_lazy, is_for_types = pending.pop(0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            place = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
            for target in _targets(node, module, is_package, files):
                yield Import(module, target, place, is_lazy, is_for_types)
            continue
        is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only_types = isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            pending.append((child, is_lazy, is_for_types or only_types))


def _targets(
    node: ast.Import | ast.ImportFrom, module: str, is_package: bool, files: dict[str, Path]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        kept = parts[: len(parts) - node.level + is_package]
        base = ".".join([*kept, base] if base else kept)
    for alias in node.names:
        # `from asg import types` means the module asg.types, not the package asg.
        inner = f"{base}.{alias.name}"
        yield inner if inner in files else base


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def cycle(imports: Iterable[Import]) -> list[str] | None:
    """Some modules that import each other when they are loaded, in order, or None."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        if not one.is_lazy and not one.is_for_types:
            graph.setdefault(one.source, set()).add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib walks from what is imported to what imports it.
        return list(reversed(error.args[1]))
    return None
