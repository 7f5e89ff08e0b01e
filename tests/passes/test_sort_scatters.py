"""Additions at run-time positions by sorted updates: when, and the same bits as without sorting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import asg
from asg.codegen.context import Target
from asg.compiler import PIPELINE, for_target, prepare
from asg.graph import Graph
from asg.nn import functional
from asg.ops.indexing import scatter_add
from asg.passes.pipeline import Pass
from asg.passes.sort_scatters import SortScatters
from asg.runtime.interpreter import run

Array = np.ndarray[Any, Any]

ALWAYS: tuple[Pass, ...] = tuple(
    replace(step, always=True) if isinstance(step, SortScatters) else step for step in PIPELINE
)
NEVER: tuple[Pass, ...] = tuple(step for step in PIPELINE if not isinstance(step, SortScatters))


def _embedding_step(rows: int, columns: int, tokens: int) -> Graph:
    table, ids = asg.input("table", (rows, columns)), asg.input("ids", (tokens,), "i32")
    given = asg.input("given", (tokens, columns))
    loss = asg.sum(functional.embedding(ids, table) * given)
    return asg.grad(asg.graph(outputs={"loss": loss}), of="loss", wrt=["table"])


def _is_sorted(graph: Graph, family: str) -> bool:
    passes = for_target(PIPELINE, Target(family, 8 if family == "cpu" else 0))
    ops = [node.op.name for node in prepare(graph, passes=passes).nodes]
    assert ("scatter_add" in ops) != ("segments_sum" in ops)
    return "segments_sum" in ops


@pytest.mark.parametrize(
    ("rows", "columns", "tokens", "on_cpu", "on_gpu"),
    [
        (32000, 512, 4096, False, True),  # on processors an invocation owns a column
        (32000, 32, 4096, True, True),
        (50000, 1, 50000, True, True),
        (64, 16, 64, False, False),
        (7, 3, 1, False, False),
    ],
)
def test_choice(rows: int, columns: int, tokens: int, on_cpu: bool, on_gpu: bool) -> None:
    graph = _embedding_step(rows, columns, tokens)
    assert _is_sorted(graph, "cpu") == on_cpu
    assert _is_sorted(graph, "gpu") == on_gpu


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, str, str]] = {
    "rows of a prime length": ((13, 7), (101,), 0, "i32", "f32"),
    "quads": ((13, 8), (101,), 0, "i32", "f32"),
    "columns": ((13, 64), (40,), 0, "i32", "f32"),
    "the last axis": ((5, 17), (33,), 1, "i32", "f32"),
    "the middle, by a matrix": ((3, 9, 4), (2, 5), 1, "u32", "f32"),
    "one axis": ((97,), (300,), 0, "i32", "f32"),
    "integers": ((11, 3), (50,), 0, "i32", "i32"),
    "one position": ((5, 3), (), 0, "i32", "f32"),
    "one row": ((1, 5), (19,), 0, "i32", "f32"),
    "no updates": ((5, 3), (0,), 0, "i32", "f32"),
    "no rows": ((0, 3), (4,), 0, "i32", "f32"),
}


def _case(name: str) -> tuple[Graph, dict[str, Array]]:
    shape, positions, axis, kind, dtype = CASES[name]
    given = (*shape[:axis], *positions, *shape[axis + 1 :])
    x, index = asg.input("x", shape, dtype), asg.input("index", positions, kind)
    updates = asg.input("updates", given, dtype)
    graph = asg.graph(outputs={"y": scatter_add(x, index, updates, axis=axis)})
    chance, size = np.random.default_rng(len(name)), shape[axis]
    low = -size - 2 if kind == "i32" else 0
    where = chance.integers(low, size + 3, positions)
    held = np.float32 if dtype == "f32" else np.int32
    return graph, {
        "x": (10 * chance.standard_normal(shape)).astype(held),
        "index": np.asarray(where, np.int32 if kind == "i32" else np.uint32),
        "updates": (10 * chance.standard_normal(given)).astype(held),
    }


def _bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(name: str, schedule: str) -> None:
    graph, inputs = _case(name)
    found = []
    for passes in (ALWAYS, NEVER):
        with asg.compile(graph, schedule=schedule, passes=passes) as executable:
            found.append(np.asarray(executable(inputs)["y"]))
    expected = run(graph, inputs, dtype="f64")["y"]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-4)
    assert _bits(found[0]) == _bits(found[1])


@pytest.mark.device
def test_not_a_number_stays_in_its_row() -> None:
    x, index = asg.input("x", (4, 4)), asg.input("index", (5,), "i32")
    graph = asg.graph(outputs={"y": scatter_add(x, index, asg.input("updates", (5, 4)), axis=0)})
    updates = np.ones((5, 4), np.float32)
    updates[1], updates[2], updates[4] = np.nan, np.inf, np.nan
    inputs = {
        "x": np.zeros((4, 4), np.float32),
        "index": np.array([0, 1, 2, -1, 9], np.int32),
        "updates": updates,
    }
    with asg.compile(graph, passes=ALWAYS) as executable:
        found = np.asarray(executable(inputs)["y"])
    rows = [[1.0] * 4, [np.nan] * 4, [np.inf] * 4, [1.0] * 4]
    np.testing.assert_array_equal(found, np.array(rows, np.float32))


@pytest.mark.device
def test_a_large_embedding_takes_few_steps() -> None:
    """Sorting 4096 tokens, and no invocation that looks at all of them."""
    graph = _embedding_step(32000, 32, 4096)
    chance = np.random.default_rng(0)
    inputs = {
        "table": np.zeros((32000, 32), np.float32),
        "ids": chance.integers(0, 32000, 4096).astype(np.int32),
        "given": chance.standard_normal((4096, 32)).astype(np.float32),
    }
    inputs["ids"][100:600] = 7
    with asg.compile(graph) as executable:
        dispatches = executable.report()["dispatches"]
        found = np.asarray(executable(inputs)["table.grad"])
    assert dispatches.get("scatter", 0) == 0
    assert dispatches["segments"] == 1
    expected = np.zeros((32000, 32))
    np.add.at(expected, inputs["ids"], inputs["given"].astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
