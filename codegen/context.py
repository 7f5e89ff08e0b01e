"""What every kernel class shares when it is written: bindings, header, grid, the two passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asg.artefact import Variant
from asg.codegen.bindings import Binding, Place
from asg.codegen.emit import Emitter
from asg.codegen.render import helper_texts, render
from asg.codegen.text import LANES, identifier
from asg.graph import Graph, Node, Value
from asg.index import Index, Var, flatten, unflatten
from asg.op import Elementwise, View
from asg.passes.choices import Choices
from asg.passes.cost import node_flops
from asg.passes.inline import written_through
from asg.passes.kernels import FusedKernel
from asg.passes.storage import MAX_BINDING_BYTES
from asg.tolerances import Numerics
from asg.types import DType

MAX_GROUPS = 65_535  # WebGPU's default limit per dimension
WIDE_FEATURE = "shader-int64"
HALF_FEATURE = "shader-f16"
WIDE_BYTES = 1 << 16  # kernels that move less take no longer than their dispatch


@dataclass(frozen=True)
class BoundValues:
    """One binding: the values inside it with their element offsets, and whether it is written.

    What is too large continues in further bindings, which begin at the elements `parts`.
    """

    values: tuple[tuple[Value, int], ...]
    writable: bool
    parts: tuple[int, ...] = ()

    @property
    def dtypes(self) -> set[DType]:
        return {value.type.dtype for value, _ in self.values}


@dataclass(frozen=True)
class Target:
    """What kernels are written for: the schedule family, and what the device offers.

    `family` is `cpu` (register tiles, no workgroup memory, no barriers) or `gpu` (staged in
    workgroup memory). `subgroup_size` is exact, 0 where subgroups are not to be used. `choices`
    are measured schedules, which go before the estimated ones. What is larger than
    `max_binding_bytes` is bound in several ranges. With `native_f16`, kernels that load or store
    f16 have variants for devices with these, before those that read them from words.
    `numerics` says which form of functions is used where there are two.
    """

    family: str = "cpu"
    subgroup_size: int = 0
    choices: Choices = ()
    max_binding_bytes: int = MAX_BINDING_BYTES
    native_f16: bool = False
    numerics: Numerics = "precise"


@dataclass(frozen=True)
class KernelContext:
    """A kernel to write: what it computes, how values are bound, for which target.

    With `native_f16`, arrays that hold nothing but f16 are written as such.
    """

    graph: Graph
    kernel: FusedKernel
    bound: tuple[BoundValues, ...]
    target: Target
    native_f16: bool = False

    @property
    def names(self) -> Mapping[Value, str]:
        return self.graph.names

    def bindings(self) -> tuple[list[Binding], dict[Value, Place]]:
        """Return fresh bindings and where each value lies in them."""
        bindings: list[Binding] = []
        places: dict[Value, Place] = {}
        taken: dict[str, int] = {}
        for group in self.bound:
            stem = identifier(self.names[group.values[0][0]], "t_")
            count = taken.get(stem, 0)
            taken[stem] = count + 1
            name = stem if count == 0 else f"{stem}_{count}b"
            binding = Binding(name, group.values[0][0].type.dtype, group.writable)
            binding.itemsizes = frozenset(value.type.dtype.itemsize for value, _ in group.values)
            binding.is_half = self.native_f16 and group.dtypes == {DType.F16}
            binding.parts = tuple((f"{name}_from_{start}e", start) for start in group.parts)
            bindings.append(binding)
            for value, offset in group.values:
                places[value] = Place(binding, offset)
        return bindings, places


def write(
    context: KernelContext,
    template: str,
    body: Callable[[Emitter], Mapping[str, object]],
    lane: Var | None,
    grid: tuple[int, int, int],
    *,
    schedule: str,
    features: Sequence[str] = (),
    subgroup_size: int = 0,
    wide: bool = False,
    turns: bool = False,
    pairs: bool = False,
) -> Variant:
    """Render a kernel: `body` writes statements and returns the template's other holes.

    It runs twice. The first time tells which bindings are read four elements at a time and so
    become arrays of vec4; with `wide`, of pairs of 64-bit words where nothing else is read; with
    `pairs`, of four of them where vec4s are accessed in pairs.
    With `turns`, operands that are read across are loaded in vec4s and turned (`Emitter.turns`).
    """
    bindings, places = context.bindings()
    loads = {value: places[value] for value in context.kernel.reads}
    stores = {value: places[value] for value in context.kernel.outputs}
    body(Emitter(loads, stores, context.names, lane, turns))
    for binding in bindings:
        inside = [(v, each.offset) for v, each in places.items() if each.binding is binding]
        is_aligned = all(offset % LANES == 0 for _, offset in inside)
        are_pairs = all((offset | value.type.size) % (2 * LANES) == 0 for value, offset in inside)
        binding.settle(wide, is_aligned, pairs and are_pairs)
    if any(binding.is_wide for binding in bindings):
        features = (*features, WIDE_FEATURE)
    if any(binding.is_half for binding in bindings):
        features = (*features, HALF_FEATURE)
    emitter = Emitter(loads, stores, context.names, lane, turns)
    holes = body(emitter)
    text = render(
        template,
        header=header(context, schedule),
        bindings=[
            {
                "name": name,
                "element": binding.element,
                "access": "read_write" if binding.writable else "read",
            }
            for binding in bindings
            for name in (binding.name, *(part for part, _ in binding.parts))
        ],
        **holes,
        helpers=[
            *(text for binding in bindings for text in binding.accessors()),
            *helper_texts(list(emitter.helpers), context.target.numerics),
        ],
    )
    return Variant(text, grid, tuple(features), subgroup_size, {}, schedule)


def with_wide(
    context: KernelContext, make: Callable[[bool], Variant], *, enough: int = WIDE_BYTES
) -> tuple[Variant, ...]:
    """Return what `make` writes with 64-bit words, where that pays, then without them.

    Software devices load lane by lane, and two elements in a word are one load. Graphics cards
    gain nothing from it.
    """
    plain = make(False)
    if context.target.family != "cpu" or bytes_moved(context.kernel) < enough:
        return (plain,)
    wide = make(True)
    return (wide, plain) if WIDE_FEATURE in wide.features else (plain,)


def output_coordinates(
    context: KernelContext,
    value: Value,
    coordinates: tuple[Index, ...],
    result: Value | None = None,
) -> tuple[Index, ...]:
    """Return where in `value` the element lies that the anchor's element becomes.

    Everything behind the views that the anchor writes through follows their order. `result` is
    the anchor's only one unless told.
    """
    source = result or Value(context.kernel.anchors[0])
    shape = source.type.shape
    for node in written_through(context.graph, source):
        assert isinstance(node.op.kind, View)
        assert node.op.kind.inverse is not None
        coordinates = node.op.kind.inverse(node.attrs, shape, node.type.shape, coordinates)
        shape = node.type.shape
    if value.type.shape == shape:
        return coordinates
    return unflatten(flatten(coordinates, shape), value.type.shape)


def header(context: KernelContext, schedule: str) -> str:
    """Return the comment above a kernel: what it computes, for which lines, at what cost."""
    kernel, names = context.kernel, context.names
    lines = [f"// {kernel.name}: {summary(context)}"]
    for site in sites(kernel.nodes):
        lines.append(f"//   {site}")
    types = [f"{names[value]}: {value.type}" for value in (*kernel.reads, *kernel.outputs)]
    lines.append(f"// {'   '.join(types)}")
    lines.append(f"// {schedule}; {bytes_moved(kernel):,} bytes, {flops(kernel):,} flops")
    return "\n".join(lines)


def summary(context: KernelContext) -> str:
    """Return the kernel's outputs as a short formula over what it reads."""
    kernel, names = context.kernel, context.names
    outputs = ", ".join(names[value] for value in kernel.outputs)
    reads = ", ".join(names[value] for value in kernel.reads)
    ops = " → ".join(dict.fromkeys(n.op.name for n in kernel.nodes if _is_work(n)))
    return f"{outputs} = {ops or 'copy'}({reads})"


def _is_work(node: Node) -> bool:
    return isinstance(node.op.kind, Elementwise) or bool(node.inputs)


def sites(nodes: Sequence[Node]) -> list[str]:
    """Return the distinct source lines of nodes, with scope and note, in order."""
    found: dict[str, None] = {}
    for node in nodes:
        if node.site is None:
            continue
        scope = f" ({node.scope})" if node.scope else ""
        note = f" [{node.note}]" if node.note else ""
        found[f"{node.site}{scope}{note}: {node.site.source}"] = None
    return list(found)


def bytes_moved(kernel: FusedKernel) -> int:
    """Return the bytes of all operands and results, each once."""
    return sum(value.type.nbytes for value in (*kernel.reads, *kernel.outputs))


def flops(kernel: FusedKernel) -> int:
    """Return arithmetic operations, each node counted once per element."""
    return sum(node_flops(node) for node in kernel.nodes)


def grid_for(groups: int) -> tuple[int, int, int]:
    """Spread `groups` workgroups over x and y within WebGPU's limit per dimension."""
    if groups <= MAX_GROUPS:
        return max(groups, 1), 1, 1
    rows = math.ceil(groups / MAX_GROUPS)
    return math.ceil(groups / rows), rows, 1
