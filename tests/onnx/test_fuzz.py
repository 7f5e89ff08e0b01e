"""Whatever a file holds, the import ends in a graph or in an error of ASG."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import onnx_fuzz


def test_broken_models_are_refused_for_a_minute(tmp_path: Path) -> None:
    found = onnx_fuzz.fuzz_apart(60, 0, tmp_path / "seed")
    assert sum(found.values()) > 500
    assert {"graph", "open graph", "GraphError", "UnsupportedError"} <= found.keys()


@pytest.mark.soak
def test_broken_models_are_refused_for_long(tmp_path: Path) -> None:
    found = onnx_fuzz.fuzz_apart(600, 1_000_000, tmp_path / "seed")
    assert sum(found.values()) > 5000


@pytest.mark.skipif(not onnx_fuzz.HAS_LIMITS, reason="this system does not limit memory")
def test_memory_without_bounds_names_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_fuzz, "judge", lambda model: str(len(bytearray(4 << 30))))
    with pytest.raises(AssertionError, match="seed 7: MemoryError"):
        onnx_fuzz.fuzz(5, first=7)
