"""Compiles and runs parts of a graph, to see whether they too are wrong.

Roof: uses the compiler and the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asg import compiler
from asg.artefact import Artefact
from asg.codegen.build import Generate
from asg.codegen.context import Target
from asg.comparison import Array, Difference, compare
from asg.errors import AsgError
from asg.graph import Graph
from asg.op import Op
from asg.runtime.executor import Executor
from asg.runtime.wgpu_device import Device
from asg.shrink import Probe
from asg.types import as_dtype
from asg.yardstick import measure

# What a part of a graph can raise when it is compiled and run: our own errors, and those of
# Python where the compiler is at fault.
FAULTS = (AsgError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
          ValueError)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of compiling and running a graph: arrays and differences, or an error."""

    got: Mapping[str, Array]
    differences: tuple[Difference, ...]
    wgsl: Mapping[str, str]
    error: str = ""
    kind: type[BaseException] | None = None

    @property
    def is_wrong(self) -> bool:
        return bool(self.error) or any(each.is_wrong for each in self.differences)


@dataclass(frozen=True)
class Bench:
    """Compiles small graphs after the passes, and compares them with the interpreter."""

    device: Device
    target: Target
    fusion: bool = True

    def run(self, graph: Graph, inputs: Mapping[str, Array]) -> Outcome:
        """Compile and run a graph whose inputs are all given."""
        try:
            plan = compiler.fuse(graph, enabled=self.fusion)
            artefact = Generate(self.target, reuse_memory=False)("part", {"main": plan})
            return self.run_artefact(artefact, graph, inputs)
        except FAULTS as error:
            return Outcome({}, (), {}, f"{type(error).__name__}: {error}", type(error))

    def run_artefact(
        self, artefact: Artefact, graph: Graph, inputs: Mapping[str, Array]
    ) -> Outcome:
        """Run an artefact with the inputs and outputs of a graph; compare it with that."""
        with Executor(artefact, self.device) as executor:
            got = executor.run("main", inputs)
            wgsl = {name: variant.wgsl for name, variant in executor.variants.items()}
        yardsticks = measure(graph, inputs, numerics=self.target.numerics)
        differences = tuple(
            compare(name, value.type, got[name], yardsticks[value])
            for name, value in graph.outputs.items()
        )
        return Outcome(got, differences, wgsl)

    def probe(self, graph: Graph, inputs: Mapping[str, Array]) -> list[str]:
        """Return the outputs that are wrong (`asg.shrink.Probe`)."""
        outcome = self.run(graph, inputs)
        if outcome.error:
            return []
        return [each.name for each in outcome.differences if each.is_wrong]

    def failure_probe(self, kind: type[BaseException]) -> Probe:
        """Return a probe that looks for errors of one kind."""

        def probe(graph: Graph, inputs: Mapping[str, Array]) -> list[str]:
            return list(graph.outputs) if self.run(graph, inputs).kind is kind else []

        return probe


def contradicts_examples(op: Op) -> bool:
    """Tell whether an op's NumPy rule fails its own examples, and so may itself be wrong."""
    for example in op.examples:
        dtypes = example.dtypes or ["f32"] * len(example.inputs)
        operands = [
            np.asarray(array, as_dtype(dtype).numpy)
            for array, dtype in zip(example.inputs, dtypes, strict=True)
        ]
        found = op.numpy(*operands, **(example.attrs or {}))
        if not np.allclose(found, example.output, rtol=1e-5, atol=1e-6, equal_nan=True):
            return True
    return False
