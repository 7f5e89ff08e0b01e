"""Map kernels: every output element depends on a bounded set of operand elements."""

from __future__ import annotations

from collections.abc import Mapping

from asg.artefact import Variant
from asg.codegen.context import KernelContext, grid_for, write
from asg.codegen.emit import Emitter
from asg.codegen.text import LANES, lane_variable
from asg.index import Index, unflatten, variable

WORKGROUP = 64


def map_variants(context: KernelContext) -> tuple[Variant, ...]:
    """Return the kernel's variants: one, the same for every target.

    One invocation computes four neighbours (a vec4) where the size allows, one element otherwise.
    """
    size = context.kernel.outputs[0].type.size
    is_vector = size % LANES == 0
    count = size // LANES if is_vector else size
    lane = lane_variable() if is_vector else None
    groups = grid_for(-(-count // WORKGROUP))

    def body(emitter: Emitter) -> Mapping[str, object]:
        flat = variable("i", count)
        if lane is not None:
            flat = flat * LANES + Index(0, ((lane, 1),))
        operands = [
            (output, emitter.value(output, unflatten(flat, output.type.shape)))
            for output in context.kernel.outputs
        ]
        for output, operand in operands:  # all loads come first: an output may overwrite a read
            emitter.store(output, flat, operand)
        return {
            "body": emitter.take(),
            "count": count,
            "workgroup": WORKGROUP,
            "groups_x": groups[0],
        }

    amount = f"{LANES} elements" if is_vector else "1 element"
    schedule = f"{amount} per invocation, workgroup {WORKGROUP}"
    return (write(context, "map.wgsl.j2", body, lane, groups, schedule=schedule),)
