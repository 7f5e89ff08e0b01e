"""What a device can do at best: arithmetic, copying, starting kernels.

    python benchmarks/driver_limits.py

Other benchmarks are read against these ceilings. The usual loop with few accumulators measures
the loop: on a software driver each trip costs more than the multiply-adds in it. Hence many
accumulators and long unrolled trips. Rates are the best of several tries. Where the device is a
processor, which others may be using, a second column counts the processor time spent.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from asg.runtime.commands import Call, Work
from asg.runtime.devices import shared_device
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Buffer, Device

ACCUMULATORS, UNROLLED = 10, 32

MULTIPLY_ADD = """\
@group(0) @binding(0) var<storage, read_write> results: array<{type}>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {{
    let x = {type}(f32(id.x) * 1e-9);
    let y = {type}(0.5);
{start}
    for (var k = 0u; k < {trips}u; k++) {{
{body}
    }}
    results[id.x] = {total};
}}
"""

COPY = """\
@group(0) @binding(0) var<storage, read> source: array<{type}>;
@group(0) @binding(1) var<storage, read_write> results: array<{type}>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {{
    let i = id.y * {row}u + id.x;
    results[i] = source[i];
}}
"""

NOTHING = """\
@group(0) @binding(0) var<storage, read_write> results: array<f32>;

@compute @workgroup_size(1)
fn main() {
    results[0] = 1.0;
}
"""


@dataclass(frozen=True)
class Seconds:
    """Least time of a dispatch: by the clock, and of one processor core times their number."""

    wall: float
    processor: float


def multiply_add_shader(type_: str, trips: int) -> Shader:
    """Return a kernel that does nothing but multiply and add."""
    names = [f"c{i}" for i in range(ACCUMULATORS)]
    text = MULTIPLY_ADD.format(
        type=type_,
        start="\n".join(f"    var {name} = x + {type_}({i}.0);" for i, name in enumerate(names)),
        trips=trips,
        body="\n".join(
            f"        {name} = fma({name}, x, y);" for _ in range(UNROLLED) for name in names
        ),
        total=" + ".join(names),
    )
    return Shader("multiply_add", text, ("read_write",))


def copy_shader(type_: str, row: int) -> Shader:
    """Return a kernel that copies one element per invocation."""
    features = ("shader-int64",) if "u64" in type_ else ()
    text = COPY.format(type=type_, row=row)
    return Shader("copy", text, ("read", "read_write"), features)


@contextmanager
def buffers(device: Device, *sizes: int) -> Iterator[list[Buffer]]:
    """Give buffers for a while."""
    made = [device.create_buffer(f"buffer {i}", size) for i, size in enumerate(sizes)]
    try:
        yield made
    finally:
        for buffer in made:
            buffer.close()


def measure(
    device: Device,
    shader: Shader,
    bound: list[Buffer],
    groups: tuple[int, int, int],
    repeat: int,
    tries: int,
) -> Seconds:
    """Return the time of a dispatch, as one of `repeat` that are submitted together."""
    pipelines = device.acquire_pipelines([shader])
    group = device.create_group(pipelines[0], [(each, 0, each.size) for each in bound])
    call = Call(pipelines[0], group, groups)
    device.wait(device.submit([Work([call])]))  # the driver compiles
    wall = processor = float("inf")
    for _ in range(tries):
        clock, spent = time.perf_counter(), time.process_time()
        device.wait(device.submit([Work([call] * repeat)]))
        wall = min(wall, (time.perf_counter() - clock) / repeat)
        processor = min(processor, (time.process_time() - spent) / repeat)
    device.release_groups(1)
    device.release_pipelines(pipelines)
    return Seconds(wall, processor / (os.cpu_count() or 1))


def arithmetic(device: Device, type_: str, tries: int) -> tuple[float, Seconds]:
    """Return floating-point operations of a dispatch, and its time."""
    trips, invocations = (16, 1 << 15) if device.adapter.is_software else (256, 1 << 21)
    lanes = 4 if type_.startswith("vec4") else 1
    with buffers(device, 4 * lanes * invocations) as bound:
        groups = (invocations // 64, 1, 1)
        spent = measure(device, multiply_add_shader(type_, trips), bound, groups, 1, tries)
    return 2.0 * ACCUMULATORS * UNROLLED * trips * invocations * lanes, spent


def copying(device: Device, type_: str, size: int, tries: int) -> tuple[float, Seconds]:
    """Return bytes read and written by a dispatch, and its time."""
    width = {"f32": 4, "vec4f": 16, "vec2<u64>": 16, "vec4<u64>": 32}[type_]
    count = size // width
    row = min(count, 1 << 20)
    with buffers(device, size, size) as bound:
        device.write(bound[0], 0, np.zeros(size // 4, np.float32))
        groups = (row // 64, count // row, 1)
        spent = measure(device, copy_shader(type_, row), bound, groups, 4, tries)
    return 2.0 * size, spent


def starting(device: Device, repeat: int, tries: int) -> Seconds:
    """Return the time of a dispatch that does next to nothing, among `repeat`."""
    with buffers(device, 256) as bound:
        shader = Shader("nothing", NOTHING, ("read_write",))
        return measure(device, shader, bound, (1, 1, 1), repeat, tries)


def report(device: Device, tries: int) -> Table:
    """Return all ceilings as a table."""
    table = Table(title=device.description)
    for column in ("what", "by the clock", "by processor time"):
        table.add_column(column, justify="left" if column == "what" else "right")

    def add(what: str, amount: float, unit: str, spent: Seconds) -> None:
        own = f"{amount / spent.processor:.1f} {unit}" if device.adapter.is_software else ""
        table.add_row(what, f"{amount / spent.wall:.1f} {unit}", own)

    for type_ in ("f32", "vec4f"):
        amount, spent = arithmetic(device, type_, tries)
        add(f"multiply-add {type_}", amount / 1e9, "GFLOP/s", spent)
    wide = ("vec2<u64>", "vec4<u64>") if "shader-int64" in device.features else ()
    for type_ in ("f32", "vec4f", *wide):
        for megabytes in (1, 64):
            amount, spent = copying(device, type_, megabytes << 20, tries)
            add(f"copy {type_}, {megabytes} MiB", amount / 1e9, "GB/s", spent)
    for repeat, what in ((1, "submit, run and wait"), (1000, "one more dispatch")):
        spent = starting(device, repeat, tries)
        own = f"{spent.processor * 1e6:.1f} µs" if device.adapter.is_software else ""
        table.add_row(what, f"{spent.wall * 1e6:.1f} µs", own)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=7)
    arguments = parser.parse_args()
    Console().print(report(shared_device(), arguments.tries))


if __name__ == "__main__":
    main()
