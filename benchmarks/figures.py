"""From the times of every round to what is reported."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import workloads
from contestants import Contestant, Facts

ROUND_SECONDS = 0.5  # of each task and contestant, unless a single step takes longer
TRAINING = "training"
COLD = "cold_"  # before the name of what is timed from a fresh start

# (task, peer) -> how many times faster than the peer ASG has to be.
GOALS = {
    ("matmul_1024", "tinygrad"): 2.0,
    ("matmul_1024", "onnxruntime"): 2.5,
    ("training", "tinygrad"): 2.0,
    ("cold_gpt2_small_s128", "onnxruntime"): 1.0 / 0.75,
    ("cold_gpt2_small_s128", "tinygrad"): 1.0 / 0.75,
    ("cold_train_lm_c256", "tinygrad"): 4.0,
}
# How far some of these might go in the end.
STRETCH = {
    ("cold_gpt2_small_s128", "onnxruntime"): 2.5,
    ("cold_gpt2_small_s128", "tinygrad"): 2.5,
    ("cold_train_lm_c256", "tinygrad"): 10.0,
}


@dataclass
class Entry:
    """A contestant's part in a task: what it said when it was ready, and its times by round."""

    contestant: Contestant
    task: str
    facts: Facts
    count: int = 1
    rounds: list[list[float]] = field(default_factory=list)

    def run(self) -> None:
        """Run one round."""
        request = {"do": "run", "task": self.task, "count": self.count}
        self.rounds.append(self.contestant.ask(request)["seconds"])

    def calibrate(self) -> None:
        """Find out how many steps make a round; by this the contestant is warm, too."""
        request = {"do": "run", "task": self.task, "count": 2}
        quickest = min(self.contestant.ask(request)["seconds"])
        self.count = max(1, min(50, round(ROUND_SECONDS / quickest)))

    @property
    def seconds(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(times) for times in self.rounds]


def ceilings(entries: list[Entry]) -> dict[str, Facts]:
    """Return what the driver can do, per second."""
    return {
        entry.task: {
            **entry.facts,
            **times(entry),
            "rate": entry.facts["work"] / statistics.median(entry.seconds),
        }
        for entry in entries
        if entry.contestant.name == "driver"
    }


def times(entry: Entry) -> Facts:
    return {
        "median_s": statistics.median(entry.seconds),
        "best_s": min(min(times) for times in entry.rounds),
        "rounds_s": entry.seconds,
    }


def compare(entries: list[Entry]) -> dict[str, Facts]:
    """Return, for every task, the times of all contestants beside each other."""
    limits = {task: facts["rate"] for task, facts in ceilings(entries).items()}
    compared: dict[str, Facts] = {}
    for entry in entries:
        if entry.contestant.name == "driver":
            continue
        name, task = entry.contestant.name, entry.task
        facts = compared.setdefault(task, {**amount(entry), "contestants": {}})
        result = {**entry.facts, **times(entry)}
        floor = least_seconds(facts, limits)
        if floor is not None:
            result["roofline_share"] = floor / result["median_s"]
        ours = next((e for e in entries if (e.contestant.name, e.task) == ("asg", task)), None)
        if ours is not None and ours is not entry:
            ratios = paired_ratios(entry, ours)
            result["ratio"] = statistics.median(ratios)
            result["ratio_range"] = [min(ratios), max(ratios)]
        facts["contestants"][name] = result
    return compared


def amount(entry: Entry) -> Facts:
    """Return how much a task is: operations, and the least bytes moved."""
    if entry.task == TRAINING:
        return {"flops": entry.facts.pop("flops", None), "bytes": entry.facts.pop("bytes", None)}
    if entry.task.startswith(COLD):
        return {"flops": None, "bytes": None}
    workload = workloads.BY_NAME[entry.task]
    return {"flops": workload.flops, "bytes": workload.bytes}


def least_seconds(facts: Facts, limits: Mapping[str, float]) -> float | None:
    """Return the time that the roofline allows, where it is known."""
    copying = [limits[key] for key in ("copy_vec4", "copy_u64") if key in limits]
    if not copying or "multiply_add" not in limits or facts["flops"] is None:
        return None
    return float(max(facts["flops"] / limits["multiply_add"], facts["bytes"] / max(copying)))


def paired_ratios(theirs: Entry, ours: Entry) -> list[float]:
    return [a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)]


def goals(entries: list[Entry]) -> list[Facts]:
    """Return what is asked of ASG, and whether it is so; goals without a result are left out."""
    found = {(entry.task, entry.contestant.name): entry for entry in entries}
    stated: list[Facts] = []
    for (task, peer), factor in GOALS.items():
        theirs, ours = found.get((task, peer)), found.get((task, "asg"))
        if theirs is None or ours is None:
            continue
        ratio = statistics.median(paired_ratios(theirs, ours))
        further = f" (in the end {STRETCH[task, peer]:g})" if (task, peer) in STRETCH else ""
        text = f"{task}: {factor:.3g} times as fast as {peer}{further}"
        stated.append(goal(text, ratio, ratio >= factor))
        if task == TRAINING:
            mine, other = ours.facts["kernels"], theirs.facts["kernels"]
            stated.append(goal(f"{task}: fewer kernels than {peer}", other / mine, mine < other))
    return stated


def goal(text: str, ratio: float, is_met: bool) -> Facts:
    return {"text": text, "ratio": ratio, "is_met": is_met}


def environment(described: Mapping[str, Facts]) -> Facts:
    return {
        "contestants": described,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
