"""Tuning takes the fastest of what is right, says what is not, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import asg
from asg import tuning
from asg.artefact import Variant
from asg.cli import main
from asg.codegen.context import KernelContext
from asg.codegen.contract_kernel import contract_variants
from asg.compiler import fuse, prepare, target_for
from asg.kernel_bench import KernelBench, Way
from asg.passes.schedule_contract import ContractSchedule
from asg.runtime import devices
from asg.runtime.adapters import ADAPTER_CLASSES
from asg.runtime.devices import shared_device
from asg.runtime.executable import Executable
from asg.runtime.wgpu_device import Device
from asg.tuning import CACHE, GAIN, Tuned, Tuning, tune

pytestmark = pytest.mark.device


def product(rows: int = 12, inner: int = 20, columns: int = 36) -> asg.Graph:
    x, w = asg.input("x", (rows, inner)), asg.input("w", (inner, columns))
    return asg.graph(outputs={"y": asg.relu(x @ w + asg.input("b", (columns,)))})


def run(graph: asg.Graph, schedule: str | None = None, **options: Any) -> Tuning:
    """Tune a graph for the shared device, or as if it were of another class."""
    device = shared_device()
    target = target_for(device.adapter_class, schedule)
    return tune({"main": fuse(prepare(graph))}, device, target, **options)


def only(found: Tuning) -> Tuned:
    (tuned,) = found.found
    return tuned


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> list[int]:
    """Let candidates take so long, in their order; return how many were timed in each round."""
    numbers: dict[int, float] = {}
    rounds: list[int] = []
    add = KernelBench.add

    def added(self: KernelBench, variant: Variant) -> Way:
        way = add(self, variant)
        numbers[id(way)] = seconds[len(numbers)]
        return way

    def timed(self: KernelBench, ways: Sequence[Way], expected: Sequence[float]) -> list[float]:
        rounds.append(len(ways))
        return [numbers[id(way)] for way in ways]

    monkeypatch.setattr(KernelBench, "add", added)
    monkeypatch.setattr(KernelBench, "time", timed)
    return rounds


def spoil(
    monkeypatch: pytest.MonkeyPatch, number: int, change: Callable[[str], str]
) -> list[ContractSchedule]:
    """Change the text of one candidate; return it in a list when it was asked for."""
    seen: list[ContractSchedule] = []
    spoilt: list[ContractSchedule] = []

    def variants(context: KernelContext, schedule: Any = None) -> tuple[Variant, ...]:
        made = contract_variants(context, schedule)
        if schedule is None:
            return made
        seen.append(schedule)
        if len(seen) != number + 1:
            return made
        spoilt.append(schedule)
        assert change(made[0].wgsl) != made[0].wgsl
        return (replace(made[0], wgsl=change(made[0].wgsl)),)

    monkeypatch.setattr(tuning, "contract_variants", variants)
    return spoilt


def test_the_fastest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = pretend(monkeypatch, [4.0, 5.0, 2.0, 3.0, *[9.0] * 20])
    tuned = only(run(product()))
    timed = [trial for trial in tuned.trials if trial.seconds < 1e9]
    assert tuned.winner == timed[2].schedule
    assert tuned.gain == 2.0
    assert [trial.outcome for trial in timed[:3]] == ["slower", "dropped", "fastest"]
    # The default stays to the end, for comparison.
    assert rounds[0] == len(timed)
    assert rounds[-1] == 2


def test_a_small_gain_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [1.0, 1.0 / (GAIN - 0.01), *[2.0] * 20])
    tuned = only(run(product()))
    assert tuned.winner == tuned.trials[0].schedule
    assert tuned.gain == 1.0


def test_a_wrong_candidate_is_refused_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [2.0, 1.0, *[3.0] * 20])
    spoilt = spoil(monkeypatch, 1, lambda text: text.replace("let v_y = ", "let v_y = 2.0f * ", 1))
    tuned = only(run(product()))
    (wrong,) = [trial for trial in tuned.trials if trial.outcome == "wrong"]
    assert [wrong.schedule] == spoilt
    assert "elements wrong; got " in wrong.detail
    assert tuned.winner != wrong.schedule
    assert wrong.seconds == float("inf")


def test_a_nearly_right_candidate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a part in a hundred thousand is more than rounding."""
    spoilt = spoil(
        monkeypatch, 0, lambda text: text.replace("let v_y = ", "let v_y = 1.00002f * ", 1)
    )
    tuned = only(run(product()))
    assert spoilt
    assert tuned.trials[0].outcome == "wrong"
    assert tuned.winner != tuned.trials[0].schedule


