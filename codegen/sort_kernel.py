"""Kernels that sort rows of keys with their positions, and that merge two sorted rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import Operand
from asg.errors import UnsupportedError
from asg.graph import Node, Value
from asg.index import Index, opaque, unflatten, variable
from asg.passes.split_sorts import REGISTER_RUN, STAGED_RUN
from asg.types import DType

STAGED_THREADS = 256
MERGED_AT_ONCE = 8  # elements of an invocation that merges


def sort_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the one variant of a kernel that sorts rows: in variables, or by workgroups."""
    node = context.kernel.anchors[0]
    length = node.inputs[0].type.shape[-1]
    if length <= REGISTER_RUN:
        return (_register(context, node),)
    if length <= STAGED_RUN:
        return (_staged(context, node),)
    raise UnsupportedError(
        f"rows of {length} keys are sorted in runs: the pipeline needs the pass SplitSorts"
    )


def exchanges(count: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs that Batcher's odd-even merge sort compares, for any number of elements."""
    size = 1
    while size < count:
        stride = size
        while stride:
            for start in range(stride % size, count - stride, 2 * stride):
                for low in range(start, min(start + stride, count - stride)):
                    if low // (2 * size) == (low + stride) // (2 * size):
                        yield low, low + stride
            stride //= 2
        size *= 2


def place(node: Node, row: Index, element: Index) -> Coordinates:
    """Return the coordinates of an element of a row in the first operand of `node`."""
    return (*unflatten(row, node.inputs[0].type.shape[:-1]), element)


def put(emitter: Emitter, value: Value, row: Index, element: Index, operand: Operand) -> None:
    """Store an element of a row of a result, if anyone wants that result."""
    if value in emitter.targets:
        emitter.store(value, row * value.type.shape[-1] + element, operand)


def _register(context: KernelContext, node: Node) -> Variant:
    length, count = node.inputs[0].type.shape[-1], node.attrs["count"]
    rows = math.prod(node.type.shape[:-1])
    workgroup = 64 if rows >= 512 else 8
    grid = grid_for(-(-rows // workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        row = variable("row", rows)
        for position in range(length):
            key = emitter.value(node.inputs[0], place(node, row, Index(position)))
            emitter.lines.append(f"var k{position} = {key.text};")
            emitter.lines.append(f"var p{position} = {position}i;")
        start = emitter.take()
        for position in range(count):
            for value, name, dtype in _results(node, str(position)):
                put(emitter, value, row, Index(position), Operand(name, 1, dtype))
        return {
            "start": start,
            "finish": emitter.take(),
            "pairs": list(exchanges(length)),
            "rows": rows,
            "workgroup": workgroup,
            "groups_x": grid[0],
        }

    schedule = f"a row of {length} per invocation, workgroup {workgroup}"
    return write(context, "sort_register.wgsl.j2", body, None, grid, schedule=schedule)


def _results(node: Node, suffix: str) -> list[tuple[Value, str, DType]]:
    """Return both results, with the variables that hold an element of theirs."""
    keys, places = node.values
    return [(keys, f"k{suffix}", DType.U32), (places, f"p{suffix}", DType.I32)]


def _staged(context: KernelContext, node: Node) -> Variant:
    length, count = node.inputs[0].type.shape[-1], node.attrs["count"]
    rows = math.prod(node.type.shape[:-1])
    size = 1 << (length - 1).bit_length()
    threads = min(STAGED_THREADS, size // 2)
    grid = grid_for(rows)

    def body(emitter: Emitter) -> Mapping[str, object]:
        row, element = variable("row", rows), variable("e", length)
        load = emitter.fork()
        key = load.value(node.inputs[0], place(node, row, element))
        load.lines.append(f"keys[e] = {key.text};")
        store = emitter.fork()
        for value, name, dtype in _results(node, ""):
            held = {"k": "keys[e]", "p": "places[e]"}[name]
            put(store, value, row, variable("e", count), Operand(held, 1, dtype))
        return {
            "load": load.take(),
            "store": store.take(),
            "length": length,
            "count": count,
            "size": size,
            "threads": threads,
            "groups_x": grid[0],
            "rows": rows,
        }

    schedule = f"a row of {length} per workgroup of {threads}"
    return write(context, "sort_staged.wgsl.j2", body, None, grid, schedule=schedule)


def merge_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the one variant of a kernel that merges: an invocation finds by bisection where its
    elements begin in both rows, and goes on from there."""
    node = context.kernel.anchors[0]
    length, count = node.inputs[0].type.shape[-1], node.attrs["count"]
    rows = math.prod(node.type.shape[:-1])
    chunk = min(MERGED_AT_ONCE, count)
    chunks = -(-count // chunk)
    total = rows * chunks
    workgroup = 64 if total >= 512 else 8
    grid = grid_for(-(-total // workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        row = variable("row", rows)
        lead = unflatten(row, node.type.shape[:-1])

        def at(operand: int, side: str, position: str) -> tuple[list[str], str]:
            block = emitter.fork()
            where = (*lead, opaque(side, 2), opaque(position, length))
            text = block.value(node.inputs[operand], where).text
            return block.take(), text

        first, first_key = at(0, "0u", "middle")
        second, second_key = at(0, "1u", "opposite")
        moved, moved_key = at(0, "side", "next")
        taken, taken_place = at(1, "side", "here")
        left, left_key = at(0, "0u", "left_start")
        right, right_key = at(0, "1u", "right_start")
        store = emitter.fork()
        put(store, node.values[0], row, opaque("out", count), Operand("key", 1, DType.U32))
        put(store, node.values[1], row, opaque("out", count), Operand(taken_place, 1, DType.I32))
        return {
            "bisect": [*first, *second],
            "is_before": f"{first_key} <= {second_key}",
            "start": [*left, *right],
            "left_key": left_key,
            "right_key": right_key,
            "store": [*taken, *store.take()],
            "advance": moved,
            "next_key": moved_key,
            "length": length,
            "count": count,
            "chunk": chunk,
            "chunks": chunks,
            "total": total,
            "workgroup": workgroup,
            "groups_x": grid[0],
        }

    schedule = f"{chunk} elements per invocation, workgroup {workgroup}"
    return (write(context, "merge.wgsl.j2", body, None, grid, schedule=schedule),)
