"""What fusion yields: kernels over graph values, before any text is written.

A kernel computes `outputs` from `reads`; everything between is evaluated inside it. Views never
appear: whoever reads a view reads the stored value under it through an index map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from asg.graph import Graph, Node, Value
from asg.op import Form

KernelKind = Literal["map", "reduce", "row", "contract", "attention", "gather", "scatter"] | Form


@dataclass(frozen=True)
class FusedKernel:
    """One dispatch to be.

    Attributes:
        anchors: the reductions, the contraction, the attention or the scatter that give the
            kernel its loops.
        outputs: values stored (contiguous, in their own shape).
        reads: values stored elsewhere that are loaded: inputs, constants or other outputs.
        nodes: all nodes evaluated here; a cheap node may be evaluated in several kernels.
        in_place: pairs (read, output) of equal size where each element of `read` is loaded only
            by the invocation that stores the element of `output` at the same flat position,
            before it stores it. The planner may give both the same memory.
        per_row: nodes of row and reduce kernels with one value per row (reductions among them).
    """

    name: str
    kind: KernelKind
    anchors: tuple[Node, ...]
    outputs: tuple[Value, ...]
    reads: tuple[Value, ...]
    nodes: tuple[Node, ...]
    in_place: tuple[tuple[Value, Value], ...] = ()
    per_row: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where a value lies inside a bigger stored value: `offset` in elements, contiguous."""

    parent: Value
    offset: int


@dataclass(frozen=True)
class FusionPlan:
    """The graph cut into kernels, in an order that respects data dependences.

    Attributes:
        stored: every value that needs memory of its own: inputs, constants, kernel outputs and
            flat joins (`pack`).
        aliases: values that are a contiguous range of a stored value (a reshape, a slice along
            the first axis, …), needed because a result of the graph or a kernel names them.
        placed: members of a flat join, each to be written straight into the join's memory. The
            join itself needs no kernel. Members are kernel outputs, or all of them parameters or
            states, whose layout in their buffer then is that of the join.
        copies: (source, join, offset in elements): members that can't be placed (they are
            inputs among computed members, or belong to two joins) and are copied before the
            join is read.
    """

    graph: Graph
    kernels: tuple[FusedKernel, ...]
    stored: tuple[Value, ...]
    aliases: Mapping[Value, Placement]
    placed: Mapping[Value, Placement]
    copies: tuple[tuple[Value, Value, int], ...] = ()
