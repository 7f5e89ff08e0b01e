"""Ten minutes on a graphics card: what it can do, and what ASG's schedules make of it.

    .venv/bin/python benchmarks/gpu.py --json gpu.json
    .venv/bin/python benchmarks/gpu.py --quick --device cpu --schedule gpu   does all of it work?

Sections, in this order: the adapter; multiply-adds and copies; what a dispatch costs; products of
several sizes in every schedule that the compiler would try, with the rank of its own first choice;
products of f16 numbers, and long ones in parts and in one; operations and models, checked against
NumPy; training steps; PyTorch on the same card, where it is installed. Each section is written to
the file when it is done, so a run that ends early has lost nothing; one that fails says so and the
next begins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import driver_limits as limits
import models
import numpy as np
import workloads
from asg_side import Ops, Steps
from rich.console import Console
from workloads import Training, Workload

import asg
from asg.compiler import PIPELINE, fuse, prepare, target_for
from asg.machine import examine
from asg.passes.split_products import SplitProducts
from asg.runtime.commands import Call, Work
from asg.runtime.devices import shared_device
from asg.runtime.profile import Timing
from asg.runtime.shaders import Shader
from asg.runtime.wgpu_device import Device
from asg.tuning import report as tuning_report
from asg.tuning import tune

Facts = dict[str, Any]
DISPATCHES = 1000
console = Console(highlight=False)


@dataclass(frozen=True)
class Session:
    """What a section may use: the device, the schedules' family, how small, and until when."""

    device: Device
    spec: str | None
    schedule: str | None
    is_quick: bool
    end: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def median(self, function: Callable[[], object]) -> float:
        """Return the median time of a call that was called before."""
        function()
        once = clock(function)
        count = 3 if self.is_quick else max(3, min(50, round(1.0 / max(once, 1e-6))))
        return statistics.median(clock(function) for _ in range(count))


