"""A result that is cut at run time keeps the dtype that it is handed out as."""

from __future__ import annotations

import numpy as np
import pytest

import asg

pytestmark = pytest.mark.device


def test_positions_as_int64() -> None:
    graph = asg.graph(
        outputs={"places": asg.nonzero(asg.input("x", (5,)))}, interfaces={"places": "i64"}
    )
    x = np.array([0, 1, 0, 2, 3], np.float32)
    for target in ("numpy", "wgpu"):
        with asg.compile(graph, target=target) as exe:
            found = exe({"x": x})["places"]
        assert found.dtype == np.int64
        assert found.tolist() == [[1], [3], [4]]
