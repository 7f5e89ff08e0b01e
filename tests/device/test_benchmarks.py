"""The scripts of benchmarks/ that need nobody else's software run, in small."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.imports import ROOT

BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_compile_speed(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    run(
        "compile_speed.py", "--only", "wide", "--nodes", "60", "--nodes", "120", "--json", str(path)
    )
    small, large = json.loads(path.read_text())
    assert small["nodes"] < large["nodes"]
    assert set(small) == set(large) >= {"build", "passes", "fusion", "order", "memory", "codegen"}


@pytest.mark.device
def test_cold_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    contestants, cold = (importlib.import_module(name) for name in ("contestants", "cold"))
    environment = {**contestants.child_environment(False), "ASG_BENCH_REFERENCES": str(tmp_path)}
    asg_side = contestants.Contestant("asg", environment=environment)
    entry = cold.ColdEntry(asg_side, "cold_matmul_256", {})
    entry.run()
    assert entry.rounds == [[entry.facts["first_s"]]]
    assert set(entry.facts) == {"imports_s", "first_s", "again_imports_s", "again_first_s"}
    assert min(entry.facts.values()) > 0.0
    wrong = cold.ColdEntry(asg_side, "cold_nothing", {})
    with pytest.raises(contestants.ContestError, match="nothing"):
        wrong.run()


@pytest.mark.soak
@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
def test_the_script_for_graphics_cards(schedule: str, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    run("gpu.py", "--quick", "--schedule", schedule, "--json", str(path))
    results = json.loads(path.read_text())
    assert list(results) == [
        "adapter", "arithmetic", "bandwidth", "dispatching", "products", "halves", "long_products",
        "operations", "models", "training", "torch",
    ]  # fmt: skip
    parts, whole = (results["long_products"][key] for key in ("in_parts", "in_one"))
    assert parts["matmul_16x4096x16"]["dispatches"] > whole["matmul_16x4096x16"]["dispatches"]
    assert len(results["training"]["tiny_mlp"]["losses"]) == 4
    assert results["halves"]["matmul_f16_64"]["error"] > 0.0
    product = results["products"]["matmul_96"]
    assert product["rank_of_first_choice"] >= 1
    assert len(product["gflops"]) > 1
