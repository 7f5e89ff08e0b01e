"""Map kernels: every output element depends on a bounded set of operand elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asg.artefact import Variant
from asg.codegen.block_map import block_axis, block_variant
from asg.codegen.context import KernelContext, grid_for, with_wide, write
from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, lane_variable
from asg.graph import Value
from asg.index import Index, constant, unflatten, variable
from asg.passes.cost import element_cost

WORKGROUP = 64
ENOUGH_THREADS = 4096
CHEAP = 64  # operations per element up to which loads and stores take most of the time
LIMITS = ((4, 192), (2, 384))  # items of an invocation, and the most operations of one


def map_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's variants.

    An item is four neighbours (a vec4) where the size allows, one element otherwise. On a
    processor an invocation computes several items that follow each other, so that it uses whole
    cache lines; on a graphics card one, so that neighbouring invocations do.
    """
    axis = block_axis(context) if context.target.family == "cpu" else None
    if axis is not None:
        tall = _cost(context) <= CHEAP
        return with_wide(context, lambda wide: block_variant(context, axis, tall, wide))
    return with_wide(context, lambda wide: _write(context, wide))


def _write(context: KernelContext, wide: bool) -> Variant:
    outputs = context.kernel.outputs
    size = outputs[0].type.size
    # Narrow results are written by whole words; the last quad may have fewer elements.
    has_rest = size % LANES != 0 and any(output.type.dtype.is_narrow for output in outputs)
    is_vector = has_rest or size % LANES == 0
    quads = size // LANES
    count = quads + has_rest if is_vector else size
    lane = lane_variable() if is_vector else None
    items = _items(context, count)
    # Side by side, so that what one item waits for is hidden by the others.
    beside = items if count % items == 0 else 1
    items, count = items // beside, count // beside
    grid = grid_for(-(-count // (WORKGROUP * items)))

    def body(emitter: Emitter) -> Mapping[str, object]:
        lines: list[str] = []
        if has_rest:
            rest = emitter.fork()
            _store_rest(rest, outputs, quads * LANES)
            lines = [f"if (i == {quads}u) {{", *(f"    {line}" for line in rest.take())]
            lines += ["    return;", "}"]
        if quads or not is_vector:
            first = variable("i", (quads if is_vector else size) // beside) * beside
            places = [first + number for number in range(beside)]
            if lane is not None:
                places = [place * LANES + Index(0, ((lane, 1),)) for place in places]
            operands, texts = [], []
            for place in places:
                for output in outputs:
                    found = emitter.value(output, unflatten(place, output.type.shape))
                    operands.append((output, place, found))
                texts.append(emitter.take())
            lines += _woven(texts)
            for output, place, operand in operands:  # after all loads: it may overwrite a read
                emitter.store(output, place, operand)
        return {
            "body": [*lines, *emitter.take()],
            "count": count,
            "items": items,
            "workgroup": WORKGROUP,
            "groups_x": grid[0],
        }

    elements = items * beside * (LANES if is_vector else 1)
    amount = f"{elements} element{'s' if elements > 1 else ''}"
    schedule = f"{amount} per invocation, workgroup {WORKGROUP}"
    return write(context, "map.wgsl.j2", body, lane, grid, schedule=schedule, wide=wide)


def _store_rest(emitter: Emitter, outputs: Sequence[Value], start: int) -> None:
    """Write what follows the last whole quad."""
    shapes = [output.type.shape for output in outputs]
    positions = [constant(flat) for flat in range(start, outputs[0].type.size)]
    found = [
        [emitter.value(output, unflatten(at, shape)) for at in positions]
        for output, shape in zip(outputs, shapes, strict=True)
    ]
    for output, operands in zip(outputs, found, strict=True):
        emitter.store_rest(output, constant(start), operands)


def _woven(texts: Sequence[Sequence[str]]) -> list[str]:
    """Return the statements of all items, in turn where items share none: then all have the same
    number."""
    if len({len(text) for text in texts}) == 1:
        return [line for lines in zip(*texts, strict=True) for line in lines]
    return [line for text in texts for line in text]


def _items(context: KernelContext, count: int) -> int:
    """Return how many items an invocation computes: 1, 2 or 4.

    What is long has few, since the driver's compiler spends its time in proportion to the text.
    """
    if context.target.family != "cpu":
        return 1
    cost = _cost(context)
    most = next((items for items, limit in LIMITS if cost <= limit), 1)
    return next(n for n in (4, 2, 1) if n <= most and (n == 1 or count >= n * ENOUGH_THREADS))


def _cost(context: KernelContext) -> int:
    return sum(element_cost(node) for node in context.kernel.nodes)
