"""Losses and their gradients against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg.nn import functional as F
from support.targets import evaluate, on_targets, reference

LOSSES = reference("losses")


def loss_of(name: str, x: asg.Tensor, target: asg.Tensor) -> asg.Tensor:
    if not name.startswith("cross_entropy"):
        function, _, reduction = name.rpartition("_")
        return getattr(F, function)(x, target, reduction=reduction)
    reduction, smoothing, ignored = name.split("_")[3:]
    return F.cross_entropy(
        x, target, reduction=reduction, label_smoothing=float(smoothing), ignore_index=int(ignored)
    )


def check(name: str, target: str) -> None:
    case = LOSSES[name]
    x, labels = (asg.input(key, case[key].shape, case[key].dtype) for key in ("x", "target"))
    loss = loss_of(name, x, labels)
    assert loss.shape == case["loss"].shape
    graph = asg.graph(outputs={"loss": loss, "total": asg.sum(loss)})
    joint = asg.value_and_grad(graph, of="total", wrt=["x"])
    found = evaluate(joint, {"x": case["x"], "target": case["target"]}, target)
    for field in ("loss", "x.grad"):
        np.testing.assert_allclose(found[field], case[field], rtol=1e-5, atol=1e-6, err_msg=field)


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    check(name, "numpy")


# Every shape, reduction and kind of loss once; compiling all sixty takes a device a while.
ON_DEVICE = [name for i, name in enumerate(LOSSES) if i % 5 == 0 or "cross_entropy_" not in name]


@pytest.mark.device
@pytest.mark.parametrize("name", ON_DEVICE)
def test_loss_on_device(name: str) -> None:
    check(name, "wgpu")


@on_targets
def test_huge_logits_stay_finite(target: str) -> None:
    x, y = asg.input("x", (2, 3)), asg.input("y", (2,), "i32")
    graph = asg.graph(outputs={"loss": F.cross_entropy(x, y)})
    joint = asg.value_and_grad(graph, of="loss", wrt=["x"])
    logits = np.array([[1e30, -1e30, 0.0], [500.0, 500.0, 499.0]], np.float32)
    found = evaluate(joint, {"x": logits, "y": np.array([0, 1], np.int32)}, target)
    expected = 0.5 * np.log(2.0 + np.exp(-1.0))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
    assert np.isfinite(found["x.grad"]).all()


def test_labels_that_do_not_fit_are_refused() -> None:
    x = asg.input("x", (4, 3))
    with pytest.raises(asg.errors.ShapeError, match=r"labels of f32\[4, 3\] must have shape \[4\]"):
        F.cross_entropy(x, asg.input("y", (3,), "i32"))
    with pytest.raises(asg.errors.ShapeError, match=r"fix: pass x.reshape\(-1, 5\) and labels"):
        F.cross_entropy(asg.input("logits", (2, 3, 5)), asg.input("y", (2, 3), "i32"))
    with pytest.raises(asg.errors.DTypeError, match=r"labels are integers, got f32\[4\]"):
        F.cross_entropy(x, asg.input("y", (4,)))
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none', got 'average'"):
        F.cross_entropy(x, asg.input("y", (4,), "i32"), reduction="average")
    with pytest.raises(asg.errors.ShapeError, match="differ in shape"):
        F.mse_loss(x, asg.input("t", (4, 1)))
