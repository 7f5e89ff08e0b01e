"""Cold starts: a fresh process with empty caches, until its first result has been checked.

What a task is called here is what is done warm, behind `cold_`. Each round starts a process of the
contestant twice: first with caches that are empty (its own and the driver's), then with those that
the first start has left.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from contestants import Contestant
from figures import COLD, Entry

WARM = ("gpt2_small_s128", "resnet18", "mobilenetv2", "train_lm_c256")
TASKS = tuple(f"{COLD}{name}" for name in WARM)
ROUNDS = 3  # at most: each starts processes, of which some compile for minutes

Times = dict[str, float]


@dataclass
class ColdEntry(Entry):
    """A contestant's part in a cold task. Its time is that of the first start, without imports."""

    starts: list[Times] = field(default_factory=list)

    def calibrate(self) -> None:
        """There is nothing to warm up."""

    def run(self) -> None:
        """Start twice."""
        with tempfile.TemporaryDirectory() as folder:
            first, second = (self._start(Path(folder)) for _ in range(2))
        self.starts.append({**first, **{f"again_{name}": each for name, each in second.items()}})
        self.rounds.append([first["first_s"]])
        self.facts = {
            name: statistics.median(each[name] for each in self.starts) for name in self.starts[0]
        }

    def _start(self, folder: Path) -> Times:
        """Return seconds until requests are answered, and from the graph to the first result."""
        contestant = Contestant(self.contestant.name, self.contestant.needs)
        began = time.perf_counter()
        try:
            contestant.launch(folder, self.contestant.environment)
            contestant.ask({"do": "nothing"})
            imports = time.perf_counter() - began
            facts = contestant.ask({"do": "prepare", "task": self.task.removeprefix(COLD)})
        finally:
            contestant.close()
        return {"imports_s": imports, "first_s": facts["first_s"]}
