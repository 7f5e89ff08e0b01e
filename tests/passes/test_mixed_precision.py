"""What is stored in 16 bits and what is not, and that programs stay right and learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.codegen.context import Target
from asg.compiler import PIPELINE, for_target, lower, prepare, with_precision
from asg.errors import AsgError, DTypeError
from asg.passes.mixed_precision import MixedPrecision, narrow_parameters
from asg.precision import MIXED_BF16, MIXED_F16, Policy, as_policy
from asg.types import DType

SMALL = replace(MIXED_F16, least=16)
families = pytest.mark.parametrize("schedule", ["cpu", "gpu"])


def rounded(graph: asg.Graph, policy: Policy = SMALL) -> str:
    """The names of what the pass rounds, as ops."""
    after = MixedPrecision(policy)(prepare(graph))
    names = [node.inputs[0].node.op.name for node in after.nodes if node.type.dtype is policy.dtype]
    assert MixedPrecision(policy)(after) is after
    return " ".join(names)


def two_products(x: asg.Tensor, w: asg.Tensor) -> asg.Tensor:
    return asg.relu(x @ w) @ w


def test_what_passes_between_kernels_is_rounded() -> None:
    graph = asg.trace(two_products, asg.spec((4, 8)), asg.spec((8, 8)))
    assert rounded(graph) == "matmul"  # relu is computed where the second product loads it
    after = MixedPrecision(SMALL)(prepare(graph))
    assert [str(value.type.dtype) for value in after.outputs.values()] == ["f32"]


@pytest.mark.parametrize(
    ("function", "specs", "why"),
    [
        (lambda x, w: x @ w, ["f32[4, 8]", "f32[8, 8]"], "it is a result"),
        (lambda x, w: asg.relu(x @ w) @ w, ["f32[1, 8]", "f32[8, 8]"], "it is small"),
        (lambda x, w: asg.relu(x @ w) @ w.T, ["f32[8, 8]", "f32[8, 7]"], "rows fit no quads"),
        (lambda x, w: asg.exp(x @ w) @ w, ["f32[4, 8]", "f32[8, 8]"], "the policy keeps exp"),
        (lambda x, w: asg.sum(x[:, None] * w, axis=2) @ w, ["f32[16, 8]", "f32[8, 8]"], "a sum"),
    ],
)  # fmt: skip
def test_what_is_not_rounded(function: object, specs: list[str], why: str) -> None:
    graph = asg.trace(function, *specs, names=["x", "w"])  # type: ignore[arg-type]
    assert rounded(graph) == "", why


def test_only_what_is_stored_is_rounded() -> None:
    """A bias and an activation join the product: the product itself lies nowhere."""

    def function(x: asg.Tensor, w: asg.Tensor, b: asg.Tensor) -> asg.Tensor:
        return asg.tanh(x @ w + b) @ w

    graph = asg.trace(function, asg.spec((8, 8)), asg.spec((8, 8)), asg.spec((8,)))
    assert rounded(graph) == "tanh"


class Model(nn.Module):
    """A transformer over characters, as small as it gets."""

    def __init__(self, width: int = 16, vocabulary: int = 12) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.block = nn.TransformerBlock(width, 2, causal=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        y: asg.Tensor = self.head(self.block(self.tokens(x)))
        return y


def loss(model: Model, batch: Mapping[str, asg.Tensor]) -> asg.Tensor:
    logits = model(batch["x"])
    flat = logits.reshape(-1, logits.shape[-1])
    return nn.functional.cross_entropy(flat, batch["y"].reshape(-1))


def training(
    loss_scaling: bool | None = None, batch: int = 2, length: int = 8, width: int = 16
) -> asg.Graph:
    nn.manual_seed(0)
    window = asg.spec((batch, length), "i32")
    optimizer = optim.AdamW(lr=1e-2, clip_norm=1.0)
    return asg.training_step(
        Model(width), loss, optimizer, loss_scaling=loss_scaling, x=window, y=window
    )


@pytest.mark.device
@families
def test_every_kernel_is_right(schedule: str) -> None:
    target = Target() if schedule == "cpu" else Target("gpu", 0)
    passes = for_target(with_precision(PIPELINE, SMALL), target)
    place = [type(each) for each in passes].index(MixedPrecision) + 1
    mixed = prepare(training(True), (), passes[:place])
    assert any(node.type.dtype is DType.F16 for node in mixed.nodes)
    x, y = windows(0, 2, 8)
    report = asg.testing.differential(
        mixed,
        {"x": x, "y": y},
        passes=passes[place:],
        schedule=schedule,
        stages=("kernels", "memory"),
    )
    assert report.is_right, report


TEXT = np.frombuffer(b"abcabdabeabfabgabhabiabjabk" * 40, np.uint8).astype(np.int32) - ord("a")


def windows(step: int, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    starts = np.random.default_rng(step).integers(0, len(TEXT) - length - 1, batch)
    x = np.stack([TEXT[start : start + length] for start in starts])
    y = np.stack([TEXT[start + 1 : start + length + 1] for start in starts])
    return x, y


@pytest.mark.device
def test_it_learns_as_in_f32() -> None:
    losses: dict[str, list[float]] = {}
    moved: dict[str, int] = {}
    for precision in ("f32", "mixed_f16"):
        policy = as_policy(precision) and SMALL
        step = training(policy is not None or None, 8, 16)
        with asg.compile(step, precision=policy) as exe:
            losses[precision] = []
            for index in range(60):
                x, y = windows(index, 8, 16)
                losses[precision].append(float(exe({"x": x, "y": y})["loss"]))
            state = exe.state_dict()
            moved[precision] = exe.report()["bytes_moved"]
    assert state["loss_scaling.scale"] == 65536.0
    assert state["loss_scaling.good_steps"] == 60
    assert state["head.weight"].dtype == np.float32
    ends = {name: np.mean(found[-5:]) for name, found in losses.items()}
    assert ends["f32"] < 0.6 * losses["f32"][0]
    assert ends["mixed_f16"] == pytest.approx(ends["f32"], rel=0.03)
    # Rounded, but by little.
    first = losses["mixed_f16"][0]
    assert first != losses["f32"][0]
    assert first == pytest.approx(losses["f32"][0], rel=1e-3)
    assert moved["mixed_f16"] < moved["f32"]


@families
def test_a_step_of_usual_size_moves_a_fifth_less(schedule: str) -> None:
    """Parameters and moments stay f32, and are a part of what is moved."""
    target = Target() if schedule == "cpu" else Target("gpu", 0)
    step = training(None, 16, 64, 64)
    plain, mixed = (
        lower({"main": step}, target=target, passes=passes).report
        for passes in (PIPELINE, with_precision(PIPELINE, MIXED_F16))
    )
    assert mixed["bytes_moved"] < 0.8 * plain["bytes_moved"]
    assert mixed["arena_bytes"] < 0.8 * plain["arena_bytes"]
    assert mixed["dispatch_count"] <= plain["dispatch_count"]


@pytest.mark.device
def test_a_gradient_beyond_f16_skips_the_step() -> None:
    """An activation's gradient of more than 65504 is stored as infinity, which is noticed."""
    x, y = windows(0, 8, 16)
    with asg.compile(training(True, 8, 16), precision=SMALL) as exe:
        before = exe.state_dict()
        exe.load_state_dict({"loss_scaling.scale": np.float32(2.0**40)}, strict=False)
        exe({"x": x, "y": y})
        after = exe.state_dict()
    assert after["loss_scaling.scale"] == 2.0**39
    np.testing.assert_array_equal(after["head.weight"], before["head.weight"])


