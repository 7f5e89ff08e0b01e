"""Recompute rather than keep: kernels are run a second time, so that less is live at a time.

A kernel that is run again writes the same bits to the same place. Between its last reader before
the gap and the second run that place is free for others, so the graph, the kernels and the names
of values stay as they are; only the order of kernels names some of them twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from asg.graph import Value
from asg.passes.cost import node_flops
from asg.passes.kernels import FusedKernel, FusionPlan
from asg.passes.order import Problem, least_of, problem_of

_TRIED = 12  # of the most promising candidates, before the rest
_DEPTH = 12  # kernels that one value may need to be run again
_DISPATCH = 20_000  # operations that could be done in the time that a dispatch takes by itself


@dataclass(frozen=True)
class Rematerialize:
    """Run kernels again until at most `limit` bytes are live at a time, or nothing helps.

    Needs a plan in its final order. Afterwards `kernels` holds some kernels more than once; what
    was to be had for the fewest operations per byte saved was taken first. The same plan and limit
    give the same result.
    """

    limit: int

    def __call__(self, plan: FusionPlan) -> FusionPlan:
        problem = problem_of(plan)
        found = _Run(problem, tuple(range(len(problem.before))), self.limit)
        while found.excess:
            better = _improve(found)
            if better is None:
                break
            found = better
        steps = [problem.steps.steps[node].kernel for node in found.sequence]
        return replace(plan, kernels=tuple(kernel for kernel in steps if kernel is not None))


def least_live(plan: FusionPlan) -> int:
    """Return the bytes that no order and no recomputing can go below."""
    return least_of(problem_of(plan))


def recomputed(kernels: Sequence[FusedKernel]) -> list[FusedKernel]:
    """Return the runs that are not the first of their kernel."""
    seen: set[tuple[Value, ...]] = set()
    again = []
    for kernel in kernels:
        if kernel.outputs in seen:
            again.append(kernel)
        seen.add(kernel.outputs)
    return again


class _Run:
    """A sequence of steps, some more than once: what is live when.

    Attributes:
        profile: live bytes during each step.
        lives: of each tensor, (position written, position last read) in order.
        excess: the bytes above the limit, summed over all steps.
        flops: operations of all steps.
    """

    def __init__(self, problem: Problem, sequence: tuple[int, ...], limit: int) -> None:
        self.problem, self.sequence, self.limit = problem, sequence, limit
        tensors = problem.tensors
        counts = [0] * len(problem.before)
        for node in sequence:
            counts[node] += 1
        ends = [len(sequence) if tensor.is_kept else -1 for tensor in tensors]
        live = sum(tensor.size for tensor in tensors if tensor.is_kept)
        self.lives: list[list[tuple[int, int]]] = [[] for _ in tensors]
        self.profile = [0] * len(sequence)
        for position in reversed(range(len(sequence))):
            node = sequence[position]
            dying = [number for number in problem.uses[node] if ends[number] < 0]
            unread = [number for number in problem.makes[node] if ends[number] < 0]
            during = live + sum(tensors[number].size for number in (*dying, *unread))
            if counts[node] == 1:
                during -= _taken_over(problem, node, dying, counts)
            self.profile[position] = during
            for number in problem.makes[node]:
                if ends[number] >= 0:
                    live -= tensors[number].size
                self.lives[number].append((position, max(ends[number], position)))
                ends[number] = -1
            for number in dying:
                ends[number] = position
                live += tensors[number].size
        for lives in self.lives:
            lives.reverse()
        self.excess = sum(max(0, during - limit) for during in self.profile)

    def is_live(self, number: int, position: int) -> bool:
        """Tell whether a tensor is kept from before `position` until that or later."""
        return any(start < position <= end for start, end in self.lives[number])


def _taken_over(problem: Problem, node: int, dying: Sequence[int], counts: Sequence[int]) -> int:
    """Return the bytes of results that are written over dying operands."""
    total = 0
    used: set[int] = set()
    for old, new in problem.in_place[node]:
        is_single = counts[problem.tensors[old].maker] == 1
        if old in dying and is_single and old not in used and new not in used:
            used |= {old, new}
            total += problem.tensors[new].size
    return total


def _improve(run: _Run) -> _Run | None:
    """Return the best of the promising changes; of the others, the first that helps."""
    candidates = _candidates(run)
    best: tuple[float, _Run] | None = None
    for tried, (_, position, nodes) in enumerate(candidates):
        if tried >= _TRIED and best is not None:
            break
        sequence = (*run.sequence[:position], *nodes, *run.sequence[position:])
        found = _Run(run.problem, sequence, run.limit)
        if found.excess >= run.excess or max(found.profile) > max(run.profile):
            continue
        value = (run.excess - found.excess) / sum(_cost(run.problem, node) for node in nodes)
        if best is None or value > best[0]:
            best = value, found
    return best[1] if best else None


def _candidates(run: _Run) -> list[tuple[float, int, list[int]]]:
    """Return (promise, position, nodes to run before it), the most promising first.

    Each frees a tensor that lies idle at the peak, until it is used again.
    """
    problem = run.problem
    peak = run.profile.index(max(run.profile))
    above = [0, *accumulate(during > run.limit for during in run.profile)]
    places: dict[int, list[int]] = {}
    for position, node in enumerate(run.sequence):
        for number in (*problem.uses[node], *problem.makes[node]):
            places.setdefault(number, []).append(position)
    found: list[tuple[float, int, list[int]]] = []
    for number, tensor in enumerate(problem.tensors):
        if not tensor.size or not run.is_live(number, peak) or not _may_repeat(run, number):
            continue
        touched = places[number]
        if peak in touched or touched[-1] < peak:
            continue
        after = bisect_right(touched, peak)
        begin, end = touched[after - 1] + 1, touched[after]
        nodes = _chain(run, number, peak, end)
        if nodes is None:
            continue
        cost = sum(_cost(problem, node) for node in nodes)
        found.append((tensor.size * (above[end] - above[begin]) / cost, end, nodes))
    return sorted(found, key=lambda each: (-each[0], each[1], each[2]))


def _chain(run: _Run, wanted: int, peak: int, position: int) -> list[int] | None:
    """Return the steps that make a tensor again before `position`, operands first.

    What is live at the peak anyway is kept for it; what is not is made again too.
    """
    problem = run.problem
    nodes: dict[int, None] = {}
    pending = [(problem.tensors[wanted].maker, False)]
    while pending:
        node, is_ready = pending.pop()
        if node in nodes:
            continue
        if is_ready:
            nodes[node] = None
            if len(nodes) > _DEPTH:
                return None
            continue
        pending.append((node, True))
        for number in problem.uses[node]:
            is_there = any(run.is_live(number, moment) for moment in (position, peak))
            if not is_there and _may_repeat(run, number):
                pending.append((problem.tensors[number].maker, False))
    return list(nodes)


def _may_repeat(run: _Run, number: int) -> bool:
    """Tell whether all that a tensor's maker writes is the run's own, and no result of it."""
    problem = run.problem
    node = problem.tensors[number].maker
    kernel = problem.steps.steps[node].kernel
    if kernel is None:
        return False
    areas, results = problem.steps.areas, problem.steps.plan.graph.results
    given = {areas[value].root for value in results}
    return all(areas[value].root == value and value not in given for value in kernel.outputs)


def _cost(problem: Problem, node: int) -> int:
    kernel = problem.steps.steps[node].kernel
    nodes = () if kernel is None else kernel.nodes
    return _DISPATCH + sum(map(node_flops, nodes))
