"""Which values are known never to be above 0: numbers less the largest of their own row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import asg
from asg import functions
from asg.passes.signs import is_never_positive
from asg.tensor import Tensor

CASES: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "less the largest of the row": (lambda x: x - functions.max(x, axis=1, keepdims=True), True),
    "of the column": (lambda x: x - functions.max(x, axis=0), True),
    "of all": (lambda x: x - functions.max(x), True),
    "of rows, added to columns": (lambda x: x - functions.max(x, axis=1), False),
    "the smallest": (lambda x: x - functions.min(x, axis=1, keepdims=True), False),
    "of another value": (lambda x: x * 2.0 - functions.max(x, axis=1, keepdims=True), False),
    "the other way round": (lambda x: functions.max(x, axis=1, keepdims=True) - x, False),
    "a sum": (lambda x: x + functions.max(x, axis=1, keepdims=True), False),
    "flipped": (
        lambda x: x - functions.flip(functions.max(x, axis=1, keepdims=True), axis=0),
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_signs(name: str) -> None:
    make, expected = CASES[name]
    assert is_never_positive(make(asg.input("x", (4, 4))).value) == expected
