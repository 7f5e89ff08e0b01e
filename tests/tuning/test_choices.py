"""Winners are found for products like those that were measured, and are never taken blindly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import asg
from asg.artefact import Variant
from asg.codegen.context import KernelContext, Target
from asg.codegen.contract_choice import bucket, candidates_of, chosen, problem_of
from asg.codegen.contract_kernel import contract_variants
from asg.codegen.render import template_digest
from asg.compiler import fuse, lower, prepare, target_for, with_choices
from asg.kernel_bench import alone
from asg.passes import choices
from asg.passes.choices import (
    TABLE,
    Bucket,
    Choice,
    bucket_of,
    decode,
    encode,
    find,
    merge,
    shipped,
)
from asg.passes.schedule_contract import ContractProblem, ContractSchedule, candidates
from asg.runtime.adapters import ADAPTER_CLASSES, AdapterClass

CPU = Target("cpu", 8)
TEMPLATES = template_digest("contract_")
REGISTER = ContractSchedule("register", 4, 4, 8)
OTHER = ContractSchedule("register", 8, 4, 8)


def context_of(graph: asg.Graph, target: Target = CPU) -> KernelContext:
    plan = fuse(prepare(graph))
    kernels = [kernel for kernel in plan.kernels if kernel.kind == "contract"]
    return alone(plan.graph, kernels[0], target)


def product(left: tuple[int, ...], right: tuple[int, ...], turned: str = "") -> asg.Graph:
    a, b = asg.input("a", left), asg.input("b", right)
    if "a" in turned:
        a = asg.swapaxes(a, -1, -2)
    if "b" in turned:
        b = asg.swapaxes(b, -1, -2)
    return asg.graph(outputs={"y": a @ b})


@pytest.mark.parametrize(
    ("size", "rounded"),
    [(0, 0), (1, 1), (3, 3), (16, 16), (17, 16), (23, 32), (24, 32), (90, 64), (91, 128),
     (1000, 1024), (4096, 4096)],
)  # fmt: skip
def test_sizes_are_rounded(size: int, rounded: int) -> None:
    found = bucket_of(ContractProblem(1, size, 64, 64), "nn", 0)
    assert found == Bucket(1, rounded, 64, 64, "nn", 0)


@pytest.mark.parametrize(
    ("graph", "layout"),
    [
        (product((32, 64), (64, 48)), "nn"),
        (product((32, 64), (48, 64), "b"), "nt"),
        (product((64, 32), (64, 48), "a"), "tn"),
        (product((64, 32), (48, 64), "ab"), "tt"),
    ],
)
def test_layouts(graph: asg.Graph, layout: str) -> None:
    # The compiler may compute the transposed product; then both operands change places.
    turned = {"nn": ("nn", "tt"), "nt": ("nt",), "tn": ("tn",), "tt": ("tt", "nn")}
    assert bucket(context_of(graph)).layout in turned[layout]


def test_what_is_fused() -> None:
    x, w, b = asg.input("x", (32, 64)), asg.input("w", (64, 48)), asg.input("b", (48,))
    graphs = [x @ w, asg.relu(x @ w + b), asg.gelu(x @ w + b)]
    found = [bucket(context_of(asg.graph(outputs={"y": y}))).fused for y in graphs]
    assert found[0] == 0
    assert found[0] < found[1] <= found[2]


def test_the_nearest_of_the_same_texture_wins() -> None:
    wanted = Bucket(1, 64, 64, 64, "nn", 0)
    far = Choice(replace(wanted, rows=128, columns=128), OTHER)
    near = Choice(replace(wanted, rows=128), REGISTER)
    known = (REGISTER, OTHER)
    assert find((far, near), wanted, known) == REGISTER
    assert find((far,), wanted, known) == OTHER
    assert find((far, near), wanted, (OTHER,)) == OTHER  # a candidate of this product's own
    assert find((far, near), wanted, ()) is None
    assert find((), wanted, known) is None
    too_far = Choice(replace(wanted, rows=256, columns=128), OTHER)
    assert find((too_far,), wanted, known) is None
    for texture in (replace(wanted, layout="nt"), replace(wanted, fused=1)):
        assert find((Choice(texture, OTHER),), wanted, known) is None


def test_later_choices_stand_and_order_is_fixed() -> None:
    one, two = Bucket(1, 8, 8, 8, "nn", 0), Bucket(1, 4, 8, 8, "nn", 0)
    merged = merge((Choice(one, OTHER), Choice(two, OTHER)), (Choice(one, REGISTER),))
    assert merged == (Choice(two, OTHER), Choice(one, REGISTER))
    assert merge(merged) == merged


def test_text_form() -> None:
    choice = Choice(Bucket(1, 8, 16, 32, "nt", 2), OTHER)
    assert decode(json.loads(json.dumps(encode(choice)))) == choice


@pytest.mark.parametrize(
    "change",
    [{"bucket": None}, {"bucket": {}}, {"schedule": {"family": "register"}}, {"schedule": 3},
     {"bucket": {**asdict(Bucket(1, 8, 16, 32, "nt", 2)), "rows": "8"}},
     {"bucket": {**asdict(Bucket(1, 8, 16, 32, "nt", 2)), "layout": "xy"}},
     {"bucket": {**asdict(Bucket(1, 8, 16, 32, "nt", 2)), "fused": 9}},
     {"schedule": {**asdict(OTHER), "more": 1}}],
)  # fmt: skip
def test_what_is_no_choice(change: dict[str, Any]) -> None:
    assert decode({**encode(Choice(Bucket(1, 8, 16, 32, "nt", 2), OTHER)), **change}) is None
    assert decode([]) is None


def test_a_winner_comes_first_and_a_portable_variant_last() -> None:
    context = context_of(product((64, 64), (64, 64)))
    for schedule in candidates_of(context):
        target = with_choices(CPU, (Choice(bucket(context), schedule),))
        picked = chosen(replace(context, target=target), problem_of(context))
        assert picked[0] == schedule
        assert picked[-1].family != "shuffle"
        assert not picked[-1].is_wide
        last = contract_variants(replace(context, target=target))[-1]
        assert (last.features, last.subgroup_size) == ((), 0)


def test_a_schedule_that_is_no_candidate_is_not_used() -> None:
    context = context_of(product((64, 64), (64, 64)))
    foreign = Choice(bucket(context), ContractSchedule("staged", 64, 64, 1024, 4, 8))
    target = with_choices(CPU, (foreign,))
    texts = [each.wgsl for each in contract_variants(context)]
    assert [each.wgsl for each in contract_variants(replace(context, target=target))] == texts


def test_the_shipped_table() -> None:
    """Every winner is a candidate of a product in its bucket, or it could never be used."""
    data = json.loads(TABLE.read_text())
    for name, rows in data.items():
        adapter, _, size = name.partition("/")
        found = [
            choice
            for templates in {row["templates"] for row in rows}
            for choice in shipped(adapter, int(size), templates)
        ]
        assert len(found) == len(rows)
        for choice in found:
            of = choice.bucket
            problem = ContractProblem(of.batch, of.rows, of.columns, of.inner)
            family = ADAPTER_CLASSES[adapter]
            assert choice.schedule in candidates(problem, family, int(size)), choice
    assert shipped("no such class", 8, TEMPLATES) == ()


def test_a_damaged_table_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    table = tmp_path / "choices.json"
    table.write_text('{"cpu-simd/8": [{"bucket": 3}]}')
    monkeypatch.setattr(choices, "TABLE", table)
    choices._shipped.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"choices\.json: .* is no choice"):
            shipped("cpu-simd", 8, TEMPLATES)
    finally:
        choices._shipped.cache_clear()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A table of winners in the place of the one that is shipped."""
    path = tmp_path / "choices.json"
    monkeypatch.setattr(choices, "TABLE", path)
    choices._shipped.cache_clear()
    yield path
    choices._shipped.cache_clear()


