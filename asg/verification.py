"""Checks a model against the interpreter: pass by pass, kernel by kernel, memory, as a whole.

Roof: uses the compiler and the runtime. A kernel is judged by itself: before its step, what it
reads is replaced by what the interpreter computed, so that no earlier error reaches it. That is
done with every value in a place of its own and with memory reused. A further run, in which
nothing is replaced, checks that every value is still what was written when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asg import compiler
from asg.artefact import Artefact, Dispatch, Step
from asg.checks import Check, DifferentialReport, Stage
from asg.codegen.build import Generate
from asg.codegen.context import Target
from asg.comparison import Array, Yardstick, compare
from asg.cutting import uncut_entries
from asg.errors import AsgError, GraphError, InputError
from asg.gradient_check import check_gradients
from asg.graph import Graph, Literal, Value
from asg.memory_watch import watch_memory
from asg.oracle import Oracle
from asg.parse import parse_graph
from asg.passes.assign import AssignStorage
from asg.passes.check_memory import find_faults
from asg.passes.kernels import FusionPlan
from asg.passes.pipeline import Pass, pass_name
from asg.runtime.devices import shared_device
from asg.runtime.executor import Executor
from asg.runtime.wgpu_device import Device
from asg.sample_inputs import sample_inputs
from asg.tolerances import Numerics
from asg.types import TensorType
from asg.verify import verify as verify_graph
from asg.yardstick import collect, measure

STAGES: tuple[Stage, ...] = ("passes", "kernels", "memory", "whole")

Model = Graph | Mapping[str, Graph] | Artefact


@dataclass(frozen=True)
class Subject:
    """A model made ready to be checked.

    Attributes:
        original: each entry's graph as it came.
        prepared: the same after the passes; its names are those of the compiled entry.
        given: arrays for each entry's inputs, and for parameters that have no values.
        artefacts: compiled forms and what is special about them, the plainest first.
        target: what they were compiled for, where that is known.
        numerics: the mode of their functions, which says how exact they have to be.
        plans: the kernels that they were compiled from, where these are known.
    """

    original: Mapping[str, Graph]
    prepared: Mapping[str, Graph]
    given: Mapping[str, Mapping[str, Array]]
    artefacts: Sequence[tuple[str, Artefact]]
    target: Target | None = None
    numerics: Numerics = "precise"
    plans: Mapping[str, FusionPlan] = field(default_factory=dict)

    def inputs(self, entry: str) -> dict[str, Array]:
        """Return the arrays that a call of an entry takes."""
        known = self.original[entry].input_names("input")
        return {name: array for name, array in self.given[entry].items() if name in known}

    def state(self) -> dict[str, Array]:
        """Return what parameters and state start with, where that is not zero."""
        found: dict[str, Array] = {}
        for entry, graph in self.original.items():
            named = {**graph.values, **self.given[entry]}
            kept = graph.input_names("parameter", "state")
            found.update((name, named[name]) for name in kept if name in named)
        return found


def verify(
    model: Model,
    inputs: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
    schedule: str | None = None,
    stages: Sequence[Stage] = STAGES,
    passes: Sequence[Pass] = compiler.PIPELINE,
    seed: int = 0,
    numerics: Numerics = "precise",
) -> DifferentialReport:
    """Compare everything the compiler makes of a model with the interpreter.

    Args:
        model: a graph, entries by name, or the artefact of a bundle (whose passes have run).
        inputs: arrays by name; for the others, and for parameters without values, random ones.
        device: which adapter, as `ASG_DEVICE` says it.
        schedule: `cpu` or `gpu` to force a family of schedules.
        stages: which comparisons; without `kernels`, `memory` and `whole` no device is needed.
            `gradients` is left out unless named.
        passes: the pipeline to check.
        seed: of the random inputs.
        numerics: as in `asg.compile`; a bundle says its own.

    Raises:
        InputError: an input is unknown or does not fit.
        DeviceError: no adapter is found.
    """
    entries, artefact = entries_of(model)
    given, origin = all_inputs(entries, inputs, seed)
    checks: list[Check] = []
    for key, graph in entries.items():
        if "gradients" in stages:
            checks += check_gradients(key, graph, given[key])
        if "passes" in stages and artefact is None:
            checks += check_passes(key, graph, given[key], passes)
    if not set(stages) & {"kernels", "memory", "whole"}:
        return DifferentialReport(tuple(checks), "", origin)
    opened = shared_device(device)
    subject = make_subject(entries, artefact, given, opened, schedule, passes, numerics)
    # Where memory is planned wrongly, a kernel's operands may lie on top of one another, and the
    # kernel would be blamed: so the plan is judged before the kernels that live with it.
    if "kernels" in stages:
        checks += check_kernels(subject, subject.artefacts[:-1], opened)
    if "memory" in stages:
        checks += check_memory(subject, opened)
    if "kernels" in stages:
        checks += check_kernels(subject, subject.artefacts[-1:], opened)
    if "whole" in stages:
        checks += check_whole(subject, opened)
    return DifferentialReport(tuple(checks), opened.description, origin)


def make_subject(
    entries: Mapping[str, Graph],
    artefact: Artefact | None,
    given: Mapping[str, Mapping[str, Array]],
    device: Device,
    schedule: str | None,
    passes: Sequence[Pass],
    numerics: Numerics = "precise",
) -> Subject:
    """Compile entries (or take the artefact that they come from) to compare them."""
    if artefact is not None:
        mode = artefact.report.get("numerics", "precise")
        alone = [("memory as in the bundle", artefact)]
        return Subject(entries, entries, given, alone, numerics=mode)
    target = compiler.target_for(device.adapter_class, schedule, numerics)
    steps = compiler.for_target(tuple(passes), target)
    prepared = {key: compiler.prepare(each, (), steps) for key, each in entries.items()}
    plans = {key: compiler.fuse(each) for key, each in prepared.items()}
    artefacts = []
    for how, reuse in (("a place for each value", False), ("memory reused", True)):
        found = Generate(target, reuse)("program", plans)
        values = dict(found.values)
        for graph in prepared.values():
            values = {**graph.values, **values}
        artefacts.append((how, replace(found, values=values)))
    return Subject(entries, prepared, given, artefacts, target, numerics, plans)


def entries_of(model: Model) -> tuple[dict[str, Graph], Artefact | None]:
    """Return the entries of a model, and its artefact if it is one."""
    if isinstance(model, Artefact):
        return artefact_graphs(model), model
    return uncut_entries(compiler.as_entries(model)), None


def artefact_graphs(artefact: Artefact) -> dict[str, Graph]:
    """Read the graphs that an artefact was made from.

    Raises:
        GraphError: the text can't be read, or a big constant is not among the values.
    """
    constants = {Literal(array).digest: array for array in artefact.values.values()}
    graphs: dict[str, Graph] = {}
    for key, text in artefact.sources.items():
        graph = parse_graph(text, constants)
        known = graph.input_names("parameter", "state")
        values = {name: artefact.values[name] for name in known if name in artefact.values}
        graphs[key] = graph.with_values(values)
    if not graphs:
        raise GraphError(f"{artefact.name} holds no graphs, so there is nothing to compare with")
    return graphs


def all_inputs(
    entries: Mapping[str, Graph], inputs: Mapping[str, Any] | None, seed: int
) -> tuple[dict[str, dict[str, Array]], dict[str, str]]:
    """Return arrays for every entry, one for each name, and where they come from.

    Raises:
        InputError: an input is in no entry.
    """
    given = dict(inputs or {})
    known = dict.fromkeys(name for graph in entries.values() for name in graph.input_names())
    for name in given:
        if name not in known:
            raise InputError(f"there is no input {name!r}; inputs: {', '.join(known) or 'none'}")
    origin = dict.fromkeys(given, "given")
    found: dict[str, dict[str, Array]] = {}
    shared: dict[tuple[str, TensorType], Array] = {}
    # Entries share parameters and state: what one of them has a value for, no other draws.
    values = {name: array for graph in entries.values() for name, array in graph.values.items()}
    for key, graph in entries.items():
        names = graph.input_names()
        mine = {name: array for name, array in given.items() if name in names}
        others = [name for name in values if name in names and name not in graph.values]
        mine = {name: values[name] for name in others} | mine
        drawn = sample_inputs(graph, mine, seed=seed)
        for name, array in drawn.items():
            drawn[name] = shared.setdefault((name, graph.input(name).type), array)
            if name not in values:
                origin.setdefault(name, f"random, seed {seed}, {_range(array)}")
        found[key] = drawn
    return found, origin


def _range(array: Array) -> str:
    if array.size == 0:
        return "empty"
    if array.dtype.kind == "f":
        return "normal"
    return f"from {array.min()} to {array.max()}"


def check_passes(
    entry: str, graph: Graph, given: Mapping[str, Any], passes: Sequence[Pass]
) -> list[Check]:
    """Run the passes one after the other; judge each result by what was there before it."""
    checks: list[Check] = []
    results = result_values(graph)
    measured = measure(graph, given)
    before = {name: measured[value] for name, value in results.items()}
    for step in passes:
        name = pass_name(step)
        try:
            after = step(graph)
            verify_graph(after)
            exact = collect(after, given, after.results, "f64")
            found = {key: exact[value] for key, value in result_values(after).items()}
            differences = tuple(
                compare(key, results[key].type, found[key], yard) for key, yard in before.items()
            )
        except (AsgError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            note = f"{type(error).__name__}: {error}"
            return [*checks, Check("passes", entry, name, note=note, is_fault=True)]
        note = "changed nothing" if str(after) == str(graph) else ""
        checks.append(Check("passes", entry, name, differences, note))
        before = {
            key: Yardstick(found[key], found[key], yard.spread) for key, yard in before.items()
        }
        graph = after
    return checks


def result_values(graph: Graph) -> dict[str, Value]:
    """Return outputs by name, and what states become by name and `'`."""
    return {**graph.outputs, **{f"{name}'": value for name, value in graph.updates.items()}}


@dataclass(frozen=True)
class StepResult:
    """What a step wrote when it was given the right operands, beside what it should write."""

    position: int
    step: Step
    check: Check
    got: Mapping[str, Array]
    yardsticks: Mapping[str, Yardstick]


def check_kernels(
    subject: Subject, artefacts: Sequence[tuple[str, Artefact]], device: Device
) -> list[Check]:
    """Check every step of some compiled forms, each with the right operands."""
    checks: list[Check] = []

    def keep(result: StepResult) -> None:
        checks.append(result.check)

    for how, artefact in artefacts:
        with Executor(artefact, device) as executor:
            for key in artefact.entries:
                load_state(executor, subject)
                run_isolated(executor, subject, key, how, keep)
    return checks


def run_isolated(
    executor: Executor,
    subject: Subject,
    entry: str,
    how: str,
    tell: Callable[[StepResult], None],
) -> None:
    """Run an entry step by step, before each replacing what it reads by what it should be."""
    steps = executor.artefact.entries[entry].steps
    compiled = executor.artefact.entries[entry]
    oracle = Oracle(subject.prepared[entry], compiled, subject.given[entry], subject.numerics)

    def feed(position: int) -> None:
        for name in steps[position].reads:
            array = oracle.array(name)
            if array is not None and name in compiled.values:
                executor.write_value(entry, name, array)

    def observe(position: int, step: Step) -> None:
        yardsticks = oracle.yardsticks(step)
        got = {name: executor.read_value(entry, name) for name in yardsticks}
        differences = tuple(
            compare(name, compiled.values[name].type, got[name], yard)
            for name, yard in yardsticks.items()
        )
        check = Check("kernels", entry, step_label(step), differences, step=position)
        if check.is_wrong:
            check = Check(
                "kernels", entry, step_label(step), differences,
                f"{how}; {origin_note(executor.artefact, step)}", step=position,
            )  # fmt: skip
        tell(StepResult(position, step, check, got, yardsticks))
        if position + 1 < len(steps):
            feed(position + 1)

    if steps:
        feed(0)
        executor.run_steps(entry, subject.inputs(entry), observe)


def step_label(step: Step) -> str:
    """Return what a report calls a step."""
    if isinstance(step, Dispatch):
        return step.kernel
    return f"copy to {', '.join(step.writes)}"


def origin_note(artefact: Artefact, step: Step) -> str:
    """Return the source lines that a step computes."""
    sites = artefact.kernels[step.kernel].sites if isinstance(step, Dispatch) else ()
    return f"computes {'; '.join(sites)}" if sites else "no source lines are known"


def load_state(executor: Executor, subject: Subject) -> None:
    """Put parameters and state to where they begin."""
    wanted = subject.state()
    zeros = {
        slot.name: np.zeros(slot.type.shape, slot.type.dtype.numpy)
        for slot in executor.artefact.persistent
        if slot.name not in wanted and executor.artefact.roles[slot.name] == "state"
    }
    executor.load_state_dict({**zeros, **wanted}, strict=False)


def check_memory(subject: Subject, device: Device) -> list[Check]:
    """Check the memory plan by itself, then on the device, in the last compiled form."""
    checks = _plan_checks(subject)
    _, artefact = subject.artefacts[-1]
    with Executor(artefact, device) as executor:
        for key in artefact.entries:
            load_state(executor, subject)
            faults = watch_memory(executor, key, subject.prepared[key], subject.inputs(key))
            checks += faults or [Check("memory", key, "on the device")]
    return checks


def _plan_checks(subject: Subject) -> list[Check]:
    """Have the plan checked byte by byte by what shares no code with the planner."""
    if not subject.plans:
        return []
    faults = find_faults(AssignStorage()(subject.plans))
    return [
        Check("memory", each.entry, each.step, note=f"{each.kind}: {each.message}", is_fault=True)
        for each in faults
    ] or [Check("memory", key, "as planned") for key in subject.plans]


def check_whole(subject: Subject, device: Device) -> list[Check]:
    """Run every entry twice: its results must be right, and the same bits again."""
    checks: list[Check] = []
    _, artefact = subject.artefacts[-1]
    with Executor(artefact, device) as executor:
        for key, graph in subject.original.items():
            # Empty states have no place, and nothing to compare.
            every = result_values(graph)
            results = {name: value for name, value in every.items() if value.type.size}
            first, second = (_run(executor, subject, key) for _ in range(2))
            yardsticks = measure(graph, subject.given[key], numerics=subject.numerics)
            differences = tuple(
                compare(name, value.type, first[name], yardsticks[value])
                for name, value in results.items()
            )
            changed = [name for name in results if not _same_bits(first[name], second[name])]
            note = f"a second run differs in {', '.join(changed)}" if changed else ""
            checks.append(Check("whole", key, "results", differences, note, bool(changed)))
    return checks


def _run(executor: Executor, subject: Subject, entry: str) -> dict[str, Array]:
    """Run an entry from the beginning; return its outputs and what states became."""
    load_state(executor, subject)
    found = dict(executor.run(entry, subject.inputs(entry)))
    kept = {slot.name for slot in executor.artefact.persistent}
    updates = [name for name in subject.original[entry].updates if name in kept]
    return {**found, **{f"{name}'": executor.read(name) for name in updates}}


def _same_bits(one: Array, other: Array) -> bool:
    return one.tobytes() == other.tobytes()
