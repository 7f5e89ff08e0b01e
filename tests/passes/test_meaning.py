"""Every pass of the pipeline keeps the meaning of any graph, and leaves a well-formed one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, note, settings

from asg.compiler import PIPELINE
from asg.passes.pipeline import Pass, pass_name
from asg.passes.split_products import SplitProducts
from asg.passes.split_reductions import SplitReductions
from asg.passes.split_rows import SplitRows
from asg.runtime.interpreter import run_with_updates
from asg.verify import verify
from support.random_graphs import RandomGraph, graphs

# Small enough that random graphs have something to split.
PASSES: tuple[Pass, ...] = (
    *PIPELINE,
    SplitProducts(tile=2, enough_tiles=4, shortest=1, longest=2),
    SplitRows(most_rows=8, shortest=5, parts=8, part=1),
    SplitReductions(enough_rows=8, shortest=8, parts=4),
)


@pytest.mark.parametrize(
    "position", range(len(PASSES)), ids=lambda i: f"{i}-{pass_name(PASSES[i])}"
)
@settings(max_examples=60)
@given(made=graphs(steps=14))
def test_a_pass_keeps_the_meaning(made: RandomGraph, position: int) -> None:
    graph = made.graph
    for before in PASSES[:position]:
        graph = before(graph)
    after = PASSES[position](graph)
    note(f"before:\n{graph}\nafter:\n{after}")
    verify(after)
    expected, expected_updates = run_with_updates(graph, made.inputs)
    found, found_updates = run_with_updates(after, made.inputs)
    for name, array in {**expected, **expected_updates}.items():
        got = {**found, **found_updates}[name]
        scale = max(1.0, float(np.abs(array).max(initial=0.0)))
        np.testing.assert_allclose(got, array, 1e-5, 1e-5 * scale, err_msg=name)
