"""Tuning: which schedule is fastest is found by trying, on the device at hand.

Roof: uses the compiler and the runtime. Kernels of one bucket (`asg.passes.choices`) share a
schedule, so one of each bucket is tried, the largest; those that matter most come first. Every
candidate computes the same random operands, and one whose result is not what the interpreter's
rounding allows is refused and reported. The rest is timed in turns, with more and more rounds for
fewer and fewer candidates. Winners are kept on disk for the same text, adapter and driver.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, Literal

from asg.artefact import Variant
from asg.codegen.build import anonymous_text
from asg.codegen.context import KernelContext, Target, flops
from asg.codegen.contract_choice import bucket, candidates_of
from asg.codegen.contract_kernel import contract_variants
from asg.comparison import Yardstick, compare
from asg.errors import DeviceError, DeviceLostError, OutOfMemoryError
from asg.kernel_bench import KernelBench, Way, alone, part_of, shader_for
from asg.passes.choices import Bucket, Choice, Choices, decode, encode, merge
from asg.passes.kernels import FusionPlan
from asg.passes.schedule_contract import ContractSchedule
from asg.program_cache import source_digest
from asg.runtime.devices import Compiler
from asg.runtime.disk_cache import DiskCache, digest
from asg.runtime.kernels import obstacle
from asg.runtime.wgpu_device import Device
from asg.yardstick import measure

CACHE = DiskCache("schedules", 4 << 20)

DEFAULT_BUDGET = 60.0  # seconds
COMPILE_LIMIT = 10.0  # seconds that the driver may take for one candidate
DROPPED = 1.3  # times the best: what is slower is not timed again
GAIN = 1.03  # what a winner must be faster by than the default; less is noise
_ROUNDS = 5
_MOST_BINDINGS = 8
_SAMPLES = 2  # disturbed runs of the interpreter: these kernels are large

Outcome = Literal["fastest", "slower", "dropped", "wrong", "refused", "slow to compile", "untimed"]


@dataclass
class Trial:
    """One candidate: how it did."""

    schedule: ContractSchedule
    seconds: float = math.inf
    outcome: Outcome = "untimed"
    detail: str = ""


@dataclass(frozen=True)
class Tuned:
    """What was found for one bucket; `count` kernels of the program are in it.

    `gain` is how much faster than the default the winner is; `is_known` says that an earlier
    tuning had found it.
    """

    bucket: Bucket
    kernel: str
    count: int
    winner: ContractSchedule
    gain: float
    trials: tuple[Trial, ...] = ()
    is_known: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Tuning:
    """What tuning a program found; `left` are kernels that the budget did not reach."""

    found: tuple[Tuned, ...]
    left: tuple[str, ...]
    seconds: float

    @property
    def choices(self) -> Choices:
        """The winners, as compiling takes them."""
        return merge(tuple(Choice(each.bucket, each.winner) for each in self.found))


@dataclass(frozen=True)
class Progress:
    """How far tuning is: `done` of `total` kernels; `text` says what is done now."""

    done: int
    total: int
    text: str


@dataclass
class _Job:
    """The largest kernel of a bucket."""

    bucket: Bucket
    context: KernelContext
    count: int = 0
    flops: int = 0


@dataclass
class _Clock:
    """A budget of seconds."""

    budget: float
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def is_over(self) -> bool:
        return self.seconds >= self.budget


def tune(
    plans: Mapping[str, FusionPlan],
    device: Device,
    target: Target,
    *,
    budget: float = DEFAULT_BUDGET,
    compile_limit: float = COMPILE_LIMIT,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Tuning:
    """Find the fastest schedules for the products of a program, within so many seconds.

    Raises:
        DeviceLostError: a candidate has brought the device down.
    """
    clock = _Clock(budget)
    jobs = _jobs(plans, target)
    found: list[Tuned] = []
    left: list[str] = []
    with Compiler(device, compile_limit) as compiler:
        for done, job in enumerate(jobs):
            name = job.context.kernel.name
            on_progress(Progress(done, len(jobs), f"{name}: {job.bucket}"))
            known = _known(job, device)
            if known is not None:
                found.append(known)
            elif clock.is_over:
                left.append(name)
            else:
                tuned = _try(job, device, compiler, clock)
                found.append(tuned)
                _remember(job, device, tuned)
        on_progress(Progress(len(jobs), len(jobs), "done"))
    return Tuning(tuple(found), tuple(left), clock.seconds)


def _jobs(plans: Mapping[str, FusionPlan], target: Target) -> list[_Job]:
    """Return a job for each bucket, those with the most arithmetic first."""
    jobs: dict[Bucket, _Job] = {}
    for context in _products(plans, target):
        work = flops(context.kernel)
        job = jobs.setdefault(bucket(context), _Job(bucket(context), context))
        largest = max(flops(job.context.kernel), work)
        if work == largest:
            job.context = context
        job.count += 1
        job.flops += work
    return sorted(jobs.values(), key=lambda job: (-job.flops, job.bucket))


def _products(plans: Mapping[str, FusionPlan], target: Target) -> Iterator[KernelContext]:
    """Return the kernels that there are several schedules for."""
    for plan in plans.values():
        for kernel in plan.kernels:
            bindings = len(kernel.reads) + len(kernel.outputs)
            is_empty = any(0 in value.type.shape for value in kernel.outputs)
            if kernel.kind == "contract" and bindings <= _MOST_BINDINGS and not is_empty:
                context = alone(plan.graph, kernel, target)
                if len(candidates_of(context)) > 1:
                    yield context


# -- what is known ----------------------------------------------------------------------------


def _key(job: _Job, device: Device) -> str:
    """Name all that the answer depends on: text, templates, candidates, adapter and driver."""
    context = job.context
    default = contract_variants(replace(context, target=replace(context.target, choices=())))
    return digest(
        "tuning 1",
        source_digest(("asg.codegen", "asg.shaders")),
        *(repr(anonymous_text(variant)) for variant in default),
        repr(candidates_of(context)),
        device.adapter.identity,
        device.adapter.driver,
        str(device.subgroup_size),
        metadata.version("wgpu"),
    )


def _known(job: _Job, device: Device) -> Tuned | None:
    data = CACHE.get(_key(job, device))
    if data is None:
        return None
    try:
        stored = json.loads(data)
        choice, gain = decode(stored["choice"]), float(stored["gain"])
    except (ValueError, KeyError, TypeError):
        return None
    if choice is None or choice.schedule not in candidates_of(job.context):
        return None
    name = job.context.kernel.name
    return Tuned(job.bucket, name, job.count, choice.schedule, gain, is_known=True)


def _remember(job: _Job, device: Device, tuned: Tuned) -> None:
    if tuned.problem or any(trial.outcome == "untimed" for trial in tuned.trials):
        return  # another time there may be more memory, or a larger budget
    choice = Choice(tuned.bucket, tuned.winner)
    stored = {"choice": encode(choice), "gain": tuned.gain}
    CACHE.put(_key(job, device), json.dumps(stored).encode())


# -- trying -----------------------------------------------------------------------------------


def _try(job: _Job, device: Device, compiler: Compiler, clock: _Clock) -> Tuned:
    """Try the candidates of a kernel."""
    context = job.context
    trials = [Trial(schedule) for schedule in candidates_of(context)]
    problem = ""
    part = part_of(context)
    try:
        with KernelBench(device, context, part) as bench:
            measured = measure(
                part, bench.arrays, samples=_SAMPLES, numerics=context.target.numerics
            )
            expected = {name: measured[value] for name, value in part.outputs.items()}
            _race(bench, _right(bench, trials, expected, compiler, clock), trials[0], clock)
    except (OutOfMemoryError, MemoryError) as error:
        problem = str(error)
    winner, gain = _winner(trials)
    name = context.kernel.name
    return Tuned(job.bucket, name, job.count, winner, gain, tuple(trials), problem=problem)


def _winner(trials: Sequence[Trial]) -> tuple[ContractSchedule, float]:
    """Return the fastest schedule and its gain over the default, which is the first."""
    default = trials[0]
    best = min(trials, key=lambda trial: trial.seconds)
    is_better = default.seconds < math.inf and default.seconds >= GAIN * best.seconds
    # Where the default is refused or wrong, anything that is right is better.
    if default.outcome in ("refused", "wrong", "slow to compile") and best.seconds < math.inf:
        best.outcome = "fastest"
        return best.schedule, 1.0
    chosen = best if is_better else default
    if chosen.seconds < math.inf:
        chosen.outcome = "fastest"
    return chosen.schedule, default.seconds / best.seconds if is_better else 1.0


def _right(
    bench: KernelBench,
    trials: Sequence[Trial],
    expected: Mapping[str, Yardstick],
    compiler: Compiler,
    clock: _Clock,
) -> list[tuple[Trial, Way]]:
    """Return the candidates that compile and whose results are right, each ready to run."""
    found: list[tuple[Trial, Way]] = []
    texts: dict[object, Trial] = {}
    for trial in trials:
        if clock.is_over:
            break
        (variant,) = contract_variants(bench.context, trial.schedule)
        same = texts.setdefault(anonymous_text(variant), trial)
        if same is not trial:
            trial.outcome, trial.detail = "refused", f"has the text of {same.schedule}"
            continue
        way = _ready(bench, trial, variant, compiler)
        if way is None:
            continue
        trial.detail = _difference(bench, way, expected)
        if trial.detail:
            trial.outcome = "wrong"
        else:
            found.append((trial, way))
    return found


def _ready(bench: KernelBench, trial: Trial, variant: Variant, compiler: Compiler) -> Way | None:
    """Compile a candidate, unless the device or its driver can't."""
    reason = obstacle(variant, bench.device)
    if reason is not None:
        trial.outcome, trial.detail = "refused", reason
        return None
    try:
        if compiler.compile(shader_for(bench.context, variant)):
            return bench.add(variant)
        trial.outcome = "slow to compile"
    except (DeviceLostError, OutOfMemoryError):
        raise
    except DeviceError as error:
        trial.outcome, trial.detail = "refused", str(error)
    return None


