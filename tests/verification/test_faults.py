"""Faults are planted in every part of the compiler; each is found, and named for what it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import asg
from asg import compiler
from asg.artefact import Variant
from asg.bisection import Finding, bisect
from asg.checks import DifferentialReport
from asg.codegen import build
from asg.codegen.context import KernelContext
from asg.graph import Graph, Node, Value, rewrite
from asg.op import Elementwise
from asg.ops.arithmetic import div, mul
from asg.ops.elementwise import tanh
from asg.passes import arena, fuse
from asg.passes.plan_memory import MemoryPlan
from asg.reproducer import read_arrays, read_graph, write_reproducer
from asg.tensor import Tensor
from asg.testing import differential, gradients
from asg.verification import verify

Spoil = Callable[..., None]


def model() -> Graph:
    """A few kernels: a product with a map behind it, a softmax, a map."""
    x = asg.input("x", (6, 8))
    w = asg.input("w", (8, 16), role="parameter")
    with asg.scope("fc"):
        hidden = asg.tanh(x @ w)
    scores = asg.softmax(hidden * 3.0)
    y = asg.matmul(scores, asg.transpose(w)) / 7.0
    return asg.graph(outputs={"y": y, "scores": scores})


def first_wrong(report: DifferentialReport) -> tuple[str, str]:
    check = report.first_wrong
    assert check is not None, report
    return check.stage, check.where


def found(graph: Graph, **options: object) -> Finding:
    finding = bisect(graph, **options)  # type: ignore[arg-type]
    assert finding is not None
    return finding


def ops(graph: Graph) -> list[str]:
    """The ops of a graph that compute something."""
    return [node.op.name for node in graph.nodes if node.inputs]


@pytest.mark.device
def test_nothing_is_wrong_where_nothing_is_planted() -> None:
    report = differential(model())
    assert report.verdict == "right", report
    assert {check.stage for check in report.checks} == {"passes", "kernels", "memory", "whole"}
    assert bisect(model()) is None


# A wrong pass.


@dataclass(frozen=True)
class HalveDivisors:
    """Makes x / c of x / 2c. It is wrong."""

    def __call__(self, graph: Graph) -> Graph:
        def change(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
            if node.op is not div or node.site is None or "7.0" not in node.site.source:
                return None
            return (mul(div(Tensor(inputs[0]), Tensor(inputs[1])), 2.0).value,)

        return rewrite(graph, change)


WRONG_PASSES = (compiler.PIPELINE[0], HalveDivisors(), *compiler.PIPELINE[1:])


def test_a_wrong_pass_is_named_without_a_device() -> None:
    report = verify(model(), stages=["passes"], passes=WRONG_PASSES)
    assert [check.where for check in report.checks if check.is_wrong] == ["halve-divisors"]
    assert "y: f32[6, 8], 48 of 48 elements wrong" in str(report)


@pytest.mark.device
def test_a_wrong_pass_is_cut_down_to_the_node() -> None:
    finding = found(model(), passes=WRONG_PASSES)
    assert finding.blame.startswith("pass halve-divisors changes what y (div) is, at test_faults")
    assert finding.node == "y"
    assert ops(finding.graph) == ["div"]
    assert finding.after is not None
    assert ops(finding.after) == ["div", "broadcast", "mul"]
    np.testing.assert_allclose(finding.got["y"], 2 * finding.expected()["y"], rtol=1e-6)


@dataclass(frozen=True)
class Stumble:
    """Fails where it meets tanh."""

    def __call__(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            if node.op is tanh:
                raise KeyError("tanh")
        return graph


@pytest.mark.device
def test_a_pass_that_fails_is_cut_down_to_the_node() -> None:
    finding = found(model(), passes=(Stumble(), *compiler.PIPELINE))
    assert finding.blame.startswith("pass stumble changes what tanh_1 (tanh) is")
    assert finding.remarks == ("it fails: KeyError: 'tanh'",)
    assert ops(finding.graph) == ["tanh"]


# A wrong template, or a wrong kernel writer.

DIVISION = r"(v_exp_\w+) / "  # the last step of a softmax


def damage(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    pattern: str,
    text: str,
    only: Callable[[KernelContext], bool] = lambda context: True,
) -> None:
    """Replace text in every kernel of a class, as a mistake in its template would."""
    write = build._WRITERS[kind]

    def write_wrong(context: KernelContext) -> tuple[Variant, ...]:
        variants = write(context)
        if not only(context):
            return variants
        assert any(re.search(pattern, variant.wgsl) for variant in variants), variants[-1].wgsl
        return tuple(
            replace(variant, wgsl=re.sub(pattern, text, variant.wgsl)) for variant in variants
        )

    monkeypatch.setitem(build._WRITERS, kind, write_wrong)  # type: ignore[arg-type]


@pytest.mark.device
@pytest.mark.parametrize("family", ["cpu", "gpu"])
def test_a_wrong_template_is_named_by_its_kernel(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    damage(monkeypatch, "row", DIVISION, r"\1 * ")
    finding = found(model(), schedule=family)
    stage, kernel = finding.check.stage, finding.check.where
    assert (stage, kernel) == first_wrong(differential(model(), schedule=family))
    assert stage == "kernels"
    assert "max" in kernel
    assert finding.compiled is not None
    assert "the kernel is wrong by itself, outside of the program" in finding.remarks
    assert "compiled again: wrong too" in finding.remarks


@pytest.mark.device
def test_later_kernels_are_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    damage(monkeypatch, "row", DIVISION, r"\1 * ")
    report = differential(model())
    wrong = {check.where for check in report.of("kernels") if check.is_wrong}
    assert len(wrong) == 1
    assert [check.where for check in report.of("whole") if check.is_wrong] == ["results"]


# A wrong rule of an op.


@pytest.mark.device
def test_a_wrong_expression_is_found_inside_its_kernel(spoil: Spoil) -> None:
    spoil(tanh, kind=Elementwise("tanh({0} * 1.001)", cost=30))
    finding = found(model())
    assert finding.op == "tanh"
    assert finding.blame.startswith(f"kernel {finding.check.where} computes tanh_1 (tanh) wrongly")
    assert "in fc: hidden = asg.tanh(x @ w)" in finding.blame
    assert ops(finding.graph) == ["tanh"]
    assert finding.remarks[0] == "tanh_1 is wrong by itself, given the right operands"
    assert "with a kernel for each node (fusion off): wrong too" in finding.remarks
    other = "gpu" if finding.target is not None and finding.target.family == "cpu" else "cpu"
    assert f"with the {other} schedules: wrong too" in finding.remarks
    assert not any("examples" in remark for remark in finding.remarks)


@pytest.mark.device
def test_a_wrong_numpy_rule_is_told_from_a_wrong_kernel(spoil: Spoil) -> None:
    spoil(tanh, numpy=lambda x: np.tanh(x) * np.float32(1.01))
    finding = found(model())
    assert finding.op == "tanh"
    assert "the NumPy rule of tanh contradicts the op's own examples" in finding.remarks


def test_a_wrong_gradient_rule_is_named(spoil: Spoil) -> None:
    spoil(tanh, grad=lambda node, g, x: [g * (1.0 - node)])
    report = gradients(model())
    assert [check.where for check in report.checks if check.is_wrong] == ["tanh_1 (tanh)"]
    assert first_wrong(report) == ("gradients", "tanh_1 (tanh)")


def test_right_gradient_rules() -> None:
    report = gradients(model())
    assert report.verdict == "right", report
    assert {check.where.split()[1] for check in report.checks} >= {"(matmul)", "(softmax)"}


# What only fusion, or only a schedule, gets wrong.


@pytest.mark.device
def test_it_is_said_when_unfusing_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_tanh(context: KernelContext) -> bool:
        return any(node.op is tanh for node in context.kernel.nodes)

    damage(monkeypatch, "contract", r"= (asg_tanh\w*)\(", r"= 1.01 * \1(", has_tanh)
    finding = found(model())
    assert "with a kernel for each node (fusion off): right" in finding.remarks
    assert finding.op == "tanh"
    assert set(ops(finding.graph)) == {"matmul", "tanh"}
    assert finding.remarks[0] == (
        "tanh_1 is wrong only together with others: the graph has 2 nodes"
    )


@pytest.mark.device
def test_it_is_said_when_the_other_schedules_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_gpu(context: KernelContext) -> bool:
        return context.target.family == "gpu"

    damage(monkeypatch, "row", DIVISION, r"\1 * ", is_gpu)
    finding = found(model(), schedule="gpu")
    assert "with the cpu schedules: right" in finding.remarks


# A wrong memory plan.


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that forgets when the first long-lived value dies."""
    plan = arena.PlanMemory.__call__

    def crowd(self: arena.PlanMemory, items: object, groups: object = ()) -> MemoryPlan:
        made = plan(self, items, groups)  # type: ignore[arg-type]
        if not self.reuse or len(made.offsets) < 2:
            return made
        return replace(made, offsets=dict.fromkeys(made.offsets, 0))

    monkeypatch.setattr(arena.PlanMemory, "__call__", crowd)


