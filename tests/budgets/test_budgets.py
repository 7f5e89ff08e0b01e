"""What the compiler makes of real models, against stated numbers: so no change makes it worse
unseen. `pytest tests/budgets --update-golden -p no:xdist` states the numbers of today."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from asg.codegen.context import Target
from asg.compiler import lower

HERE = Path(__file__).resolve().parent
BUDGETS = HERE / "budgets.toml"

# What is stated -> what is said beside it. All but the dispatches may become less.
STATED = {
    "dispatches": "exactly",
    "pipelines": "at most",
    "copies": "at most",
    "bytes_moved": "at most; least possible: {bytes_lower_bound:,}",
    "flops_ratio": "at most; executed by the graph's",
    "peak_ratio": "at most; arena by what is live at once",
    "max_bindings": "at most",
    "barriers": "at most",
}
PEAK = 1.02  # whatever is stated

Numbers = dict[str, float]


def load_models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("budget_models", HERE / "models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODELS = load_models().MODELS


def measured(name: str) -> tuple[Numbers, str]:
    """The numbers of a model as it is compiled now, and their section of the file."""
    report = lower({"main": MODELS[name]()}, target=Target("cpu", 8)).report
    numbers: Numbers = {key: report[key] for key in STATED if key in report}
    numbers["dispatches"] = report["dispatch_count"]
    numbers["flops_ratio"] = ratio(report["flops"], report["graph_flops"])
    numbers["peak_ratio"] = ratio(report["arena_bytes"], report["max_live_bytes"])
    lines = [f"[{name}]"]
    for key, remark in STATED.items():
        classes = ", ".join(f"{count} {kind}" for kind, count in report["dispatches"].items())
        said = f"exactly: {classes}" if key == "dispatches" else remark.format(**report)
        lines.append(f"{f'{key} = {numbers[key]:_}':<28}  # {said}")
    return numbers, "\n".join(lines)


def ratio(value: int, least: int) -> float:
    return round(value / least, 4) if least else 1.0


def stated() -> dict[str, Numbers]:
    return tomllib.loads(BUDGETS.read_text(encoding="utf-8"))


def write(name: str, section: str) -> None:
    """Replace a model's section of the file, or add one."""
    text = BUDGETS.read_text(encoding="utf-8") if BUDGETS.exists() else ""
    head, *old = text.split("\n[")
    sections = {each.partition("]")[0]: f"[{each.rstrip()}" for each in old}
    sections[name] = section
    kept = [sections[each] for each in MODELS if each in sections]
    BUDGETS.write_text("\n\n".join([head.rstrip(), *kept]) + "\n", encoding="utf-8")


def deviations(now: Numbers, budget: Numbers) -> list[str]:
    """What does not hold, a line each."""
    found = []
    for key in STATED:
        limit = min(budget[key], PEAK) if key == "peak_ratio" else budget[key]
        if key == "dispatches" and now[key] < limit:
            found.append(f"{key}: {limit:,} stated, {now[key]:,} now: better; state it")
        elif now[key] > limit:
            found.append(f"{key}: {limit:,} stated, {now[key]:,} now: worse")
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_model_stays_within_its_budget(name: str, update_golden: bool) -> None:
    now, section = measured(name)
    if update_golden:
        write(name, section)
    found = deviations(now, stated()[name])
    assert not found, "\n".join([*found, "If this is meant: pytest tests/budgets --update-golden"])


TRANSFORMS = 13  # convolutions of ResNet-18 that go through Winograd's transforms


@pytest.mark.parametrize(("name", "transforms"), [("resnet18-forward", 3), ("resnet18-frozen", 2)])
def test_all_but_transforms_is_a_kernel_for_each_convolution(name: str, transforms: int) -> None:
    """Twenty convolutions, of which three sit at the beginning of a stage and take in a result's
    transform where their norms are constants; a pooling; the mean, which takes in another; and
    the last layer. Images, results and kernels are transformed, constant kernels before."""
    folded = 1 if transforms == 3 else 1 + 3
    assert stated()[name]["dispatches"] - (TRANSFORMS * transforms - folded) <= 23


def test_every_budget_has_a_model() -> None:
    assert list(stated()) == list(MODELS)


def test_what_gets_worse_is_found() -> None:
    budget = stated()["softmax-forward"]
    assert deviations(budget, budget) == []
    for key in STATED:
        assert len(deviations({**budget, key: budget[key] + 1}, budget)) == 1
    assert deviations({**budget, "dispatches": 0}, budget) == [
        "dispatches: 1 stated, 0 now: better; state it"
    ]
    assert deviations({**budget, "bytes_moved": 0}, budget) == []
    assert deviations({**budget, "peak_ratio": 1.03}, {**budget, "peak_ratio": 1.5}) != []
