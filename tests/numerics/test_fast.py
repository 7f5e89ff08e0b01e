"""`numerics="fast"`: other kernels, other promises, and the same infinities and NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import asg
from asg.cli import main
from asg.ops import TABLE
from asg.tolerances import FAST
from asg.verification import verify

pytestmark = pytest.mark.device

SPECIAL = np.array([0.0, -0.0, 1e30, -1e30, np.inf, -np.inf, np.nan, 200.0, -200.0], np.float32)


def chain(x: Any) -> Any:
    return asg.softmax(asg.gelu(x) + asg.tanh(x) * asg.sigmoid(x), axis=-1)


def graph_of(build: Any, *shape: int) -> asg.Graph:
    return asg.trace(lambda x: {"y": build(x)}, asg.spec(shape))


@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("count", [9, 8])  # one element at a time, and four
@pytest.mark.parametrize("name", FAST)
def test_special_values(name: str, count: int, schedule: str) -> None:
    x = SPECIAL[-count:]
    with np.errstate(all="ignore"):
        wanted = TABLE[name].numpy(x.astype(np.float64)).astype(np.float32)
    graph = graph_of(TABLE[name], count)
    with asg.compile(graph, numerics="fast", schedule=schedule) as exe:
        found = exe({"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-30)


def test_softmax_keeps_nan_and_minus_infinity() -> None:
    x = np.array([[0.0, -np.inf, 1.0], [np.nan, 0.0, 1.0], [5.0, 5.0, 5.0]], np.float32)
    with asg.compile(graph_of(asg.softmax, 3, 3), numerics="fast") as exe:
        y = exe({"x": x})["y"]
    assert y[0, 1] == 0.0
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[2], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (64, 128)])
def test_verify_takes_the_tolerances_of_the_mode(shape: tuple[int, ...]) -> None:
    graph = graph_of(lambda x: asg.gelu(x) + asg.exp(x) + asg.erf(x * 0.3), *shape)
    assert verify(graph, numerics="fast").is_right


def test_the_precise_tolerances_refuse_the_fast_form(tmp_path: Path) -> None:
    graph = graph_of(lambda x: asg.erf(x), 4096)
    x = np.linspace(-3, 3, 4096).astype(np.float32)
    with asg.compile(graph, numerics="fast") as exe:
        y = exe({"x": x})
    assert not asg.testing.compare_outputs(graph, {"x": x}, y).is_right


def test_rows_and_attention_and_losses_verify() -> None:
    def build(q: Any, labels: Any) -> dict[str, Any]:
        a = asg.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        return {
            "softmax": chain(q),
            "attention": a,
            "loss": asg.nn.functional.cross_entropy(q.reshape(-1, 8), labels),
            "logsumexp": asg.logsumexp(q, axis=-1),
        }

    graph = asg.trace(build, asg.spec((2, 5, 8)), asg.spec((10,), "i32"))
    report = verify(graph, numerics="fast")
    assert report.is_right, report
    report = verify(graph, numerics="fast", schedule="gpu")
    assert report.is_right, report


def test_training_step_verifies() -> None:
    asg.nn.manual_seed(0)
    model = asg.nn.Sequential(asg.nn.Linear(4, 8), asg.nn.GELU(), asg.nn.Linear(8, 2))

    def loss(model: Any, batch: Any) -> Any:
        return asg.nn.functional.mse_loss(model(batch["x"]), batch["y"])

    batch = {"x": asg.spec((6, 4)), "y": asg.spec((6, 2))}
    step = asg.training_step(model, loss, asg.optim.SGD(lr=0.1), **batch)
    assert verify(step, numerics="fast").is_right


def test_open_graphs_and_reports_say_the_mode() -> None:
    open_graph = asg.trace(lambda x: {"y": asg.gelu(x)}, asg.spec(("n", 8)))
    exe = asg.compile(open_graph, numerics="fast")
    for rows in (2, 3):
        x = np.ones((rows, 8), np.float32)
        np.testing.assert_allclose(exe({"x": x})["y"], 0.8413447, rtol=1e-4)
        assert exe.bind({"n": rows}).report()["numerics"] == "fast"
    assert asg.compile(graph_of(asg.gelu, 8)).report()["numerics"] == "precise"


def test_the_modes_are_told_apart_where_programs_are_kept() -> None:
    graph = graph_of(asg.erf, 64)
    texts = [
        "".join(asg.compile(graph, numerics=mode).kernels.values())
        for mode in ("precise", "fast", "precise")
    ]
    assert texts[0] == texts[2] != texts[1]


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(asg.AsgError, match="numerics 'exact' is unknown; known: precise, fast"):
        asg.compile(graph_of(asg.gelu, 8), numerics="exact")  # type: ignore[call-overload]


def test_commands_and_bundles(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(
        "import asg\n"
        "def build():\n"
        "    return asg.trace(lambda x: {'y': asg.erf(x)}, asg.spec((64, 8)))\n"
    )
    bundle = tmp_path / "m.asg"
    runner = CliRunner()
    given = ["compile", f"{model}:build", "-o", str(bundle), "--numerics", "fast"]
    assert runner.invoke(main, given).exit_code == 0
    assert asg.load(str(bundle)).report()["numerics"] == "fast"
    checked = runner.invoke(main, ["verify", str(bundle)])
    assert checked.exit_code == 0, checked.output
    checked = runner.invoke(main, ["verify", f"{model}:build", "--numerics", "fast"])
    assert checked.exit_code == 0, checked.output