def chain() -> Graph:
    """Values that live side by side: `a` is read again after `b` and `c` are there."""
    x = asg.input("x", (32, 32))
    a = x @ x
    b = a @ x
    c = b @ b
    return asg.graph(outputs={"y": asg.matmul(c, a)})


@pytest.mark.device
@pytest.mark.usefixtures("crowded")
def test_a_wrong_memory_plan_is_told_from_wrong_kernels() -> None:
    finding = found(chain())
    assert finding.check.stage == "memory"
    assert "memory is planned wrongly" in finding.blame


@pytest.mark.device
@pytest.mark.usefixtures("crowded")
def test_who_overwrites_what_is_seen_on_the_device() -> None:
    report = differential(chain(), stages=["memory"])
    notes = [check.note for check in report.checks if check.is_wrong]
    assert any("is damaged when" in note and "overwritten by" in note for note in notes), notes


# The folder that a finding leaves.


@pytest.mark.device
def test_a_finding_can_be_reproduced(spoil: Spoil, tmp_path: Path) -> None:
    spoil(tanh, kind=Elementwise("tanh({0} * 1.001)", cost=30))
    finding = found(model())
    folder = write_reproducer(finding, tmp_path / "finding")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.txt", "adapter.json", "compiled.asg", "compiled.npz", "expected.npz",
        "finding.json", "got.npz", "graph.asg", "inputs.npz", "kernels", "reproduce.py",
    ]  # fmt: skip
    graph = read_graph(folder / "graph.asg")
    assert str(graph) == str(finding.graph)
    expected = np.tanh(read_arrays(folder / "inputs.npz")["matmul_1"])
    np.testing.assert_array_equal(read_arrays(folder / "expected.npz")["tanh_1"], expected)
    np.testing.assert_allclose(read_arrays(folder / "got.npz")["tanh_1"], expected, rtol=2e-3)
    # Another process has the right rule: the stored kernel is still wrong, a new one is not.
    ran = subprocess.run(
        [sys.executable, folder / "reproduce.py"], capture_output=True, text=True, check=False
    )
    then, now = ran.stdout.split("compiled now:")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "wrong" in then
    assert "wrong" not in now
    # What is there already is replaced only if it is a finding.
    write_reproducer(finding, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(asg.AsgError, match="is there already and is no finding"):
        write_reproducer(finding, tmp_path / "other")


def test_an_unknown_input() -> None:
    with pytest.raises(asg.errors.InputError) as caught:
        verify(model(), {"z": np.zeros(3)})
    assert str(caught.value) == "there is no input 'z'; inputs: x, w"


def test_an_unknown_target() -> None:
    with pytest.raises(asg.AsgError) as caught:
        differential(model(), target="cuda")  # type: ignore[arg-type]
    assert str(caught.value) == "target 'cuda' is unknown; known: wgpu, numpy"


def test_without_a_device_the_passes_are_checked() -> None:
    report = differential(model(), target="numpy")
    assert {check.stage for check in report.checks} == {"passes"}
    assert not report.device


# Memory that may not be shared, though the planner is right to believe that it may.


@pytest.mark.device
def test_a_false_promise_of_in_place_is_named_with_what_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def promise(
        grouping: object, group: object, reads: list[Value], outputs: list[Value]
    ) -> tuple[tuple[Value, Value], ...]:
        return tuple(
            (read, output)
            for read in reads
            for output in outputs
            if read.node.op.name == "matmul" and read.type == output.type
        )

    monkeypatch.setattr(fuse, "_in_place", promise)
    x = asg.input("x", (64, 64))
    h = x @ x
    finding = found(asg.graph(outputs={"y": asg.exp(h * 0.01) + asg.flip(h, (0, 1))}))
    assert finding.check.stage == "kernels"
    assert "it is right with a place for each value (shared here: y with matmul_1)" in (
        finding.remarks
    )
    assert "memory reused" in finding.check.note
