"""Kernels written by hand: every check that the compiler's own enjoy."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import AsgError, DTypeError, GradientError, ShaderError, ShapeError
from asg.graph import Graph
from asg.op import Op
from asg.runtime.interpreter import run
from asg.testing import bisect, differential, gradients

HEAD = """
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
"""
MAIN = """
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < y_size) {
        y[id.x] = BODY;
    }
}
"""


def groups(x: Any, *rest: Any, **attrs: Any) -> int:
    return -(-x.size // 64)


def kernel(name: str, body: str, numpy: Callable[..., Any], **given: Any) -> Op:
    source = HEAD + MAIN.replace("BODY", body)
    rules = {"types": lambda x, **attrs: x, "source": source, "workgroups": groups} | given
    return asg.wgsl_kernel(name, numpy=numpy, **rules)


reverse = kernel(
    "reverse",
    "x[x_size - 1u - id.x]",
    lambda x: x[::-1].copy(),
    gradient=lambda g, y, x: reverse(g),
)

scaled = kernel(
    "scaled",
    "x[id.x] * factor",
    lambda x, *, factor=2.0: x * factor,
    gradient=lambda g, y, x, *, factor: scaled(g, factor=factor),
)

product = asg.wgsl_kernel(
    "product",
    types=lambda a, b: asg.spec((a.shape[0], b.shape[1])),
    numpy=lambda a, b: a @ b,
    source="""
// A comment with @group(0) @binding(7) var<storage, read> z: array<f32>; is no declaration.
@group(0) @binding(0) var<storage, read> a: array<f32>;
@binding(1) @group(0) var<storage> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x >= y_shape[1] || id.y >= y_shape[0]) {
        return;
    }
    var total = 0.0;
    for (var k = 0u; k < a_shape[1]; k++) {
        total += a[id.y * a_shape[1] + k] * b[k * y_shape[1] + id.x];
    }
    y[id.y * y_shape[1] + id.x] = total;
}
""",
    workgroups=lambda a, b: (-(-b.shape[1] // 8), -(-a.shape[0] // 8)),
    gradient=lambda g, y, a, b: (product(g, b.T), product(a.T, g)),
    is_sum=True,
)

split = asg.wgsl_kernel(
    "split",
    types=lambda x: (asg.spec(x.shape, "i32"), x, asg.spec(x.shape, "bool")),
    numpy=lambda x: (np.trunc(x).astype(np.int32), x - np.trunc(x), x < 0),
    source="""
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> whole: array<i32>;
@group(0) @binding(2) var<storage, read_write> rest: array<f32>;
@group(0) @binding(3) var<storage, read_write> is_negative: array<u32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < x_size) {
        let value = x[id.x];
        whole[id.x] = i32(value);
        rest[id.x] = value - trunc(value);
        is_negative[id.x] = select(0u, 1u, value < 0.0);
    }
}
""",
    workgroups=lambda x: -(-x.size // 32),
    gradient=lambda g, results, x: g[1],
)


def right(graph: Graph, **options: Any) -> None:
    for schedule in ("cpu", "gpu"):
        report = differential(graph, schedule=schedule, **options)
        assert report.is_right, report


@pytest.mark.device
@pytest.mark.parametrize("shape", [(), (1,), (7,), (256,), (3, 70)])
def test_scaled_by_an_attribute(shape: tuple[int, ...]) -> None:
    x = asg.input("x", shape)
    y = scaled(asg.exp(x), factor=-3.5) + scaled(x)
    right(asg.value_and_grad(asg.graph({"loss": asg.sum(y * y), "y": y}), wrt="x"))


@pytest.mark.device
def test_it_stands_between_fused_kernels() -> None:
    a, b = asg.input("a", (9, 5)), asg.input("b", (7, 5))
    y = asg.softmax(product(asg.tanh(a), b.T) * 2.0, axis=-1)
    graph = asg.graph({"loss": asg.sum(y * y)})
    right(asg.value_and_grad(graph, wrt=["a", "b"]))
    assert gradients(graph).is_right


@pytest.mark.device
def test_second_derivatives() -> None:
    x = asg.input("x", (7,))
    once = asg.grad(asg.graph({"loss": asg.sum(reverse(x) ** 3.0 * x)}), wrt="x")
    twice = asg.grad(asg.graph({"s": asg.sum(asg.Tensor(once.outputs["x.grad"]))}), "s", wrt="x")
    right(twice, inputs={"x": np.linspace(0.5, 2, 7, dtype=np.float32)})


@pytest.mark.device
def test_several_results_of_several_types() -> None:
    x = asg.input("x", (100,))
    whole, rest, is_negative = split(x * 4.0)
    right(asg.graph({"a": whole + 1, "b": rest, "c": asg.where(is_negative, 1.0, rest)}))
    right(asg.graph({"rest": split(x * 4.0)[1] + 1.0}))  # the others are written all the same
    right(asg.grad(asg.graph({"loss": asg.sum(rest * rest)}), wrt="x"))


@pytest.mark.device
def test_operands_that_lie_elsewhere() -> None:
    """One value twice, views, constants, results as operands, both operands in one tensor."""
    x, w = asg.input("x", (6, 6)), asg.input("w", (6, 6), role="parameter")
    one = np.eye(6, dtype=np.float32)
    outputs = {
        "twice": product(x, x),
        "transposed": product(x.T, x),
        "parts": product(x[:3], x[:, 2:5]),
        "reshaped": product(x.reshape(4, 9), x.reshape(9, 4)),
        "constants": product(one, np.full((6, 1), 2.0, np.float32)) + product(w, one),
        "chained": product(product(x, w), product(x, w)),
        "small": scaled(asg.full((), 3.0)) + scaled(np.float32(2.0)),
        "counted": scaled(asg.arange(5).cast("f32")),
        "joined": scaled(asg.concatenate([x, w], axis=0)),
    }
    right(asg.graph(outputs))


@pytest.mark.device
def test_training_with_one() -> None:
    """Parameters and their gradients lie in packs, which the optimizer updates as a whole."""
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))

    def loss(model: Any, batch: Any) -> Any:
        hidden = product(batch["x"], model[0].weight.T) + model[0].bias
        result = product(asg.tanh(hidden), scaled(model[1].weight, factor=0.5).T)
        return nn.functional.mse_loss(result, batch["y"])

    specs = {"x": asg.spec((4, 5)), "y": asg.spec((4, 2))}
    right(asg.training_step(model, loss, optim.AdamW(lr=0.01), **specs))


@pytest.mark.device
def test_a_bundle_runs_without_the_compiler(tmp_path: Path) -> None:
    x = asg.input("x", (7,))
    exe = asg.compile(asg.graph({"y": reverse(asg.exp(x))}))
    exe.save(tmp_path / "reverse.asg")
    exe.save(tmp_path / "folder")
    kernels = [path.read_text() for path in (tmp_path / "folder" / "kernels").iterdir()]
    assert any("x[x_size - 1u - id.x]" in text for text in kernels)
    script = f"""