def _difference(bench: KernelBench, way: Way, expected: Mapping[str, Yardstick]) -> str:
    """Say what is wrong with a candidate's results, if anything is."""
    arrays = bench.run(way)
    types = {bench.context.names[value]: value.type for value in bench.context.kernel.outputs}
    for name, array in arrays.items():
        difference = compare(name, types[name], array, expected[name])
        if difference.is_wrong:
            return str(difference)
    return ""


def _race(
    bench: KernelBench, running: list[tuple[Trial, Way]], default: Trial, clock: _Clock
) -> None:
    """Time candidates in rounds, with fewer in each; the default stays to the end."""
    for number in range(_ROUNDS):
        if len(running) < 2 or (number > 0 and clock.is_over):
            break
        order = running if number % 2 == 0 else running[::-1]
        taken = bench.time([way for _, way in order], [trial.seconds for trial, _ in order])
        for (trial, _), seconds in zip(order, taken, strict=True):
            trial.seconds = min(trial.seconds, seconds)
            trial.outcome = "slower"
        ranked = sorted(running, key=lambda each: each[0].seconds)
        slowest = DROPPED * ranked[0][0].seconds
        most = max(2, -(-len(ranked) // 2)) if number > 0 else len(ranked)
        for position, (trial, _) in enumerate(ranked):
            if trial is not default and (position >= most or trial.seconds > slowest):
                trial.outcome = "dropped"
        running = [each for each in ranked if each[0].outcome == "slower"]


def report(tuning: Tuning) -> list[dict[str, Any]]:
    """Return what was found as plain data, for reports and bundles."""
    return [
        {
            "kernel": each.kernel,
            "bucket": str(each.bucket),
            "kernels": each.count,
            "schedule": str(each.winner),
            "gain": round(each.gain, 3),
            "known": each.is_known,
            "problem": each.problem,
            "trials": [
                {
                    "schedule": str(trial.schedule),
                    "seconds": trial.seconds if trial.seconds < math.inf else None,
                    "outcome": trial.outcome,
                    "detail": trial.detail,
                }
                for trial in each.trials
            ],
        }
        for each in tuning.found
    ]
