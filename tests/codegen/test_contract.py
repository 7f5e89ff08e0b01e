"""Matrix products: every family, every way of reading an operand, sizes that fit no tile."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

import asg.functions  # noqa: F401 - gives tensors their methods
from asg.artefact import Variant
from asg.codegen.context import KernelContext, Target
from asg.codegen.contract_kernel import contract_variants
from asg.ops.linear import matmul
from asg.ops.movement import broadcast, flip, pad, permute, reshape
from asg.ops.sources import input as graph_input
from asg.passes.schedule_contract import ContractProblem, ContractSchedule, candidates, choose
from asg.runtime.devices import shared_device
from asg.tensor import Tensor
from support.one_kernel import draw, expect_right, product_kernel, run_variant
from support.wgsl_check import check_naga, check_tint, is_native

CPU = Target("cpu", 8)
# f32 sums of up to 130 products of numbers around 1, as measured: 4e-6.
TOLERANCE = 3e-5

SCHEDULES = {
    "shuffle": ContractSchedule("shuffle", 8, 4, 8),
    "register": ContractSchedule("register", 4, 4, 8, inner_steps=1),
    "staged": ContractSchedule("staged", 4, 4, 64, depth=8),
}
OTHERS = {
    "shuffle-low": ContractSchedule("shuffle", 3, 4, 8),
    "shuffle-wide": ContractSchedule("shuffle", 8, 8, 8, is_transposed=True),
    "register-wide": ContractSchedule("register", 8, 8, 16, inner_steps=1, is_transposed=True),
    "register-low": ContractSchedule("register", 2, 4, 8, inner_steps=4),
    "staged-deep": ContractSchedule("staged", 4, 8, 64, depth=16),
    "sliced": ContractSchedule("sliced", 4, 4, 64, slices=8),
    "sliced-turned": ContractSchedule("sliced", 1, 4, 32, is_transposed=True, slices=4),
    "staged-turned": ContractSchedule("staged", 8, 4, 32, depth=4, is_transposed=True),
    "shuffle-words": ContractSchedule("shuffle", 8, 4, 8, is_wide=True),
    "shuffle-words-turned": ContractSchedule("shuffle", 5, 16, 8, is_transposed=True, is_wide=True),
    "register-words": ContractSchedule("register", 8, 4, 8, inner_steps=1, is_wide=True),
}
ALL = SCHEDULES | OTHERS

SIZES = [
    (1, 1, 1), (5, 3, 7), (1, 16, 64), (33, 17, 20), (3, 66, 67), (32, 8, 32), (16, 0, 8),
    (7, 64, 2),
]  # fmt: skip


def f32(name: str, *shape: int) -> Tensor:
    return graph_input(name, shape)


def by(schedule: ContractSchedule) -> Callable[[KernelContext], Variant]:
    def writer(context: KernelContext) -> Variant:
        return contract_variants(context, schedule)[0]

    return writer


def expect(
    outputs: dict[str, Tensor],
    schedules: Mapping[str, ContractSchedule] = SCHEDULES,
    in_place: Mapping[str, str] | None = None,
) -> None:
    writers = [by(schedule) for schedule in schedules.values()]
    expect_right(outputs, writers, target=CPU, tolerance=TOLERANCE, in_place=in_place)


@pytest.mark.device
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_sizes_that_fit_no_tile(m: int, k: int, n: int) -> None:
    expect({"y": matmul(f32("a", m, k), f32("b", k, n))})


@pytest.mark.device
def test_other_tiles() -> None:
    expect({"y": matmul(f32("a", 33, 17), f32("b", 17, 20))}, OTHERS)
    expect({"y": matmul(f32("a", 12, 6).T, f32("b", 36, 12).T)}, OTHERS)


@pytest.mark.device
@pytest.mark.parametrize(("m", "k", "n"), [(32, 16, 36), (10, 6, 9)])
def test_transposed_operands(m: int, k: int, n: int) -> None:
    expect({"y": matmul(f32("a", k, m).T, f32("b", k, n))})
    expect({"y": matmul(f32("a", m, k), f32("b", n, k).T)})
    expect({"y": matmul(f32("a", k, m).T, f32("b", n, k).T)})


# Numbers around the tiles' sizes, primes, single rows and columns, no inner step and one.
ODD = [
    (1, 9, 65), (65, 1, 7), (63, 65, 8), (7, 8, 9), (8, 63, 1), (9, 0, 5), (67, 7, 13), (1, 1, 63),
]  # fmt: skip


@pytest.mark.device
@pytest.mark.parametrize(
    "name", ["shuffle-words", "shuffle-wide", "register-words", "staged-deep", "sliced"]
)
@pytest.mark.parametrize("turned", ["a", "b", "both"])
def test_odd_sizes_of_transposed_operands(name: str, turned: str) -> None:
    for m, k, n in ODD:
        left = f32("a", m, k) if turned == "b" else f32("a", k, m).T
        right = f32("b", k, n) if turned == "a" else f32("b", n, k).T
        expect({"y": matmul(left, right)}, {name: ALL[name]})


@pytest.mark.device
@pytest.mark.parametrize("name", list(ALL))
def test_the_same_bits_in_every_run(name: str) -> None:
    context = product_kernel({"y": matmul(f32("a", 65, 63), f32("b", 63, 67))}, target=CPU)
    inputs, variant = draw(context), by(ALL[name])(context)
    first, second = (run_variant(context, variant, inputs)["y"] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.device
def test_a_stage_larger_than_every_device_has() -> None:
    schedule = ContractSchedule("staged", 8, 8, 256, depth=16)
    assert not schedule.is_portable
    context = product_kernel({"y": matmul(f32("a", 130, 33), f32("b", 33, 12))}, target=CPU)
    needed = by(schedule)(context).limits["maxComputeWorkgroupStorageSize"]
    assert needed == schedule.workgroup_bytes == 20480
    if shared_device().adapter.limits["maxComputeWorkgroupStorageSize"] < needed:
        pytest.skip("the adapter has too little workgroup memory")
    expect({"y": matmul(f32("a", 130, 33), f32("b", 33, 12))}, {"large": schedule})
    expect({"y": matmul(f32("a", 33, 130).T, f32("b", 12, 33).T)}, {"large": schedule})


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
def test_the_memory_of_a_workgroup_is_known(schedule: ContractSchedule) -> None:
    """The header of a kernel says what it holds at most; the text holds no more."""
    for left, right in [
        (f32("a", 64, 64), f32("b", 64, 64)),
        (f32("a", 64, 64).T, f32("b", 64, 64).T),
    ]:
        text = by(schedule)(product_kernel({"y": matmul(left, right)}, target=CPU)).wgsl
        held = [int(size) for size in re.findall(r"var<workgroup> \w+: array<vec4f, (\d+)>", text)]
        assert 16 * sum(held) <= schedule.workgroup_bytes


@pytest.mark.device
def test_batch_axes() -> None:
    batches = {"y": matmul(f32("a", 2, 3, 5, 6), f32("b", 2, 3, 6, 7))}
    expect(batches, SCHEDULES | {"sliced": ALL["sliced"]})


@pytest.mark.device
def test_an_operand_broadcast_along_the_batch() -> None:
    shared = broadcast(reshape(f32("a", 6, 8), shape=(1, 6, 8)), shape=(3, 6, 8))
    expect({"y": matmul(shared, f32("b", 3, 8, 12))})


@pytest.mark.device
@pytest.mark.parametrize(("sequence", "size"), [(16, 8), (9, 6)])
def test_heads_are_split_without_a_copy(sequence: int, size: int) -> None:
    joined = f32("qkv", 2, sequence, 3 * 3 * size)
    width = 3 * size

    def heads(part: int) -> Tensor:
        own = joined[:, :, part * width : (part + 1) * width]
        return permute(reshape(own, shape=(2, sequence, 3, size)), axes=(0, 2, 1, 3))

    query, key, value = heads(0), heads(1), heads(2)
    expect({"scores": matmul(query, permute(key, axes=(0, 1, 3, 2)))})
    expect({"mixed": matmul(f32("weights", 2, 3, sequence, sequence), value)})


@pytest.mark.device
def test_other_views_are_read_through() -> None:
    padded = pad(f32("a", 8, 6), low=(1, 2), high=(3, 1), fill=0.0)
    expect({"y": matmul(padded, pad(f32("b", 7, 12), low=(0, 4), high=(2, 0), fill=0.0))})
    expect({"y": matmul(f32("a", 40, 40)[3:20, 8:24], f32("b", 20, 44)[2:18, 4:40])})
    expect({"y": matmul(flip(f32("a", 8, 8), axes=(1,)), flip(f32("b", 8, 16), axes=(1,)))})


@pytest.mark.device
def test_more_tiles_than_a_dimension_has_groups() -> None:
    many = {"y": matmul(f32("a", 65_600, 1), f32("b", 1, 4))}
    expect(many, {"low": ContractSchedule("shuffle", 1, 4, 8)})


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + (0.7978845608 * x * (1.0 + 0.044715 * x * x)).tanh())


@pytest.mark.device
@pytest.mark.parametrize(("m", "k", "n"), [(32, 16, 36), (33, 17, 21)])
def test_prologue_and_epilogue(m: int, k: int, n: int) -> None:
    x = gelu(f32("a", m, k)) * f32("gain", m, 1)
    hidden = matmul(x, f32("b", k, n) * 2.0) + f32("bias", n)
    expect({"y": gelu(hidden) + f32("rest", m, n), "hidden": hidden})


@pytest.mark.device
@pytest.mark.parametrize(("m", "k", "n"), [(32, 16, 36), (33, 17, 21)])
def test_an_output_may_take_the_place_of_an_operand_of_its_epilogue(m: int, k: int, n: int) -> None:
    y = matmul(f32("a", m, k), f32("b", k, n)) + f32("rest", m, n)
    expect({"y": y, "double": y + y}, in_place={"y": "rest"})


@pytest.mark.device
@pytest.mark.parametrize(
    "target", [CPU, Target("cpu", 0), Target("gpu", 0)], ids=["shuffle", "register", "staged"]
)
def test_chosen_schedules_are_right(target: Target) -> None:
    for m, k, n in [(70, 36, 100), (1, 40, 33), (40, 36, 1), (300, 5, 2)]:
        outputs = {"y": matmul(f32("a", m, k), f32("b", k, n))}
        count = len(contract_variants(product_kernel(outputs, target=target)))
        writers = [lambda context, i=i: contract_variants(context)[i] for i in range(count)]
        expect_right(outputs, writers, target=target, tolerance=TOLERANCE)


PROBLEMS = [
    ContractProblem(1, 1024, 1024, 1024),
    ContractProblem(64, 64, 64, 32),
    ContractProblem(1, 1, 4096, 4096),
    ContractProblem(1, 4096, 1, 4096),
    ContractProblem(1, 10, 7, 3),
    ContractProblem(1, 0, 4, 4),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_last_schedule_is_portable(problem: ContractProblem) -> None:
    assert choose(problem, "cpu", 8)[-1].family == "register"
    assert choose(problem, "cpu", 0)[-1].family == "register"
    for family, size in [("cpu", 8), ("cpu", 0), ("gpu", 32)]:
        assert choose(problem, family, size)[-1].is_portable


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize(("family", "subgroup"), [("cpu", 8), ("cpu", 0), ("gpu", 32)])
def test_candidates_are_ranked_and_distinct(
    problem: ContractProblem, family: str, subgroup: int
) -> None:
    found = candidates(problem, family, subgroup)
    assert found[0] == choose(problem, family, subgroup)[0]
    assert len(set(found)) == len(found) <= 8
    assert any(each.family != "shuffle" for each in found)


def test_large_products_get_tall_tiles_and_small_ones_compile_fast() -> None:
    assert choose(ContractProblem(1, 1024, 1024, 1024), "cpu", 8)[0].rows == 32
    assert choose(ContractProblem(1, 1024, 128, 128), "cpu", 8)[0].rows == 16
    assert choose(ContractProblem(1, 1, 4096, 4096), "cpu", 8)[0].rows == 1


def test_tiles_of_few_rows_are_wide() -> None:
    """Memory is then read in long runs, which is what such products wait for."""
    for rows, columns in [(1, 16), (4, 16), (8, 8), (32, 4)]:
        best = choose(ContractProblem(1, rows, 4096, 4096), "cpu", 8)[0]
        assert (best.rows, best.columns) == (rows, columns)


def test_words_of_64_bits_come_before_what_browsers_have() -> None:
    best, plain, portable = choose(ContractProblem(1, 256, 256, 256), "cpu", 8)
    assert best == replace(plain, is_wide=True)
    assert portable.is_portable
    assert [each.is_wide for each in choose(ContractProblem(1, 9, 9, 9), "cpu", 0)] == [True, False]


def test_few_rows_are_sliced_on_graphics_cards() -> None:
    def slices(rows: int, columns: int, inner: int) -> int:
        return choose(ContractProblem(1, rows, columns, inner), "gpu", 32)[0].slices

    assert slices(1, 4096, 4096) == 32
    assert slices(4, 16384, 4096) == 8
    assert slices(1, 4096, 256) == 8  # more would have too few steps
    assert slices(1, 4096, 64) == 1
    assert slices(1, 1 << 18, 4096) == 1  # columns enough
    best = choose(ContractProblem(1, 4096, 1, 4096), "gpu", 32)[0]
    assert (best.slices, best.is_transposed) == (32, True)


def test_staged_tiles_grow_with_the_product() -> None:
    def tile(size: int) -> tuple[int, int]:
        best = choose(ContractProblem(1, size, size, size), "gpu", 32)[0]
        across, down = best.threads
        return down * best.rows, across * best.columns

    assert [tile(size) for size in (256, 512, 1024, 2048)] == [
        (32, 32), (32, 32), (64, 128), (128, 128),
    ]  # fmt: skip
    large, portable = choose(ContractProblem(1, 4096, 4096, 4096), "gpu", 32)
    assert (large.depth, portable.depth) == (16, 8)


def test_a_single_column_is_computed_as_a_row() -> None:
    for family, size in [("cpu", 8), ("cpu", 0), ("gpu", 0)]:
        assert choose(ContractProblem(1, 4096, 1, 4096), family, size)[0].is_transposed


def _texts() -> dict[str, str]:
    outputs = {
        "y": gelu(matmul(f32("a", 2, 33, 17), f32("b", 2, 17, 20))),
        "z": matmul(f32("a", 16, 32).T, f32("b", 12, 16).T),
        "empty": matmul(f32("a", 4, 0), f32("b", 0, 4)),
        "many": matmul(f32("a", 70_000, 32, 4), f32("b", 70_000, 4, 4)),
    }
    return {
        f"{name} {case}": by(schedule)(product_kernel({case: tensor}, target=CPU)).wgsl
        for case, tensor in outputs.items()
        for name, schedule in ALL.items()
    }


@pytest.mark.device
def test_naga_accepts_every_family() -> None:
    assert {name: error for name, error in check_naga(_texts()).items() if error} == {}


@pytest.mark.tint
def test_tint_accepts_every_family() -> None:
    texts = {name: text for name, text in _texts().items() if not is_native(text)}
    assert {name: error for name, error in check_tint(texts).items() if error} == {}


@pytest.mark.parametrize("name", ["shuffle-low", "register-low", "staged", "sliced"])
def test_the_text(name: str, golden: Callable[[str, str], None]) -> None:
    x = f32("x", 30, 16)
    outputs = {"y": matmul(x, f32("w", 16, 36)) + f32("bias", 36)}
    context = product_kernel(outputs, target=CPU)
    lines = by(ALL[name])(context).wgsl.splitlines()
    golden(f"{name}.wgsl", "\n".join(line for line in lines if not line.startswith("//   ")))
