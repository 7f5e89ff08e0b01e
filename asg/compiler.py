"""The compiler driver: graphs in, an executable out.

`lower` runs the passes and yields an artefact; `compile` also opens a device and loads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from asg.artefact import Artefact, Dispatch
from asg.codegen.build import Generate
from asg.codegen.context import Target
from asg.codegen.render import template_digest
from asg.collector import paused
from asg.cutting import uncut, uncut_entries
from asg.errors import AsgError, GraphError, UnsupportedError
from asg.graph import Graph
from asg.open_graph import OpenGraph, closed
from asg.passes.assign import AssignStorage
from asg.passes.choices import Choices, merge, shipped
from asg.passes.choose_layouts import ChooseLayouts, LayoutsIn, Wanted
from asg.passes.contract_costs import SHUFFLE
from asg.passes.copy_operands import CopyOperands
from asg.passes.expand import ExpandComposites
from asg.passes.fit_memory import FitMemory
from asg.passes.fuse import Fuse
from asg.passes.kernels import FusionPlan
from asg.passes.mixed_precision import MixedPrecision, narrow_parameters
from asg.passes.order import OrderKernels
from asg.passes.pack_joins import PackJoins
from asg.passes.pipeline import DEFAULT, DumpTo, Observer, Pass, run_pipeline
from asg.passes.recognise import Recognise, RecognisedIn
from asg.passes.sort_scatters import SortScatters
from asg.passes.split_joins import SplitJoins
from asg.passes.split_products import SplitProducts
from asg.passes.split_reductions import SplitReductions
from asg.passes.split_rows import SplitRows
from asg.passes.split_scans import SplitScans
from asg.passes.split_sorts import REGISTER_RUN, STAGED_RUN, SplitSorts
from asg.passes.tile_moments import TileMoments
from asg.plan_view import PlanView
from asg.precision import Policy, Precision, as_policy
from asg.program_cache import remembered
from asg.runtime.adapters import ADAPTER_CLASSES, AdapterClass
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable, NumpyExecutable
from asg.runtime.executor import Executor
from asg.runtime.wgpu_device import Device
from asg.specialiser import KEPT, Made, Make, Specialiser
from asg.stopwatch import Stopwatch
from asg.tolerances import NUMERICS, Numerics
from asg.types import DType

PIPELINE: tuple[Pass, ...] = (
    *DEFAULT,
    PackJoins(),
    SplitProducts(),
    TileMoments(),
    SplitRows(),
    SplitReductions(),
    SortScatters(),
    SplitSorts(),
    SplitScans(),
    SplitJoins(),
    CopyOperands(),
)

GPU_ROWS = 64  # rows, of a workgroup each, that leave much of a graphics card idle


@overload
def compile(
    graph: Graph | Mapping[str, Graph],
    *,
    target: str = ...,
    dims: None = ...,
    device: str | None = ...,
    schedule: str | None = ...,
    passes: tuple[Pass, ...] = ...,
    cache: bool = ...,
    memory_limit: int | None = ...,
    tune: bool | float = ...,
    kept: int = ...,
    precision: Precision = ...,
    numerics: Numerics = ...,
) -> Executable | NumpyExecutable: ...
@overload
def compile(
    graph: Graph | OpenGraph | Mapping[str, Graph | OpenGraph],
    *,
    target: str = ...,
    dims: Mapping[str, int] | None = ...,
    device: str | None = ...,
    schedule: str | None = ...,
    passes: tuple[Pass, ...] = ...,
    cache: bool = ...,
    memory_limit: int | None = ...,
    tune: bool | float = ...,
    kept: int = ...,
    precision: Precision = ...,
    numerics: Numerics = ...,
) -> Any: ...
def compile(
    graph: Any,
    *,
    target: str = "wgpu",
    dims: Mapping[str, int] | None = None,
    device: str | None = None,
    schedule: str | None = None,
    passes: tuple[Pass, ...] = PIPELINE,
    cache: bool = True,
    memory_limit: int | None = None,
    tune: bool | float = False,
    kept: int = KEPT,
    precision: Precision = None,
    numerics: Numerics = "precise",
) -> Executable | NumpyExecutable | Specialiser:
    """Compile a graph, or several that share parameters and state, and load the result.

    Args:
        graph: one graph (its entry is called `main`), or a mapping of entry names to graphs.
            Parameters and states of equal name are one.
        target: `wgpu`, or `numpy` for the interpreter behind the same interface.
        dims: sizes of open dimensions, by name. Where they leave nothing open the result is a
            plain executable, else a `Specialiser`, which compiles at the first call with new sizes.
        device: which adapter, as `ASG_DEVICE` says it.
        schedule: `cpu` or `gpu` to force a schedule family, or a class of adapters that
            `asg doctor` shows (`cpu-simd`, `nvidia-gpu` …), and behind it `+f16` or `+words` to
            say how f16 are read (docs/precision.md); by default the adapter decides.
        passes: the pipeline to run before fusion; `asg.compiler.PIPELINE` unless told.
        cache: whether kernels that an earlier run wrote for the same graph may be used
            (`ASG_CACHE=0` turns this off everywhere).
        memory_limit: the most bytes that values computed in a run may take; kernels are run
            again where that saves memory for the fewest operations. Parameters, state and inputs
            are not counted.
        tune: whether schedules are tried on the device, for a minute at most or for so many
            seconds; `asg.tuning` says how. Without it the same graph gives the same kernels.
        kept: of open graphs, for how many sizes executables are kept.
        precision: `mixed_f16`, `mixed_bf16` or a `Policy`: what kernels pass to each other, and
            matrices that nothing updates, are stored in 16 bits (docs/precision.md).
        numerics: `fast` computes exponentials, tanh, sigmoid, erf and gelu, and what is made of
            them, faster and less exactly (docs/numerics.md says by how much).

    Raises:
        GraphError: entries disagree about a parameter, or `dims` names what is not open.
        UnsupportedError: nodes that can't be compiled, all of them, each with its reason.
        MemoryLimitError: the limit can't be kept; says the least that can.
        DeviceError: no adapter, or it refuses what is needed.
    """
    if target not in ("wgpu", "numpy"):
        raise AsgError(f"target {target!r} is unknown; known: wgpu, numpy")

    if numerics not in NUMERICS:
        raise AsgError(f"numerics {numerics!r} is unknown; known: {', '.join(NUMERICS)}")
    policy = as_policy(precision)

    def make(graphs: Mapping[str, Graph] | Graph, lender: Made | None) -> Made:
        return _load(
            graphs, lender, target, device, schedule, passes, cache, memory_limit, tune, policy,
            numerics,
        )  # fmt: skip

    named = {"main": graph} if isinstance(graph, (Graph, OpenGraph)) else graph
    if isinstance(named, Mapping) and any(isinstance(each, OpenGraph) for each in named.values()):
        return _open(named, make, dims or {}, kept)
    if dims:
        raise GraphError(f"dims names {', '.join(dims)}, but no dimension of the graph is open")
    return make(graph, None)


def _open(
    graphs: Mapping[str, Graph | OpenGraph], make: Make, dims: Mapping[str, int], kept: int
) -> Executable | NumpyExecutable | Specialiser:
    """Return the executable of open graphs, if `dims` says every size, or else a specialiser."""
    found = {key: closed(each) if isinstance(each, Graph) else each for key, each in graphs.items()}
    specialiser = Specialiser(found, make, dims, kept)
    if specialiser.is_bound:
        return make(
            {key: each.bind(specialiser.dims_of(each)) for key, each in found.items()}, None
        )
    return specialiser


def _load(
    graph: Graph | Mapping[str, Graph],
    lender: Executable | NumpyExecutable | None,
    target: str,
    device: str | None,
    schedule: str | None,
    passes: tuple[Pass, ...],
    cache: bool,
    memory_limit: int | None,
    tune: bool | float,
    policy: Policy | None,
    numerics: Numerics,
) -> Executable | NumpyExecutable:
    """Compile graphs of known sizes; `lender` is an executable with parameters to share."""
    entries = as_entries(graph)
    # Passes of the user's own may do anything; what ours do is in their source.
    is_known = all(each in PIPELINE for each in passes)
    if policy is not None:
        entries, passes = narrow_parameters(entries, policy), with_precision(passes, policy)
    if target == "numpy":
        rounded = () if policy is None else for_target(passes, Target())
        return NumpyExecutable({key: prepare(each, (), rounded) for key, each in entries.items()})
    opened = shared_device(device)
    kernel_target = target_for(opened.adapter_class, schedule, numerics)
    found: dict[str, object] = {}
    if tune:
        kernel_target, found["tuning"] = _tuned(entries, opened, kernel_target, passes, tune)
    options = {"target": kernel_target, "passes": passes, "memory_limit": memory_limit}
    make = partial(lower, entries, target=kernel_target, passes=passes, memory_limit=memory_limit)
    artefact = remembered(entries, options, make) if cache and is_known else make()
    artefact = replace(artefact, report={**artefact.report, **found})
    check_sizes(artefact, opened.adapter.limits)
    share = lender.executor if isinstance(lender, Executable) else None
    return Executable(Executor(artefact, opened, share=share))


def target_for(
    adapter: AdapterClass, schedule: str | None = None, numerics: Numerics = "precise"
) -> Target:
    """Return what kernels are written for: an adapter's class, or one that is forced by name.

    A forced one may end in `+f16`, or in `+words`: whether arrays of f16 are read as such where
    the device has them. Otherwise the adapter decides, if it is of that family.

    Raises:
        AsgError: there is no such class.
    """
    name, _, memory = (schedule or adapter.name).partition("+")
    if name in ("cpu", "gpu"):
        generic = {"cpu": "cpu-simd", "gpu": "web-generic"}[name]
        name = adapter.name if adapter.family == name else generic
    if name not in ADAPTER_CLASSES or memory not in ("", "f16", "words"):
        known = ", ".join(("cpu", "gpu", *ADAPTER_CLASSES, "and these with +f16 or +words"))
        raise AsgError(f"schedule {schedule!r} is unknown; known: {known}")
    family = ADAPTER_CLASSES[name]
    size = adapter.subgroup_size if family == "cpu" else 0
    native = memory == "f16" or (not memory and adapter.native_f16 and adapter.family == family)
    choices = shipped(name, size, template_digest("contract_"))
    return Target(family, size, choices, native_f16=native, numerics=numerics)


def with_choices(target: Target, choices: Choices) -> Target:
    """Return a target with schedules that were measured on top of those that it has."""
    return replace(target, choices=merge(target.choices, choices))


def _tuned(
    entries: Mapping[str, Graph],
    device: Device,
    target: Target,
    passes: tuple[Pass, ...],
    tune: bool | float,
) -> tuple[Target, object]:
    """Try schedules on a device; return the target with the winners, and what to report."""
    from asg import tuning

    check_supported(entries)
    plain = uncut_entries(entries)
    plans = {key: fuse(prepare(graph, (), passes)) for key, graph in plain.items()}
    budget = tuning.DEFAULT_BUDGET if tune is True else float(tune)
    found = tuning.tune(plans, device, target, budget=budget)
    return with_choices(target, found.choices), tuning.report(found)


def as_entries(graph: Graph | Mapping[str, Graph]) -> dict[str, Graph]:
    """Return the entries of a program, checked against each other.

    Raises:
        GraphError: there is none, or a shared parameter differs in type or in its values.
    """
    if not isinstance(graph, (Graph, Mapping)):
        raise GraphError(
            f"a Graph or a mapping of names to graphs is compiled, not {type(graph).__name__}; "
            "asg.graph and asg.trace make one"
        )
    entries = {"main": graph} if isinstance(graph, Graph) else dict(graph)
    if not entries:
        raise GraphError("nothing to compile: no entries")
    seen: dict[str, str] = {}
    for key, each in entries.items():
        for name in each.input_names("parameter", "state"):
            other = seen.setdefault(name, key)
            _check_agreement(name, (other, entries[other]), (key, each))
    return entries


def _check_agreement(name: str, first: tuple[str, Graph], second: tuple[str, Graph]) -> None:
    """Check that two entries mean the same parameter or state."""
    where = f"entries {first[0]} and {second[0]} disagree about {name}"
    types = [graph.input(name).type for _, graph in (first, second)]
    if types[0] != types[1]:
        raise GraphError(f"{where}: {types[0]} and {types[1]}")
    values = [graph.values.get(name) for _, graph in (first, second)]
    if values[0] is values[1] or values[0] is None or values[1] is None:
        return
    if not np.array_equal(values[0], values[1], equal_nan=types[0].dtype.is_float):
        raise GraphError(
            f"{where}: it starts with different values; fix: trace both from one model"
        )


def check_supported(entries: Mapping[str, Graph]) -> None:
    """Refuse what no kernel can compute, everything at once.

    Raises:
        UnsupportedError: one line for each node, with its reason.
    """
    found: list[str] = []
    for key, graph in entries.items():
        for node in graph.nodes:
            if node.type.size >= 2**31:
                found.append(f"  {key}: {graph.names[node.values[0]]}: {node.type} is too large")
            for type_ in node.types:
                if type_.dtype not in tuple(DType):
                    found.append(f"  {key}: {node.op.name}: no kernel computes {type_.dtype}")
    if found:
        raise UnsupportedError("\n".join([f"{len(found)} node(s) can't be compiled", *found]))


def check_sizes(artefact: Artefact, limits: Mapping[str, int]) -> None:
    """Refuse what the adapter can't hold or bind, before anything runs.

    Raises:
        UnsupportedError: a buffer, or a range that a kernel binds, is too large.
    """
    found: dict[str, None] = {}
    largest = limits["maxBufferSize"]
    for buffer in artefact.buffers:
        if buffer.size > largest:
            found[f"  {buffer.name}: {buffer.size:,} bytes in one buffer, at most {largest:,}"] = (
                None
            )
    largest = limits["maxStorageBufferBindingSize"]
    for entry in artefact.entries.values():
        for step in entry.steps:
            for bound in step.ranges if isinstance(step, Dispatch) else ():
                if bound.size > largest:
                    name = artefact.buffers[bound.buffer].name
                    found[f"  {name}: {bound.size:,} bytes bound, at most {largest:,}"] = None
    if found:
        raise UnsupportedError("\n".join(["the adapter is too small", *found]))


def prepare(
    graph: Graph, observers: tuple[Observer, ...] = (), passes: tuple[Pass, ...] = PIPELINE
) -> Graph:
    """Run the graph passes."""
    return run_pipeline(graph, passes, observers)


def with_precision(passes: tuple[Pass, ...], policy: Policy) -> tuple[Pass, ...]:
    """Return a pipeline that stores values as a policy says: it decides when all is spelt out, and
    before products are cut into parts, whose sums stay f32."""
    later = (PackJoins, SplitProducts, SplitReductions, SplitJoins)
    place = next((i for i, each in enumerate(passes) if isinstance(each, later)), len(passes))
    return (*passes[:place], MixedPrecision(policy), *passes[place:])


def for_target(passes: tuple[Pass, ...], target: Target) -> tuple[Pass, ...]:
    """Return the pipeline with what it leaves open decided for a target."""
    return tuple(_decided(step, target) for step in passes)


def _decided(step: Pass, target: Target) -> Pass:
    is_gpu = target.family == "gpu"
    match step:
        case ExpandComposites(fuse_attention=None):
            has_shuffle = target.subgroup_size == SHUFFLE.subgroup
            return replace(step, fuse_attention=is_gpu or ("by cost" if has_shuffle else False))
        case ChooseLayouts(layout=None) if not is_gpu:
            return replace(step, layout="auto")
        case SplitSorts(longest=None):
            return replace(step, longest=STAGED_RUN if is_gpu else REGISTER_RUN)
        case SortScatters(family=""):
            return replace(step, family=target.family)
        case TileMoments(family=""):
            return step.decided(target.family)
        case SplitRows(most_rows=None) if is_gpu:
            return replace(step, most_rows=GPU_ROWS)
        case _:
            return step


def pipeline(
    *,
    fuse_attention: bool | None = None,
    recognise: bool = True,
    layout: Wanted | None = None,
    tile_statistics: bool | None = None,
) -> tuple[Pass, ...]:
    """Return `PIPELINE` with choices made whatever the target: attention in one kernel, or spelt
    out; images with channels first (`nchw`) or last (`nhwc`), or by cost (`auto`); norms with what
    products know of their tiles, or not; and without `recognise`, with all that is spelt out left
    as it is."""
    forced: dict[type, Pass] = {
        ExpandComposites: ExpandComposites(fuse_attention),
        ChooseLayouts: ChooseLayouts(layout),
        TileMoments: TileMoments(tile_statistics),
    }
    return tuple(
        forced.get(type(step), step)
        for step in PIPELINE
        if recognise or not isinstance(step, Recognise)
    )


def fuse(graph: Graph, *, enabled: bool = True) -> FusionPlan:
    """Cut a prepared graph into kernels, in the order in which they will run."""
    return OrderKernels()(Fuse(enabled=enabled)(graph))


@paused()
def lower(
    entries: Mapping[str, Graph],
    *,
    target: Target | None = None,
    reuse_memory: bool = True,
    enable_fusion: bool = True,
    name: str = "program",
    passes: tuple[Pass, ...] = PIPELINE,
    memory_limit: int | None = None,
) -> Artefact:
    """Compile entries to an artefact, without a device.

    `ASG_DUMP=folder` writes the graph after every pass, the kernels and the memory plan there.

    Raises:
        MemoryLimitError: values computed in a run can't be kept below `memory_limit` bytes.
    """
    check_supported(entries)
    target = target or Target()
    passes = for_target(passes, target)
    watch = Stopwatch()
    folder = os.environ.get("ASG_DUMP")
    plans: dict[str, FusionPlan] = {}
    cuts: dict[str, dict[str, tuple[int, str]]] = {}
    recognised: dict[str, dict[str, list[str]]] = {}
    layouts: dict[str, object] = {}
    for key, whole in entries.items():
        graph, cuts[key] = uncut(whole)
        seen = RecognisedIn()
        observers: tuple[Observer, ...] = (seen, LayoutsIn(passes, key, layouts))
        observers += (DumpTo(Path(folder) / key),) if folder else ()
        with watch.stage("passes"):
            prepared = prepare(graph, observers, passes)
        recognised[key] = seen.found
        with watch.stage("fusion"):
            fused = Fuse(enabled=enable_fusion, max_binding_bytes=target.max_binding_bytes)(
                prepared
            )
        with watch.stage("order"):
            plans[key] = OrderKernels()(fused)
    if memory_limit is not None:
        with watch.stage("recompute"):
            assign = AssignStorage(max_binding_bytes=target.max_binding_bytes)
            plans = FitMemory(memory_limit, assign)(plans)
    generate = Generate(target, reuse_memory)
    with watch.stage("memory"):
        storage = generate.assign(plans)
    with watch.stage("codegen"):
        artefact = generate.write(name, plans, storage)
    seconds = watch.seconds
    values = dict(artefact.values)
    for graph in entries.values():
        values = {**graph.values, **values}
    report = {
        **artefact.report, "recognised": recognised, "compile_s": sum(seconds.values()),
        "compile_stages": seconds,
    }  # fmt: skip
    report |= {"layouts": layouts} if layouts else {}
    made = {key: replace(each, cuts=cuts[key]) for key, each in artefact.entries.items()}
    artefact = replace(artefact, values=values, report=report, entries=made)
    if folder:
        dump_kernels(artefact, Path(folder))
        plan = PlanView.from_report(artefact.report["plan"])
        (Path(folder) / "plan.txt").write_text(f"{plan}\n")
        (Path(folder) / "plan.svg").write_text(plan.to_svg())
    return artefact


def dump_kernels(artefact: Artefact, folder: Path) -> None:
    """Write every kernel's text to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for kernel in artefact.kernels.values():
        for position, variant in enumerate(kernel.variants):
            ending = "" if position == len(kernel.variants) - 1 else f".{position}"
            (folder / f"{kernel.name}{ending}.wgsl").write_text(variant.wgsl)
