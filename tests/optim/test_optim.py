"""Schedules, groups, the packed layout, and what optimizers refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import GraphError
from asg.optim.flat import layout
from asg.optim.groups import Group
from asg.runtime import interpreter


def rates(schedule: optim.Schedule, steps: range) -> list[float]:
    graph = asg.graph(outputs={"rate": schedule(asg.input("step", (), "i32"))})
    return [float(interpreter.run(graph, {"step": np.int32(t)})["rate"]) for t in steps]


def warmup_cosine(t: int) -> float:
    if t < 10:
        return 0.5 * (t + 1) / 10
    u = min((t - 10) / 40, 1.0)
    return 0.1 + 0.4 * (1 + math.cos(math.pi * u)) / 2


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (optim.warmup_cosine(0.5, 10, 50, final=0.1), warmup_cosine),
        (optim.warmup_cosine(1.0, 0, 50), lambda t: (1 + math.cos(math.pi * min(t / 50, 1))) / 2),
        (optim.constant(0.3), lambda t: 0.3),
        (optim.linear(0.2, 1.0, 20), lambda t: 0.2 + 0.8 * min(t / 20, 1)),
        (optim.step_decay(0.4, 0.5, 7), lambda t: 0.4 * 0.5 ** (t // 7)),
    ],
    ids=lambda value: (
        None if callable(value) and not isinstance(value, optim.Schedule) else repr(value)
    ),
)
def test_schedule(schedule: optim.Schedule, formula: Callable[[int], float]) -> None:
    steps = range(70)
    np.testing.assert_allclose(rates(schedule, steps), [formula(t) for t in steps],
                               rtol=2e-6, atol=1e-9)  # fmt: skip


def test_schedules_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="a warm-up of 10 steps does not fit into 10"):
        optim.warmup_cosine(1.0, 10, 10)
    with pytest.raises(ValueError, match="every must be positive, got 0"):
        optim.step_decay(1.0, 0.5, 0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(4, 30), nn.LayerNorm(30), nn.Linear(30, 3)

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        return self.fc2(self.norm(self.fc1(x)))


def loss_fn(model: nn.Module, batch: dict[str, asg.Tensor]) -> asg.Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


BATCH = {"x": asg.spec((5, 4)), "y": asg.spec((5,), "i32")}


def test_one_pack_each_for_parameters_gradients_and_moments() -> None:
    model = Net()
    step = asg.training_step(
        model, loss_fn, optim.AdamW(optim.decay_groups(model, 0.1), clip_norm=1.0), **BATCH
    )
    packs = [node for node in step.nodes if node.op.name == "pack"]
    assert len(packs) == 4
    layouts = {(node.attrs["offsets"], node.attrs["total"]) for node in packs}
    # fc1.weight 120, fc2.weight 90; then the vectors: 30, 30, 30, 3; each begins at 64 n.
    assert layouts == {((0, 128, 256, 320, 384, 448), 512)}
    names = {step.names[value] for node in packs for value in node.inputs}
    assert {"fc1.weight", "optimizer.exp_avg.norm.bias", "optimizer.exp_avg_sq.fc2.bias"} <= names
    assert list(step.outputs) == ["loss", "grad_norm"]


def test_chunks_keep_groups_together() -> None:
    sizes = {"a": 100, "b": 64, "c": 1, "d": 300, "e": 10}
    params = {name: np.zeros(size) for name, size in sizes.items()}
    groups = [Group(("a", "b", "c"), {"lr": 1.0}), Group(("d", "e"), {"lr": 2.0})]
    (one,) = layout(groups, params)
    assert (one.offsets, one.total, one.ends) == ((0, 128, 192, 256, 576), 640, (256, 640))
    parts = layout(groups, params, limit=256)
    assert [part.names for part in parts] == [("a", "b", "c"), ("d",), ("e",)]
    assert [part.total for part in parts] == [256, 320, 64]
    assert [part.offsets[0] for part in parts] == [0, 0, 0]


def test_the_norm_spans_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(limit: int) -> list[float]:
        nn.manual_seed(1)
        monkeypatch.setattr("asg.optim.optimizer.layout", lambda g, p: layout(g, p, limit))
        step = asg.training_step(Net(), loss_fn, optim.AdamW(lr=0.05, clip_norm=0.1), **BATCH)
        rng = np.random.default_rng(0)
        with asg.compile(step, target="numpy") as exe:
            found = []
            for _ in range(5):
                x = rng.standard_normal((5, 4)).astype(np.float32)
                outputs = exe({"x": x, "y": np.arange(5, dtype=np.int32) % 3})
                found += [float(outputs["loss"]), float(outputs["grad_norm"])]
            return found

    np.testing.assert_allclose(losses(128), losses(2**25), rtol=1e-5)


def test_groups_by_object_name_and_predicate() -> None:
    model = Net()
    groups = [
        {"params": [model.fc1.weight], "lr": 0.0},
        {"params": ["fc2.weight"], "lr": 1.0},
        {"params": lambda name, tensor: tensor.ndim == 1, "lr": 0.0},
    ]
    step = asg.training_step(model, loss_fn, optim.SGD(groups), **BATCH)
    with asg.compile(step, target="numpy") as exe:
        exe({"x": np.ones((5, 4), np.float32), "y": np.zeros(5, np.int32)})
        state = exe.state_dict()
    changed = [name for name, array in model.state_dict().items() if (state[name] != array).any()]
    assert changed == ["fc2.weight"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"params": ["fc1.weight"]}], "in no parameter group: fc1.bias, norm.weight"),
        ([{"params": ["fc3.weight"]}], "parameter group 0 names 'fc3.weight', which is not"),
        ([{"params": lambda n, t: True}, {"params": "fc1.bias"}], "'fc1.bias' is in group 0 and 1"),
        ([{"params": [], "momentum": 1.0}], "group 0 has no option 'momentum'; options: lr, betas"),
        ([{"lr": 0.1}], "parameter group 0 has no 'params'"),
    ],
)
def test_groups_that_do_not_fit(groups: list[dict], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        asg.training_step(Net(), loss_fn, optim.AdamW(groups), **BATCH)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(lr=-1.0), "lr must not be negative, got -1.0"),
        (lambda: optim.SGD(nesterov=True), "nesterov needs momentum"),
        (lambda: optim.AdamW(betas=(0.9, 1.0)), "betas must lie in 0 … 1"),
        (lambda: optim.AdamW(weight_decay=-0.1), "weight_decay must not be negative"),
        (lambda: optim.Adam(clip_norm=0.0), "clip_norm must be positive, got 0.0"),
        (lambda: optim.Adam([{"params": "w", "eps": -1.0}]), "eps must not be negative"),
    ],
)
def test_options_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bias_correction_does_not_cancel() -> None:
    """In f32, 1 - 0.9999^1 taken literally is off by 0.02 %."""
    step = asg.training_step(
        Net(), loss_fn, optim.Adam(lr=1.0, betas=(0.9999, 0.99999), eps=0.0), **BATCH
    )
    given = {"x": np.ones((5, 4), np.float32), "y": np.zeros(5, np.int32)}
    start = step.values["fc2.bias"]
    with asg.compile(step, target="numpy") as exe:
        exe(given)
        moved = start - exe.state_dict()["fc2.bias"]
    np.testing.assert_allclose(np.abs(moved), 1.0, rtol=3e-6)
