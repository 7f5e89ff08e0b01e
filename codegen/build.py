"""From fusion plans to an artefact: storage assigned, kernels written, twins made one."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asg.artefact import Argument, Artefact, Dispatch, Entry, Kernel, Step, Variant
from asg.codegen.attention_kernel import attention_variants
from asg.codegen.context import (
    HALF_FEATURE,
    BoundValues,
    KernelContext,
    Target,
    bytes_moved,
    flops,
    sites,
)
from asg.codegen.contract_kernel import contract_variants
from asg.codegen.map_kernel import map_variants
from asg.codegen.report import entry_report, total_report
from asg.codegen.row_kernel import row_variants
from asg.codegen.scan_kernel import scan_variants
from asg.codegen.scatter_kernel import scatter_variants
from asg.codegen.search_kernel import search_variants, segments_variants
from asg.codegen.signature import signature
from asg.codegen.sort_kernel import merge_variants, sort_variants
from asg.codegen.suppress_kernel import suppress_variants
from asg.codegen.written_kernel import written_variants
from asg.graph import Graph
from asg.lazy_texts import LazyTexts
from asg.passes.assign import AssignStorage
from asg.passes.kernels import FusionPlan
from asg.passes.plan_memory import PlanMemory
from asg.passes.storage import WORD, BoundRange, EntryStorage, KernelStep, StoragePlan
from asg.types import DType

_WRITERS = {
    "map": map_variants,
    "row": row_variants,
    "reduce": row_variants,
    "contract": contract_variants,
    "attention": attention_variants,
    "scatter": scatter_variants,
    "search": search_variants,
    "segments": segments_variants,
    "suppress": suppress_variants,
    "sort": sort_variants,
    "scan": scan_variants,
    "recur": scan_variants,
    "merge": merge_variants,
    "written": written_variants,
}


@dataclass(frozen=True)
class Generate:
    """Turn the fusion plans of a program's entries into one artefact for `target`.

    With `reuse_memory` off every value keeps a place of its own, so that all of them can be
    compared after a run. Same plans, same target: same bytes.
    """

    target: Target
    reuse_memory: bool = True

    def __call__(self, name: str, plans: Mapping[str, FusionPlan]) -> Artefact:
        return self.write(name, plans, self.assign(plans))

    def assign(self, plans: Mapping[str, FusionPlan]) -> StoragePlan:
        """Give every value its place."""
        memory = PlanMemory(reuse=self.reuse_memory)
        return AssignStorage(memory, max_binding_bytes=self.target.max_binding_bytes)(plans)

    def write(self, name: str, plans: Mapping[str, FusionPlan], storage: StoragePlan) -> Artefact:
        """Write the kernels of plans whose values have their places."""
        library = _Library(self.target)
        entries = {key: library.entry(storage.entries[key], plans[key].graph) for key in plans}
        reports = {
            key: entry_report(storage.entries[key], library.dispatched(entries[key]))
            for key in plans
        }
        kernels = library.kernels
        return Artefact(
            name=name,
            buffers=storage.buffers,
            persistent=storage.persistent,
            roles=dict(storage.roles),
            kernels=kernels,
            entries=entries,
            values=dict(storage.contents),
            sources=LazyTexts({key: plan.graph.__str__ for key, plan in plans.items()}),
            report={
                "numerics": self.target.numerics,
                **total_report(reports, kernels, storage.report),
            },
        )


@dataclass
class _Library:
    """Kernels written so far. Two that differ in names only are one."""

    target: Target
    _kernels: dict[str, Kernel] = field(default_factory=dict)
    _by_signature: dict[Hashable, str] = field(default_factory=dict)
    _by_text: dict[Hashable, str] = field(default_factory=dict)
    _nodes: dict[str, list[str]] = field(default_factory=dict)
    _sites: dict[str, dict[str, None]] = field(default_factory=dict)

    @property
    def kernels(self) -> dict[str, Kernel]:
        """All kernels; each names the nodes and lines of all that became one."""
        return {
            name: replace(kernel, nodes=tuple(self._nodes[name]), sites=tuple(self._sites[name]))
            for name, kernel in self._kernels.items()
        }

    def entry(self, storage: EntryStorage, graph: Graph) -> Entry:
        steps: list[Step] = []
        for step in storage.steps:
            if isinstance(step, KernelStep):
                kernel = self._kernel(step, storage)
                ranges = tuple(bound.range for bound in step.bindings)
                steps.append(Dispatch(kernel, ranges, step.reads, step.writes))
            else:
                steps.append(step)
        return Entry(
            name=storage.name,
            inputs=storage.inputs,
            outputs=storage.outputs,
            updates=dict(storage.updates),
            steps=tuple(steps),
            values=dict(storage.values),
        )

    def dispatched(self, entry: Entry) -> list[Kernel]:
        """Return the kernel of every dispatch."""
        return [self._kernels[step.kernel] for step in entry.steps if isinstance(step, Dispatch)]

    def _kernel(self, step: KernelStep, storage: EntryStorage) -> str:
        """Return the name of the kernel for `step`, written now unless there is one like it."""
        fused, graph = step.kernel, storage.plan.graph
        bound = tuple(_bound(step.bindings))
        context = KernelContext(graph, fused, bound, self.target)
        key = signature(context)
        name = self._by_signature.get(key)
        if name is None:
            name = self._by_signature[key] = self._write(context, step, storage.name)
        nodes = self._nodes.setdefault(name, [])
        nodes += [graph.names[value] for node in fused.nodes for value in node.values]
        self._sites.setdefault(name, {}).update(dict.fromkeys(sites(fused.nodes)))
        return name

    def _write(self, context: KernelContext, step: KernelStep, entry: str) -> str:
        """Return the name of a kernel with the text for `context`, a new one if need be."""
        fused = context.kernel
        variants = _variants(context)
        accesses = tuple(each.access for each in step.bindings)
        key = (accesses, tuple(anonymous_text(variant) for variant in variants))
        name = fused.name if fused.name not in self._kernels else f"{entry}_{fused.name}"
        found = self._by_text.setdefault(key, name)
        if found != name:
            return found
        names = [
            name
            for binding in context.bindings()[0]
            for name in (binding.name, *(part for part, _ in binding.parts))
        ]
        self._kernels[name] = Kernel(
            name=name,
            kind=fused.kind,
            arguments=tuple(
                Argument(name, access) for name, access in zip(names, accesses, strict=True)
            ),
            variants=variants,
            nodes=(),
            sites=(),
            flops=flops(fused),
            bytes_moved=bytes_moved(fused),
        )
        return name


def _variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return a kernel's variants, best first: those for devices with f16, then the others."""
    kind = context.kernel.kind
    plain = _WRITERS[kind](context)
    has_halves = any(bound.dtypes == {DType.F16} for bound in context.bound)
    if not context.target.native_f16 or not has_halves or kind == "written":
        return plain
    native = _WRITERS[kind](replace(context, native_f16=True))
    return (*(each for each in native if HALF_FEATURE in each.features), *plain)


def _bound(bindings: Sequence[BoundRange]) -> Iterator[BoundValues]:
    """Yield what lies in each binding and in those that it continues in."""
    for position, bound in enumerate(bindings):
        if bound.continues:
            continue
        parts = []
        for other in bindings[position + 1 :]:
            if not other.continues:
                break
            parts.append((other.range.offset - bound.range.offset) // WORD)
        values = tuple(bound.elements.items())
        yield BoundValues(values, bound.access == "read_write", tuple(parts))


def anonymous_text(variant: Variant) -> tuple[object, ...]:
    """Return a variant's text without comments and with names numbered as they appear."""
    numbers: dict[str, str] = {}
    text = re.sub(r"//[^\n]*", "", variant.wgsl)
    text = re.sub(
        r"\b[tv]_\w+", lambda match: numbers.setdefault(match[0], f"n{len(numbers)}"), text
    )
    return text, variant.workgroups, variant.features, variant.subgroup_size
