"""How long each step takes, by the device's clock where it has one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from asg.artefact import Artefact, Dispatch, Entry
from asg.runtime.commands import Call, Transfer, Work
from asg.runtime.wgpu_device import Device


@dataclass(frozen=True)
class Timing:
    """Seconds that a step took; `flops` and `bytes_moved` are the compiler's figures for it."""

    step: int
    name: str
    kind: str
    seconds: float
    flops: int
    bytes_moved: int


def time_steps(device: Device, steps: Sequence[Call | Sequence[Transfer]]) -> list[float]:
    """Run steps in order; return the seconds of each.

    Dispatches are timed by timestamp queries. Copies, and dispatches where there are no
    queries, are submitted one by one, and the time includes that: tens of microseconds.
    """
    seconds: list[float] = []
    calls: list[Call] = []
    for step in steps:
        if isinstance(step, Call):
            calls.append(step)
            continue
        seconds += _time_calls(device, calls)
        calls = []
        started = time.perf_counter()
        device.wait(device.submit(list(step)))
        seconds.append(time.perf_counter() - started)
    return seconds + _time_calls(device, calls)


def _time_calls(device: Device, calls: Sequence[Call]) -> list[float]:
    timed = device.time_calls(calls)
    if timed is not None:
        return timed
    seconds = []
    for call in calls:
        started = time.perf_counter()
        device.wait(device.submit([Work([call])]))
        seconds.append(time.perf_counter() - started)
    return seconds


def name_timings(artefact: Artefact, entry: Entry, seconds: Sequence[float]) -> list[Timing]:
    """Put the compiler's figures beside the measured ones."""
    timings = []
    for position, (step, taken) in enumerate(zip(entry.steps, seconds, strict=True)):
        if isinstance(step, Dispatch):
            kernel = artefact.kernels[step.kernel]
            figures = kernel.name, kernel.kind, taken, kernel.flops, kernel.bytes_moved
        else:
            figures = "copy", "copy", taken, 0, 2 * step.source.size
        timings.append(Timing(position, *figures))
    return timings
