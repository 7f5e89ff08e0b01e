"""The WGSL helpers on a device: special values, and that four lanes do as one does.

How accurate they are is measured in tests/numerics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wgpu.utils.compute import compute_with_buffers

from asg.codegen.render import helper_texts
from asg.ops import TABLE, arithmetic, bits, convert
from asg.types import DType
from support.wgsl_check import check_naga, check_tint, is_native

Array = np.ndarray[Any, Any]

_WORDS = {"f": "f32", "i": "i32", "u": "u32", "b": "bool"}
_COUNT = 1 << 16
HELPERS = Path(__file__).resolve().parents[2] / "shaders" / "helpers"


def run(name: str, types: str, result: str, operands: Sequence[Array], width: int) -> Array:
    """Call a helper on every element; `types` has a letter per operand."""
    suffix = "_v4" if width == 4 else ""
    lines = list(helper_texts([name + suffix]))
    element = "vec4<u32>" if width == 4 else "u32"
    for binding in range(len(operands)):
        lines.append(
            f"@group(0) @binding({binding}) var<storage, read> a{binding}: array<{element}>;"
        )
    lines.append(
        f"@group(0) @binding({len(operands)}) var<storage, read_write> out: array<{element}>;"
    )
    arguments = ", ".join(_load(letter, f"a{i}[at]", width) for i, letter in enumerate(types))
    lines += [
        "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {",
        "    let at = id.x;",
        "    if (at >= arrayLength(&out)) { return; }",
        f"    let value = {name}{suffix}({arguments});",
        f"    out[at] = {_store(result, width)};",
        "}",
    ]
    count = operands[0].size
    words = {i: np.ascontiguousarray(x).view(np.uint32) for i, x in enumerate(operands)}
    found = compute_with_buffers(
        words, {len(operands): (count, "I")}, "\n".join(lines), n=-(-count // (64 * width))
    )
    return np.frombuffer(found[len(operands)], np.uint32)


def _load(letter: str, text: str, width: int) -> str:
    kind = _WORDS[letter]
    return f"bitcast<{f'vec4<{kind}>' if width == 4 else kind}>({text})"


def _store(letter: str, width: int) -> str:
    if letter == "b":
        return "select(vec4u(0u), vec4u(1u), value)" if width == 4 else "select(0u, 1u, value)"
    return "bitcast<vec4<u32>>(value)" if width == 4 else "bitcast<u32>(value)"


def _every_helper() -> dict[str, str]:
    """A trivial shader around each helper, for one lane and for four."""
    stems = [path.name.split(".")[0] for path in sorted(HELPERS.glob("*.wgsl.j2"))]
    names = [stem + suffix for stem in stems for suffix in ("", "_v4")]
    trivial = "@compute @workgroup_size(1) fn main() {}"
    every = {name: "\n".join([*helper_texts([name]), trivial]) for name in names}
    fast = [path.name.split(".")[0] for path in sorted((HELPERS / "fast").glob("*.wgsl.j2"))]
    for name in (stem + suffix for stem in fast for suffix in ("", "_v4")):
        every[f"fast {name}"] = "\n".join([*helper_texts([name], "fast"), trivial])
    return every


@pytest.mark.device
def test_naga_accepts_every_helper() -> None:
    assert not {name: fault for name, fault in check_naga(_every_helper()).items() if fault}


@pytest.mark.tint
def test_tint_accepts_every_helper() -> None:
    portable = {name: code for name, code in _every_helper().items() if not is_native(code)}
    assert not {name: fault for name, fault in check_tint(portable).items() if fault}


_SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        1e30,
        -1e30,
        np.inf,
        -np.inf,
        np.nan,
        5.5,
    ],
    np.float32,
)


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "expm1",
        "log",
        "log1p",
        "tanh",
        "sigmoid",
        "erf",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "sign",
        "isnan",
    ],
)
def test_special_values(name: str, width: int) -> None:
    x = np.resize(_SPECIAL, 16)
    op = TABLE[name]
    with np.errstate(all="ignore"):
        expected = np.asarray(op.numpy(x)).astype(np.float32)
    found = run(f"asg_{name}", "f", "b" if name == "isnan" else "f", [x], width)
    values = found.astype(np.float32) if name == "isnan" else found.view(np.float32)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("name", ["pow", "remainder", "fmod", "maximum", "minimum"])
def test_special_pairs(name: str, width: int) -> None:
    x, y = (grid.reshape(-1).copy() for grid in np.meshgrid(_SPECIAL, _SPECIAL))
    helper = {"remainder": "asg_rem_f", "fmod": "asg_fmod_f"}.get(name, f"asg_{name}")
    with np.errstate(all="ignore"):
        expected = TABLE[name].numpy(x, y)
    found = run(helper, "ff", "f", [x, y], width).view(np.float32)
    wrong = ~np.isclose(found, expected, rtol=1e-6, equal_nan=True)
    assert not wrong.any(), list(
        zip(x[wrong], y[wrong], found[wrong], expected[wrong], strict=True)
    )


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
def test_remainder_is_exact(width: int) -> None:
    chance = np.random.default_rng(1)
    sizes = np.exp2(chance.uniform(-60, 60, (2, _COUNT)))
    x, y = (sizes * chance.choice([-1, 1], (2, _COUNT))).astype(np.float32)
    found = run("asg_rem_f", "ff", "f", [x, y], width).view(np.float32)
    np.testing.assert_array_equal(found, np.remainder(x, y))
    found = run("asg_fmod_f", "ff", "f", [x, y], width).view(np.float32)
    np.testing.assert_array_equal(found, np.fmod(x, y))


_EDGES = np.array([0, 1, -1, 2, -2, 7, -7, 31, 32, 33, 2**31 - 1, -(2**31)], np.int64)


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize(
    "op",
    [
        arithmetic.floor_divide,
        arithmetic.remainder,
        arithmetic.trunc_divide,
        arithmetic.fmod,
        bits.shift_left,
        bits.shift_right,
    ],
    ids=str,
)
@pytest.mark.parametrize("letter", ["i", "u"])
def test_integer_pairs(op: Any, letter: str, width: int) -> None:
    kind = {"i": np.int32, "u": np.uint32}[letter]
    x, y = (grid.reshape(-1).astype(kind) for grid in np.meshgrid(_EDGES, _EDGES))
    with np.errstate(all="ignore"):
        expected = op.numpy(x, y)
    helper = op.kind.wgsl[{"i": DType.I32, "u": DType.U32}[letter]].partition("(")[0]
    found = run(helper, letter * 2, letter, [x, y], width).view(kind)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("dtype", [DType.I32, DType.U32, DType.BOOL])
def test_casts(dtype: DType, width: int) -> None:
    edges = [2147483520.0, 2147483648.0, 4294967040.0, 4294967296.0, 1.9, -1.9, 0.9, -0.9]
    x = np.concatenate([_SPECIAL, np.array([*edges, *(-np.array(edges))], np.float32)])
    found = run(f"asg_f32_to_{dtype}", "f", dtype.value[0], [x], width)
    expected = convert.cast_.numpy(x, dtype=dtype)
    words = expected.astype(np.uint32) if dtype is DType.BOOL else expected.view(np.uint32)
    np.testing.assert_array_equal(found, words)


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
def test_threefry_bits(width: int) -> None:
    chance = np.random.default_rng(2)
    words = [chance.integers(0, 2**32, 4096, np.uint32) for _ in range(4)]
    expected = bits.threefry2x32.numpy(*words)
    for result in (0, 1):
        found = _threefry(words, result, width)
        np.testing.assert_array_equal(found, expected[result])


def _threefry(words: Sequence[Array], result: int, width: int) -> Array:
    """The helper gives a struct; the two words are fetched one at a time."""
    suffix = "_v4" if width == 4 else ""
    element = "vec4<u32>" if width == 4 else "u32"
    modes = ["read"] * 4 + ["read_write"]
    bindings = [
        f"@group(0) @binding({i}) var<storage, {mode}> a{i}: array<{element}>;"
        for i, mode in enumerate(modes)
    ]
    code = "\n".join(
        [
            *helper_texts([f"asg_threefry2x32{suffix}"]),
            *bindings,
            "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {",
            "    let at = id.x;",
            f"    let word = asg_threefry2x32{suffix}(a0[at], a1[at], a2[at], a3[at]);",
            f"    a4[at] = word.r{result};",
            "}",
        ]
    )
    found = compute_with_buffers(
        dict(enumerate(words)), {4: (4096, "I")}, code, n=4096 // (64 * width)
    )
    return np.frombuffer(found[4], np.uint32)


@pytest.mark.device
@pytest.mark.parametrize("width", [1, 4])
def test_powers_of_two(width: int) -> None:
    """Within two units of the last place; NaN stays, what is too small becomes zero."""
    x = np.concatenate([np.linspace(-126, 127, 40001), np.linspace(-1, 0, 40001)])
    x = np.append(x, [np.nan, -np.inf, -127.0, -1e30, 0.0, 1.0]).astype(np.float32)
    found = run("asg_exp2", "f", "f", [x[: x.size // 4 * 4]], width).view(np.float32)
    exact = np.exp2(x[: found.size].astype(np.float64))
    exact[exact < 2.0**-126] = 0.0
    np.testing.assert_allclose(found, exact, rtol=2 * 2.0**-23, atol=0)
