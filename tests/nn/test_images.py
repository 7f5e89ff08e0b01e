"""Layers for images: names and shapes as in PyTorch, state that training follows, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import AsgError, ShapeError
from asg.nn import functional as F
from asg.tensor import Tensor


def x(*shape: int) -> Tensor:
    return asg.input("x", shape)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (nn.Conv1d(4, 6, 3, groups=2), {"weight": (6, 2, 3), "bias": (6,)}),
        (nn.Conv2d(3, 8, (3, 5), bias=False), {"weight": (8, 3, 3, 5)}),
        (nn.Conv3d(2, 4, 3), {"weight": (4, 2, 3, 3, 3), "bias": (4,)}),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), {"weight": (4, 3, 3, 3), "bias": (6,)}),
        (nn.GroupNorm(2, 6), {"weight": (6,), "bias": (6,)}),
        (nn.RMSNorm((3, 4)), {"weight": (3, 4)}),
        (nn.InstanceNorm2d(5), {}),
        (
            nn.BatchNorm2d(5),
            {"weight": (5,), "bias": (5,), "running_mean": (5,), "running_var": (5,),
             "num_batches_tracked": ()},
        ),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_names_and_shapes(layer: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    assert {name: array.shape for name, array in layer.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("layer", "given", "expected"),
    [
        (nn.Conv1d(3, 5, 4, padding="same"), (2, 3, 9), (2, 5, 9)),
        (nn.Conv1d(3, 5, 4, padding="valid"), (3, 9), (5, 6)),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1), (2, 3, 9, 8), (2, 5, 5, 4)),
        (nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1), (2, 3, 4, 5),
         (2, 5, 8, 10)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (2, 3, 6, 7), (2, 3, 3, 3)),
        (nn.MaxPool1d(2), (3, 7), (3, 3)),
        (nn.AvgPool3d(2), (1, 2, 4, 5, 6), (1, 2, 2, 2, 3)),
        (nn.AdaptiveAvgPool2d((2, None)), (1, 3, 5, 4), (1, 3, 2, 4)),
        (nn.AdaptiveMaxPool3d(2), (1, 3, 4, 5, 6), (1, 3, 2, 2, 2)),
        (nn.Flatten(), (2, 3, 4, 5), (2, 60)),
        (nn.Flatten(0, 1), (2, 3, 4), (6, 4)),
    ],
    ids=lambda value: str(value),
)  # fmt: skip
def test_shapes_of_results(
    layer: nn.Module, given: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert layer(x(*given)).shape == expected


def test_a_transposed_convolution_of_a_wanted_size() -> None:
    layer = nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1)
    assert layer(x(1, 2, 5)).shape == (1, 3, 9)
    assert layer(x(1, 2, 5), output_size=10).shape == (1, 3, 10)
    with pytest.raises(ShapeError, match="output_padding 2 is not below stride or dilation"):
        layer(x(1, 2, 5), output_size=11)


def test_weights_begin_as_in_pytorch() -> None:
    nn.manual_seed(0)
    layer = nn.Conv2d(8, 64, 3, groups=2)
    bound = 1 / math.sqrt(4 * 9)
    for array in layer.state_dict().values():
        assert bound * 0.9 < np.abs(array).max() <= bound


def test_printed_layers_say_what_is_special() -> None:
    assert str(nn.Conv2d(3, 8, 3)) == "Conv2d(3, 8, kernel_size=(3, 3))"
    assert str(nn.Conv1d(4, 8, 3, stride=2, groups=2, bias=False)) == (
        "Conv1d(4, 8, kernel_size=(3,), stride=(2,), groups=2, bias=False)"
    )
    assert str(nn.GroupNorm(2, 6)) == "GroupNorm(2, 6, eps=1e-05)"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Conv2d(3, 8, 3, padding_mode="reflect"), "pads with zeros only, not 'reflect'"),
        (lambda: nn.Conv2d(3, 8, 3, groups=2), "2 groups do not divide 3 and 8 channels"),
        (lambda: nn.Conv2d(3, 8, (3, 3, 3)), "kernel_size needs 2 entries or one"),
        (lambda: nn.GroupNorm(4, 6), "4 groups do not divide 6 channels"),
        (lambda: nn.Conv2d(3, 8, 3)(x(1, 4, 8, 8)), "channels differ: x has 4"),
        (lambda: nn.Conv2d(3, 8, 3)(x(4, 8)), r"Conv2d needs x \[n, channels\] and 2 more axes"),
        (lambda: nn.Conv2d(3, 8, 3)(x(3, 8, 2)), "the kernel spans 3 along axis 3"),
        (lambda: F.conv1d(x(1, 2, 8), asg.input("w", (3, 2, 3)), stride=2, padding="same"),
         "padding='same' needs a stride of 1"),
        (lambda: F.max_pool1d(x(1, 2, 8), 3, padding=2), "padding up to half the kernel"),
        (lambda: F.max_pool1d(x(1, 2, 2), 3), "a window spans 3, an axis with padding 2"),
        (lambda: F.adaptive_avg_pool1d(x(1, 2, 8), 0), "nothing to pool"),
        (lambda: nn.BatchNorm2d(3)(x(2, 4, 5, 5)), r"BatchNorm2d needs x \[n, 3, …\] of 4 axes"),
        (lambda: F.batch_norm(x(1, 3), None, None, training=True), "more than one element"),
        (lambda: F.batch_norm(x(2, 3), None, None), "needs running statistics unless"),
        (lambda: F.group_norm(x(2, 3), 2), "2 groups do not divide axis 1"),
        (lambda: F.instance_norm(x(2, 3, 1)), "more than one place"),
        (lambda: F.rms_norm(x(2, 3), 4), r"does not end in \[4\]"),
        (lambda: nn.BatchNorm1d(3)(x(4, 3)), "update of state outside a trace would be lost"),
    ],
)  # fmt: skip
def test_refusals(make: object, match: str) -> None:
    with pytest.raises(AsgError, match=match):
        make()  # type: ignore[operator]


class Twice(nn.Module):
    """One batch norm that two batches of a run pass through."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2, momentum=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + self.norm(x * 2.0)


