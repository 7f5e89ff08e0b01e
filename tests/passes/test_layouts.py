"""Images with their channels last in memory, forced: the same numbers, and no copies between."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

import asg
from asg import nn, optim, testing
from asg.codegen.context import Target
from asg.compiler import PIPELINE, for_target, lower, pipeline
from asg.graph import Graph
from asg.nn import functional
from asg.ops.convolution import convolution
from asg.passes.choose_layouts import ChooseLayouts, Wanted
from asg.passes.pipeline import run_pipeline
from asg.tensor import Tensor

LAST = pipeline(layout="nhwc")


def traced(module: nn.Module, *shape: int) -> Graph:
    return asg.trace(module, asg.spec(shape))


def gradients(module: nn.Module, *shape: int) -> Graph:
    def run(x: Tensor) -> dict[str, Tensor]:
        y = module(x)
        return {"loss": asg.sum(y * y), "y": y}

    graph = asg.trace(run, asg.spec(shape), names=["x"])
    return asg.grad(graph, of="loss", wrt=[*graph.input_names("parameter"), "x"])


def block(*layers: nn.Module) -> nn.Sequential:
    """Layers between convolutions, so that there are images that nobody sees from outside."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers, nn.Conv2d(4, 5, 1))


class Joined(nn.Module):
    """Branches side by side along their channels, and a short cut around."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.narrow, self.end = nn.Conv2d(4, 2, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        both = asg.concatenate([functional.relu(self.wide(x)), self.narrow(x)], axis=1)
        return functional.relu(self.end(both) + x)


def training_step() -> Graph:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 3, 3),
    )  # fmt: skip

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch["x"]), batch["y"])

    batch = {"x": asg.spec((5, 1, 13, 11)), "y": asg.spec((5,), "i32")}
    return asg.training_step(model, loss, optim.AdamW(lr=1e-3), **batch)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "plain": lambda: traced(block(nn.ReLU()), 2, 3, 7, 5),
    "winograd": lambda: traced(
        nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 65, 3, padding=1)),
        1, 64, 15, 22,
    ),
    "strided": lambda: traced(block(nn.Conv2d(4, 4, 3, 2, 1), nn.GELU()), 2, 3, 9, 8),
    "groups": lambda: traced(block(nn.Conv2d(4, 4, 3, padding=1, groups=2)), 2, 3, 6, 7),
    "many-groups": lambda: traced(
        nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=2), nn.Conv2d(32, 2, 1)),
        2, 3, 7, 7,
    ),
    "depthwise": lambda: traced(block(nn.Conv2d(4, 4, 3, 2, 1, groups=4), nn.ReLU()), 1, 3, 9, 7),
    "depthwise-twice": lambda: traced(
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 2, 1)), 2, 3, 7, 5
    ),
    "dilated": lambda: traced(block(nn.Conv2d(4, 4, 3, dilation=2, padding=(2, 1))), 1, 3, 8, 9),
    "transposed": lambda: traced(
        block(nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.ReLU()), 2, 3, 5, 4
    ),
    "max-pool": lambda: traced(block(nn.MaxPool2d(3, 2, 1), nn.ReLU()), 2, 3, 9, 7),
    "average-pool": lambda: traced(block(nn.AvgPool2d(2, 2), nn.ReLU()), 2, 3, 9, 7),
    "norm": lambda: traced(block(nn.BatchNorm2d(4), nn.ReLU()), 3, 3, 5, 7),
    "fixed-norm": lambda: traced(block(nn.BatchNorm2d(4), nn.ReLU()).eval(), 3, 3, 5, 7),
    "frozen-norm": lambda: asg.freeze(
        traced(block(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4)).eval(), 3, 3, 5, 7)
    ),
    "one-axis": lambda: traced(
        nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 2, 1)), 2, 3, 11
    ),
    "three-axes": lambda: traced(
        nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1)), 2, 3, 5, 4, 3
    ),
    "one-place": lambda: traced(block(nn.AdaptiveAvgPool2d(1), nn.ReLU()), 2, 3, 5, 5),
    "one-channel": lambda: traced(
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3)), 1, 1, 7, 7
    ),
    "flattened": lambda: traced(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 15, 3)), 2, 3, 7, 5
    ),
    "joined": lambda: traced(Joined(), 2, 3, 7, 8),
    "gradients": lambda: gradients(block(nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)), 2, 3, 7, 6),
    "norm-gradients": lambda: gradients(block(nn.BatchNorm2d(4), nn.ReLU()), 2, 3, 5, 6),
    "pool-gradients": lambda: gradients(block(nn.MaxPool2d(3, 2, 1)), 2, 3, 7, 6),
    "group-gradients": lambda: gradients(block(nn.Conv2d(4, 4, 3, groups=2)), 2, 3, 5, 6),
    "depthwise-gradients": lambda: gradients(block(nn.Conv2d(4, 4, 3, groups=4)), 2, 3, 5, 6),
    "phases": lambda: gradients(
        nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1)), 4, 3, 15, 14
    ),
    "training-step": training_step,
}  # fmt: skip


GPU = ("plain", "groups", "depthwise", "winograd", "norm-gradients")  # on the other family too


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_numbers(name: str) -> None:
    graph = GRAPHS[name]()
    assert ChooseLayouts("nhwc")(graph) is not graph
    for schedule in ("cpu", "gpu") if name in GPU else ("cpu",):
        report = testing.differential(
            graph, schedule=schedule, passes=LAST, stages=("passes", "kernels", "whole")
        )
        assert report.is_right, f"{schedule}: {report}"


@pytest.mark.parametrize("name", ["plain", "winograd", "fixed-norm", "frozen-norm", "max-pool"])
def test_no_kernel_is_there_for_the_layout_alone(name: str) -> None:
    """But for the one that brings the last result into the order of the outputs."""
    graph = GRAPHS[name]()
    first, last = (
        lower({"main": graph}, target=Target("cpu", 8), passes=pipeline(layout=each)).report
        for each in ("nchw", "nhwc")
    )
    assert last["dispatch_count"] <= first["dispatch_count"] + 1


def images(graph: Graph, layout: Wanted) -> list[tuple[int, ...]]:
    """The sizes of what convolutions make with channels last."""
    prepared = run_pipeline(graph, PIPELINE[: PIPELINE.index(ChooseLayouts())])
    found = ChooseLayouts(layout).last(prepared)
    return [value.type.shape for value in found if value.node.op is convolution]


def pair(channels: int, size: int, *, is_frozen: bool = True) -> Graph:
    """A convolution to an image, and a pointwise one that reads it."""
    model = nn.Sequential(nn.Conv2d(8, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, 8, 1))
    graph = traced(model.eval(), 1, 8, size, size)
    return asg.freeze(graph) if is_frozen else graph


def test_forced_layouts_hold_for_all_images() -> None:
    graph = pair(64, 14)
    assert images(graph, "nchw") == []
    assert images(graph, "nhwc") == [(1, 64, 7, 7), (1, 8, 7, 7)]


def test_channels_come_last_where_rows_of_places_are_odd() -> None:
    assert images(pair(64, 14), "auto") == [(1, 64, 7, 7)]


def test_channels_come_first_where_nothing_is_saved() -> None:
    assert images(pair(64, 16), "auto") == []


def test_channels_of_norms_in_training_stay_rows() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    assert images(traced(model.train(), 4, 8, 14, 14), "auto") == []


def test_no_layout_is_chosen_without_convolutions_or_a_target() -> None:
    plain = asg.trace(lambda x: x + 1.0, asg.spec((1, 2, 3, 3)))
    assert ChooseLayouts("nhwc")(plain) is plain
    graph = pair(64, 14)
    assert ChooseLayouts()(graph) is graph


def test_the_report_says_which_layouts_and_why() -> None:
    report = lower({"main": pair(64, 14)}, target=Target("cpu", 8)).report
    strided, pointwise = report["layouts"]["main"]
    assert (strided["operand"], strided["result"]) == ("nchw", "nhwc")
    assert (pointwise["operand"], pointwise["result"]) == ("nhwc", "nchw")
    assert pointwise["more_with_nchw"] > pointwise["more_with_nhwc"] == 0
    plain = lower({"main": asg.trace(lambda x: x + 1.0, asg.spec((1, 2, 3, 3)))})
    assert "layouts" not in plain.report


def test_targets_decide() -> None:
    chosen = {
        family: next(
            step.layout
            for step in for_target(PIPELINE, Target(family, size))
            if isinstance(step, ChooseLayouts)
        )
        for family, size in (("cpu", 8), ("gpu", 0))
    }
    assert chosen == {"cpu": "auto", "gpu": None}