import sys
for name in ("asg.passes", "asg.codegen", "jinja2"):
    sys.modules[name] = None
import numpy as np
import asg
exe = asg.load({str(tmp_path / "reverse.asg")!r})
print(exe({{"x": np.zeros(7, np.float32)}})["y"])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout == "[1. 1. 1. 1. 1. 1. 1.]\n", found.stderr
    # Comparing it with the interpreter needs the op, whose name is all that the text has.
    artefact = asg.runtime.bundle.load_bundle(tmp_path / "reverse.asg")
    with pytest.raises(AsgError, match=r"there is no op 'reverse'.*asg\.register_op"):
        differential(artefact)
    asg.register_op(reverse)
    assert differential(artefact).is_right


@pytest.mark.device
def test_a_wrong_kernel_is_found_and_named(tmp_path: Path) -> None:
    wrong = kernel("off_by_one", "x[(id.x + 1u) % x_size]", lambda x: x[::-1].copy())
    x = asg.input("x", (7,))
    graph = asg.graph({"y": asg.tanh(wrong(asg.exp(x)) + 1.0)})
    report = differential(graph)
    assert next(check.where for check in report.checks if check.is_wrong).endswith("off_by_one")
    finding = bisect(graph)
    assert finding is not None
    assert "off_by_one" in finding.blame
    assert finding.op == "off_by_one"
    script = asg.testing.write_reproducer(finding, tmp_path / "found") / "reproduce.py"
    assert "register them (asg.register_op): off_by_one" in script.read_text()


@pytest.mark.device
def test_a_kernel_that_leaves_elements_out_is_found() -> None:
    lazy = kernel("lazy", "x[id.x]", lambda x: x, workgroups=1)
    x = asg.input("x", (100,))
    report = differential(asg.graph({"y": lazy(asg.exp(x)) * 2.0}))
    assert not report.is_right


@pytest.mark.device
def test_a_text_that_does_not_compile_is_the_users_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ASG_WGSL_DUMP", raising=False)  # all that is kept there must compile
    broken = kernel("broken", "x[id.x] + vec2f(1.0)", lambda x: x)
    with pytest.raises(ShaderError) as caught:
        asg.compile(asg.graph({"y": broken(asg.input("x", (7,)))}))
    text = str(caught.value)
    assert text.startswith("kernel k00_broken, written by hand, is refused by the driver")
    assert "test_kernels.py:" in text


