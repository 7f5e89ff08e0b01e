"""Optimizers against PyTorch's: six steps from given gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import asg
from asg import optim
from support.targets import on_targets, reference

REFERENCE = reference("optimizers")
START, GRADS = REFERENCE.pop("start"), REFERENCE.pop("grads")
GROUPS = [
    {"params": ["matrix"], "weight_decay": 0.3, "lr": 0.02},
    {"params": lambda name, tensor: tensor.ndim < 2, "betas": (0.8, 0.95), "eps": 1e-4},
]
CASES: dict[str, Callable[[], optim.Optimizer]] = {
    "sgd": lambda: optim.SGD(lr=0.1),
    "sgd_momentum": lambda: optim.SGD(lr=0.1, momentum=0.9),
    "sgd_dampening": lambda: optim.SGD(lr=0.1, momentum=0.9, dampening=0.3),
    "sgd_nesterov": lambda: optim.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "sgd_decay": lambda: optim.SGD(lr=0.1, momentum=0.5, weight_decay=0.2),
    "adam": lambda: optim.Adam(lr=0.01),
    "adam_decay": lambda: optim.Adam(lr=0.01, weight_decay=0.2, betas=(0.8, 0.9)),
    "adam_amsgrad": lambda: optim.Adam(lr=0.01, amsgrad=True),
    "adamw": lambda: optim.AdamW(lr=0.01),
    "adamw_eps": lambda: optim.AdamW(lr=0.01, eps=1e-3, weight_decay=0.5),
    "adamw_amsgrad": lambda: optim.AdamW(lr=0.01, amsgrad=True),
    "adamw_groups": lambda: optim.AdamW(GROUPS, lr=0.01),
    "adamw_clip_norm": lambda: optim.AdamW(lr=0.01, clip_norm=1.5),
    "sgd_clip_value": lambda: optim.SGD(lr=0.1, clip_value=0.5),
}


def step_of(optimizer: optim.Optimizer) -> asg.Graph:
    """A graph whose gradients are its inputs."""
    params = {name: asg.input(name, value.shape, role="parameter") for name, value in START.items()}
    grads = {name: asg.input(f"{name}.g", value.shape) for name, value in START.items()}
    update = optimizer.apply(params, grads)
    outputs = {f"{name}'": update.updates[name] for name in params}
    return asg.graph(outputs | dict(update.metrics), update.updates)


@on_targets
@pytest.mark.parametrize("name", CASES)
def test_optimizer(name: str, target: str) -> None:
    graph = step_of(CASES[name]())
    with asg.compile(graph, target=target) as exe:
        exe.load_state_dict(START, strict=False)
        for step in range(6):
            exe({f"{key}.g": value[step] for key, value in GRADS.items()})
            state = exe.state_dict()
            for key, expected in REFERENCE[name].items():
                np.testing.assert_allclose(
                    state[key], expected[step], rtol=2e-5, atol=1e-6, err_msg=f"{key} step {step}"
                )


def test_every_case_has_a_reference() -> None:
    assert set(CASES) == set(REFERENCE)
