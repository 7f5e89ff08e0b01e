"""The node tests of the `onnx` package, on the wgpu backend, operator by operator.

Which of them do not pass is recorded by `benchmarks/onnx_backend.py --write`; here nothing may
become worse, and what has become better must be recorded.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

pytestmark = pytest.mark.device
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RECORD = json.loads((BENCHMARKS / "results" / "onnx_backend.json").read_text(encoding="utf-8"))
FAULTS = RECORD["contestants"]["asg"]["faults"]
OPS = sorted(set(RECORD["ops"].values()))
AT_ONCE = 40  # in one test, which has limited time
PARTS = [
    (op, first)
    for op, count in sorted(Counter(RECORD["ops"].values()).items())
    for first in range(0, count, AT_ONCE)
]


@cache
def module(name: str) -> ModuleType:
    """Import a script of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@cache
def cases() -> dict[str, list[Any]]:
    by_op: dict[str, list[Any]] = {op: [] for op in OPS}
    for case in module("onnx_cases").numeric_cases():
        by_op.setdefault(case.op, []).append(case)
    return by_op


def test_the_record_is_of_this_suite() -> None:
    named = {case.name: case.op for every in cases().values() for case in every}
    assert named == RECORD["ops"], f"onnx {onnx.__version__}: run onnx_backend.py --write"


@pytest.mark.parametrize(("op", "first"), PARTS)
def test_nodes(op: str, first: int) -> None:
    module("onnx_cases")
    judged = module("onnx_judged")
    _, run = judged.by_asg()
    part = cases()[op][first : first + AT_ONCE]
    found = {case.name: judged.outcome(run, case) for case in part}
    wanted = {name: FAULTS.get(name, {"result": "passed"})["result"] for name in found}
    changed = {name: answer for name, answer in found.items() if answer["result"] != wanted[name]}
    assert not changed
