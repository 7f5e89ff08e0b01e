"""The house keeps its shape: who imports whom, how long things are, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from support.imports import ROOT, Import, cycle, module_files, module_imports, package_imports

# The roof may use everything, and may do so lazily: the façade, the compiler driver, the command
# line, and what needs compiler and runtime at once.
ROOF = (
    "asg",
    "asg.__main__",
    "asg.bench",
    "asg.bisection",
    "asg.cli",
    "asg.compiler",
    "asg.gradient_check",
    "asg.kernel_bench",
    "asg.machine",
    "asg.memory_watch",
    "asg.oracle",
    "asg.program_cache",
    "asg.reproducer",
    "asg.shrink",
    "asg.specialiser",
    "asg.testing",
    "asg.trainer",
    "asg.training",
    "asg.tuning",
    "asg.verification",
    "asg.yardstick",
)

# Layer -> the layers it may import. Everything else under asg/ is the ground.
ARROWS = {
    "ground": {"ground"},
    "passes": {"ground", "passes"},
    "shaders": set[str](),
    "codegen": {"ground", "passes", "shaders", "codegen"},
    "runtime": {"ground", "runtime"},
    "roof": {"ground", "passes", "shaders", "codegen", "runtime", "roof"},
}

# Layer -> the packages of others that it may import.
FOREIGN = {
    "ground": {"numpy", "ml_dtypes", "safetensors", "onnx", "google", "torch"},
    "passes": {"numpy"},
    "shaders": set[str](),
    "codegen": {"numpy", "jinja2"},
    "runtime": {"numpy", "safetensors", "wgpu", "mpi4py"},
    "roof": {"numpy", "click", "rich", "safetensors", "mpi4py", "IPython", "ipywidgets"},
}

# Not installed everywhere, so a function imports them when it is called.
OPTIONAL = {"ml_dtypes", "onnx", "torch", "mpi4py", "IPython", "ipywidgets"}

# Each stands behind one module, which can be replaced.
IN_ONE_MODULE = ("wgpu", "jinja2")

FILE_LINES = 500
FUNCTION_LINES = 70
TEMPLATE_LINES = 90

# Template -> why it is longer.
LONG_TEMPLATES: dict[str, str] = {}

# Where the budgets hold. Tests and benchmarks are lists of cases, which have no natural size.
BUDGETED = ("asg", "passes", "codegen", "shaders", "runtime", "examples", "tools")

# What belongs to somebody's machine, not to the project. The brackets keep this file clean.
PRIVATE = re.compile(
    r"(?<![\w.])[/](work|root|home|Users|mnt|opt|private)[/]\w"
    r"|https?:[/][/](localhost|127[.]0[.]0[.]1):\d"
    r"|registry[.]npmjs|[p]ypi[.]org|[p]ythonhosted|deb[.]debian|archive[.]ubuntu"
)


def layer(module: str) -> str:
    """The part of the house in which a module lives."""
    if module in ROOF or module.startswith("asg.cli."):
        return "roof"
    part = module.split(".")[1]
    return part if part in ARROWS else "ground"


def test_imports_go_downwards() -> None:
    wrong = [
        f"{one.place}: {one.source} ({layer(one.source)}) may not import {one.target}"
        f" ({layer(one.target)})"
        for one in package_imports(module_files())
        if is_own(one.target) and layer(one.target) not in ARROWS[layer(one.source)]
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_foreign_packages_stay_in_their_layer() -> None:
    wrong = [
        f"{one.place}: {one.source} ({layer(one.source)}) may not import {top(one.target)}"
        for one in package_imports(module_files())
        if is_foreign(one.target) and top(one.target) not in FOREIGN[layer(one.source)]
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_only_the_roof_imports_lazily() -> None:
    wrong = [
        f"{one.place}: {one.source} imports {one.target} inside a function"
        for one in package_imports(module_files())
        if one.is_lazy and layer(one.source) != "roof" and top(one.target) not in OPTIONAL
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_no_import_cycles() -> None:
    found = cycle(package_imports(module_files()))
    assert found is None, "modules import each other: " + " -> ".join(found or [])


@pytest.mark.parametrize("package", IN_ONE_MODULE)
def test_imported_in_one_module(package: str) -> None:
    users = {one.source for one in package_imports(module_files()) if top(one.target) == package}
    assert len(users) == 1, f"{package} belongs into exactly one module, is in {sorted(users)}"


def is_own(target: str) -> bool:
    """Whether the module is one of this package."""
    return top(target) == "asg"


def is_foreign(target: str) -> bool:
    """Whether the module is neither ours nor Python's."""
    return not is_own(target) and top(target) not in sys.stdlib_module_names


def top(target: str) -> str:
    """The package at the top of a dotted name."""
    return target.split(".")[0]


