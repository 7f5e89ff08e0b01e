"""Fill passes/choices.json: which schedules win for common products on this machine's adapter.

    make choices        (python tools/tune_table.py --runs 2 --budget 300 --cpu-time)

A winner enters the table only if it is more than 3 % faster than the default in every run: on a
busy machine one run may err. Of several the one with the greatest least gain is taken. Results are
compared with the interpreter's (`asg.tuning`). With --cpu-time a software driver's kernels are
timed by what they take of the processor, which other processes disturb less. Winners of other
classes stay as they are. Rows name the templates that they were measured with, and count for no
others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import asg
from asg.codegen.render import template_digest
from asg.compiler import fuse, prepare, target_for
from asg.kernel_bench import KernelBench, Way
from asg.passes.choices import TABLE, Choice, encode, merge
from asg.passes.kernels import FusionPlan
from asg.runtime.commands import Work
from asg.runtime.devices import shared_device
from asg.tuning import Progress, tune

LEAST_GAIN = 1.03
_BATCH = 0.03  # seconds

# Batch, rows, inner, columns: the products of benchmarks/ and of transformers of common widths.
SQUARE = [(1, 256, 256, 256), (1, 512, 512, 512), (1, 1024, 1024, 1024)]
MODEL = [(1, 256, 768, 2304), (1, 256, 3072, 768), (1, 1280, 128, 512), (1, 32, 4096, 4096),
         (1, 1, 4096, 4096), (12, 512, 64, 512), (80, 64, 32, 64)]  # fmt: skip
# Channels in and out, size of the image, size of the kernel, step: ResNet-18 and MobileNetV2.
CONVOLUTIONS = [(64, 64, 56, 3, 1), (128, 128, 28, 3, 1), (64, 128, 56, 3, 2), (512, 512, 7, 3, 1),
                (64, 64, 56, 1, 1), (144, 24, 56, 1, 1), (96, 576, 14, 1, 1),
                (960, 160, 7, 1, 1)]  # fmt: skip
FUSED = [(1, 256, 768, 3072), (1, 1280, 128, 512), (1, 64, 784, 128)]


def product(sizes: Sequence[int], layout: str, *, has_epilogue: bool = False) -> asg.Graph:
    """Return the graph of a product whose operands lie as `layout` says."""
    batch, rows, inner, columns = sizes
    front = (batch,) if batch > 1 else ()
    left = (rows, inner) if layout[0] == "n" else (inner, rows)
    right = (inner, columns) if layout[1] == "n" else (columns, inner)
    x, w = asg.input("x", (*front, *left)), asg.input("w", (*front, *right))
    x = x if layout[0] == "n" else asg.swapaxes(x, -1, -2)
    w = w if layout[1] == "n" else asg.swapaxes(w, -1, -2)
    y = x @ w
    return asg.graph(outputs={"y": asg.gelu(y + asg.input("b", (columns,))) if has_epilogue else y})


def convolved(sizes: Sequence[int]) -> asg.Graph:
    """Return the graph of a convolution of one image, with what follows it in those models."""
    inner, outer, size, kernel, step = sizes
    x, w = asg.input("x", (1, inner, size, size)), asg.input("w", (outer, inner, kernel, kernel))
    bias = asg.input("b", (outer,))
    y = asg.nn.functional.conv2d(x, w, bias, stride=step, padding=kernel // 2)
    return asg.graph(outputs={"y": asg.relu(y)})


def problems() -> dict[str, asg.Graph]:
    """Return every product to be tuned, by name."""
    found = {}
    for sizes in (*SQUARE, *MODEL):
        for layout in ("nn", "nt", "tn"):
            found[f"{sizes} {layout}"] = product(sizes, layout)
    for sizes in FUSED:
        found[f"{sizes} fused"] = product(sizes, "nt", has_epilogue=True)
    for convolution in CONVOLUTIONS:
        found[f"{convolution} convolved"] = convolved(convolution)
    return found


def time_on_processor(
    self: KernelBench, ways: Sequence[Way], expected: Sequence[float]
) -> list[float]:
    """Return seconds of processor time of each way, over as many runs as take a while."""
    taken = []
    for way, seconds in zip(ways, expected, strict=True):
        count = 1 if seconds == float("inf") else min(max(int(_BATCH / seconds), 1), 64)
        started = time.process_time()
        self.device.wait(self.device.submit([Work([way.call] * count)]))
        taken.append((time.process_time() - started) / count)
    return taken


def show(progress: Progress) -> None:
    """Say what is tried now."""
    print(progress.text, flush=True)


def gains(plans: dict[str, FusionPlan], budget: float) -> dict[Choice, float]:
    """Return what is faster than the default by enough in one run, and how much."""
    device = shared_device()
    target = target_for(device.adapter_class)
    bare = replace(target, choices=())
    found = tune(plans, device, bare, budget=budget, on_progress=show)
    gained: dict[Choice, float] = {}
    for each in found.found:
        print(f"  {each.gain:.2f}x  {each.winner}  {each.bucket}")
        default, *others = each.trials
        for trial in each.trials:
            if trial.outcome == "wrong":
                print(f"  WRONG {trial.schedule}: {trial.detail}")
        if default.seconds == math.inf:
            continue
        for trial in others:
            if trial.seconds * LEAST_GAIN < default.seconds:
                gained[Choice(each.bucket, trial.schedule)] = default.seconds / trial.seconds
    if found.left:
        print(f"no time for {len(found.left)} kernels")
    return gained


def winners(runs: Sequence[Mapping[Choice, float]]) -> tuple[Choice, ...]:
    """Return the best of each bucket by its least gain, of those that gain in every run."""
    least = {
        choice: min(run[choice] for run in runs)
        for choice in (runs[0] if runs else ())
        if all(choice in run for run in runs)
    }
    ranked = sorted(least, key=lambda choice: (least[choice], str(choice.schedule)))
    for choice in ranked:
        print(f"{least[choice]:.2f}x  {choice.schedule}  {choice.bucket}")
    return merge(tuple(ranked))  # of two for one bucket the later one stands


def main() -> None:
    """Tune, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--budget", type=float, default=200.0, help="seconds for a run")
    parser.add_argument("--only", default="", help="part of the names of products")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    if options.cpu_time:
        KernelBench.time = time_on_processor  # type: ignore[method-assign]
    os.environ["ASG_CACHE"] = "0"
    plans = {
        name: fuse(prepare(graph)) for name, graph in problems().items() if options.only in name
    }
    kept = winners([gains(plans, options.budget) for _ in range(options.runs)])
    adapter = shared_device().adapter_class
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    key = f"{adapter.name}/{adapter.subgroup_size if adapter.family == 'cpu' else 0}"
    templates = template_digest("contract_")
    table[key] = [{**encode(choice), "templates": templates} for choice in kept]
    lines = [
        f"  {json.dumps(name)}: [\n"
        + ",\n".join(f"    {json.dumps(row)}" for row in rows)
        + "\n  ]"
        for name, rows in sorted(table.items())
        if rows
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n" if lines else "{}\n"
    TABLE.write_text(text, encoding="utf-8")
    print(f"{key}: {len(table[key])} winners")


if __name__ == "__main__":
    main()
