"""Loss scaling beside torch.amp.GradScaler, with planted overflows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.checkpoint import list_checkpoints, read_checkpoint
from asg.compiler import lower
from asg.data import Batches
from asg.errors import GraphError
from asg.optim.scaling import LEAST
from support.targets import on_targets, reference

TORCH = reference("scaling")
CASES: dict[str, Callable[[], optim.Optimizer]] = {
    "sgd": lambda: optim.SGD(lr=0.1),
    "momentum": lambda: optim.SGD(lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda: optim.AdamW(lr=0.05),
    "adamw_clipped": lambda: optim.AdamW(lr=0.05, clip_norm=0.7),
}
SCALE, GOOD_STEPS = "loss_scaling.scale", "loss_scaling.good_steps"
DEFAULTS = optim.LossScaling()


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.linspace(-1.0, 1.0, 5))
        self.bias = nn.Parameter(0.5)

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        return asg.mean(x @ self.weight) + self.bias * self.bias


def line_step(
    optimizer: optim.Optimizer, loss_scaling: optim.LossScaling | bool | None
) -> asg.Graph:
    def loss(model: Line, batch: dict[str, asg.Tensor]) -> asg.Tensor:
        y: asg.Tensor = model(batch["x"])
        return y

    return asg.training_step(Line(), loss, optimizer, loss_scaling=loss_scaling, x=asg.spec((3, 5)))


@on_targets
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str, target: str) -> None:
    wanted = TORCH[name]
    step = line_step(CASES[name](), optim.LossScaling(2.0**15, growth_interval=3))
    assert {SCALE, GOOD_STEPS} <= {*step.updates}
    with asg.compile(step, target=target) as exe:
        for index, x in enumerate(TORCH["data"]["x"]):
            reported = exe({"x": x})["loss_scale"]
            state = exe.state_dict()
            message = f"after step {index}"
            assert state[SCALE] == reported == wanted["scale"][index], message
            assert state[GOOD_STEPS] == wanted["good_steps"][index], message
            for key in ("weight", "bias"):
                np.testing.assert_allclose(
                    state[key], wanted[key][index], rtol=1e-5, atol=1e-6, err_msg=message
                )


@on_targets
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_skipped_step_changes_nothing_but_the_scale(bad: float, target: str) -> None:
    with asg.compile(line_step(optim.AdamW(lr=0.1), True), target=target) as exe:
        x = np.ones((3, 5), np.float32)
        exe({"x": x})
        before = exe.state_dict()
        x[1, 2] = bad
        exe({"x": x})
        after = exe.state_dict()
    assert after.pop(SCALE) == before.pop(SCALE) / 2
    assert (before.pop(GOOD_STEPS), after.pop(GOOD_STEPS)) == (1, 0)
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array, err_msg=key)


@on_targets
def test_a_power_of_two_changes_no_bit(target: str) -> None:
    """Products with powers of two are exact, so the steps are those without scaling."""
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    found = []
    for loss_scaling in (None, True):
        with asg.compile(line_step(optim.AdamW(lr=0.1), loss_scaling), target=target) as exe:
            for _ in range(5):
                loss = exe({"x": x})["loss"]
            found.append((loss, exe.state_dict()))
    assert found[0][0] == found[1][0]
    for key, array in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][key], array, err_msg=key)


@on_targets
def test_the_scale_keeps_within_the_numbers(target: str) -> None:
    """It grows to no infinity and shrinks to no zero."""
    x = np.zeros((3, 5), np.float32)
    large = optim.LossScaling(2.0**126, growth_interval=1)
    with asg.compile(line_step(optim.SGD(lr=0.0), large), target=target) as exe:
        assert [float(exe({"x": x})["loss_scale"]) for _ in range(3)] == [2.0**127] * 3
    x[0, 0] = np.nan
    small = optim.LossScaling(2.0**-125)
    with asg.compile(line_step(optim.SGD(lr=0.0), small), target=target) as exe:
        assert [float(exe({"x": x})["loss_scale"]) for _ in range(3)] == [LEAST] * 3


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_it_takes_two_dispatches_at_most(make: Callable[[], optim.Optimizer]) -> None:
    def loss(model: nn.Module, batch: dict[str, asg.Tensor]) -> asg.Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["x"])

    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    counts = [
        lower(
            {
                "main": asg.training_step(
                    model, loss, make(), loss_scaling=each, x=asg.spec((16, 64))
                )
            }
        ).report["dispatch_count"]
        for each in (None, DEFAULTS)
    ]
    assert counts[0] < counts[1] <= counts[0] + 2


def test_a_graph_is_scaled_as_its_model() -> None:
    graph = asg.trace(lambda x: {"cost": Line()(x)}, asg.spec((3, 5)))
    step = asg.training_step(graph, "cost", optim.SGD(lr=0.1), loss_scaling=True)
    assert list(step.outputs) == ["cost", "loss_scale"]
    x = np.ones((3, 5), np.float32)
    found = asg.compile(step, target="numpy")({"x": x})
    assert found["cost"] == asg.compile(graph, target="numpy")({"x": x})["cost"]
    with pytest.raises(GraphError, match="no output 'loss' to scale; outputs: cost"):
        asg.training_step(graph, "loss", optim.SGD(), loss_scaling=True)


def test_checkpoints_keep_the_scale(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: dict[str, asg.Tensor]) -> asg.Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    x = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
    data = {"x": x, "y": x[:, :1]}

    def trainer() -> asg.Trainer:
        nn.manual_seed(0)
        return asg.Trainer(
            nn.Linear(3, 1), loss, optim.AdamW(lr=0.01), target="numpy", checkpoints=tmp_path,
            every=4, loss_scaling=optim.LossScaling(8.0, growth_interval=3),
        )  # fmt: skip

    whole = trainer()
    whole.fit(Batches(data, 8), steps=8, progress=False)
    _, state = read_checkpoint(list_checkpoints(tmp_path)[0])
    assert (state[SCALE], state[GOOD_STEPS]) == (16.0, 1)
    list_checkpoints(tmp_path)[-1].rename(tmp_path / "aside")
    resumed = trainer()
    resumed.fit(Batches(data, 8), steps=8, progress=False, resume=True)
    for key, array in whole.exe.state_dict().items():
        np.testing.assert_array_equal(resumed.exe.state_dict()[key], array, err_msg=key)
    assert whole.exe.state_dict()[SCALE] == 32.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_scale": 0.0}, "init_scale must be positive and finite, got 0.0"),
        ({"init_scale": 1e40}, "init_scale must be positive and finite"),
        ({"growth_factor": 1.0}, "growth_factor must be more than 1, got 1.0"),
        ({"backoff_factor": 1.0}, "backoff_factor must lie in 0 … 1, got 1.0"),
        ({"growth_interval": 0}, "growth_interval must be positive, got 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.LossScaling(**options)  # type: ignore[arg-type]
