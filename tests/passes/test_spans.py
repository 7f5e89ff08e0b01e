"""What overlaps a range is found, whatever lies inside whatever."""

from __future__ import annotations

import random

import pytest

from asg.passes.spans import Spans


@pytest.mark.parametrize("seed", range(20))
def test_finds_what_a_plain_search_finds(seed: int) -> None:
    rng = random.Random(seed)
    spans, plain = Spans[int](), list[tuple[str, int, int]]()
    for number in range(200):
        start = rng.randrange(300)
        end = start + rng.choice([0, 1, 2, 7, 8, 50, 300])
        where = rng.choice("ab")
        spans.add(where, start, end, number)
        plain.append((where, start, end))
        asked = rng.choice("abc"), (low := rng.randrange(-5, 600)), low + rng.randrange(60)
        expected = [
            position
            for position, each in enumerate(plain)
            if each[0] == asked[0] and max(each[1], asked[1]) < min(each[2], asked[2])
        ]
        assert spans.find(*asked) == expected