def test_a_shared_batch_norm_follows_both_of_its_batches() -> None:
    graph = asg.trace(Twice().train(), asg.spec((4, 2)))
    with asg.compile(graph, target="numpy") as exe:
        batch = np.array([[1, 0], [3, 0], [1, 4], [3, 4]], np.float32)
        exe({"x": batch})
        state = exe.state_dict()
    # Means are 2, 2, then 4, 4; unbiased variances 4/3 and 16/3, then four times as much.
    np.testing.assert_allclose(state["norm.running_mean"], [2.5, 2.5], rtol=1e-6)
    once = 0.5 + 0.5 * np.array([4 / 3, 16 / 3])
    twice = 0.5 * once + 2.0 * np.array([4 / 3, 16 / 3])
    np.testing.assert_allclose(state["norm.running_var"], twice, rtol=1e-6)
    assert state["norm.num_batches_tracked"] == 2


def test_training_moves_statistics_and_evaluation_uses_them() -> None:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 3, bias=False), nn.BatchNorm1d(3))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return asg.mean(model(batch["x"]) ** 2.0)

    step = asg.training_step(model, loss, optim.SGD(lr=0.0), x=asg.spec((4, 1, 9)))
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(step.updates)
    model.eval()
    entries = {"train": step, "predict": asg.trace(model, asg.spec((4, 1, 9)))}
    model.train()
    data = np.random.default_rng(0).normal(3.0, 2.0, (4, 1, 9)).astype(np.float32)
    with asg.compile(entries, target="numpy") as exe:
        for _ in range(200):
            exe.train({"x": data})
        y = exe.predict({"x": data})["output"]
        assert exe.state_dict()["1.num_batches_tracked"] == 200
    np.testing.assert_allclose(y.mean(axis=(0, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(y.var(axis=(0, 2), ddof=1), 1.0, atol=1e-3)