# The checks above would pass on an empty list; these show that they read imports rightly.


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Import]]:
    """The imports of a text that stands in asg/ops/norm.py."""
    monkeypatch.setattr("support.imports.ROOT", tmp_path)
    path = tmp_path / "norm.py"
    files = {"asg.types": path, "asg.ops": path, "asg.ops.norm": path, "asg.passes": path}

    def imports(text: str) -> list[Import]:
        path.write_text(text)
        return list(module_imports("asg.ops.norm", files))

    return imports


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("import asg.passes.fuse", "asg.passes.fuse"),
        ("from asg import types", "asg.types"),
        ("from asg import Tensor", "asg"),
        ("from asg.types import Shape", "asg.types"),
        ("from . import shapes", "asg.ops"),
        ("from .shapes import same", "asg.ops.shapes"),
        ("from ..types import Shape", "asg.types"),
        ("from .. import types", "asg.types"),
    ],
)
def test_targets_of_imports(read: Callable[[str], list[Import]], text: str, target: str) -> None:
    assert [one.target for one in read(text)] == [target]


def test_lazy_and_type_only_imports_are_told_apart(
    read: Callable[[str], list[Import]],
) -> None:
    text = (
        "import math\n"
        "if TYPE_CHECKING:\n    import asg.types\n"
        "def norm():\n    if True:\n        import json\n"
    )
    found = {one.target: (one.is_lazy, one.is_for_types, one.place) for one in read(text)}
    assert found == {
        "math": (False, False, "norm.py:1"),
        "asg.types": (False, True, "norm.py:3"),
        "json": (True, False, "norm.py:6"),
    }


def test_cycles_are_found() -> None:
    def edge(source: str, target: str, is_lazy: bool = False) -> Import:
        return Import(source, target, "x.py:1", is_lazy, is_for_types=False)

    assert cycle([edge("a", "b"), edge("b", "c"), edge("c", "a", is_lazy=True)]) is None
    found = cycle([edge("a", "b"), edge("b", "c"), edge("c", "a"), edge("a", "d")])
    assert found is not None
    assert set(found) == {"a", "b", "c"}
    assert set(pairwise(found)) == {("a", "b"), ("b", "c"), ("c", "a")}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("asg", "roof"),
        ("asg.cli.inspect", "roof"),
        ("asg.graph", "ground"),
        ("asg.ops.norm", "ground"),
        ("asg.passes", "passes"),
        ("asg.runtime.wgpu_device", "runtime"),
    ],
)
def test_layers(module: str, expected: str) -> None:
    assert layer(module) == expected


def budgeted_files(*endings: str) -> Iterator[Path]:
    """The files of these endings to which budgets apply."""
    for folder in BUDGETED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.name.endswith(endings):
                yield path


def shown(path: Path) -> str:
    """The path as a person at the root of the repository types it."""
    return path.relative_to(ROOT).as_posix()


def line_count(path: Path) -> int:
    """How many lines a file has."""
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_are_short() -> None:
    counts = {shown(path): line_count(path) for path in budgeted_files(".py", ".mjs", ".js", ".ts")}
    long = {name: count for name, count in counts.items() if count > FILE_LINES}
    assert not long, f"longer than {FILE_LINES} lines: {long}"


def test_functions_are_short() -> None:
    long = []
    for path in budgeted_files(".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{shown(path)}:{node.lineno}: {node.name} has {lines} lines")
    assert not long, f"longer than {FUNCTION_LINES} lines:\n" + "\n".join(long)


def test_templates_are_short() -> None:
    counts = {path.name: line_count(path) for path in budgeted_files(".j2", ".wgsl")}
    long = {name: count for name, count in counts.items() if count > TEMPLATE_LINES}
    unexplained = {name: count for name, count in long.items() if name not in LONG_TEMPLATES}
    assert not unexplained, f"longer than {TEMPLATE_LINES} lines: {unexplained}"
    assert LONG_TEMPLATES.keys() <= long.keys(), "LONG_TEMPLATES excuses what is short or gone"


def test_public_names(golden_file: Callable[[Path, str], None]) -> None:
    import asg

    assert len(set(asg.__all__)) == len(asg.__all__), "asg.__all__ names something twice"
    missing = [name for name in asg.__all__ if not hasattr(asg, name)]
    assert not missing, f"asg.__all__ names what asg lacks: {missing}"
    golden_file(Path("public_names.txt"), "\n".join(sorted(asg.__all__)))


def test_nothing_of_a_machine_is_in_the_files() -> None:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    found = []
    for name in filter(None, names):
        path = ROOT / name
        if not path.is_file():  # deleted, but not yet from the index
            continue
        for number, line in enumerate(text_of(path).splitlines(), start=1):
            if PRIVATE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found, "paths or hosts of a machine:\n" + "\n".join(found)


def text_of(path: Path) -> str:
    """The text of a file, or nothing where it holds none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
