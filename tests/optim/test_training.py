"""Training steps: what is trained, what is returned, and that training works."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import GraphError
from support.targets import on_targets

SPECS = {"x": asg.spec((8, 3)), "y": asg.spec((8, 1))}


def mse(model: nn.Module, batch: dict[str, asg.Tensor]) -> asg.Tensor:
    return nn.functional.mse_loss(model(batch["x"]), batch["y"])


def data(step: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.25}


@on_targets
def test_it_learns_a_linear_map(target: str) -> None:
    model = nn.Linear(3, 1)
    step = asg.training_step(model, mse, optim.AdamW(lr=0.05, weight_decay=0.0), **SPECS)
    with asg.compile(step, target=target) as exe:
        losses = [float(exe(data(i))["loss"]) for i in range(300)]
        model.load_state_dict({name: exe.state_dict()[name] for name in model.state_dict()})
    assert losses[-1] < 1e-3 < losses[0]
    np.testing.assert_allclose(model.weight.data, [[1.0, -2.0, 0.5]], atol=0.02)
    np.testing.assert_allclose(model.bias.data, [0.25], atol=0.02)


def test_a_graph_trains_as_its_model_does() -> None:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    whole = asg.training_step(model, mse, optim.SGD(lr=0.1, momentum=0.9), **SPECS)
    graph = asg.trace(lambda x, y: {"cost": mse(model, {"x": x, "y": y})}, SPECS["x"], SPECS["y"])
    parts = asg.training_step(graph, "cost", optim.SGD(lr=0.1, momentum=0.9))
    with asg.compile(whole, target="numpy") as one, asg.compile(parts, target="numpy") as other:
        for i in range(3):
            assert one(data(i))["loss"] == other(data(i))["cost"]
        for name, array in one.state_dict().items():
            np.testing.assert_array_equal(array, other.state_dict()[name])


def test_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    model[0].requires_grad_(False)
    step = asg.training_step(model, mse, optim.SGD(), **SPECS)
    assert list(step.updates) == ["1.weight", "1.bias"]
    assert step.input_names("parameter") == ["0.weight", "0.bias", "1.weight", "1.bias"]
    step = asg.training_step(model, mse, optim.SGD(), wrt=["0.bias"], **SPECS)
    assert list(step.updates) == ["0.bias"]
    graph = asg.trace(lambda x, w: {"loss": asg.sum(x @ w)}, asg.spec((2, 3)), asg.spec((3, 1)))
    with pytest.raises(asg.AsgError, match="has no float parameters"):
        asg.training_step(graph, "loss", optim.SGD())


def test_outputs_beside_the_loss() -> None:
    def loss_fn(model: nn.Module, batch: dict[str, asg.Tensor]) -> dict[str, asg.Tensor]:
        output = model(batch["x"])
        return {"output": output, "loss": nn.functional.mse_loss(output, batch["y"])}

    optimizer = optim.AdamW(lr=optim.constant(0.1), clip_norm=1.0)
    step = asg.training_step(nn.Linear(3, 1), loss_fn, optimizer, **SPECS)
    assert list(step.outputs) == ["loss", "output", "grad_norm", "lr"]
    with asg.compile(step, target="numpy") as exe:
        found = exe(data(0))
    assert found["lr"] == np.float32(0.1)
    assert found["output"].shape == (8, 1)


def test_training_mode_is_put_back() -> None:
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)).eval()
    model[1].train()
    step = asg.training_step(model, mse, optim.SGD(), **SPECS)
    assert [module.training for module in model.modules()] == [False, False, True]
    assert "rng" in step.updates


def test_the_backward_pass_uses_the_same_mask() -> None:
    """A weight whose output was dropped gets no gradient."""

    class Drop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(np.ones(200))

        def forward(self, x: asg.Tensor) -> asg.Tensor:
            return nn.functional.dropout(self.weight * x, 0.5, self.training)

    def loss_fn(model: nn.Module, batch: dict[str, asg.Tensor]) -> dict[str, asg.Tensor]:
        y = model(batch["x"])
        return {"y": y, "loss": asg.sum(y)}

    step = asg.training_step(Drop(), loss_fn, optim.SGD(lr=1.0), x=asg.spec((200,)))
    with asg.compile(step, target="numpy") as exe:
        for _ in range(3):
            before = exe.state_dict()["weight"]
            y = exe({"x": np.ones(200, np.float32)})["y"]
            moved = before - exe.state_dict()["weight"]
            assert (moved == np.where(y != 0, 2.0, 0.0)).all()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, batch: 3, "the loss function returns a tensor, or a dict"),
        (lambda model, batch: {"cost": model(batch["x"])}, "with 'loss' among them"),
        ("loss", "the loss is a function of the model and a batch"),
    ],
)
def test_losses_that_are_none(loss: object, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        asg.training_step(nn.Linear(3, 1), loss, optim.SGD(), **SPECS)


def test_a_graph_has_its_inputs() -> None:
    graph = asg.trace(nn.Linear(3, 1), asg.spec((8, 3)))
    with pytest.raises(GraphError, match="the loss is the name of an output"):
        asg.training_step(graph, mse, optim.SGD())
    with pytest.raises(GraphError, match="not needed: x, y"):
        asg.training_step(graph, "output", optim.SGD(), **SPECS)
    with pytest.raises(asg.AsgError, match="has no output 'loss'"):
        asg.training_step(graph, "loss", optim.SGD())
