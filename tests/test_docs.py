"""The documents tell the truth: what they show is what happens."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import asg
from asg.graph import Graph
from asg.op import Op
from asg.passes.autodiff import value_and_grad
from asg.runtime.bundle import OLDEST_VERSION
from asg.runtime.interpreter import run
from support.doc_blocks import blocks_of, played, run_script, scripts_of
from support.golden import difference
from support.imports import ROOT
from support.samples import draw, sample_graph

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)
PLAYED = [name for name in DOCUMENTS if scripts_of((ROOT / name).read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The module tools/docs.py."""
    spec = spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(generator: ModuleType) -> None:
    assert not list(generator.stale_pages()), "run `make docs`"


def test_every_op_and_command_has_its_place(generator: ModuleType) -> None:
    page = generator.ops_page()
    assert all(f"\n| `{name}` | " in page for name in asg.ops.TABLE)
    assert "## asg verify" in generator.command_page()


def test_accepted_types_are_those_of_the_rule(generator: ModuleType) -> None:
    shown = {name: generator.operand_types(asg.ops.TABLE[name]) for name in asg.ops.TABLE}
    assert shown["iota"] == "none"
    assert shown["tanh"] == "float"
    assert shown["less"] == "float integer → bool"
    assert shown["select"] == "bool; any"
    assert shown["cast"] == "any → `dtype`"


@pytest.mark.device
@pytest.mark.parametrize("name", PLAYED)
def test_shown_outputs_are_real(
    name: str, tmp_path: Path, update_golden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytest tests/test_docs.py --update-golden` writes them anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASG_DEVICE", "cpu")  # the pages show what a software adapter runs
    page = (ROOT / name).read_text(encoding="utf-8")
    problem = difference(ROOT / name, played(page, tmp_path), update_golden)
    assert problem is None, problem


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (ROOT / name).parent.joinpath(target).exists()]
    assert not missing


# What a reader, or a command, makes first.
NOT_THERE = {"passes/use_expm1.py", "benchmarks/results/"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name: str) -> None:
    """A path in backticks that begins with a folder of the repository is a file or a folder."""
    text = (ROOT / name).read_text(encoding="utf-8")
    folders = "asg|passes|codegen|shaders|runtime|tests|tools|docs|examples|benchmarks"
    paths = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    assert not [path for path in paths if path not in NOT_THERE and not (ROOT / path).exists()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_graphs_on_the_page_are_graphs(name: str) -> None:
    for block in blocks_of((ROOT / name).read_text(encoding="utf-8")):
        if block.kind == "asg":
            graph = asg.parse_graph(block.text)
            asg.verify(graph)
            assert asg.parse_graph(str(graph)).outputs.keys() == graph.outputs.keys()


def op_of_the_guide(folder: Path) -> Op:
    """The op that CONTRIBUTING.md adds as an example."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    op = run_script(folder / "cube.py", scripts_of(page)["cube.py"])[1]["cube"]
    assert isinstance(op, Op)
    return op


def test_the_op_of_the_guide_is_right(tmp_path: Path) -> None:
    op = op_of_the_guide(tmp_path)
    for example in op.examples:
        found = op.numpy(*(np.array(each) for each in example.inputs))
        np.testing.assert_allclose(found, example.output, rtol=1e-6)
    for sample in op.samples:
        graph = sample_graph(op, sample)
        arrays = {f"a{i}": array for i, array in enumerate(draw(op, sample))}
        assert asg.testing.gradients(graph, arrays).is_right


@pytest.mark.device
def test_the_op_of_the_guide_compiles(tmp_path: Path) -> None:
    op = op_of_the_guide(tmp_path)
    x = asg.input("x", (4, 3))
    graph = value_and_grad(Graph.build({"loss": asg.sum(op(x)).value}), wrt=["x"])
    array = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)
    with asg.compile(graph) as exe:
        np.testing.assert_allclose(exe({"x": array})["x.grad"], 3 * array**2, rtol=1e-6)
    assert np.isfinite(run(graph, {"x": array})["loss"])


def test_bundle_page_names_the_versions() -> None:
    page = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    assert f"version {asg.artefact.FORMAT_VERSION}" in page
    assert f"oldest that is read: {OLDEST_VERSION}" in page


def test_the_change_log_has_this_version() -> None:
    assert f"\n## {asg.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
