"""Which schedule a contract kernel gets: a measured winner, else the first of the estimate."""

from __future__ import annotations

import math

from asg.codegen.context import KernelContext
from asg.codegen.contract_moments import moments_of
from asg.codegen.contract_operands import Side, with_dense_quads
from asg.graph import Node
from asg.index import unflatten, variable
from asg.op import Elementwise
from asg.passes.choices import Bucket, Layout, bucket_of, find
from asg.passes.cost import node_flops
from asg.passes.moment_schedules import moment_schedule
from asg.passes.schedule_contract import ContractProblem, ContractSchedule, candidates, choose

_SOME_FLOPS = 16  # per element of the result; below, the fused part needs few registers


def problem_of(context: KernelContext) -> ContractProblem:
    """Return the sizes of a kernel's product."""
    anchor = context.kernel.anchors[0]
    *batch, rows, columns = anchor.type.shape
    inner = anchor.inputs[0].type.shape[-1]
    return ContractProblem(math.prod(batch), rows, columns, inner)


def chosen(context: KernelContext, problem: ContractProblem) -> tuple[ContractSchedule, ...]:
    """Return the schedules of a kernel's variants, best first; the last is portable."""
    target = context.target
    if forced := _for_moments(context):
        return forced
    winner = None
    if target.choices:
        winner = find(target.choices, bucket(context), candidates_of(context))
    return choose(problem, target.family, target.subgroup_size, winner)


def candidates_of(context: KernelContext) -> tuple[ContractSchedule, ...]:
    """Return the schedules worth trying; the first is what is used where nobody tries."""
    target = context.target
    if forced := _for_moments(context):
        return forced
    return candidates(problem_of(context), target.family, target.subgroup_size)


def _for_moments(context: KernelContext) -> tuple[ContractSchedule, ...]:
    """Return the schedule of a product that sums up its tiles, whose width the graph knows."""
    found = moments_of(context)
    return (moment_schedule(context.target.family, found.block),) if found else ()


def bucket(context: KernelContext) -> Bucket:
    """Return the bucket that a contract kernel belongs to."""
    problem = problem_of(context)
    left, right = context.kernel.anchors[0].inputs
    shape = context.kernel.anchors[0].type.shape
    batch = unflatten(variable("batch", problem.batch), shape[:-2])
    sides = (
        Side(left, False, problem.rows, problem.inner),
        Side(right, True, problem.columns, problem.inner),
    )
    rows, columns = (
        with_dense_quads(context, side, batch, may_follow_outer=True).along_inner for side in sides
    )
    layouts: dict[tuple[bool, bool], Layout] = {
        (True, False): "nn", (True, True): "nt", (False, False): "tn", (False, True): "tt",
    }  # fmt: skip
    return bucket_of(problem, layouts[rows, columns], _fused(context))


def _fused(context: KernelContext) -> int:
    """Return how much is computed beside the product, for each of its elements."""
    anchor = context.kernel.anchors[0]
    beside = [node for node in context.kernel.nodes if node is not anchor and _is_work(node)]
    per_element = sum(map(node_flops, beside)) / max(anchor.type.size, 1)
    extra = len(context.kernel.reads) - 2
    if per_element == 0 and extra <= 0:
        return 0
    return 1 if per_element <= _SOME_FLOPS and extra <= 2 else 2


def _is_work(node: Node) -> bool:
    return isinstance(node.op.kind, Elementwise)
