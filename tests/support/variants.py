"""Runs a graph once for each choice of kernel variants that some device would make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from asg.artefact import Artefact, Kernel
from asg.codegen.context import Target
from asg.compiler import lower
from asg.graph import Graph
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.executor import Executor
from support.wgsl_check import is_native

Arrays = dict[str, np.ndarray[Any, Any]]
# What devices may lack, from those that have everything to those that have nothing.
LACKING: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"shader-int64"}),
    frozenset({"subgroups"}),
    frozenset({"shader-int64", "subgroups"}),
)
CPU = Target("cpu", 8)
GPU = Target("gpu")


def artefacts(graph: Graph, target: Target) -> Iterator[tuple[str, Artefact]]:
    """Yield each distinct choice of variants with the features that it uses."""
    artefact = lower({"main": graph}, target=target)
    seen = set()
    for lacking in LACKING:
        kernels = {name: _only(kernel, lacking) for name, kernel in artefact.kernels.items()}
        texts = tuple(kernel.variants[0].wgsl for kernel in kernels.values())
        if texts in seen:
            continue
        seen.add(texts)
        used = sorted({each for k in kernels.values() for each in k.variants[0].features})
        yield ", ".join(used) or "no features", replace(artefact, kernels=kernels)


def _only(kernel: Kernel, lacking: frozenset[str]) -> Kernel:
    for variant in kernel.variants:
        assert is_native(variant.wgsl) == ("shader-int64" in variant.features), variant.wgsl
    assert not kernel.variants[-1].features, f"{kernel.name} has no portable variant"
    chosen = next(each for each in kernel.variants if not lacking & set(each.features))
    return replace(kernel, variants=(chosen,))


def run_each(
    graph: Graph, inputs: Mapping[str, Any], targets: tuple[Target, ...] = (CPU, GPU)
) -> Iterator[tuple[str, Arrays]]:
    """Yield what the graph yields by each choice, and what the choice is."""
    for target in targets:
        for label, artefact in artefacts(graph, target):
            with Executable(Executor(artefact, shared_device())) as executable:
                found = {name: np.asarray(array) for name, array in executable(inputs).items()}
            yield f"{target.family}: {label}", found
