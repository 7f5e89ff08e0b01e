"""Whatever a file holds, the import ends in a graph or in an error of ASG."""

from __future__ import annotations

import pytest

from support.onnx_fuzz import fuzz


def test_broken_models_are_refused_for_a_minute() -> None:
    found = fuzz(seconds=60)
    assert sum(found.values()) > 500
    assert {"graph", "open graph", "GraphError", "UnsupportedError"} <= found.keys()


@pytest.mark.soak
def test_broken_models_are_refused_for_long() -> None:
    found = fuzz(seconds=600, first=1_000_000)
    assert sum(found.values()) > 5000