def test_a_candidate_that_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 2, lambda text: text.replace("fn main(", "fn main(nonsense", 1))
    tuned = only(run(product()))
    assert tuned.trials[2].outcome == "refused"
    assert "refused by the driver" in tuned.trials[2].detail
    assert any(trial.outcome == "fastest" for trial in tuned.trials)


def test_candidates_that_compile_for_too_long() -> None:
    tuned = only(run(product(), compile_limit=0.0))
    tried = {trial.outcome for trial in tuned.trials}
    assert "slow to compile" in tried
    assert not tried & {"fastest", "slower", "dropped", "wrong"}
    assert tuned.winner == tuned.trials[0].schedule


def test_a_budget_is_kept() -> None:
    x = asg.input("x", (12, 20))
    y = x @ asg.input("w", (20, 36))
    graph = asg.graph(outputs={"y": y, "z": asg.softmax(y) @ asg.input("v", (36, 4))})
    found = run(graph, budget=0.0)
    assert found.found == ()
    assert len(found.left) == 2
    assert found.choices == ()
    assert CACHE.usage().files == 0


def test_without_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "time_calls", lambda *_: None)
    tuned = only(run(product()))
    assert any(trial.outcome == "fastest" and trial.seconds > 0 for trial in tuned.trials)


def test_too_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: KernelBench) -> None:
        raise asg.errors.OutOfMemoryError("no memory to try in")

    monkeypatch.setattr(KernelBench, "load", refuse)
    before = shared_device().live()
    tuned = only(run(product()))
    assert tuned.problem == "no memory to try in"
    assert tuned.winner == tuned.trials[0].schedule
    assert shared_device().live() == before
    assert CACHE.usage().files == 0  # another time there may be more


def test_winners_are_kept(monkeypatch: pytest.MonkeyPatch, caches: Path) -> None:
    pretend(monkeypatch, [4.0, 2.0, *[9.0] * 20])
    first = only(run(product()))
    assert not first.is_known
    again = only(run(product(), budget=0.0))
    assert again.is_known
    assert (again.winner, again.gain) == (first.winner, first.gain)
    # Another size has another text.
    assert run(product(13), budget=0.0).found == ()
    (path,) = (caches / "schedules").iterdir()
    CACHE.put(path.stem, b'{"choice": 3, "gain": 1}')
    assert run(product(), budget=0.0).found == ()
    stored = {"family": "register", "rows": 99, "columns": 4, "workgroup": 8}
    bucket = {"batch": 1, "rows": 12, "columns": 32, "inner": 16, "layout": "nn", "fused": 1}
    choice = {"bucket": bucket, "schedule": stored}
    CACHE.put(path.stem, json.dumps({"choice": choice, "gain": 2}).encode())
    assert run(product(), budget=0.0).found == ()  # no candidate of this product


def test_another_driver_is_tuned_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    run(product())
    device = shared_device()
    monkeypatch.setattr(device, "adapter", replace(device.adapter, driver="another"))
    assert run(product(), budget=0.0).found == ()


@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
def test_every_candidate_is_right(schedule: str) -> None:
    """Shapes that are nobody's friend: primes, one row, one column, batches, turned operands."""
    a, b, c = asg.input("a", (2, 9, 18)), asg.input("b", (18, 13)), asg.input("c", (7, 1))
    outputs = {
        "batched": asg.tanh(a @ b),
        "turned": asg.swapaxes(a, 1, 2) @ asg.input("d", (2, 9, 5)),
        "column": asg.input("e", (5, 7)) @ c,
        "row": asg.input("f", (1, 33)) @ asg.input("g", (33, 17)) + 1.0,
    }
    found = run(asg.graph(outputs=outputs), schedule, budget=300.0)
    trials = [trial for each in found.found for trial in each.trials]
    assert len(trials) > 8
    assert [trial for trial in trials if trial.outcome == "wrong"] == []
    assert found.left == ()


def test_compile_uses_what_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, [9.0, 9.0, 9.0, 1.0, *[9.0] * 20])
    graph = product()
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(graph.input(name).type.shape, np.float32)
              for name in graph.input_names()}  # fmt: skip
    with asg.compile(graph) as plain:
        default = dict(plain.kernels)
        wanted = plain(inputs)["y"]
        assert "tuning" not in plain.report()
    with asg.compile(graph, tune=True) as tuned:
        texts = dict(tuned.kernels)
        (entry,) = tuned.report()["tuning"]
        assert entry["schedule"] in next(iter(texts.values()))
        assert texts != default
        np.testing.assert_allclose(tuned(inputs)["y"], wanted, rtol=1e-5, atol=1e-6)
        tuned.save(tmp_path / "tuned.asg")
    with asg.load(tmp_path / "tuned.asg") as loaded:
        assert dict(loaded.kernels) == texts
        np.testing.assert_allclose(loaded(inputs)["y"], wanted, rtol=1e-5, atol=1e-6)
        assert loaded.report()["tuning"][0]["schedule"] == entry["schedule"]
    # What tuning has found changes nothing for those who do not ask.
    with asg.compile(graph) as again:
        assert dict(again.kernels) == default


