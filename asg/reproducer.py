"""A folder that shows a fault by itself: the graph, its arrays, the kernels, and a script.

    README.txt      what was found
    graph.asg       the smallest graph that shows it
    inputs.npz      arrays for its inputs;  constants.npz  those that it names by digest
    expected.npz    what the interpreter makes of it;  got.npz  what came out
    after.asg       what a wrong pass made of it
    kernels/        text of the kernels that computed it
    compiled.asg    the bundle in which it was found: one kernel, or the program
    compiled.npz    arrays for its inputs
    adapter.json    adapter, limits and versions
    finding.json    the finding as data
    reproduce.py    runs all this again; ends with 1 while the fault is there

Roof: uses the runtime to write bundles.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asg.bisection import Finding
from asg.comparison import Array
from asg.errors import AsgError
from asg.format import format_graph
from asg.graph import Graph
from asg.graph_file import large_constants
from asg.machine import describe_adapter, versions
from asg.ops import TABLE
from asg.parse import parse_graph
from asg.runtime.bundle import save_bundle

_SCRIPT = '''\
"""Reproduces: {blame}.

Ends with 1 while the fault is there, with 0 when it is gone.
"""

import sys
from pathlib import Path

from asg import compiler
from asg.passes.pipeline import pass_name
from asg.reproducer import read_arrays, read_graph
from asg.runtime.bundle import load_bundle
from asg.testing import differential

here = Path(__file__).resolve().parent
{strangers}graph = read_graph(here / "graph.asg")
inputs = read_arrays(here / "inputs.npz")
is_right = True

# As it was compiled when it was found: the stored kernels, on the adapter of this machine.
if (here / "compiled.asg").exists():
    arrays = read_arrays(here / "compiled.npz")
    report = differential(load_bundle(here / "compiled.asg"), arrays)
    print("as compiled then:", report, sep="\\n", end="\\n\\n")
    is_right = is_right and report.is_right

# As it is compiled now, by the ASG that runs this.
passes = [each for each in compiler.PIPELINE if pass_name(each) in {passes!r}]
report = differential(graph, inputs, passes=passes, schedule={schedule!r})
print("compiled now:", report, sep="\\n")
sys.exit(0 if is_right and report.is_right else 1)
'''


def write_reproducer(finding: Finding, folder: str | os.PathLike[str]) -> Path:
    """Write everything that is needed to see a fault again; return the folder.

    Raises:
        AsgError: something else is there already.
    """
    target = Path(folder)
    if target.exists() and any(target.iterdir()) and not (target / "finding.json").is_file():
        raise AsgError(f"{target}: is there already and is no finding; it is left as it is")
    target.mkdir(parents=True, exist_ok=True)
    write_graph(target / "graph.asg", finding.graph)
    write_arrays(target / "inputs.npz", finding.inputs)
    write_arrays(target / "expected.npz", finding.expected())
    write_arrays(target / "got.npz", finding.got)
    if finding.after is not None:
        write_graph(target / "after.asg", finding.after)
    for name, text in finding.wgsl.items():
        (target / "kernels").mkdir(exist_ok=True)
        (target / "kernels" / f"{name}.wgsl").write_text(text, encoding="utf-8")
    if finding.compiled is not None:
        artefact = finding.compiled.artefact
        save_bundle(artefact, artefact.values, target / "compiled.asg")
        write_arrays(target / "compiled.npz", finding.compiled.inputs)
    adapter = {"adapter": describe_adapter(finding.device), "versions": versions()}
    _write_json(target / "adapter.json", adapter)
    _write_json(target / "finding.json", finding.to_dict())
    (target / "README.txt").write_text(_readme(finding), encoding="utf-8")
    (target / "reproduce.py").write_text(_script(finding), encoding="utf-8")
    return target


def write_graph(path: Path, graph: Graph) -> None:
    """Write a graph as text, and beside it the constants that the text names by digest."""
    path.write_text(format_graph(graph), encoding="utf-8")
    constants = {key[1:]: array for key, array in large_constants(graph).items()}
    if constants:
        write_arrays(path.with_name("constants.npz"), constants)


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Read what `write_graph` wrote."""
    beside = Path(path).with_name("constants.npz")
    constants = read_arrays(beside) if beside.exists() else {}
    return parse_graph(Path(path).read_text(encoding="utf-8"), constants)


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as `.npz`; unlike `numpy.savez` it takes every name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read arrays by name."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _script(finding: Finding) -> str:
    blame = finding.blame.replace("\\", "\\\\").replace('"', "'")
    schedule = None if finding.target is None else finding.target.family
    known = {node.op.name for node in finding.graph.nodes if TABLE.get(node.op.name) is not node.op}
    strangers = ""
    if known:
        names = ", ".join(sorted(known))
        strangers = (
            f"# Import the module of these ops, and register them (asg.register_op): {names}\n"
        )
    return _SCRIPT.format(
        blame=blame, passes=list(finding.passes), schedule=schedule, strangers=strangers
    )


def _readme(finding: Finding) -> str:
    lines = [
        str(finding),
        "",
        f"device: {finding.device or 'none'}",
        "",
        "graph.asg:",
        "",
        format_graph(finding.graph),
        "",
        "Run it again with: python reproduce.py",
    ]
    return "\n".join(lines) + "\n"