# ---- parameters


def forward(policy: Policy) -> asg.Graph:
    model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 7, bias=False))
    (graph,) = narrow_parameters({"main": asg.trace(model, asg.spec((3, 16)))}, policy).values()
    return graph


def types_of(graph: asg.Graph) -> dict[str, str]:
    return {name: str(graph.input(name).type) for name in graph.input_names("parameter")}


def test_matrices_that_nothing_updates_are_stored_so_too() -> None:
    wanted = {"0.weight": "f16[32, 16]", "0.bias": "f32[32]", "1.weight": "f16[7, 32]"}
    assert types_of(forward(SMALL)) == wanted
    assert "f16" not in str(types_of(forward(replace(SMALL, parameters=False))))
    assert "f16" not in str(types_of(forward(replace(SMALL, least=10**6))))
    graph = forward(SMALL)
    assert graph.values["0.weight"].dtype == np.float16
    assert graph.values["0.bias"].dtype == np.float32


def test_what_is_trained_stays_f32() -> None:
    nn.manual_seed(0)
    model = Model()
    window = asg.spec((2, 8), "i32")
    entries = {
        "train": asg.training_step(
            model, loss, optim.SGD(), wrt=["head.weight"], x=window, y=window
        ),
        "predict": asg.trace(model, window),
    }
    found = narrow_parameters(entries, SMALL)
    for graph in found.values():
        assert types_of(graph)["head.weight"] == "f32[12, 16]"
        assert types_of(graph)["tokens.weight"] == "f16[12, 16]"


