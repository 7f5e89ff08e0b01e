"""Runs the node tests of the `onnx` package on ASG and its peers, each test on its own.

    python benchmarks/onnx_backend.py [--only CONTESTANT]... [--cases TEXT] [--write]

A contestant is a child process; one that dies or takes too long has failed that test, and a new
child goes on with the next. What counts as a pass is the suite's own tolerance, with exact dtypes.
`--write` writes results/onnx_backend.json, from which `make docs` makes docs/onnx.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contestants import child_environment
from onnx_cases import Case, keep, numeric_cases
from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "onnx_backend.json"
PATIENCE = 60.0  # seconds a test
NAMES = (
    "asg", "onnxruntime-webgpu", "tinygrad", "wonnx", "onnxruntime-cpu", "onnx-reference",
)  # fmt: skip
Answer = dict[str, str]


class Child:
    """A contestant's process."""

    def __init__(self, name: str, cases: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "onnx_judged.py"), name, str(cases)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(on_gpu=False),
            text=True,
        )
        self.version = self._line().get("version", "")

    def _line(self) -> Answer:
        assert self.process.stdout is not None
        was_slow = threading.Event()

        def give_up() -> None:
            was_slow.set()
            self.process.kill()

        alarm = threading.Timer(PATIENCE, give_up)
        alarm.start()
        line = self.process.stdout.readline()
        alarm.cancel()
        if line:
            answer: Answer = json.loads(line)
            return answer
        why = f"no answer in {PATIENCE:g} s" if was_slow.is_set() else "the process died"
        return {"result": "crashed", "why": why}

    def ask(self, name: str) -> Answer:
        """Return the answer for one test; the child may be dead then."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"result": "crashed", "why": "the process died"}
        return self._line()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(name: str, cases: Sequence[Case], path: Path, console: Console) -> Iterator[Any]:
    """Yield a contestant's version, then its answer to each case."""
    child = Child(name, path)
    yield child.version
    for case in track(cases, name, console=console, transient=True):
        if not child.is_alive:
            child = Child(name, path)
        answer = child.ask(case.name)
        if answer["result"] == "crashed":
            child.process.wait()
        yield answer
    child.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", action="append", choices=NAMES, default=[])
    parser.add_argument("--cases", default="", help="tests whose name contains this")
    parser.add_argument("--write", action="store_true", help="keep the results")
    parser.add_argument("--list", action="store_true", help="print every test that does not pass")
    options = parser.parse_args()
    console = Console()
    cases = [each for each in numeric_cases() if options.cases in each.name]
    found: dict[str, Any] = {}
    if options.write and RESULTS.exists():
        found = json.loads(RESULTS.read_text())["contestants"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.pickle"
        keep(cases, path)
        for name in options.only or NAMES:
            stream = answers(name, cases, path, console)
            number = next(stream)
            if not number:
                console.print(f"{name} does not start; is it installed?")
                continue
            every = {case.name: each for case, each in zip(cases, stream, strict=True)}
            faults = {key: each for key, each in every.items() if each["result"] != "passed"}
            if options.list:
                show(faults, console)
            if name != "asg":  # why is their business
                faults = {key: {"result": each["result"]} for key, each in faults.items()}
            found[name] = {"version": number, "faults": faults}
    console.print(table(found, len(cases)))
    if options.write:
        ops = {case.name: case.op for case in cases}
        RESULTS.write_text(json.dumps({"ops": ops, "contestants": found}, indent=1) + "\n")


def show(faults: dict[str, Answer], console: Console) -> None:
    """Print every test that does not pass."""
    for name, answer in faults.items():
        console.print(f"{answer['result']:8} {name}: {answer['why']}", markup=False)


def table(found: dict[str, Any], total: int) -> Table:
    """Return the outcome of all contestants as a table."""
    made = Table("contestant", "version", "passed", "wrong", "refused", "failed", "crashed", "%")
    for name, each in found.items():
        counts = Counter(answer["result"] for answer in each["faults"].values())
        passed = total - len(each["faults"])
        numbers = [passed, *(counts[k] for k in ("wrong", "refused", "failed", "crashed"))]
        made.add_row(name, each["version"], *map(str, numbers), f"{100 * passed / total:.1f}")
    return made


if __name__ == "__main__":
    main()
