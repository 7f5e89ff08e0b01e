"""Compare ASG with its peers on one driver, in one interleaved run.

Every contestant is a process of its own that stays warm: one gives the ceilings of the driver,
one is ASG, the others are its peers. Answers are checked before their times count. A round asks
each in turn for each task (A B C, A B C, …), so that whatever slows the machine slows all of
them. What is reported are medians over rounds, and medians of the ratios within a round.

    make bench                  all of it, about an hour
    make bench ARGUMENTS="--quick --only matmul,train_mlp --minutes 10"
    make bench ARGUMENTS="--contestants asg,torch --only model"
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chart
import cold
import figures
import report
import workloads
from contestants import Bystanders, Contestant, ContestError, Facts, child_environment
from figures import COLD, TRAINING, Entry
from rich.console import Console

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SCRATCH = HERE.parent / "build" / "bench"
PAGE = HERE.parent / "docs" / "benchmarks.md"

ROUNDS, QUICK_ROUNDS = 9, 3
LOSS_TOLERANCE = 1e-4

CEILINGS = ("multiply_add", "copy_vec4", "copy_u64", "dispatch", "submit_wait")
OPERATIONS = tuple(each.name for each in workloads.OPERATIONS)
STEPS = tuple(each.name for each in workloads.TRAININGS)
GROUPS: dict[str, tuple[str, ...]] = {
    "driver": CEILINGS,
    **{
        group: tuple(name for name, each in workloads.BY_NAME.items() if each.group == group)
        for group in dict.fromkeys(each.group for each in workloads.BY_NAME.values())
    },
    "training": (TRAINING,),
    "cold": cold.TASKS,
}
WARM_TASKS = {
    "driver": CEILINGS,
    "asg": (*OPERATIONS, *STEPS, TRAINING),
    "tinygrad": (*OPERATIONS, *STEPS, TRAINING),
    "onnxruntime": OPERATIONS,
    "wonnx": OPERATIONS,
    "torch": (*OPERATIONS, *STEPS),
    "jax": (*OPERATIONS, *STEPS),
}
# Whoever does something warm does it from a fresh start as well.
TASKS = {
    name: (*tasks, *(task for task in cold.TASKS if task.removeprefix(COLD) in tasks))
    for name, tasks in WARM_TASKS.items()
}
# What each contestant needs; those of the processor are what else one could run.
NEEDS: dict[str, tuple[str, ...]] = {
    "driver": (),
    "asg": (),
    "tinygrad": ("tinygrad", "pydawn"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "wonnx": ("wonnx", "onnx"),
    "torch": ("torch",),
    "jax": ("jax",),
}

console = Console()


def main() -> int:
    options = read_options()
    if options.report is not None:
        results = json.loads(options.report.read_text(encoding="utf-8"))
    else:
        results = measure(options)
        write(results, options)
    console.print(*report.tables(results), sep="\n")
    if options.write_docs:
        report.write_page(results, PAGE)
    return 1 if results["failures"] or (options.check and report.unmet(results)) else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, results in build/bench/")
    add("--rounds", type=int, help=f"how many (default {ROUNDS})")
    add(
        "--only", type=tasks_named, metavar="NAME,…", help=f"only these: {', '.join(GROUPS)}, tasks"
    )
    add("--contestants", type=contestants_named, metavar="NAME,…", help=f"of {', '.join(TASKS)}")
    add("--minutes", type=float, help="end after so long, with what has been measured by then")
    add("--gpu", action="store_true", help="whatever adapter comes first, not software Vulkan")
    add("--check", action="store_true", help="exit with 1 where a goal is missed")
    add("--write-docs", action="store_true", help="put the results into docs/benchmarks.md")
    add("--report", type=Path, metavar="JSON", help="measure nothing, show these results")
    options = parser.parse_args()
    if options.write_docs and not (options.report or is_whole(options)):
        parser.error("the page shows whole runs: without --quick, --rounds and --only")
    return options


def tasks_named(text: str) -> list[str]:
    """Return the tasks that a list of groups and tasks means.

    Raises:
        argparse.ArgumentTypeError: there is no such group or task.
    """
    known = {**{task: (task,) for tasks in GROUPS.values() for task in tasks}, **GROUPS}
    return [task for name in text.split(",") for task in named(name, known)]


def contestants_named(text: str) -> list[str]:
    """Return the contestants of a list; ASG always takes part."""
    chosen = {
        each for name in text.split(",") for each in named(name, {key: (key,) for key in TASKS})
    }
    return [name for name in TASKS if name in chosen | {"asg"}]


def named(name: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if name not in known:
        raise argparse.ArgumentTypeError(f"there is no {name}; known: {', '.join(known)}")
    return known[name]


def is_whole(options: argparse.Namespace) -> bool:
    """Whether everything is measured, as often as it should be."""
    return not any(
        (options.quick, options.only, options.rounds, options.contestants, options.minutes)
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the contest and return its results."""
    wanted = options.only or [task for tasks in GROUPS.values() for task in tasks]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    end = time.monotonic() + 60.0 * (options.minutes or 1e6)
    failures: list[str] = []
    names = options.contestants or list(TASKS)
    with started(names, options.gpu, failures) as (contestants, described):
        entries = list(prepare(contestants, wanted, failures, end))
        check_losses(entries, failures)
        shares = run_rounds(entries, rounds, failures, end)
    return {
        "name": name_of(described),
        "environment": figures.environment(described),
        "rounds": len(shares),
        "bystanders": statistics.median(shares) if shares else 0.0,
        "failures": failures,
        "ceilings": figures.ceilings(entries),
        "tasks": figures.compare(entries),
        "goals": figures.goals(entries),
    }


