"""A limit on memory: kernels are run again, plans stay right, numbers stay the same."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asg
from asg import compiler, nn, optim
from asg.codegen.context import flops
from asg.errors import MemoryLimitError
from asg.graph import Graph
from asg.passes.assign import AssignStorage
from asg.passes.check_memory import find_faults
from asg.passes.fit_memory import FitMemory
from asg.passes.kernels import FusionPlan
from asg.passes.rematerialize import Rematerialize, recomputed
from asg.passes.storage import KernelStep
from asg.plan_view import PlanView
from support.play_storage import Machine
from support.random_graphs import RandomGraph, graphs
from support.targets import EXAMPLES

Array = np.ndarray[Any, Any]


def char_gpt() -> Any:
    """The module examples/char_gpt.py."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("char_gpt")
    finally:
        sys.path.remove(str(EXAMPLES))


def transformer() -> Graph:
    """A training step of a small transformer."""
    nn.manual_seed(0)
    example = char_gpt()
    model = example.CharGpt(20, width=16, layers=1, heads=2, context=16, dropout=0.1)
    window = asg.spec((4, 16), "i32")
    step: Graph = asg.training_step(
        model, example.loss_of, optim.AdamW(lr=0.01), x=window, y=window
    )
    return step


BATCH = {
    "x": np.random.default_rng(0).integers(0, 20, (4, 16)).astype(np.int32),
    "y": np.random.default_rng(1).integers(0, 20, (4, 16)).astype(np.int32),
}


def plans(graph: Graph) -> dict[str, FusionPlan]:
    return {"main": compiler.fuse(compiler.prepare(graph))}


def arena(found: Mapping[str, FusionPlan]) -> int:
    size: int = AssignStorage()(found).report["arena_bytes"]
    return size


def same(left: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_a_training_step_within_ever_less_memory_computes_the_same_bits() -> None:
    graph = transformer()
    first = plans(graph)
    whole = arena(first)
    reference = Machine(AssignStorage()(first))
    wanted = reference.run("main", BATCH)
    for share in (0.8, 0.6):
        fitted = FitMemory(int(whole * share))(first)
        found = AssignStorage()(fitted)
        assert found.report["arena_bytes"] <= whole * share
        assert not find_faults(found)
        machine = Machine(found)
        same(machine.run("main", BATCH), wanted)
        same(machine.state(), reference.state())
        assert recomputed(fitted["main"].kernels)


def test_flops_rise_as_memory_falls() -> None:
    """The step of examples/char_gpt.py in half the memory, for an eighth more operations."""
    graph = char_gpt().build(70, 400)[1]["train"]
    first = plans(graph)
    whole, once = arena(first), sum(map(flops, first["main"].kernels))
    ratios = []
    for share in (0.9, 0.5, 0.3):
        kernels = FitMemory(int(whole * share))(first)["main"].kernels
        ratios.append(sum(map(flops, kernels)) / once)
    assert ratios[0] < 1.01
    assert ratios[1] < 1.125
    assert ratios[2] < 1.2
    assert all(low <= high for low, high in itertools.pairwise(ratios))


def test_the_same_limit_gives_the_same_plan() -> None:
    graph = transformer()
    limit = int(arena(plans(graph)) * 0.6)
    first, second = (FitMemory(limit)(plans(graph))["main"] for _ in range(2))
    assert [k.name for k in first.kernels] == [k.name for k in second.kernels]
    assert recomputed(first.kernels)


def test_a_limit_that_cannot_be_kept_says_what_can() -> None:
    found = plans(transformer())
    with pytest.raises(MemoryLimitError) as refused:
        FitMemory(1000)(found)
    least = int(str(refused.value).split("run is ")[1].split(" ")[0].replace(",", ""))
    assert str(refused.value) == (
        "memory_limit is 1,000 bytes; the least that was reached for values computed in a "
        f"run is {least:,} bytes (parameters, state and inputs not counted)"
    )
    assert arena(FitMemory(least)(found)) <= least < 0.7 * arena(found)


def chain() -> Graph:
    """Cheap work whose result is needed again after a long detour."""

    def wide(x: asg.Tensor, w: asg.Tensor) -> dict[str, asg.Tensor]:
        hidden = asg.softmax(x, axis=-1)
        detour = hidden
        for _ in range(3):
            detour = asg.softmax(detour @ w, axis=-1)
        return {"y": asg.sum(hidden * detour)}

    graph: Graph = asg.trace(wide, asg.spec((64, 64)), asg.spec((64, 64)))
    return graph


def test_what_is_recomputed_is_shown_with_both_its_lives() -> None:
    found = plans(chain())
    least = arena(found) - 256
    storage = AssignStorage()(FitMemory(least)(found))
    view = PlanView.from_report(storage.report)
    labels = view.entries["main"].steps
    again = [label for label in labels if label.endswith(" again")]
    assert again
    names = [value.name for value in view.entries["main"].values]
    twice = next(name for name in names if names.count(name) == 2)
    first, second = (value for value in view.entries["main"].values if value.name == twice)
    assert (first.offset, first.size) == (second.offset, second.size)
    assert first.last < second.first
    assert labels[second.first] in again
    assert f"step {second.first}: {labels[second.first]}\n" in str(view)
    assert view.to_svg().count(f"<title>{twice}:") == 2


def test_a_plan_that_fits_stays_as_it_is() -> None:
    found = plans(chain())
    assert FitMemory(arena(found))(found) == found


@given(made=graphs(steps=25), share=st.floats(0.2, 0.9))
def test_any_graph_recomputed_plays_as_before(made: RandomGraph, share: float) -> None:
    first = plans(made.graph)
    before = AssignStorage()(first)
    limit = int(before.report["max_live_bytes"] * share)
    found = AssignStorage()({"main": Rematerialize(limit)(first["main"])})
    assert not find_faults(found)
    one, other = Machine(before), Machine(found)
    for _ in range(2):
        left, right = one.run("main", made.inputs), other.run("main", made.inputs)
        same(left, right)
        same(one.state(), other.state())


def test_the_checker_finds_a_second_run_that_comes_too_late() -> None:
    found = FitMemory(arena(plans(chain())) - 256)(plans(chain()))
    storage = AssignStorage()(found)
    entry = storage.entries["main"]
    kernels = [step.kernel for step in entry.steps if isinstance(step, KernelStep)]
    second = next(i for i, kernel in enumerate(kernels) if kernel in kernels[:i])
    steps = list(entry.steps)
    del steps[second]
    broken = replace(storage, entries={"main": replace(entry, steps=tuple(steps))})
    assert {fault.kind for fault in find_faults(broken)} == {"clobbered"}


@pytest.mark.device
def test_on_a_device_the_bits_are_the_same() -> None:
    graph = transformer()
    limit = int(arena(plans(graph)) * 0.6)
    with asg.compile(graph) as free, asg.compile(graph, memory_limit=limit) as bound:
        assert bound.report()["arena_bytes"] <= limit < free.report()["arena_bytes"]
        assert bound.report()["recomputed_flops"] > 0 == free.report()["recomputed_flops"]
        for _ in range(3):
            same(dict(free(BATCH)), dict(bound(BATCH)))
        same(free.state_dict(), bound.state_dict())