def test_nothing_is_left_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device.open()
    monkeypatch.setattr("asg.runtime.devices._shared", {"": device})
    executable = asg.compile(product(), tune=20)
    assert isinstance(executable, Executable)
    assert executable.device is device
    executable.close()
    assert device.live() == {"buffers": 0, "bind_groups": 0, "pipelines": 0}
    assert device.allocated == 0


def test_a_slow_compilation_does_not_hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = devices._compile_one

    def slow(helper: Device, shader: Any) -> None:
        time.sleep(0.5)
        compiled(helper, shader)

    monkeypatch.setattr("asg.runtime.devices._compile_one", slow)
    started = time.perf_counter()
    tuned = only(run(product(), compile_limit=0.01))
    assert {trial.outcome for trial in tuned.trials} <= {"slow to compile", "refused"}
    assert time.perf_counter() - started < 0.5 * len(tuned.trials) + 5


_BYTES = """
import sys, hashlib, asg
from asg import compiler
from asg.runtime.adapters import AdapterClass
from asg.runtime.bundle import pack_bundle
x = asg.input("x", (33, 40))
graph = asg.graph(outputs={"y": asg.softmax(asg.gelu(x @ asg.input("w", (40, 24))))})
for name, family in (("cpu-simd", "cpu"), ("nvidia-gpu", "gpu")):
    target = compiler.target_for(AdapterClass(name, family, 8))
    artefact = compiler.lower({"main": graph}, target=target)
    print(hashlib.sha256(pack_bundle(artefact, artefact.values)).hexdigest())
"""


def test_untuned_compilation_is_reproducible() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _BYTES], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop().split()) == 2


@pytest.mark.parametrize("schedule", ["cpu", "gpu", *ADAPTER_CLASSES])
def test_every_class_is_right_here(schedule: str) -> None:
    """Kernels for other adapters run on this one too, by their portable variants if need be."""
    x, w = asg.input("x", (9, 20)), asg.input("w", (20, 13))
    hidden = asg.gelu(x @ w)
    outputs = {"y": asg.softmax(hidden), "sum": asg.sum(hidden, axis=0), "top": asg.argmax(hidden)}
    graph = asg.graph(outputs=outputs)
    report = asg.testing.verify(graph, schedule=schedule, stages=("kernels", "memory", "whole"))
    assert report.is_right, str(report)
    with asg.compile(graph, schedule=schedule) as exe:
        assert exe.report()["dispatch_count"] > 0


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asg.save_graph(product(), tmp_path / "product.graph")
    arguments = ["tune", "product.graph", "--budget", "60", "-o", "product.asg", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["kernels"][0]["trials"]
    assert data["left"] == []
    with asg.load(tmp_path / "product.asg") as exe:
        assert data["kernels"][0]["schedule"] in next(iter(exe.kernels.values()))
    text = CliRunner().invoke(main, ["tune", "product.graph"]).stdout
    assert "known" in text
    assert "gain" in text


def test_the_command_reports_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asg.save_graph(product(), tmp_path / "product.graph")
    spoil(monkeypatch, 1, lambda text: text.replace("let v_y = ", "let v_y = 2.0f * ", 1))
    result = CliRunner().invoke(main, ["tune", "product.graph"])
    assert result.exit_code == 1
    assert " is wrong: " in result.stdout


def test_the_caches_from_the_command_line(caches: Path) -> None:
    CACHE.put("0" * 64, b"something")
    shown = json.loads(CliRunner().invoke(main, ["cache", "show", "--json"]).stdout)
    assert shown["folder"] == str(caches)
    assert shown["caches"]["schedules"]["files"] == 1
    assert set(shown["caches"]) == {"programs", "schedules", "probes", "drivers"}
    assert "schedules" in CliRunner().invoke(main, ["cache", "show"]).stdout
    assert CliRunner().invoke(main, ["cache", "clear", "probes"]).exit_code == 0
    assert CACHE.usage().files == 1
    assert CliRunner().invoke(main, ["cache", "clear"]).exit_code == 0
    assert CACHE.usage().files == 0
    result = CliRunner().invoke(main, ["cache", "clear", "hats"])
    assert result.exit_code == 2
    assert "there is no cache 'hats'; caches: programs, schedules, probes, drivers" in result.output
