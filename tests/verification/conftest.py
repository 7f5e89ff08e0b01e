"""Faults to plant: rules of ops, texts of kernels, plans of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asg.op import Op

Spoil = Callable[..., None]


@pytest.fixture
def spoil() -> Iterator[Spoil]:
    """`spoil(op, numpy=..., kind=..., grad=...)`: another rule for an op, until the test ends."""
    changed: list[tuple[Op, str, Any]] = []

    def change(op: Op, **rules: Any) -> None:
        for name, rule in rules.items():
            changed.append((op, name, getattr(op, name)))
            object.__setattr__(op, name, rule)

    yield change
    for op, name, rule in reversed(changed):
        object.__setattr__(op, name, rule)
