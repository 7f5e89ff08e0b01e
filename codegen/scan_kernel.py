"""Kernels that go along rows and keep what they have so far: running sums, recurrences."""

from __future__ import annotations

import math
from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.combine import combine_text, identity
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Emitter
from asg.codegen.sort_kernel import place, put
from asg.codegen.text import SCALAR, Operand
from asg.graph import Node, Value
from asg.index import variable
from asg.op import Procedure

STAGED_THREADS = 256
ENOUGH_ROWS = 4096  # with so many, an invocation of a graphics card takes a row, too


def scan_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's one variant: an invocation or a workgroup goes along a row."""
    node = context.kernel.anchors[0]
    rows = math.prod(node.type.shape[:-1])
    is_staged = context.target.family == "gpu" and rows < ENOUGH_ROWS
    return ((_staged if is_staged else _serial)(context, node, rows),)


def _texts(emitter: Emitter, node: Node, held: list[str], new: list[str]) -> tuple[str, ...]:
    """Return what becomes of what a row has so far and what comes next: for a recurrence the
    value, then the factor of all that came before."""
    kind = node.op.kind
    assert isinstance(kind, Procedure)
    if kind.form == "recur":
        return f"{new[0]} + {new[1]} * {held[0]}", f"{held[1]} * {new[1]}"
    assert kind.combine is not None
    return (combine_text(emitter, kind.combine, node.type.dtype, 1).format(held[0], new[0]),)


def _loads(emitter: Emitter, node: Node, rows: int) -> list[str]:
    """Load an element of each operand, that of the result first."""
    where = place(node, variable("row", rows), variable("k", node.type.shape[-1]))
    return [emitter.value(operand, where).text for operand in reversed(node.inputs)]


def _serial(context: KernelContext, node: Node, rows: int) -> Variant:
    length = node.type.shape[-1]
    workgroup = 64 if rows >= 512 else 8
    grid = grid_for(-(-rows // workgroup))

    def body(emitter: Emitter) -> Mapping[str, object]:
        inner = emitter.fork()
        new = _loads(inner, node, rows)
        text = _texts(inner, node, ["total", "1.0f"], new)[0]
        inner.lines.append(f"total = select({text}, {new[0]}, k == 0u);")
        total = Operand("total", 1, node.type.dtype)
        put(inner, Value(node), variable("row", rows), variable("k", length), total)
        return {
            "type": SCALAR[node.type.dtype],
            "body": inner.take(),
            "length": length,
            "rows": rows,
            "workgroup": workgroup,
            "groups_x": grid[0],
        }

    schedule = f"a row of {length} per invocation, workgroup {workgroup}"
    return write(context, "scan_serial.wgsl.j2", body, None, grid, schedule=schedule)


def _staged(context: KernelContext, node: Node, rows: int) -> Variant:
    length = node.type.shape[-1]
    grid = grid_for(rows)
    kind = node.op.kind
    assert isinstance(kind, Procedure)
    names = ["total", "factor"] if kind.form == "recur" else ["total"]

    def body(emitter: Emitter) -> Mapping[str, object]:
        assert isinstance(kind, Procedure)
        assert kind.combine is not None
        load = emitter.fork()
        new = _loads(load, node, rows)
        load.lines += [f"{name} = {text};" for name, text in zip(names, new, strict=True)]
        earlier = _texts(emitter, node, [f"earlier_{name}" for name in names], names)
        carried = _texts(emitter, node, [f"carried_{name}" for name in names], names)
        store = emitter.fork()
        total = Operand("total", 1, node.type.dtype)
        put(store, Value(node), variable("row", rows), variable("k", length), total)
        nothing = [identity(emitter, kind.combine, node.type.dtype), "1.0f"]
        return {
            "type": SCALAR[node.type.dtype],
            "names": names,
            "nothing": nothing[: len(names)],
            "load": load.take(),
            "earlier": earlier,
            "carried": carried,
            "store": store.take(),
            "length": length,
            "threads": STAGED_THREADS,
            "rows": rows,
            "groups_x": grid[0],
        }

    schedule = f"a row of {length} per workgroup of {STAGED_THREADS}"
    return write(context, "scan_staged.wgsl.j2", body, None, grid, schedule=schedule)
