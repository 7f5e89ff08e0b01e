"""Where values lie: every plan is checked byte by byte, and played on plain bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asg
from asg.artefact import Copy
from asg.compiler import prepare
from asg.errors import GraphError, InternalError
from asg.graph import Graph
from asg.ops.join import pack
from asg.passes.assign import AssignStorage
from asg.passes.check_memory import check, find_faults
from asg.passes.fuse import Fuse
from asg.passes.order import OrderKernels
from asg.passes.plan_memory import PlanMemory
from asg.passes.storage import KernelStep, Location, StoragePlan
from asg.plan_view import PlanView
from asg.runtime.interpreter import run_with_updates
from asg.tensor import Tensor
from support.play_storage import Array, Machine
from support.random_graphs import RandomGraph, graphs

PLAIN = AssignStorage()
APART = AssignStorage(PlanMemory(reuse=False))


def plan(assign: AssignStorage = PLAIN, **entries: Graph) -> StoragePlan:
    """Plan the storage of some graphs; the plan must be without fault."""
    found = assign({name: Fuse()(prepare(graph)) for name, graph in entries.items()})
    assert find_faults(found) == []
    return found


def sources(found: StoragePlan, entry: str) -> list[tuple[str, str]]:
    """What the copies of an entry read and write."""
    steps = found.entries[entry].steps
    return [(step.reads[0], step.writes[0]) for step in steps if isinstance(step, Copy)]


def state(name: str, *shape: int) -> Tensor:
    return asg.input(name, shape, role="state")


def parameter(name: str, *shape: int) -> Tensor:
    return asg.input(name, shape, role="parameter")


def packed(*tensors: Tensor) -> Tensor:
    """Join tensors at multiples of 64 elements, with a gap behind each."""
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.size // 64) * 64
    result: Tensor = pack(*tensors, offsets=tuple(offsets), total=end)
    return result


def unpacked(flat: Tensor, like: Sequence[Tensor]) -> dict[str, Tensor]:
    parts, start = {}, 0
    for tensor in like:
        part = flat[start : start + tensor.size]
        parts[tensor.attrs["name"]] = part.reshape(tensor.shape)
        start += -(-tensor.size // 64) * 64
    return parts


def assert_plays(found: StoragePlan, entry: str, graph: Graph, inputs: dict[str, Array]) -> None:
    """Run an entry twice from the start; outputs and states are those of the interpreter."""
    machine, values = Machine(found), dict(graph.values)
    for _ in range(2):
        outputs = machine.run(entry, inputs)
        wanted, updates = run_with_updates(prepare(graph), inputs, values=values)
        values |= updates
        for name, array in wanted.items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-4)
        held = machine.state()
        for name, array in values.items():
            np.testing.assert_allclose(held[name], array, rtol=1e-4, atol=1e-4)


# Any graph.


@pytest.mark.parametrize("assign", [PLAIN, APART], ids=["reuse", "apart"])
@given(made=graphs(steps=25))
def test_any_graph_finds_its_values_where_they_should_be(
    assign: AssignStorage, made: RandomGraph
) -> None:
    found = plan(assign, a=made.graph)
    assert_plays(found, "a", made.graph, made.inputs)


def test_an_empty_part_of_an_empty_value_lies_inside_it() -> None:
    def last_rows(x: Tensor) -> dict[str, Tensor]:
        wide = x.broadcast_to((1, 0, 4, 8, 3))
        return {"wide": wide, "part": wide[:, :, 3:, :1, :1]}

    found = plan(a=asg.trace(last_rows, asg.spec((0, 4, 8, 3))))
    assert {place.offset for place in found.entries["a"].locations.values()} == {0}


def test_zeros_may_be_copied_over_zeros() -> None:
    def nested(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        inner = pack(x, y, offsets=(2, 7), total=11)
        return {"inner": inner, "outer": pack(inner, y, offsets=(2, 13), total=15)}

    graph = asg.trace(nested, asg.spec((5,)), asg.spec((1,)))
    found = plan(a=graph)
    x, y = np.ones(5, np.float32), np.full(1, 2, np.float32)
    assert_plays(found, "a", graph, {"x": x, "y": y})


@given(made=graphs(steps=25), draw=st.randoms(use_true_random=False))
def test_entries_share_state_and_do_not_disturb_each_other(
    made: RandomGraph, draw: Callable[..., object]
) -> None:
    graph = prepare(made.graph)
    kept = dict(list(graph.outputs.items())[:1])
    reader = Graph.build(kept, name="reader", values=graph.values, inputs=graph.inputs)
    found = plan(both=graph, reader=reader)
    machine, values = Machine(found), dict(graph.values)
    for entry in ("reader", "both", "reader", "both", "reader"):
        outputs = machine.run(entry, made.inputs)
        wanted, updates = run_with_updates(graph, made.inputs, values=values)
        values |= updates if entry == "both" else {}
        for name, array in outputs.items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-4)


@given(made=graphs(steps=25))
def test_the_same_graph_gives_the_same_plan(made: RandomGraph) -> None:
    first, second = plan(a=made.graph), plan(a=made.graph)
    assert first.buffers == second.buffers
    assert first.entries["a"].locations == second.entries["a"].locations
    assert first.report == second.report


# State.


def test_a_state_that_is_read_in_place_is_updated_in_place() -> None:
    count = state("count", 8)
    found = plan(step=asg.graph(outputs={"y": count * 2}, updates={"count": count + 1}))
    assert sources(found, "step") == []
    assert found.entries["step"].updates["count"] != "count'"


def test_a_state_that_others_read_later_is_updated_after_them() -> None:
    x, kept = asg.input("x", (16, 16)), state("kept", 16, 16)
    graph = asg.graph(outputs={"y": x @ kept}, updates={"kept": kept * 0.5})
    found = plan(AssignStorage(), step=graph)
    assert_plays(found, "step", graph, {"x": np.eye(16, dtype=np.float32)})
    ordered = AssignStorage()({"step": OrderKernels()(Fuse()(prepare(graph)))})
    check(ordered)
    assert sources(ordered, "step") == []


def test_a_state_read_by_broadcast_is_copied_at_the_end() -> None:
    kept = state("kept", 8)
    graph = asg.graph(outputs={}, updates={"kept": (kept.reshape(8, 1) * kept).sum(axis=0)})
    found = plan(step=graph)
    assert [target for _, target in sources(found, "step")] == ["kept'"]


def test_states_that_swap_go_through_scratch() -> None:
    a, b = state("a", 5), state("b", 5)
    graph = asg.graph(outputs={}, updates={"a": b, "b": a})
    graph = graph.with_values({"a": np.ones(5, np.float32), "b": np.zeros(5, np.float32)})
    found = plan(step=graph)
    assert "scratch" in [buffer.name for buffer in found.buffers]
    assert_plays(found, "step", graph, {})


def test_three_states_that_shift_keep_their_old_values() -> None:
    a, b, c = state("a", 5), state("b", 5), state("c", 5)
    graph = asg.graph(outputs={"sum": a + b + c}, updates={"a": a * 2 + 1, "b": a, "c": b})
    zero = np.zeros(5, np.float32)
    graph = graph.with_values({"a": zero + 1, "b": zero + 2, "c": zero + 3})
    assert_plays(plan(step=graph), "step", graph, {})


def test_an_output_that_is_a_states_old_value_is_saved() -> None:
    kept = state("kept", 4)
    graph = asg.graph(outputs={"old": kept}, updates={"kept": kept + 1})
    graph = graph.with_values({"kept": np.arange(4, dtype=np.float32)})
    found = plan(step=graph)
    assert found.entries["step"].results["old"] == "kept.before"
    assert_plays(found, "step", graph, {})


def test_a_state_that_stays_as_it_is_needs_nothing() -> None:
    kept = state("kept", 2, 3)
    found = plan(step=asg.graph(outputs={"y": kept + 1}, updates={"kept": kept}))
    assert found.entries["step"].updates == {}


def test_one_value_for_two_states() -> None:
    x, a, b = asg.input("x", (3,)), state("a", 3), state("b", 3)
    y = x * 3
    graph = asg.graph(outputs={"y": y, "z": a + b}, updates={"a": y, "b": y})
    zero = np.zeros(3, np.float32)
    graph = graph.with_values({"a": zero, "b": zero})
    assert_plays(plan(step=graph), "step", graph, {"x": np.arange(3, dtype=np.float32)})


# Flat joins.


def training(scale: float = 0.0) -> Graph:
    """Weights and a moment moved by one kernel over a join; `scale` is added everywhere."""
    weights = [parameter("w", 3, 5), parameter("b", 7), parameter("v", 64)]
    moments = [state(f"m.{weight.attrs['name']}", *weight.shape) for weight in weights]
    x = asg.input("x", (4, 3))
    y = x @ weights[0]
    gradients = [x.T @ y, weights[1] * y.sum(), asg.tanh(weights[2])]
    moment = packed(*moments) * 0.9 + packed(*gradients) * 0.1
    flat = packed(*weights) - moment / (asg.sqrt(moment * moment) + 1e-3) + scale
    updates = unpacked(flat, weights) | unpacked(moment, moments)
    graph = asg.graph(outputs={"y": y}, updates=updates)
    draw = np.random.default_rng(0)
    arrays = {t.attrs["name"]: draw.normal(size=t.shape) for t in (*weights, *moments)}
    return graph.with_values({k: v.astype(np.float32) for k, v in arrays.items()})


X = {"x": np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)}


def test_a_join_of_parameters_is_their_buffer() -> None:
    found = plan(train=training())
    slots = {slot.name: slot for slot in found.persistent}
    assert [(slots[n].buffer, slots[n].offset) for n in "wbv"] == [
        (slots["w"].buffer, 0),
        (slots["w"].buffer, 256),
        (slots["w"].buffer, 512),
    ]
    assert sources(found, "train") == []
    assert_plays(found, "train", training(), X)


def test_gaps_stay_zero_so_what_is_not_zero_there_is_copied() -> None:
    found = plan(train=training(scale=0.5))
    assert sorted(target for _, target in sources(found, "train")) == ["b'", "v'", "w'"]
    assert_plays(found, "train", training(scale=0.5), X)


def test_the_sum_of_a_join_counts_no_gap() -> None:
    x = asg.input("x", (100, 100))
    a, b = x @ x, x * 2
    graph = asg.graph(outputs={"y": packed(a[:10, :10].reshape(100), b.sum(axis=0)).sum()})
    inputs = {"x": np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)}
    assert_plays(plan(a=graph), "a", graph, inputs)


def test_another_layout_of_the_same_parameters_is_copied() -> None:
    a, b = parameter("a", 10), parameter("b", 20)
    values = {"a": np.ones(10, np.float32), "b": np.full(20, 2, np.float32)}
    first = asg.graph(outputs={"y": packed(a, b) * 2}).with_values(values)
    second = asg.graph(outputs={"z": packed(b, a) * 2}).with_values(values)
    found = plan(first=first, second=second)
    assert sources(found, "first") == []
    assert len(sources(found, "second")) == 2
    assert_plays(found, "first", first, {})
    assert_plays(found, "second", second, {})


def test_members_given_and_computed_side_by_side() -> None:
    x, w = asg.input("x", (8,)), parameter("w", 8)
    values = {"w": np.ones(8, np.float32)}
    graph = asg.graph(outputs={"y": packed(x, w, x * w, w).sum()}).with_values(values)
    assert_plays(plan(a=graph), "a", graph, {"x": np.arange(8, dtype=np.float32)})


# Results.


def test_outputs_that_nothing_computes_lie_where_they_are() -> None:
    x, w = asg.input("x", (4, 6)), parameter("w", 6)
    big = asg.constant(np.arange(600, dtype=np.float32))
    outputs = {"x": x, "again": x, "part": x[1:3], "w": w, "big": big, "flat": x.reshape(24)}
    values = {"w": np.ones(6, np.float32)}
    graph = asg.graph(outputs=outputs).with_values(values)
    found = plan(a=graph)
    assert found.entries["a"].steps == ()
    assert_plays(found, "a", graph, {"x": np.arange(24, dtype=np.float32).reshape(4, 6)})


def test_a_result_without_elements() -> None:
    x, s = asg.input("x", (0, 3)), state("s", 0, 3)
    graph = asg.graph(outputs={"y": x * 2}, updates={"s": x + s})
    graph = graph.with_values({"s": np.zeros((0, 3), np.float32)})
    assert_plays(plan(a=graph), "a", graph, {"x": np.zeros((0, 3), np.float32)})


def test_a_result_that_is_only_a_gap_is_zero() -> None:
    x, s = asg.input("x", (3,)), state("s", 2)
    joined: Tensor = pack(x, x, offsets=(0, 4), total=10)
    graph = asg.graph(outputs={"y": joined[8:10], "z": s * 2}, updates={"s": joined[7:9]})
    graph = graph.with_values({"s": np.ones(2, np.float32)})
    assert_plays(plan(a=graph), "a", graph, {"x": np.ones(3, np.float32)})


def test_a_member_without_elements_is_not_copied() -> None:
    x = asg.input("x", (0,))
    joined: Tensor = pack(x, x, offsets=(3, 3), total=5)
    graph = asg.graph(outputs={"y": joined + 1})
    assert_plays(plan(a=graph), "a", graph, {"x": np.zeros(0, np.float32)})


def test_inputs_of_one_name_share_a_buffer() -> None:
    small, large = asg.input("x", (4,)), asg.input("x", (400,))
    found = plan(a=asg.graph(outputs={"y": small + 1}), b=asg.graph(outputs={"y": large + 1}))
    named = [buffer for buffer in found.buffers if buffer.role == "input"]
    assert [(buffer.name, buffer.size) for buffer in named] == [("x", 1792)]


def test_constants_of_equal_contents_are_one() -> None:
    array = np.arange(500, dtype=np.float32)
    x = asg.input("x", (500,))
    first = asg.graph(outputs={"y": x + asg.constant(array)})
    second = asg.graph(outputs={"y": x * asg.constant(array)})
    found = plan(first=first, second=second)
    assert [found.roles[slot.name] for slot in found.persistent] == ["constant"]


# Buffers.


def chain(length: int, size: int = 64) -> Graph:
    x = asg.input("x", (size, size))
    y = x
    for _ in range(length):
        y = asg.tanh(y @ x)
    return asg.graph(outputs={"y": y})


def test_a_chain_needs_two_places() -> None:
    found = plan(a=chain(10))
    assert found.report["arena_bytes"] == found.report["max_live_bytes"] == 2 * 64 * 64 * 4


def test_without_reuse_every_value_keeps_its_place() -> None:
    found = plan(APART, a=chain(10))
    assert found.report["arena_bytes"] >= 10 * 64 * 64 * 4
    places = [found.entries["a"].locations[name] for name in found.entries["a"].locations]
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])


def test_entries_share_the_arena() -> None:
    found = plan(a=chain(4), b=chain(3, size=32))
    assert [buffer.role for buffer in found.buffers].count("arena") == 1
    assert found.report["arena_bytes"] == 2 * 64 * 64 * 4


def test_an_arena_over_the_limit_is_split() -> None:
    graph = chain(5)
    found = plan(AssignStorage(arena_limit=20_000), a=graph)
    arenas = [buffer for buffer in found.buffers if buffer.role == "arena"]
    assert len(arenas) == 2
    assert all(buffer.size <= 20_000 for buffer in arenas)
    assert_plays(found, "a", graph, {"x": np.eye(64, dtype=np.float32)})


def test_slots_over_the_limit_are_split() -> None:
    weights = [parameter(f"w{i}", 100) for i in range(5)]
    graph = asg.graph(outputs={"y": asg.concatenate(weights)})
    found = plan(AssignStorage(slot_limit=1024), a=graph)
    names = [buffer.name for buffer in found.buffers if buffer.role == "parameter"]
    assert names == ["parameters", "parameters_2", "parameters_3"]


def test_overlapping_ranges_are_bound_once() -> None:
    x = asg.input("x", (64, 64))
    y = asg.tanh(x @ x)
    graph = asg.graph(outputs={"y": y, "z": y[:32].reshape(32 * 64)})
    for step in plan(a=graph).entries["a"].steps:
        assert isinstance(step, KernelStep)
        ranges = [bound.range for bound in step.bindings]
        assert len(set(ranges)) == len(ranges)
        assert all(each.offset % 256 == 0 and each.size % 16 == 0 for each in ranges)


def test_names_that_mean_two_things_are_refused() -> None:
    first = asg.graph(outputs={"y": parameter("w", 3) + 1})
    with pytest.raises(GraphError, match=r"entry b has parameter 'w' as f32\[4\]"):
        plan(a=first, b=asg.graph(outputs={"y": parameter("w", 4) + 1}))
    with pytest.raises(GraphError, match=r"entry b has input 'w', another entry a parameter"):
        plan(a=first, b=asg.graph(outputs={"y": asg.input("w", (3,)) + 1}))


def test_what_a_step_needs_is_given_or_written_before() -> None:
    """A step is needed exactly if it writes a name that a needed step reads."""
    for entry in plan(train=training(scale=0.5), chain=chain(3)).entries.values():
        given = set(entry.plan.graph.input_names())
        written = {name for step in entry.steps for name in step.writes}
        known = set(given)
        for step in entry.steps:
            # Joins and aliases that nobody writes are listed beside what they are made of.
            assert set(step.reads) & (given | written) <= known
            assert set(step.reads) & known
            known |= set(step.writes)
        for names in (*entry.needs.values(), entry.updates.values()):
            assert set(names) <= known


# The report.


def test_the_report_can_be_printed_and_drawn() -> None:
    view = PlanView.from_report(plan(train=training(), chain=chain(3)).report)
    assert view.ratio == 1.0
    text = str(view)
    assert "entry train: " in text
    assert "shares with" in text
    picture = view.to_svg("chain")
    assert picture.startswith("<svg")
    assert picture.count("<title>") >= 3


def test_the_picture_is_well_formed() -> None:
    from xml.dom import minidom

    view = PlanView.from_report(plan(train=training()).report)
    document = minidom.parseString(view.to_svg())
    assert document.documentElement.tagName == "svg"


# The checker finds what is wrong.


def moved(found: StoragePlan, name: str, place: Location) -> StoragePlan:
    """Put a value elsewhere, in the table and in every binding."""
    entry = found.entries["a"]
    value = next(v for v, known in entry.plan.graph.names.items() if known == name)
    steps = []
    for step in entry.steps:
        if isinstance(step, KernelStep):
            bindings = tuple(
                replace(bound, range=replace(bound.range, offset=place.offset))
                if value in bound.elements
                else bound
                for bound in step.bindings
            )
            step = replace(step, bindings=bindings)
        steps.append(step)
    locations = {**entry.locations, name: place}
    outputs = tuple(
        replace(slot, offset=place.offset) if entry.results[slot.name] == name else slot
        for slot in entry.outputs
    )
    changed = replace(entry, steps=tuple(steps), locations=locations, outputs=outputs)
    return replace(found, entries={**found.entries, "a": changed})


def kinds(found: StoragePlan) -> set[str]:
    return {fault.kind for fault in find_faults(found)}


def diamond() -> Graph:
    """`a` lives while `b` and `c` are made."""
    x = asg.input("x", (16, 16))
    a = x @ x
    b = a @ x
    c = b @ x
    return asg.graph(outputs={"y": c @ a})


@given(pair=st.permutations(["matmul_1", "matmul_2", "matmul_3", "y"]))
def test_values_put_on_top_of_each_other_are_found(pair: list[str]) -> None:
    found = plan(a=diamond())
    one, other = pair[:2]
    lives = {"matmul_1": (0, 3), "matmul_2": (1, 2), "matmul_3": (2, 3), "y": (3, 4)}
    place = found.entries["a"].locations[other]
    damaged = moved(found, one, place)
    (start, last), (begin, end) = lives[one], lives[other]
    if start <= end and begin <= last:
        assert kinds(damaged) & {"clobbered", "overlap"}


def test_faults_are_named() -> None:
    found = plan(a=diamond())
    place = found.entries["a"].locations["matmul_2"]
    outside = replace(place, offset=found.buffers[place.buffer].size)
    assert "out of range" in kinds(moved(found, "matmul_2", outside))
    assert "misaligned" in kinds(moved(found, "matmul_2", replace(place, offset=128)))
    entry = found.entries["a"]
    late = replace(entry, steps=entry.steps[::-1])
    assert "unwritten" in kinds(replace(found, entries={"a": late}))
    lost = {**entry.locations, "matmul_2": replace(place, offset=place.offset + 256)}
    elsewhere = replace(entry, locations=lost)
    assert "misplaced" in kinds(replace(found, entries={"a": elsewhere}))
    with pytest.raises(InternalError, match="internal: assign-storage: "):
        check(replace(found, entries={"a": late}))


def test_a_step_left_out_is_found() -> None:
    found = plan(a=diamond())
    entry = found.entries["a"]
    for position in range(len(entry.steps)):
        fewer = entry.steps[:position] + entry.steps[position + 1 :]
        assert find_faults(replace(found, entries={"a": replace(entry, steps=fewer)}))


def test_a_missing_update_is_found() -> None:
    kept = state("kept", 8)
    graph = asg.graph(outputs={}, updates={"kept": (kept.reshape(8, 1) * kept).sum(axis=0)})
    found = plan(a=graph)
    entry = found.entries["a"]
    cut = replace(entry, steps=entry.steps[:-1])
    assert kinds(replace(found, entries={"a": cut})) == {"clobbered"}


def test_a_result_in_a_gap_is_found() -> None:
    """The same bytes in the plan of a kernel that is not zero there."""
    right, wrong = plan(a=training()), plan(a=training(scale=0.5))
    slots = {slot.name: slot for slot in right.persistent}
    names = wrong.entries["a"].plan.graph.names
    flat = next(
        names[value]
        for step in wrong.entries["a"].steps
        if isinstance(step, KernelStep)
        for value in step.kernel.outputs
        if value.type.size == 192
        and ("w'", names[value]) not in sources(wrong, "a")
        and any(names[value] in copy.reads for copy in wrong.entries["a"].steps[-3:])
    )
    place = Location(slots["w"].buffer, 0, 192 * 4)
    entry = wrong.entries["a"]
    value = next(v for v, known in names.items() if known == flat)
    steps = []
    for step in entry.steps:
        if isinstance(step, KernelStep) and value in step.kernel.outputs:
            bindings = tuple(
                replace(bound, range=replace(bound.range, buffer=place.buffer, offset=0))
                if value in bound.elements
                else bound
                for bound in step.bindings
            )
            step = replace(step, bindings=bindings)
        steps.append(step)
    damaged = replace(wrong, entries={"a": replace(entry, steps=tuple(steps))})
    assert any("over a gap" in fault.message for fault in find_faults(damaged))
