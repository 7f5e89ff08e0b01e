"""The child's side: a contestant is a process that answers requests, one JSON line each.

    {"do": "nothing"}                        → {}, once everything is imported
    {"do": "describe"}                       → {"name": …, "versions": …}
    {"do": "prepare", "task": "matmul_512"}  → what `Task.prepare` returns; with "unavailable",
                                               where the device can't do it, the reason
    {"do": "run", "task": …, "count": 3}     → {"seconds": [0.1, 0.1, 0.1]}

An answer {"failure": "…"} means that the task failed; the contestant goes on.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Facts = dict[str, Any]


class Task(Protocol):
    """Something to measure."""

    def prepare(self) -> Facts:
        """Compile, run for the first time and check the answer; return what is known then."""
        ...

    def step(self) -> None:
        """Do it once more, and wait until it is done."""
        ...


def serve(describe: Callable[[], Facts], tasks: Mapping[str, Callable[[], Task]]) -> None:
    """Answer requests until there are no more."""
    # Libraries print to stdout; from now on that is stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    made: dict[str, Task] = {}

    def answer(request: Mapping[str, Any]) -> Facts:
        match request:
            case {"do": "nothing"}:
                return {}
            case {"do": "describe"}:
                return describe()
            case {"do": "prepare", "task": str(name)}:
                made[name] = tasks[name]()
                return made[name].prepare()
            case {"do": "run", "task": str(name), "count": int(count)}:
                return {"seconds": [clock(made[name].step) for _ in range(count)]}
            case _:
                raise ValueError(f"not a request: {request}")

    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"failure": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def clock(function: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
