"""The order of kernels: dependences hold, state waits for its readers, the peak sinks."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import asg
from asg.artefact import Copy
from asg.compiler import prepare
from asg.graph import Graph
from asg.passes.assign import AssignStorage
from asg.passes.check_memory import find_faults
from asg.passes.fuse import Fuse
from asg.passes.kernels import FusionPlan
from asg.passes.order import OrderKernels
from asg.passes.storage import KernelStep
from support.random_graphs import RandomGraph, graphs


def fused(graph: Graph) -> FusionPlan:
    return Fuse()(prepare(graph))


def arena(plan: FusionPlan) -> int:
    """The least arena that the plan's order allows."""
    found = AssignStorage()({"a": plan})
    assert find_faults(found) == []
    return int(found.report["max_live_bytes"])


def copies(plan: FusionPlan) -> list[str]:
    found = AssignStorage()({"a": plan})
    assert find_faults(found) == []
    steps = found.entries["a"].steps
    return [step.writes[0] for step in steps if isinstance(step, Copy)]


def names(plan: FusionPlan) -> list[str]:
    return [plan.graph.names[kernel.outputs[0]] for kernel in plan.kernels]


def shuffled(plan: FusionPlan, seed: int) -> FusionPlan:
    """The kernels in another order that respects data dependences."""
    draw = random.Random(seed)
    waiting, order = list(plan.kernels), []
    written = {output for kernel in waiting for output in kernel.outputs}
    done: set[object] = set()
    members: dict[object, set[object]] = {}
    for member, place in plan.placed.items():
        members.setdefault(place.parent, set()).add(member)
    for source, join, _ in plan.copies:
        members.setdefault(join, set()).add(source)

    def needs(value: object) -> set[object]:
        found, pending = set(), [value]
        while pending:
            each = pending.pop()
            found.add(each)
            pending += members.get(each, ())
            if each in plan.aliases:
                pending.append(plan.aliases[each].parent)  # type: ignore[index]
        return found & written

    while waiting:
        ready = [k for k in waiting if all(needs(read) <= done for read in k.reads)]
        kernel = draw.choice(ready)
        waiting.remove(kernel)
        order.append(kernel)
        done |= set(kernel.outputs)
    return replace(plan, kernels=tuple(order))


def branches(count: int) -> Graph:
    """Large values that are reduced to small ones: all large ones first is the worst order."""
    x = asg.input("x", (32, 32))
    large = [x @ (x + float(i)) for i in range(count)]
    small = [each[:1] @ each for each in large]
    total = small[0]
    for each in small[1:]:
        total = total + each
    return asg.graph(outputs={"y": total})


def test_large_values_are_reduced_before_others_are_made() -> None:
    given = fused(branches(6))
    kernels = sorted(given.kernels, key=lambda kernel: -kernel.outputs[0].type.size)
    wide = replace(given, kernels=tuple(kernels))
    ordered = OrderKernels()(wide)
    assert arena(wide) > 6 * 32 * 32 * 4
    assert arena(ordered) < 2 * 32 * 32 * 4 + 6 * 512


def test_a_good_order_stays() -> None:
    x = asg.input("x", (32, 32))
    y = x
    for _ in range(5):
        y = asg.tanh(y @ x)
    plan = fused(asg.graph(outputs={"y": y}))
    assert OrderKernels()(plan).kernels == plan.kernels


@given(made=graphs(steps=30), seed=st.integers(0, 2**32))
def test_any_order_becomes_a_right_one_with_no_higher_peak(made: RandomGraph, seed: int) -> None:
    plan = shuffled(fused(made.graph), seed)
    ordered = OrderKernels()(plan)
    assert sorted(names(ordered)) == sorted(names(plan))
    assert find_faults(AssignStorage()({"a": ordered})) == []
    if not plan.graph.updates:  # what a state becomes may have to wait
        assert arena(ordered) <= arena(plan)


def test_a_state_is_written_after_its_readers() -> None:
    x, kept = asg.input("x", (16, 16)), asg.input("kept", (16, 16), role="state")
    moved = asg.tanh(kept)
    plan = fused(asg.graph(outputs={"y": x @ kept}, updates={"kept": moved}))
    first = replace(plan, kernels=plan.kernels[::-1])
    for each in (plan, first):
        for search in (True, False):
            ordered = OrderKernels(search=search)(each)
            assert names(ordered) == ["y", "tanh_1"]
            assert copies(ordered) == []


def test_readers_that_need_the_new_value_make_it_a_copy() -> None:
    """`y` reads both the old state and the new: the new one can't wait for it."""
    kept = asg.input("kept", (16, 16), role="state")
    moved = asg.tanh(kept)
    graph = asg.graph(outputs={"y": moved @ kept}, updates={"kept": moved})
    ordered = OrderKernels()(fused(graph))
    assert names(ordered) == ["tanh_1", "y"]
    assert copies(ordered) == ["kept'"]


def test_states_that_wait_for_each_other() -> None:
    """Each new value reads the other's old one: one is updated in place, one copied."""
    a = asg.input("a", (16, 16), role="state")
    b = asg.input("b", (16, 16), role="state")
    graph = asg.graph(outputs={}, updates={"a": asg.tanh(a) @ b, "b": asg.tanh(b) @ a})
    ordered = OrderKernels()(fused(graph))
    assert len(copies(ordered)) >= 1


def test_a_training_step_needs_no_copies() -> None:
    weights = [asg.input(f"w{i}", (16, 16), role="parameter") for i in range(3)]
    y = asg.input("x", (4, 16))
    for weight in weights:
        y = asg.tanh(y @ weight)
    graph = asg.graph(outputs={"loss": (y * y).sum()})
    graph = graph.with_values({f"w{i}": np.zeros((16, 16), np.float32) for i in range(3)})
    step = asg.training_step(graph, "loss", asg.optim.AdamW(lr=1e-3))
    ordered = OrderKernels()(fused(step))
    assert copies(ordered) == []
    found = AssignStorage()({"a": ordered})
    last = found.entries["a"].steps[-1]
    assert isinstance(last, KernelStep)
    assert len(last.kernel.outputs) >= 3


def test_many_kernels_are_ordered_in_good_time() -> None:
    x = asg.input("x", (8, 8))
    layers = [x]
    for position in range(600):
        layers.append(asg.tanh(layers[-1] @ layers[max(0, position - 7)]))
    plan = fused(asg.graph(outputs={"y": layers[-1]}))
    assert len(OrderKernels()(plan).kernels) == len(plan.kernels)
