"""Finds what is wrong: the pass, the kernel and the node in it, or who overwrites memory.

Roof: uses the compiler and the runtime. What is found is cut down to a graph of a few nodes with
arrays for its inputs, so that it can be looked at, and reproduced, by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asg import compiler
from asg.artefact import Artefact, Dispatch, Entry, Step
from asg.bench import FAULTS, Bench, contradicts_examples
from asg.checks import Check
from asg.codegen.context import Target
from asg.comparison import Array, Difference
from asg.graph import Graph
from asg.memory_watch import overlap
from asg.oracle import Oracle
from asg.passes.pipeline import Pass, pass_name
from asg.runtime.devices import shared_device
from asg.runtime.executor import Executor
from asg.runtime.interpreter import run
from asg.runtime.wgpu_device import Device
from asg.shrink import Shrunk, shrink
from asg.single_kernel import single_kernel
from asg.tolerances import Numerics
from asg.verification import (
    Model,
    StepResult,
    Subject,
    all_inputs,
    check_memory,
    check_passes,
    check_whole,
    entries_of,
    load_state,
    make_subject,
    run_isolated,
)


@dataclass(frozen=True)
class Compiled:
    """What was found wrong as it was compiled: one kernel, or the program; and its inputs."""

    artefact: Artefact
    graph: Graph
    inputs: Mapping[str, Array]


@dataclass(frozen=True)
class Finding:
    """The first thing that is wrong.

    Attributes:
        check: what found it.
        blame: one sentence: who computes what wrongly.
        remarks: what else was tried, a line each: what cures it, what does not.
        graph: the smallest graph that shows it, with arrays for its inputs.
        node: the name in `graph` of the node that is wrong, and its `op`, where one was found.
        got: what came out of `graph`; the interpreter says what should have.
        wgsl: the kernels that computed it.
        after: what a wrong pass made of `graph`.
        target: what kernels were written for.
        compiled: the wrong kernel or the wrong program.
        passes: those that `graph` has yet to go through.
    """

    check: Check
    blame: str
    graph: Graph
    inputs: Mapping[str, Array]
    remarks: tuple[str, ...] = ()
    node: str = ""
    op: str = ""
    got: Mapping[str, Array] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    wgsl: Mapping[str, str] = field(default_factory=dict)
    after: Graph | None = None
    target: Target | None = None
    compiled: Compiled | None = None
    passes: tuple[str, ...] = ()
    device: str = ""

    def expected(self) -> dict[str, Array]:
        """Return what the interpreter makes of `graph`."""
        return run(self.graph, self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "blame": self.blame,
            "remarks": list(self.remarks),
            "node": self.node,
            "op": self.op,
            "check": self.check.to_dict(),
            "graph": str(self.graph),
            "differences": [each.to_dict() for each in self.differences],
            "device": self.device,
        }

    def __str__(self) -> str:
        lines = [self.blame, *(f"  {remark}" for remark in self.remarks)]
        lines += [f"  {each}" for each in self.differences or self.check.differences]
        return "\n".join(lines)


def bisect(
    model: Model,
    inputs: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
    schedule: str | None = None,
    passes: Sequence[Pass] = compiler.PIPELINE,
    seed: int = 0,
    numerics: Numerics = "precise",
) -> Finding | None:
    """Return the first thing that is wrong in a model (see `verify`), or None.

    Raises:
        InputError: an input is unknown or does not fit.
        DeviceError: no adapter is found.
    """
    entries, artefact = entries_of(model)
    given, _ = all_inputs(entries, inputs, seed)
    opened = shared_device(device)
    for key, graph in entries.items() if artefact is None else ():
        arrays = {**graph.values, **given[key], **_zero_state(graph, given[key])}
        for check in check_passes(key, graph, arrays, passes):
            if check.is_wrong:
                return _in_pass(check, graph, arrays, passes)
    try:
        subject = make_subject(entries, artefact, given, opened, schedule, passes, numerics)
        found = _in_program(subject, opened, passes)
    except FAULTS as error:
        if artefact is not None:
            raise
        target = compiler.target_for(opened.adapter_class, schedule, numerics)
        found = _in_compiler(entries, given, passes, Bench(opened, target), error)
    return found if found is None else replace(found, device=opened.description)


def _zero_state(graph: Graph, given: Mapping[str, Array]) -> dict[str, Array]:
    return {
        node.attrs["name"]: np.zeros(node.type.shape, node.type.dtype.numpy)
        for node in graph.inputs
        if node.attrs["name"] not in graph.values and node.attrs["name"] not in given
    }


# -- a pass -----------------------------------------------------------------------------------


def _in_pass(
    check: Check, graph: Graph, given: Mapping[str, Array], passes: Sequence[Pass]
) -> Finding:
    """Find the smallest graph that a wrong pass gets wrong."""
    position = next(n for n, step in enumerate(passes) if pass_name(step) == check.where)
    for step in passes[:position]:
        graph = step(graph)
    wrong = passes[position]

    def probe(part: Graph, arrays: Mapping[str, Array]) -> list[str]:
        (result,) = check_passes(check.entry, part, arrays, [wrong])
        if result.is_fault:
            return list(part.outputs)
        return [each.name for each in result.differences if each.is_wrong]

    shrunk = shrink(graph, given, probe)
    if shrunk is None:
        return Finding(check, f"pass {check.where} is wrong", graph, given, passes=(check.where,))
    (result,) = check_passes(check.entry, shrunk.graph, shrunk.inputs, [wrong])
    name, place = _named(shrunk)
    blame = f"pass {check.where} changes what {name} ({shrunk.value.node.op.name}) is{place}"
    after = None if result.is_fault else wrong(shrunk.graph)
    return Finding(
        check, blame, shrunk.graph, shrunk.inputs,
        remarks=(f"it fails: {result.note}",) if result.is_fault else (),
        node=name, op=shrunk.value.node.op.name,
        got={} if after is None else run(after, shrunk.inputs),
        differences=result.differences, after=after, passes=(check.where,),
    )  # fmt: skip


def _named(shrunk: Shrunk) -> tuple[str, str]:
    """Return the name of the value that a shrunk graph ends in, and where it was written."""
    name = next(iter(shrunk.graph.outputs))
    node = shrunk.value.node
    if node.site is None:
        return name, ""
    scope = f" in {node.scope}" if node.scope else ""
    return name, f", at {node.site}{scope}: {node.site.source}"


# -- a kernel, memory, the whole --------------------------------------------------------------


def _in_program(subject: Subject, device: Device, passes: Sequence[Pass]) -> Finding | None:
    """Look at kernels, memory and the whole, in the order in which `verify` does."""
    found = _in_kernels(subject, subject.artefacts[:-1], device)
    for check in check_memory(subject, device) if found is None else ():
        if check.is_wrong:
            return _in_whole(subject, check, passes)
    found = found or _in_kernels(subject, subject.artefacts[-1:], device)
    for check in check_whole(subject, device) if found is None else ():
        if check.is_wrong:
            return _in_whole(subject, check, passes)
    return found


def _in_kernels(
    subject: Subject, artefacts: Sequence[tuple[str, Artefact]], device: Device
) -> Finding | None:
    for how, artefact in artefacts:
        with Executor(artefact, device) as executor:
            for key in artefact.entries:
                found: list[StepResult] = []
                load_state(executor, subject)
                run_isolated(executor, subject, key, how, found.append)
                wrong = next((each for each in found if each.check.is_wrong), None)
                if wrong is not None:
                    return _in_step(subject, artefact, wrong, device)
    return None


def _in_whole(subject: Subject, check: Check, passes: Sequence[Pass]) -> Finding:
    """Report what shows in the whole program only."""
    graph = subject.original[check.entry]
    blame = f"{check.entry}: the results are wrong, though every kernel by itself is right"
    if check.stage == "memory":
        blame = f"{check.entry}: memory is planned wrongly: {check.note.splitlines()[0]}"
    given = {**graph.values, **subject.given[check.entry]}
    given |= _zero_state(graph, given)
    _, artefact = subject.artefacts[-1]
    inputs = {name: array for each in subject.given.values() for name, array in each.items()}
    return Finding(
        check, blame, graph, given,
        remarks=tuple(check.note.splitlines()[1:]),
        differences=check.differences, target=subject.target,
        compiled=Compiled(artefact, graph, inputs), passes=tuple(map(pass_name, passes)),
    )  # fmt: skip


def _in_step(subject: Subject, artefact: Artefact, wrong: StepResult, device: Device) -> Finding:
    """Find the node that a step gets wrong, and what cures it."""
    check = wrong.check
    entry = artefact.entries[check.entry]
    given = subject.given[check.entry]
    oracle = Oracle(subject.prepared[check.entry], entry, given, subject.numerics)
    part = oracle.part(oracle.written(wrong.step), wrong.step)
    inputs = oracle.feeds(part)
    if not isinstance(wrong.step, Dispatch):
        return Finding(check, f"{check.where} is wrong", part, inputs, got=wrong.got)
    alone = single_kernel(artefact, check.entry, wrong.position, str(part))
    compiled = Compiled(alone, part, inputs)
    bench = Bench(device, subject.target or Target(numerics=subject.numerics))
    remarks = [_alone(bench, compiled), *_cures(bench, part, inputs)]
    if artefact is not subject.artefacts[0][1]:
        remarks.insert(0, _sharing(artefact.entries[check.entry], wrong.step))
    shrunk = shrink(part, inputs, bench.probe)
    text = {check.where: artefact.kernels[check.where].variants[-1].wgsl}
    if shrunk is None:
        remarks.insert(0, "none of its nodes is wrong when the kernel is compiled again from them")
        return Finding(
            check, f"kernel {check.where} is wrong", part, inputs, tuple(remarks),
            got=wrong.got, wgsl=text, target=bench.target, compiled=compiled,
        )  # fmt: skip
    name, place = _named(shrunk)
    op = shrunk.value.node.op
    count = sum(bool(node.inputs) for node in shrunk.graph.nodes)
    remarks.insert(0, _size_remark(name, count))
    if contradicts_examples(op):
        remarks.append(f"the NumPy rule of {op.name} contradicts the op's own examples")
    outcome = bench.run(shrunk.graph, shrunk.inputs)
    return Finding(
        check, f"kernel {check.where} computes {name} ({op.name}) wrongly{place}",
        shrunk.graph, shrunk.inputs, tuple(remarks), name, op.name,
        outcome.got, outcome.differences, outcome.wgsl or text,
        target=bench.target, compiled=compiled,
    )  # fmt: skip


def _sharing(entry: Entry, step: Step) -> str:
    """Say which values share memory, for a step that is right where none does."""
    pairs = [
        f"{write} with {read}"
        for write in step.writes
        for read in step.reads
        if overlap(entry.values[write], entry.values[read])
    ]
    shared = f" (shared here: {', '.join(pairs)})" if pairs else ""
    return f"it is right with a place for each value{shared}"


def _size_remark(name: str, count: int) -> str:
    if count == 1:
        return f"{name} is wrong by itself, given the right operands"
    return f"{name} is wrong only together with others: the graph has {count} nodes"


def _in_compiler(
    entries: Mapping[str, Graph],
    given: Mapping[str, Mapping[str, Array]],
    passes: Sequence[Pass],
    bench: Bench,
    error: BaseException,
) -> Finding:
    """Find the smallest graph for which the compiler, or the driver, fails."""
    for key, original in entries.items():
        steps = compiler.for_target(tuple(passes), bench.target)
        graph = compiler.prepare(original, (), steps)
        arrays = {**graph.values, **given[key]}
        arrays |= _zero_state(graph, arrays)
        shrunk = shrink(graph, arrays, bench.failure_probe(type(error)))
        if shrunk is None:
            continue
        name, place = _named(shrunk)
        outcome = bench.run(shrunk.graph, shrunk.inputs)
        check = Check("kernels", key, name, note=outcome.error, is_fault=True)
        blame = f"{name} ({shrunk.value.node.op.name}) can't be compiled{place}"
        return Finding(
            check, blame, shrunk.graph, shrunk.inputs, tuple(outcome.error.splitlines()),
            name, shrunk.value.node.op.name, target=bench.target,
        )  # fmt: skip
    raise error


def _alone(bench: Bench, compiled: Compiled) -> str:
    outcome = bench.run_artefact(compiled.artefact, compiled.graph, compiled.inputs)
    if outcome.is_wrong:
        return "the kernel is wrong by itself, outside of the program"
    return "the kernel is right by itself: it is wrong only where it lies in the program"


def _cures(bench: Bench, part: Graph, inputs: Mapping[str, Array]) -> list[str]:
    """Say what becomes of the kernel's nodes compiled again: as they are, apart, otherwise."""
    other = "gpu" if bench.target.family == "cpu" else "cpu"
    tried = {
        "compiled again": bench,
        "with a kernel for each node (fusion off)": replace(bench, fusion=False),
        f"with the {other} schedules": replace(bench, target=Target(other)),
    }
    remarks: list[str] = []
    for how, each in tried.items():
        outcome = each.run(part, inputs)
        verdict = "wrong too" if outcome.is_wrong else "right"
        if outcome.error:
            verdict = f"fails: {outcome.error.splitlines()[0]}"
        remarks.append(f"{how}: {verdict}")
    return remarks