def test_weights_beyond_f16_are_refused() -> None:
    model = nn.Linear(16, 4)
    model.weight.data = np.full((4, 16), 1e6, np.float32)
    graph = asg.trace(model, asg.spec((2, 16)))
    with pytest.raises(DTypeError, match=r"weight: 1000000\.0 does not fit f16; fix: use bf16"):
        asg.compile(graph, precision=SMALL, target="numpy")


@pytest.mark.device
@families
@pytest.mark.parametrize("policy", [SMALL, replace(MIXED_BF16, least=16)], ids=["f16", "bf16"])
def test_inference(policy: Policy, schedule: str) -> None:
    pytest.importorskip("ml_dtypes")
    nn.manual_seed(0)
    graph = asg.trace(Model(), asg.spec((2, 8), "i32"))
    x = {"x": windows(0, 2, 8)[0]}
    exact = asg.compile(graph, target="numpy")(x)["output"]
    oracle = asg.compile(graph, target="numpy", precision=policy)(x)["output"]
    with asg.compile(graph, precision=policy, schedule=schedule) as exe:
        found = exe(x)["output"]
        report = exe.report()
        kept = exe.state_dict()
    step = {DType.F16: 2.0**-11, DType.BF16: 2.0**-8}[policy.dtype]
    for other in (oracle, exact):
        np.testing.assert_allclose(found, other, atol=16 * step * np.abs(exact).max())
    assert np.abs(found - exact).max() > 0
    assert report["bytes_moved"] < lower({"main": graph}).report["bytes_moved"]
    assert kept["head.weight"].dtype == policy.dtype.numpy


def test_the_trainer_gives_f32_weights_back() -> None:
    nn.manual_seed(0)
    model = Model()
    model.tokens.requires_grad_(False)
    before = model.tokens.weight.data.copy()
    x, y = windows(0, 4, 8)
    trainer = asg.Trainer(
        model, loss, optim.AdamW(), target="numpy", loss_scaling=True, precision=SMALL
    )
    trainer.fit([{"x": x, "y": y}], steps=1, progress=False)
    np.testing.assert_array_equal(model.tokens.weight.data, before)
    assert trainer.evaluate([{"x": x[:2], "y": y[:2]}])["loss"] > 0


def test_precisions_by_name() -> None:
    assert as_policy("mixed_f16") == MIXED_F16
    assert as_policy("mixed_bf16") == MIXED_BF16
    assert as_policy("f32") is as_policy(None) is None
    with pytest.raises(AsgError, match="precision 'f8' is unknown; known: f32, mixed_f16, mixed"):
        as_policy("f8")


def test_policies_that_make_no_sense() -> None:
    with pytest.raises(AsgError, match="stores floats of 16 bits, not i16"):
        Policy(DType.I16)
    with pytest.raises(AsgError, match="names expp, which are no ops"):
        Policy(wide=("exp", "expp"))
