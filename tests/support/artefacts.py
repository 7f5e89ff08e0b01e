"""Artefacts written by hand: what a compiler would make of a few tiny models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from asg.artefact import (
    Argument,
    Artefact,
    Buffer,
    Copy,
    Dispatch,
    Entry,
    Kernel,
    Range,
    Slot,
    Variant,
)
from asg.types import spec

N = 64

ADD = """\
// add: y = x + w
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    y[id.x] = x[id.x] + w[id.x];
}
"""

DOUBLE = """\
// double: z = 2 y
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    z[id.x] = 2.0 * y[id.x];
}
"""

COUNT = """\
// count: steps' = steps + 1
@group(0) @binding(0) var<storage, read_write> steps: array<i32>;

@compute @workgroup_size(1)
fn main() {
    steps[0] = steps[0] + 1;
}
"""

NUDGE = """\
// nudge: w' = w + rate * x
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> w: array<f32>;
@group(0) @binding(2) var<storage, read> rate: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    w[id.x] = w[id.x] + rate[0] * x[id.x];
}
"""

NEGATE = """\
// negate: m = !b
@group(0) @binding(0) var<storage, read> b: array<u32>;
@group(0) @binding(1) var<storage, read_write> m: array<u32>;

@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3u) {
    m[id.x] = 1u - b[id.x];
}
"""

F32_N = spec((N,), "f32")

PLAN = {"arena_bytes": 512, "max_live_bytes": 512, "buffers": [], "entries": {}}


def kernel(name: str, wgsl: str, *arguments: str) -> Kernel:
    """A kernel of one portable variant; `arguments` are written `x:read`."""
    parts = [argument.split(":") for argument in arguments]
    return Kernel(
        name=name,
        kind="map",
        arguments=tuple(Argument(part[0], part[1]) for part in parts),  # type: ignore[arg-type]
        variants=(Variant(wgsl, (1, 1, 1), schedule="one workgroup"),),
        nodes=(name,),
        sites=("model.py:3",),
        flops=N,
        bytes_moved=12 * N,
    )


KERNELS = {
    "add": kernel("add", ADD, "x:read", "w:read", "y:read_write"),
    "double": kernel("double", DOUBLE, "y:read_write", "z:read_write"),
    "count": kernel("count", COUNT, "steps:read_write"),
    "nudge": kernel("nudge", NUDGE, "x:read", "w:read_write", "rate:read"),
    "negate": kernel("negate", NEGATE, "b:read", "m:read_write"),
}

# One block of 256 bytes each; the arena holds y and z.
BUFFERS = (
    Buffer("x", 256, "input"),
    Buffer("weights", 256, "parameter"),
    Buffer("steps", 256, "state"),
    Buffer("rate", 256, "constant"),
    Buffer("arena", 512, "arena"),
)
X, WEIGHTS, STEPS, RATE, ARENA = range(5)

SLOTS = {
    "x": Slot("x", F32_N, X, 0),
    "w": Slot("w", F32_N, WEIGHTS, 0),
    "steps": Slot("steps", spec((), "i32"), STEPS, 0),
    "rate": Slot("rate", spec((), "f32"), RATE, 0),
    "y": Slot("y", F32_N, ARENA, 0),
    "z": Slot("z", F32_N, ARENA, 256),
}


def whole(name: str) -> Range:
    """The block in which a value lies."""
    return Range(SLOTS[name].buffer, SLOTS[name].offset, 256)


ADD_STEP = Dispatch("add", (whole("x"), whole("w"), whole("y")), ("x", "w"), ("y",))
DOUBLE_STEP = Dispatch("double", (whole("y"), whole("z")), ("y",), ("z",))
COUNT_STEP = Dispatch("count", (whole("steps"),), ("steps",), ("steps_1",))
NUDGE_STEP = Dispatch(
    "nudge", (whole("x"), whole("w"), whole("rate")), ("x", "w", "rate"), ("w_1",)
)

VALUES = {
    "w": np.arange(N, dtype=np.float32),
    "steps": np.array(5, np.int32),
    "rate": np.array(0.5, np.float32),
}


def predict_entry() -> Entry:
    """`y = x + w` and `z = 2 y`."""
    values = {name: SLOTS[name] for name in ("x", "w", "y", "z")}
    outputs = SLOTS["y"], SLOTS["z"]
    return Entry("predict", (SLOTS["x"],), outputs, {}, (ADD_STEP, DOUBLE_STEP), values)


def train_entry() -> Entry:
    """`y = x + w`, then `w += rate * x` and `steps += 1`."""
    values = {name: SLOTS[name] for name in ("x", "w", "rate", "steps", "y")}
    values |= {"w_1": SLOTS["w"], "steps_1": SLOTS["steps"]}
    return Entry(
        name="train",
        inputs=(SLOTS["x"],),
        outputs=(SLOTS["y"],),
        updates={"w": "w_1", "steps": "steps_1"},
        steps=(ADD_STEP, NUDGE_STEP, COUNT_STEP),
        values=values,
    )


def model() -> Artefact:
    """Two entries over the same weights: `predict` and `train`."""
    return Artefact(
        name="tiny",
        buffers=BUFFERS,
        persistent=(SLOTS["w"], SLOTS["steps"], SLOTS["rate"]),
        roles={"w": "parameter", "steps": "state", "rate": "constant"},
        kernels={name: KERNELS[name] for name in ("add", "double", "nudge", "count")},
        entries={"predict": predict_entry(), "train": train_entry()},
        values=VALUES,
        sources={"predict": "graph predict {\n}\n", "train": "graph train {\n}\n"},
        report={"dispatches": {"map": 5}, "plan": PLAN},
    )


def with_kernel(artefact: Artefact, changed: Kernel) -> Artefact:
    """The same artefact with one kernel replaced."""
    return replace(artefact, kernels={**artefact.kernels, changed.name: changed})


def masks() -> Artefact:
    """`m = !b` of four booleans, and a copy of m within one buffer."""
    four = spec((4,), "bool")
    slots = Slot("b", four, 0, 0), Slot("m", four, 1, 0), Slot("again", four, 1, 256)
    steps = (
        Dispatch("negate", (Range(0, 0, 16), Range(1, 0, 16)), ("b",), ("m",)),
        Copy(Range(1, 0, 16), Range(1, 256, 16), ("m",), ("again",)),
    )
    return Artefact(
        name="masks",
        buffers=(Buffer("b", 256, "input"), Buffer("arena", 512, "arena")),
        persistent=(),
        roles={},
        kernels={"negate": KERNELS["negate"]},
        entries={
            "main": Entry(
                "main", slots[:1], slots[1:], {}, steps, {slot.name: slot for slot in slots}
            )
        },
        values={},
        sources={},
        report={},
    )
