"""The compiler's work grows with a graph, not with its square: counted in calls, not in seconds."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from asg.compiler import lower
from support.large_graphs import GRAPHS

NODES = (400, 800, 1600)
GROWTH = 2.3  # each time that the graph is doubled


def calls(name: str, nodes: int) -> int:
    """How many Python functions are called (generators: resumed) to build and lower a graph.

    The search for a packing of memory is left out: its work has a limit, which a small graph may
    reach and a larger one not.
    """
    count = searching = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count, searching
        if frame.f_code.co_filename.endswith(("packing.py", "packing_search.py")):
            searching += {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and searching == 0:
            count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        lower({"main": GRAPHS[name](nodes)})
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("name", GRAPHS)
def test_work_grows_with_the_graph(name: str) -> None:
    calls(name, 100)  # templates are read and caches filled
    first, second, third = (calls(name, nodes) for nodes in NODES)
    # Differences, so that what is done once, whatever the size, does not hide growth.
    growth = (third - second) / (second - first)
    assert growth < GROWTH, f"{growth:.2f} times the calls for twice the nodes"