def test_it_means_what_numpy_says() -> None:
    x = asg.input("x", (3,))
    found = run(asg.graph({"y": scaled(reverse(x))}), {"x": np.array([1, 2, 3], np.float32)})
    np.testing.assert_array_equal(found["y"], [6, 4, 2])


def text_of(*bindings: str, main: str = "@compute @workgroup_size(1) fn main() {}") -> str:
    return "\n".join([*bindings, main])


X = "@group(0) @binding(0) var<storage, read> x: array<f32>;"
Y = "@group(0) @binding(1) var<storage, read_write> y: array<f32>;"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (text_of(X), ShapeError, "its WGSL declares the bindings 0; 1 operand(s) and 1 result(s)"),
        (text_of(), ShapeError, "its WGSL declares the bindings none; 1 operand(s)"),
        (
            text_of(X, Y, Y.replace("1", "2").replace("y:", "z:")),
            ShapeError,
            "its WGSL declares the bindings 0, 1, 2; 1 operand(s) and 1 result(s) need 0 to 1",
        ),
        (text_of(X, Y.replace("1", "0")), ShapeError, "its WGSL has two bindings 0: x, y"),
        (text_of(X, Y.replace("1", "3")), ShapeError, "its WGSL declares the bindings 0, 3"),
        (
            text_of(X.replace("group(0)", "group(1)"), Y),
            ShapeError,
            "its WGSL declares 'x' elsewhere than in group 0",
        ),
        (
            text_of(X, Y, "@group(0) @binding(2) var<uniform> n: u32;"),
            ShapeError,
            "its WGSL declares 'n', which is no storage buffer",
        ),
        (text_of(X.replace("read", "read_write"), Y), ShapeError, "binding 0 (x) is an operand"),
        (text_of(X, Y.replace("_write", "")), ShapeError, "binding 1 (y) is a result"),
        (
            text_of(X.replace("f32", "vec4<i32>"), Y),
            DTypeError,
            "binding 0 (x) is f32[7], stored as f32, its WGSL declares array<vec4<i32>>",
        ),
        (text_of(X, Y, main=""), ShapeError, "its WGSL has no entry point"),
        ("enable f16;\n" + text_of(X, Y), ShapeError, "its WGSL has a line that begins `enable`"),
        (lambda x: 1, ShapeError, "source gives int, a text is wanted"),
        (lambda x: x.shape[5], ShapeError, "source fails: IndexError"),
    ],
)
def test_texts_that_do_not_fit(source: Any, error: type[AsgError], message: str) -> None:
    op = kernel("tested", "", lambda x: x, source=source)
    with pytest.raises(error, match=re.escape(f"tested: {message}")) as caught:
        op(asg.input("x", (7,)))
    assert "at test_kernels.py:" in str(caught.value)


@pytest.mark.parametrize(
    ("workgroups", "message"),
    [
        (0.5, "workgroups are one to three integers, got 0.5"),
        ((1, 1, 1, 1), "workgroups are one to three integers"),
        (-1, "workgroups are at most 65535 along an axis, got -1"),
        (lambda x: 70_000, "workgroups are at most 65535 along an axis, got 70000"),
        (lambda x: 1 / 0, "workgroups fails: ZeroDivisionError"),
    ],
)
def test_grids_that_do_not_fit(workgroups: Any, message: str) -> None:
    op = kernel("tested", "x[id.x]", lambda x: x, workgroups=workgroups)
    with pytest.raises(ShapeError, match=re.escape(f"tested: {message}")):
        op(asg.input("x", (7,)))


def test_other_mistakes() -> None:
    x = asg.input("x", (7,))
    with pytest.raises(ShapeError, match="reverse: takes 1 operand, got 2"):
        reverse(x, x)
    with pytest.raises(ShapeError, match="its NumPy function gives shape"):
        run(asg.graph({"y": kernel("k", "x[id.x]", lambda x: x[1:])(x)}), {"x": np.ones(7)})
    with pytest.raises(DTypeError, match="its NumPy function gives bool"):
        run(asg.graph({"y": kernel("k", "x[id.x]", lambda x: x > 0)(x)}), {"x": np.ones(7)})
    flat = kernel("k", "x[id.x]", lambda x: x)
    with pytest.raises(GradientError, match="k has no gradient: its definition gives none"):
        asg.grad(asg.graph({"loss": asg.sum(flat(x))}), wrt="x")
    with pytest.raises(AsgError, match="written by hand for op 'product', takes no empty tensors"):
        asg.compiler.lower({"main": asg.graph({"y": asg.sum(product(
            asg.input("a", (3, 0)), asg.input("b", (0, 2))))})})  # fmt: skip
