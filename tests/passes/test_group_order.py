"""Groups may be merged exactly where no circle arises."""

from __future__ import annotations

import random

import pytest

from asg.passes import group_order
from asg.passes.group_order import GroupOrder

Edges = dict[int, set[int]]


def depends(above: Edges, start: int, wanted: set[int]) -> bool:
    """Whether `start` needs one of `wanted`, by a plain search."""
    pending, seen = [start], set[int]()
    while pending:
        number = pending.pop()
        if number in wanted:
            return True
        if number not in seen:
            seen.add(number)
            pending += above[number]
    return False


def makes_circle(above: Edges, merged: set[int]) -> bool:
    outside = {number for each in merged for number in above[each]} - merged
    return any(depends(above, number, merged) for number in outside)


def contract(above: Edges, target: int, others: set[int]) -> Edges:
    gone = others - {target}
    renamed = {
        number: {target if each in gone else each for each in reads} - {number}
        for number, reads in above.items()
    }
    for number in gone:
        renamed[target] |= renamed.pop(number)
    renamed[target].discard(target)
    return renamed


@pytest.mark.parametrize("gap", [1 << 64, 1], ids=["roomy", "no-room"])
@pytest.mark.parametrize("seed", range(20))
def test_merges_are_allowed_as_a_plain_search_allows_them(
    seed: int, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_order, "_GAP", gap)
    rng = random.Random(seed)
    order, above = GroupOrder(), dict[int, set[int]]()
    allowed = 0
    for number in range(120):
        known = list(above)
        near = known[-12:] if rng.random() < 0.8 else known
        reads = set(rng.sample(near, min(len(near), rng.randrange(4))))
        above[number] = reads
        order.add(number, reads)
        for _ in range(2):
            group = set(rng.sample(list(above), min(len(above), rng.randrange(1, 4))))
            is_legal = not makes_circle(above, group)
            assert order.may_merge(group) == is_legal
            if is_legal and len(group) > 1:
                target = rng.choice(sorted(group))
                order.merge(target, group)
                above = contract(above, target, group)
                allowed += 1
        assert {each: set(order.above(each)) for each in above} == above
    assert allowed > 20


def test_groups_far_apart_are_not_searched_for_ever() -> None:
    order = GroupOrder()
    order.add(0, [])
    for number in range(1, 5000):
        order.add(number, [number - 1])
    assert order.may_merge([4998, 4999])
    assert not order.may_merge([0, 4999])
    assert order.visits < 2000
