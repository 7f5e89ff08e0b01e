"""Runs a single kernel by itself: a small graph is one kernel, its text one dispatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from asg.artefact import Variant
from asg.codegen.context import BoundValues, KernelContext, Target
from asg.graph import Graph, Value
from asg.op import Contraction, Reduction, Source
from asg.passes.kernels import FusedKernel
from asg.runtime import interpreter
from asg.runtime.commands import Buffer, Call, Transfer, Work
from asg.runtime.devices import shared_device
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Device
from asg.tensor import Tensor

Array = np.ndarray[Any, Any]


def product_kernel(
    outputs: Mapping[str, Tensor], *, target: Target, in_place: Mapping[str, str] | None = None
) -> KernelContext:
    """Make a contract kernel of everything that `outputs` need; its last product is the anchor,
    with all sums.

    `in_place` names for an output the input whose memory it takes.
    """
    graph = Graph.build({name: tensor.value for name, tensor in outputs.items()})
    anchor = [node for node in graph.nodes if isinstance(node.op.kind, Contraction)][-1]
    sums = [node for node in graph.nodes if isinstance(node.op.kind, Reduction)]
    inputs = tuple(Value(node) for node in graph.inputs)
    kernel = FusedKernel(
        name="product",
        kind="contract",
        anchors=(anchor, *sums),
        outputs=tuple(graph.outputs.values()),
        reads=inputs,
        nodes=tuple(node for node in graph.nodes if not isinstance(node.op.kind, Source)),
    )
    names = {graph.names[value]: value for value in inputs}
    taken = {names[read]: graph.outputs[output] for output, read in (in_place or {}).items()}
    bound = [
        BoundValues(((value, 0), (taken[value], 0)), True)
        if value in taken
        else BoundValues(((value, 0),), False)
        for value in inputs
    ]
    own = [value for value in kernel.outputs if value not in taken.values()]
    bound += [BoundValues(((value, 0),), True) for value in own]
    return KernelContext(graph, kernel, tuple(bound), target)


def run_variant(
    context: KernelContext, variant: Variant, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Dispatch once; return the outputs. Memory holds other numbers before."""
    device = shared_device(limits=variant.limits or None)
    shader = Shader(
        context.kernel.name,
        variant.wgsl,
        tuple("read_write" if group.writable else "read" for group in context.bound),
        variant.features,
    )
    pipelines = device.acquire_pipelines([shader])
    buffers = []
    for group in context.bound:
        first = group.values[0][0]
        size = max(256, first.type.nbytes)
        buffer = device.create_buffer(context.names[first], size)
        device.write(buffer, 0, np.full(size // 4, 7.5, np.float32))
        if context.names[first] in inputs:
            device.write(buffer, 0, np.ascontiguousarray(inputs[context.names[first]]))
        buffers.append(buffer)
    group = device.create_group(pipelines[0], [(each, 0, each.size) for each in buffers])
    try:
        device.submit([Work([Call(pipelines[0], group, variant.workgroups)])])
        return {
            context.names[value]: _read(device, buffer, value)
            for bound, buffer in zip(context.bound, buffers, strict=True)
            for value, _ in bound.values
            if value in context.kernel.outputs
        }
    finally:
        device.release_groups(1)
        device.release_pipelines(pipelines)
        for buffer in buffers:
            buffer.close()


def _read(device: Device, buffer: Buffer, value: Value) -> Array:
    staging = device.create_buffer("staging", buffer.size, staging=True)
    submission = device.submit([Transfer(buffer, 0, staging, 0, buffer.size)])
    with device.mapped(staging, buffer.size, submission) as data:
        words = data[: value.type.nbytes].view(value.type.dtype.numpy)
        result: Array = words.reshape(value.type.shape).copy()
    staging.close()
    return result


def draw(context: KernelContext, seed: int = 0) -> dict[str, Array]:
    """Return random inputs for the kernel's graph."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(context.graph.input(name).type.shape, dtype=np.float32)
        for name in context.graph.input_names()
    }


def expect_right(
    outputs: Mapping[str, Tensor],
    writers: Sequence[Callable[[KernelContext], Variant]],
    *,
    target: Target,
    tolerance: float,
    in_place: Mapping[str, str] | None = None,
) -> None:
    """Compare what each writer's kernel computes with the interpreter in float64."""
    context = product_kernel(outputs, target=target, in_place=in_place)
    inputs = draw(context)
    wanted = interpreter.run(context.graph, inputs, dtype="f64")
    for writer in writers:
        variant = writer(context)
        found = run_variant(context, variant, inputs)
        for name, array in found.items():
            message = f"{name} by {variant.schedule}"
            np.testing.assert_allclose(
                array, wanted[name], rtol=tolerance, atol=tolerance, err_msg=message
            )