def clock(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# -- sections ---------------------------------------------------------------------------------


def adapter(session: Session) -> Facts:
    """Features, limits, subgroups, driver."""
    found = examine(session.spec)
    subgroups = session.device.subgroups
    return {**found, "device": session.device.description, "subgroups": str(subgroups)}


def arithmetic(session: Session) -> Facts:
    """Multiply-adds per second, f32; twice that in operations."""
    found = {}
    for type_ in ("f32", "vec4f"):
        amount, spent = limits.arithmetic(session.device, type_, 3)
        found[type_] = amount / spent.wall / 1e9
    return {"gflops": found}


def bandwidth(session: Session) -> Facts:
    """Bytes read and written per second by copies of several sizes."""
    largest = session.device.limits["maxStorageBufferBindingSize"] >> 20
    sizes = (1,) if session.is_quick else (1, 16, 64, 256, 1024, 2048)
    types = ["f32", "vec4f"]
    if "shader-int64" in session.device.features:
        types += ["vec2<u64>", "vec4<u64>"]
    found: dict[str, dict[str, float]] = {}
    for type_ in types:
        for size in (size for size in sizes if size <= largest):
            amount, spent = limits.copying(session.device, type_, size << 20, 3)
            found.setdefault(type_, {})[f"{size} MiB"] = amount / spent.wall / 1e9
    return {"gb_per_s": found}


def dispatching(session: Session) -> Facts:
    """Seconds of a submission, and of one more dispatch: over one buffer, where each waits for
    the one before, and over buffers of their own."""
    device = session.device
    count = DISPATCHES // 20 if session.is_quick else DISPATCHES
    shader = Shader("nothing", limits.NOTHING, ("read_write",))
    [pipeline] = device.acquire_pipelines([shader])
    found: Facts = {"submit_and_wait_us": limits.starting(device, 1, 5).wall * 1e6}
    for name, buffers in (("one_buffer", 1), ("own_buffers", 8)):
        with limits.buffers(device, *[256] * buffers) as bound:
            groups = [device.create_group(pipeline, [(each, 0, 256)]) for each in bound]
            calls = [Call(pipeline, groups[i % buffers], (1, 1, 1)) for i in range(count)]
            once = session.median(lambda calls=calls: device.wait(device.submit([Work(calls)])))
            found[f"{name}_us"] = once / count * 1e6
            device.release_groups(buffers)
    device.release_pipelines([pipeline])
    return found


def products(session: Session) -> Facts:
    """Each schedule that the compiler would try, by size and kind of product."""
    shapes = [(96, 96, 96, "")] if session.is_quick else [
        (1024, 1024, 1024, ""), (2048, 2048, 2048, ""), (4096, 4096, 4096, ""),
        (512, 512, 512, ""), (1024, 1024, 1024, "tn"), (1024, 1024, 1024, "nt"),
        (1, 4096, 4096, ""), (32, 4096, 4096, ""), (8192, 8192, 8192, ""),
    ]  # fmt: skip
    target = target_for(session.device.adapter_class, session.schedule)
    found: Facts = {}
    for m, k, n, kind in shapes:
        workload = workloads.product(m, k, n, kind)
        budget = min(45.0, session.left / 4.0)
        if budget < 2.0:
            found[workload.name] = {"left_out": "no time was left"}
            continue
        plan = fuse(prepare(graph_of(workload)))
        tuned = tuning_report(tune({"main": plan}, session.device, target, budget=budget))
        found[workload.name] = ranked(tuned, workload.flops)
    return found


def ranked(tuned: list[Facts], flops: float) -> Facts:
    """Return schedules by speed, and the rank of the one that the compiler would take untried."""
    if not tuned:
        return {"left_out": "there is one schedule only"}
    trials = tuned[0]["trials"]
    timed = [trial for trial in trials if trial["seconds"]]
    order = sorted(timed, key=lambda trial: trial["seconds"])
    first = next((place for place, each in enumerate(order) if each is trials[0]), None)
    return {
        "gflops": {each["schedule"]: flops / each["seconds"] / 1e9 for each in order},
        "rank_of_first_choice": None if first is None else first + 1,
        "loss_of_first_choice": None if first is None
        else order[first]["seconds"] / order[0]["seconds"],
        "others": [each for each in trials if not each["seconds"]],
        "problem": tuned[0]["problem"],
    }  # fmt: skip


def halves(session: Session) -> Facts:
    """Products and maps of numbers that are stored in 16 bits and computed in 32."""
    sizes = (64,) if session.is_quick else (1024, 4096)
    return measured(session, [half(size, kind) for size in sizes for kind in ("matmul", "gelu")])


def half(size: int, kind: str) -> Workload:
    """Operands and result in f16; what is allowed is its rounding."""

    def arrays() -> dict[str, np.ndarray[Any, Any]]:
        drawn = workloads.normal(size, x=(size, size), w=(size, size))
        chosen = drawn if kind == "matmul" else {"x": drawn["x"]}
        return {name: each.astype(np.float16) for name, each in chosen.items()}

    is_product = kind == "matmul"
    return Workload(
        f"{kind}_f16_{size}", "halves", arrays,
        lambda o, t: o.matmul(t["x"], t["w"]) if is_product else o.gelu(t["x"], True),
        2.0 * size**3 if is_product else 10.0 * size**2, (6.0 if is_product else 4.0) * size**2,
        2e-3, ("w",) if is_product else (),
    )  # fmt: skip


def long_products(session: Session) -> Facts:
    """Products with few results and a long inner axis: in parts, as the compiler has them where it
    thinks that they pay, and in one kernel."""
    shapes = [(16, 4096, 16)] if session.is_quick else [
        (32, 65536, 32), (128, 16384, 128), (256, 8192, 256), (64, 4096, 64),
    ]  # fmt: skip
    chosen = [workloads.product(*shape) for shape in shapes]
    whole = tuple(each for each in PIPELINE if not isinstance(each, SplitProducts))
    return {
        "in_parts": measured(session, chosen),
        "in_one": measured(session, chosen, passes=whole),
    }


def operations(session: Session) -> Facts:
    """Rows, sums, maps, attention and convolutions."""
    if session.is_quick:
        chosen = [
            workloads.mapped("softmax_64x256", "", (64, 256), lambda o, x: o.softmax(x), 1.0),
            workloads.mapped("sum_cols_64x256", "", (64, 256), lambda o, x: o.sum(x, (0,)), 0.0),
            workloads.mapped(
                "transpose_64", "", (64, 64), lambda o, x: o.transpose(x, (1, 0)), 1.0
            ),
            workloads.convolution("conv1x1_64", 64, 1, 1),
            attention(1, 2, 32, 16),
        ]
    else:
        chosen = [each for each in workloads.OPERATIONS if each.group not in ("matmul", "model")]
        chosen += [attention(1, 12, 2048, 64), attention(8, 12, 512, 64)]
    return measured(session, chosen)


def attention(batch: int, heads: int, length: int, size: int) -> Workload:
    shape = (batch, heads, length, size)
    return Workload(
        f"attention_b{batch}h{heads}s{length}d{size}", "attention",
        lambda: workloads.normal(6, q=shape, k=shape, v=shape),
        lambda ops, t: ops.attention(t["q"], t["k"], t["v"]),
        2.0 * batch * heads * length * length * size, 16.0 * np.prod(shape),
    )  # fmt: skip


def whole_models(session: Session) -> Facts:
    """A transformer, end to end, and its kernels by the time that they take."""
    if session.is_quick:
        small = models.Transformer(32, 2, 1, 64, 16)
        return measured(session, [workloads.transformer("tiny_lm", small, 1, 16, 1e-4)])
    names = ("gpt2_block_s256", "gpt2_small_s128", "resnet18_224", "mobilenetv2_224")
    return measured(session, [each for each in workloads.OPERATIONS if each.name in names])


def training_steps(session: Session) -> Facts:
    """Forward pass, backward pass and AdamW, from a batch in host memory to its loss there."""
    found: Facts = {}
    for training in trainings(session):
        if session.left < 0.0:
            found[training.name] = {"left_out": "no time was left"}
            continue
        steps = Steps(training)
        with noting(found, training.name):
            facts = steps.prepare(device=session.spec, schedule=session.schedule)
            with steps.exe:
                seconds = session.median(steps.step)
                timings = steps.exe.profile(next(steps.batches))
            found[training.name] = {
                **facts, "median_s": seconds, "gflops": training.flops / seconds / 1e9,
                **by_kernel(timings),
            }  # fmt: skip
    return found


def trainings(session: Session) -> Sequence[Training]:
    """Return the steps to time; a quick run has a small one."""
    if not session.is_quick:
        return workloads.TRAININGS
    shapes = {"0.w": (16, 12), "0.b": (16,), "1.w": (4, 16), "1.b": (4,)}
    return [
        Training(
            "tiny_mlp", "train", lambda: workloads.initial(shapes),
            workloads.classified((8, 12), 4),
            lambda ops, w, b: ops.cross_entropy(models.mlp(ops, w, b["x"]), b["y"]),
            6.0 * 8 * 256, workloads.step_bytes(shapes),
        )
    ]  # fmt: skip


def with_torch(session: Session) -> Facts:
    """The same products, models and steps in PyTorch on the same card, eager, f32 without TF32."""
    try:
        import torch_side
    except ImportError:
        return {"left_out": "PyTorch is not installed"}
    card = torch_side.graphics_card()
    if card is None:
        return {"left_out": "PyTorch has no graphics card"}
    names = ("gpt2_block_s256", "gpt2_small_s128", "resnet18_224", "mobilenetv2_224",
             "matmul_1024", "attention_b1h12s512d64")  # fmt: skip
    chosen = [each for each in workloads.OPERATIONS if each.name in names]
    if not session.is_quick:
        chosen.append(workloads.product(4096, 4096, 4096))
    runs = [torch_side.Operation(each, "cuda") for each in chosen]
    runs += [torch_side.Steps(each, "cuda") for each in trainings(session)]
    found: Facts = {"card": card}
    for each in runs:
        work = each.workload if hasattr(each, "workload") else each.training
        if session.left < 0.0:
            found[work.name] = {"left_out": "no time was left"}
            continue
        with noting(found, work.name):
            facts = each.prepare()
            seconds = session.median(each.step)
            rate = work.flops / seconds / 1e9
            found[work.name] = {**facts, "median_s": seconds, "gflops": rate}
    return found


SECTIONS: Mapping[str, Callable[[Session], Facts]] = {
    "adapter": adapter,
    "arithmetic": arithmetic,
    "bandwidth": bandwidth,
    "dispatching": dispatching,
    "products": products,
    "halves": halves,
    "long_products": long_products,
    "operations": operations,
    "models": whole_models,
    "training": training_steps,
    "torch": with_torch,
}


# -- running them -----------------------------------------------------------------------------


def graph_of(workload: Workload) -> asg.Graph:
    """Return a workload as a graph, its weights as parameters."""
    arrays = workload.arrays()
    tensors = {
        name: asg.input(
            name, each.shape, str(each.dtype),
            role="parameter" if name in workload.weights else "input",
        )
        for name, each in arrays.items()
    }  # fmt: skip
    kept = {name: arrays[name] for name in workload.weights}
    return asg.graph(outputs={"y": workload.run(Ops(), tensors)}).with_values(kept)


@contextmanager
def noting(found: Facts, name: str) -> Iterator[None]:
    """Go on without what fails, and say so."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        found[name] = {"failure": f"{type(error).__name__}: {error}"}


def measured(session: Session, chosen: list[Workload], **options: Any) -> Facts:
    """Time workloads whose answers are right; what fails is noted."""
    found: Facts = {}
    for workload in chosen:
        if session.left < 0.0:
            found[workload.name] = {"left_out": "no time was left"}
            continue
        with noting(found, workload.name):
            found[workload.name] = timed(session, workload, **options)
    return found


def timed(session: Session, workload: Workload, **options: Any) -> Facts:
    """Compile a workload with `options` of `asg.compile`, check its answer, and time it."""
    arrays = workload.arrays()
    start = time.perf_counter()
    options = {"device": session.spec, "schedule": session.schedule, **options}
    exe: Any = asg.compile(graph_of(workload), **options)
    with exe:
        given = exe.to_device({n: x for n, x in arrays.items() if n not in workload.weights})
        answer = np.asarray(exe(given, device_outputs=True)["y"])
        first = time.perf_counter() - start
        error = workload.check(answer)

        def step() -> None:
            exe(given, device_outputs=True)
            exe.sync()

        seconds = session.median(step)
        kernels = by_kernel(exe.profile(given))
        on_device = kernels["on_device_s"]
        return {
            "first_s": first,
            "error": error,
            "median_s": seconds,
            "gflops": workload.flops / on_device / 1e9,
            "gb_per_s": workload.bytes / on_device / 1e9,
            "dispatches": exe.report()["dispatch_count"],
            **kernels,
        }


def by_kernel(timings: Sequence[Timing]) -> Facts:
    """Return the time of all kernels, and of those that take most."""
    order = sorted(timings, key=lambda each: -each.seconds)
    return {
        "on_device_s": sum(each.seconds for each in order),
        "slowest": [[each.name, each.seconds] for each in order[:8]],
    }


def run(session: Session, wanted: list[str]) -> Iterator[tuple[str, Facts]]:
    """Run sections; one that fails or has no time left says so."""
    for name in wanted:
        start = time.monotonic()
        if session.left < 0.0:
            yield name, {"left_out": "no time was left"}
            continue
        try:
            facts = SECTIONS[name](session)
        except Exception as error:
            traceback.print_exc()
            facts = {"failure": f"{type(error).__name__}: {error}"}
        yield name, {**facts, "section_s": time.monotonic() - start}


def wide_device(spec: str | None) -> Device:
    """Open a device with the adapter's own limits, for large buffers and workgroup memory."""
    own = shared_device(spec).adapter.limits
    raised = ("maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize",
              "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX")  # fmt: skip
    return Device.open(spec, {name: own[name] for name in raised if name in own})


def failures(facts: object) -> int:
    """Count what failed."""
    if not isinstance(facts, Mapping):
        return 0
    return ("failure" in facts) + sum(failures(each) for each in facts.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, to see that everything works")
    add("--minutes", type=float, default=10.0, help="end after about so long (default 10)")
    add("--only", choices=SECTIONS, action="append", help="only this section (may be repeated)")
    add("--device", help="which adapter, as ASG_DEVICE says it (default: the first)")
    add("--schedule", help="force a schedule family: cpu, gpu, or a class of adapters")
    add("--json", type=Path, metavar="FILE", help="where to write (default build/bench/)")
    options = parser.parse_args()
    path = options.json or Path(__file__).resolve().parent.parent / "build" / "bench" / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    session = Session(
        wide_device(options.device), options.device, options.schedule, options.quick,
        time.monotonic() + 60.0 * options.minutes,
    )  # fmt: skip
    console.print(session.device.description)
    results: Facts = {}
    for name, facts in run(session, options.only or list(SECTIONS)):
        results[name] = facts
        path.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
        console.print(f"[bold]{name}[/]")
        if name != "adapter":
            console.print_json(json.dumps(facts, default=str))
    console.print(f"wrote {path}")
    return 1 if failures(results) else 0


if __name__ == "__main__":
    sys.exit(main())
