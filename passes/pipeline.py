"""The pipeline: which passes run between a user's graph and fusion, and who watches them.

A pass is a frozen dataclass that is called with a graph and returns one. A pipeline is a tuple
of passes: print it, cut it, put your own between. Whoever wants to see what happens is an
observer, told after every pass.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asg.errors import AsgError, GraphError, InternalError
from asg.format import format_graph
from asg.graph import Graph
from asg.graph_file import large_constants
from asg.passes.choose_layouts import ChooseLayouts
from asg.passes.convolve import Convolve
from asg.passes.drop_stop_gradients import DropStopGradients
from asg.passes.expand import ExpandComposites
from asg.passes.expand_calls import ExpandCalls
from asg.passes.fold_norms import FoldNorms
from asg.passes.join_gelus import JoinGelus
from asg.passes.prepare_constants import PrepareConstants
from asg.passes.recognise import Recognise
from asg.passes.simplify import Simplify
from asg.passes.split_phases import SplitPhases
from asg.passes.transpose_products import TransposeProducts
from asg.passes.turn_maps import TurnMaps
from asg.passes.unroll_windows import UnrollWindows
from asg.passes.widen_narrow import WidenNarrow
from asg.verify import verify

Pass = Callable[[Graph], Graph]
Observer = Callable[["Step"], None]

# The order:
# 1. Functions of the user's go first; they may hold anything that another pass looks for.
# 2. Marks for differentiation go; it has happened by now, and they would hide what lies under
#    them from every rule. Then narrow element types are computed in wide ones; no later pass meets
#    arithmetic on them.
# 3. What exporters spelt out is put back together, while nothing of it has been changed.
# 4. Convolutions are spelt out in the form that suits their sizes, while they are whole; they take
#    in known norms before, and those that would mostly meet zeros become several. How images lie in
#    memory is chosen while it can be seen who reads them.
# 5. Composites are spelt out before simplification, because the rules look through views and
#    constants that an expansion brings along.
# 6. Short reductions over windows, which expansions bring along, become chains. Then everything is
#    there that has to follow the layouts chosen.
# 7. What follows from constants alone is computed. Simplification composes views and shares what
#    became equal; only then is it seen who reads a product transposed.
# 8. What simplification leaves is in the form that fusion expects (views composed, constants
#    folded, no node that does nothing). In that form gelu is found, which is one function then.
# There is no pass for dead code or common subexpressions: building a graph keeps what is needed
# and makes equal nodes one.
DEFAULT: tuple[Pass, ...] = (
    ExpandCalls(),
    DropStopGradients(),
    WidenNarrow(),
    Recognise(),
    FoldNorms(),
    ChooseLayouts(),
    SplitPhases(),
    Convolve(),
    ExpandComposites(),
    UnrollWindows(),
    TurnMaps(),
    PrepareConstants(),
    Simplify(),
    TransposeProducts(),
    Simplify(),
    JoinGelus(),
)


@dataclass(frozen=True)
class Step:
    """One pass has run; `index` counts from 1, and 0 is the graph as it came (`trace`)."""

    index: int
    name: str
    before: Graph | None
    after: Graph
    seconds: float


def run_pipeline(
    graph: Graph, passes: Iterable[Pass] = DEFAULT, observers: Iterable[Observer] = ()
) -> Graph:
    """Run `passes` in order and tell `observers` after each.

    Raises:
        InternalError: a pass failed in a way that is no error of the user's.
    """
    watching = tuple(observers)
    _tell(watching, Step(0, "trace", None, graph, 0.0))
    for index, step in enumerate(passes, start=1):
        name = pass_name(step)
        start = time.perf_counter()
        try:
            after = step(graph)
        except AsgError:
            raise
        except Exception as error:
            raise InternalError(f"{name} failed on graph {graph.name}: {error!r}") from error
        _tell(watching, Step(index, name, graph, after, time.perf_counter() - start))
        graph = after
    return graph


def pass_name(step: Pass) -> str:
    """Return the name of a pass in dumps and messages: `Simplify()` is `simplify`."""
    name = getattr(step, "__name__", type(step).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _tell(observers: Iterable[Observer], step: Step) -> None:
    for observer in observers:
        observer(step)


@dataclass(frozen=True)
class DumpTo:
    """Write the graph after every pass: `00-trace.asg`, `01-expand-calls.asg` ….

    A file is the text form, which `parse_graph` reads; constants that it names by digest lie in
    `constants/`. A pass that changed nothing leaves one line.
    """

    folder: Path

    def __call__(self, step: Step) -> None:
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = format_graph(step.after)
        if step.before is not None and format_graph(step.before) == text:
            text = "(unchanged)\n"
        (folder / f"{step.index:02}-{step.name}.asg").write_text(text, encoding="utf-8")
        for key, array in large_constants(step.after).items():
            path = folder / "constants" / f"{key[1:]}.npy"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                np.save(path, array)


@dataclass(frozen=True)
class VerifyEach:
    """Check the graph after every pass; a pass that broke it is named."""

    def __call__(self, step: Step) -> None:
        try:
            verify(step.after)
        except GraphError as error:
            if step.before is None:
                raise
            raise InternalError(f"{step.name} made a wrong graph: {error}") from error


@dataclass(frozen=True)
class TimeEach:
    """Remember how long every pass took, and how many nodes it left."""

    steps: list[tuple[str, float, int]] = field(default_factory=list)

    def __call__(self, step: Step) -> None:
        self.steps.append((step.name, step.seconds, len(step.after.nodes)))

    def __str__(self) -> str:
        width = max((len(name) for name, _, _ in self.steps), default=0)
        return "\n".join(
            f"{name:<{width}}  {seconds * 1e3:9.2f} ms  {nodes:6} nodes"
            for name, seconds, nodes in self.steps
        )