def variants_of(graph: asg.Graph, target: Target) -> tuple[Variant, ...]:
    (kernel,) = lower({"main": graph}, target=target).kernels.values()
    return kernel.variants


def test_winners_of_the_table_are_used_unless_they_are_stale(table: Path) -> None:
    """What was measured with other templates is as if it were not there."""
    graph = product((64, 64), (64, 64))
    context = context_of(graph)
    default, *others = candidates_of(context)
    winner = next(each for each in others if each.family == default.family)
    row = encode(Choice(bucket(context), winner))
    found = []
    for templates in (TEMPLATES, "0123456789ab"):
        table.write_text(json.dumps({"cpu-simd/8": [{**row, "templates": templates}]}))
        choices._shipped.cache_clear()
        found.append(variants_of(graph, target_for(AdapterClass("cpu-simd", "cpu", 8))))
    assert found[0][0].schedule == str(winner)
    assert found[1][0].schedule == str(default)
    assert found[1] == variants_of(graph, CPU)


def test_the_same_graph_gives_the_same_bytes() -> None:
    target = target_for(AdapterClass("cpu-simd", "cpu", 8))
    graph = product((64, 64), (64, 64))
    assert variants_of(graph, target) == variants_of(graph, target)


def test_the_name_of_templates_is_that_of_their_text() -> None:
    assert template_digest("contract_") == TEMPLATES
    assert len({template_digest(each) for each in ("contract_", "row_", "nothing")}) == 3


def test_targets_carry_the_winners_of_their_class() -> None:
    adapter = AdapterClass("cpu-simd", "cpu", 8)
    assert target_for(adapter).choices == shipped("cpu-simd", 8, TEMPLATES)
    assert target_for(adapter, "gpu") == Target("gpu", 0, shipped("web-generic", 0, TEMPLATES))
    assert target_for(adapter, "amd-gpu") == Target("gpu", 0, shipped("amd-gpu", 0, TEMPLATES))
    nvidia = AdapterClass("nvidia-gpu", "gpu", 32)
    assert target_for(nvidia) == Target("gpu", 0, shipped("nvidia-gpu", 0, TEMPLATES))
    assert target_for(nvidia, "gpu") == target_for(nvidia)
    assert target_for(nvidia, "cpu") == Target("cpu", 32, shipped("cpu-simd", 32, TEMPLATES))
    with pytest.raises(asg.AsgError, match="schedule 'tpu' is unknown; known: cpu, gpu, cpu-simd"):
        target_for(nvidia, "tpu")
