"""The driver's ceilings, as a contestant: what driver_limits.py measures, a round at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np
from driver_limits import (
    ACCUMULATORS,
    NOTHING,
    UNROLLED,
    copy_shader,
    multiply_add_shader,
)
from protocol import Facts, clock, serve

from asg.runtime.commands import Buffer, Call, Work
from asg.runtime.devices import shared_device
from asg.runtime.shaders import Shader

COPIED = 64 << 20
DISPATCHES = 1000


class Repeated:
    """A kernel, dispatched several times by one submission."""

    def __init__(self, shader: Shader, groups: tuple[int, int, int], repeat: int) -> None:
        self.shader, self.groups, self.repeat = shader, groups, repeat

    def bind(self, *buffers: Buffer) -> None:
        self.device = shared_device()
        self.buffers = buffers
        [pipeline] = self.device.acquire_pipelines([self.shader])
        group = self.device.create_group(pipeline, [(each, 0, each.size) for each in buffers])
        self.call = Call(pipeline, group, self.groups)

    def step(self) -> None:
        self.device.wait(self.device.submit([Work([self.call] * self.repeat)]))


class Arithmetic:
    """Multiply-adds and nothing else, in the element type that is quicker."""

    def prepare(self) -> Facts:
        device = shared_device()
        trips, count = (32, 1 << 15) if device.adapter.is_software else (256, 1 << 21)
        made: dict[str, tuple[float, Repeated]] = {}
        for type_, lanes in (("f32", 1), ("vec4f", 4)):
            shader = multiply_add_shader(type_, trips)
            kernel = Repeated(shader, (count // lanes // 64, 1, 1), 1)
            kernel.bind(device.create_buffer("results", 4 * count))
            kernel.step()
            made[type_] = min(clock(kernel.step) for _ in range(5)), kernel
        best = min(made, key=lambda type_: made[type_][0])
        self.kernel = made[best][1]
        return {"work": 2.0 * ACCUMULATORS * UNROLLED * trips * count, "detail": best}

    def step(self) -> None:
        self.kernel.step()


class Copying(Repeated):
    """A copy of 64 MiB."""

    def __init__(self, type_: str, width: int) -> None:
        self.type = type_
        row = 1 << 20
        super().__init__(copy_shader(type_, row), (row // 64, COPIED // width // row, 1), 1)

    def prepare(self) -> Facts:
        device = shared_device()
        if "u64" in self.type and "shader-int64" not in device.features:
            return {"unavailable": "the device lacks shader-int64"}
        source, target = (device.create_buffer(name, COPIED) for name in ("source", "target"))
        device.write(source, 0, np.ones(COPIED // 4, np.float32))
        self.bind(source, target)
        self.step()
        return {"work": 2.0 * COPIED, "detail": self.type}


class Starting(Repeated):
    """Dispatches that do next to nothing."""

    def __init__(self, repeat: int) -> None:
        super().__init__(Shader("nothing", NOTHING, ("read_write",)), (1, 1, 1), repeat)

    def prepare(self) -> Facts:
        self.bind(shared_device().create_buffer("results", 256))
        self.step()
        return {"work": float(self.repeat)}


TASKS: dict[str, Callable[[], Arithmetic | Copying | Starting]] = {
    "multiply_add": Arithmetic,
    "copy_vec4": partial(Copying, "vec4f", 16),
    "copy_u64": partial(Copying, "vec4<u64>", 32),
    "dispatch": partial(Starting, DISPATCHES),
    "submit_wait": partial(Starting, 1),
}


def describe() -> Facts:
    return {"version": version("wgpu"), "device": shared_device().description}


if __name__ == "__main__":
    serve(describe, TASKS)
