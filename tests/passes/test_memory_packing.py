"""The packing problem: nothing live overlaps, gaps belong to nobody, the peak is low."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asg.errors import InternalError
from asg.passes.plan_memory import Group, Item, MemoryPlan, PlanMemory, max_live, pack
from support.packing_problems import Lifetime, allocator_history, cut_rectangle

lifetimes = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 12), st.integers(0, 900)), max_size=25
).map(lambda drawn: [(start, start + length, size) for start, length, size in drawn])


def peak(problem: list[Lifetime], offsets: list[int]) -> int:
    return max((o + size for o, (_, _, size) in zip(offsets, problem, strict=True)), default=0)


def assert_apart(problem: list[Lifetime], offsets: list[int]) -> None:
    for i, (start, end, size) in enumerate(problem):
        for j, (begin, stop, other) in enumerate(problem[:i]):
            if start < stop and begin < end:
                assert offsets[i] + size <= offsets[j] or offsets[j] + other <= offsets[i]


def test_ends_are_exclusive() -> None:
    assert pack([(0, 3, 100), (3, 5, 100)]) == [0, 0]
    assert sorted(pack([(0, 4, 100), (3, 5, 100)])) == [0, 100]


def test_nothing_to_pack() -> None:
    assert pack([]) == []
    assert pack([(0, 1, 0), (2, 2, 7)]) == [0, 0]
    assert PlanMemory()([]) == MemoryPlan({}, 0, 0)


@given(problem=lifetimes, alignment=st.sampled_from([1, 64, 256]))
def test_what_is_live_is_apart(problem: list[Lifetime], alignment: int) -> None:
    offsets = pack(problem, alignment=alignment, time_limit=0.05)
    assert_apart(problem, offsets)
    assert all(offset % alignment == 0 for offset in offsets)


@given(problem=lifetimes)
def test_a_plan_is_between_its_bound_and_a_place_for_each(problem: list[Lifetime]) -> None:
    items = [Item(f"v{i}", size, start, end) for i, (start, end, size) in enumerate(problem)]
    plan = PlanMemory(work=200_000)(items)
    assert plan.max_live == max_live(items, alignment=256)
    assert plan.max_live <= plan.size <= PlanMemory(reuse=False)(items).size
    assert plan == PlanMemory(work=200_000)(items)


def test_without_reuse_nothing_shares_a_place() -> None:
    items = [Item("a", 300, 0, 1), Item("b", 300, 5, 6), Item("c", 10, 7, 8)]
    plan = PlanMemory(reuse=False)(items)
    assert sorted(plan.offsets.values()) == [0, 512, 1024]
    assert (plan.size, plan.max_live) == (1280, 512)


def test_names_are_unique() -> None:
    with pytest.raises(InternalError, match="two values share a name"):
        PlanMemory()([Item("a", 1, 0, 1), Item("a", 1, 0, 1)])


# Rigid groups.


@st.composite
def groups(draw: st.DrawFn) -> Group:
    members, end = [], 0
    for position in range(draw(st.integers(1, 4))):
        offset = end + draw(st.sampled_from([0, 0, 40, 300]))
        start = draw(st.integers(0, 15))
        size = draw(st.integers(1, 700))
        life = start + draw(st.integers(1, 10))
        members.append((offset, Item(f"m{position}", size, start, life)))
        end = offset + size
    gaps = [(0, 8)] if draw(st.booleans()) else []
    return Group("", end + draw(st.sampled_from([0, 100])), tuple(members), tuple(gaps))


@given(problem=lifetimes, drawn=st.lists(groups(), min_size=1, max_size=3))
def test_members_keep_their_distance_and_gaps_belong_to_nobody(
    problem: list[Lifetime], drawn: list[Group]
) -> None:
    items = [Item(f"v{i}", size, start, end) for i, (start, end, size) in enumerate(problem)]
    rigid = [Group(f"g{i}", g.size, g.members, g.gaps) for i, g in enumerate(drawn)]
    plan = PlanMemory(work=200_000)(items, rigid)
    boxes: list[tuple[int, int, int, int]] = []  # low, high, start, end
    for item in items:
        low = plan.offsets[item.name]
        boxes += [(low, low + item.size, item.start, item.end)] if item.size else []
    for group in rigid:
        base = plan.offsets[group.name]
        assert base % 256 == 0
        reached = 0
        own = []
        for offset, item in group.members:
            own.append((base + reached, base + offset, -99, 99))
            own.append((base + offset, base + offset + item.size, item.start, item.end))
            reached = offset + item.size
        own.append((base + reached, base + group.size, -99, 99))
        own += [(base + low, base + high, -99, 99) for low, high in group.gaps]
        own = [box for box in own if box[0] < box[1]]
        for low, high, start, end in own:
            for other in boxes:
                if start < other[3] and other[2] < end:
                    assert high <= other[0] or other[1] <= low
        boxes += own
    assert max((high for _, high, _, _ in boxes), default=0) <= plan.size
    assert plan.max_live == max_live(items, rigid, alignment=256) <= plan.size


def test_the_place_of_a_dead_member_is_used_again() -> None:
    group = Group("g", 2048, ((0, Item("a", 1024, 0, 2)), (1024, Item("b", 1024, 4, 6))))
    plan = PlanMemory()([Item("x", 1024, 4, 6), Item("y", 1024, 0, 2)], [group])
    assert plan.size == plan.max_live == 2048


def test_a_unit_with_a_byte_of_a_gap_is_never_used_again() -> None:
    group = Group("g", 512, ((0, Item("a", 200, 0, 1)), (256, Item("b", 256, 0, 1))))
    plan = PlanMemory()([Item("x", 256, 1, 2), Item("y", 256, 1, 2)], [group])
    assert plan.size == plan.max_live == 768
    assert plan.offsets["x"] != plan.offsets["g"] != plan.offsets["y"]


# How low the peak is.


@pytest.mark.parametrize("seed", range(4))
def test_chains_and_branches_pack_to_their_bound(seed: int) -> None:
    """What networks look like: short lives, and some long ones that nest."""
    draw = random.Random(seed)
    items = [Item(f"s{i}", draw.choice([256, 512, 1024]), i, i + 2) for i in range(200)]
    items += [Item(f"l{i}", draw.choice([256, 512]), i, 200 - i) for i in range(0, 100, 3)]
    plan = PlanMemory()(items)
    assert plan.size == plan.max_live


def test_problems_that_fill_a_strip_exactly() -> None:
    """The best peak is that of the strip. Bounded by work, so every machine gets the same."""
    ratios = []
    for seed in range(4):
        for problem in (cut_rectangle(100, seed), allocator_history(100, seed)):
            items = [Item(f"v{i}", z, start, end) for i, (start, end, z) in enumerate(problem)]
            plan = PlanMemory(alignment=1, work=30_000_000)(items)
            assert_apart(problem, [plan.offsets[item.name] for item in items])
            assert plan.max_live == 4096
            ratios.append(plan.size / 4096)
    assert sum(ratios) / len(ratios) < 1.015
    assert sum(ratio == 1.0 for ratio in ratios) >= 4


def least(problem: list[Lifetime]) -> int:
    """The best peak, by trying everything: who comes next, each at the lowest place it can have."""
    best = sum(size for _, _, size in problem)
    floors = [0] * len(problem)
    pending = [(floors, list(range(len(problem))), 0)]
    while pending:
        floors, waiting, top = pending.pop()
        if not waiting:
            best = min(best, top)
        for item in waiting:
            start, end, size = problem[item]
            high = floors[item] + size
            raised = [
                max(floor, floors[item], high if begin < end and start < stop else 0)
                for floor, (begin, stop, _) in zip(floors, problem, strict=True)
            ]
            if max(top, high) < best:
                rest = [other for other in waiting if other != item]
                pending.append((raised, rest, max(top, high)))
    return best


@given(
    problem=st.lists(
        st.tuples(st.integers(0, 8), st.integers(1, 5), st.integers(1, 30)), max_size=6
    )
)
def test_few_values_are_packed_as_well_as_can_be(problem: list[Lifetime]) -> None:
    problem = [(start, start + length, size) for start, length, size in problem]
    items = [Item(f"v{i}", size, start, end) for i, (start, end, size) in enumerate(problem)]
    assert PlanMemory(alignment=1)(items).size == least(problem)


def test_a_capacity_that_is_met_ends_the_search() -> None:
    problem = allocator_history(200, 1)
    offsets = pack(problem, capacity=3 * 4096, time_limit=60.0)
    assert_apart(problem, offsets)
    assert peak(problem, offsets) <= 3 * 4096


def test_ten_thousand_values() -> None:
    draw = random.Random(0)
    starts = [draw.randrange(5000) for _ in range(10_000)]
    problem = [(s, s + 1 + int(draw.expovariate(0.02)), draw.randrange(1, 10**6)) for s in starts]
    items = [Item(f"v{i}", size, start, end) for i, (start, end, size) in enumerate(problem)]
    plan = PlanMemory()(items)
    assert plan.size <= 1.1 * plan.max_live