@contextmanager
def started(
    names: list[str], on_gpu: bool, failures: list[str]
) -> Iterator[tuple[dict[str, Contestant], dict[str, Facts]]]:
    """Start every contestant that can be had; end them afterwards."""
    contestants = [Contestant(name, NEEDS[name]) for name in names]
    described: dict[str, Facts] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**child_environment(on_gpu), workloads.REFERENCES: folder}
        try:
            for each in contestants:
                with noting(failures, each.name):
                    described[each.name] = each.start(Path(folder), environment)
            yield {each.name: each for each in contestants if each.name in described}, described
        finally:
            for each in contestants:
                each.close()


@contextmanager
def noting(failures: list[str], what: str) -> Iterator[None]:
    """Go on without what fails, and say so."""
    try:
        yield
    except ContestError as error:
        failures.append(f"{what}: {error}")
        console.print(f"[red]{failures[-1]}[/]", highlight=False)


def prepare(
    contestants: Mapping[str, Contestant], wanted: list[str], failures: list[str], end: float
) -> Iterator[Entry]:
    """Let contestants compile and check their answers, one at a time, for half of the time."""
    half = (time.monotonic() + end) / 2.0
    for task in wanted:
        for name, contestant in contestants.items():
            if task not in TASKS[name]:
                continue
            if time.monotonic() > half:
                failures.append(f"{name}, {task}: no time was left to prepare it")
                continue
            if task in cold.TASKS:
                yield cold.ColdEntry(contestant, task, {})
                continue
            with console.status(f"{name} prepares {task}"), noting(failures, f"{name}, {task}"):
                facts = contestant.ask({"do": "prepare", "task": task})
                if "unavailable" in facts:
                    continue
                entry = Entry(contestant, task, facts)
                entry.calibrate()
                yield entry


def check_losses(entries: list[Entry], failures: list[str]) -> None:
    """Take out whoever trains something else than ASG does."""
    for task in dict.fromkeys(entry.task for entry in entries if "losses" in entry.facts):
        trainers = {entry.contestant.name: entry for entry in entries if entry.task == task}
        ours = trainers.pop("asg", None)
        for name, entry in trainers.items() if ours else ():
            pairs = zip(entry.facts["losses"], ours.facts["losses"], strict=True)
            differences = [abs(theirs - own) for theirs, own in pairs]
            entry.facts["loss_differences"] = differences
            if not differences[0] <= LOSS_TOLERANCE:
                failures.append(f"{name}, {task}: the losses differ by {differences}")
                entries.remove(entry)


def run_rounds(entries: list[Entry], rounds: int, failures: list[str], end: float) -> list[float]:
    """Run all rounds, and return the share of the processors that others took in each."""
    order = [task for tasks in GROUPS.values() for task in tasks]
    # Task by task, so that contestants for the same task follow each other closely.
    entries.sort(key=lambda entry: order.index(entry.task))
    shares = []
    for number in range(rounds):
        if number and time.monotonic() > end:
            break
        with console.status(f"round {number + 1} of {rounds}"), Bystanders() as bystanders:
            for entry in list(entries):
                if number >= cold.ROUNDS and entry.task in cold.TASKS:
                    continue
                try:
                    entry.run()
                except ContestError as error:
                    failures.append(f"{entry.contestant.name}, {entry.task}: {error}")
                    entries.remove(entry)
        shares.append(bystanders.share)
    return shares


def name_of(described: Mapping[str, Facts]) -> str:
    """Return a name for files, after the device."""
    device = described.get("asg", {}).get("device", "none")
    return re.sub(r"\W+", "-", device.partition("(")[0].strip().lower())


def write(results: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Write JSON and chart; what is no whole run goes to build/."""
    folder = RESULTS if is_whole(options) else SCRATCH
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results['name']}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".svg").write_text(chart.draw(results), encoding="utf-8")
    console.print(f"wrote {os.path.relpath(path)} and .svg", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
