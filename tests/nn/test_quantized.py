"""Weights of a few bits: the formula, PyTorch's numbers, and that kernels unpack on the way."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.errors import GraphError, InputError, ShapeError
from asg.passes.quantize_weights import QuantizeWeights
from asg.quantization import PackedWeight
from support.targets import evaluate, on_targets, reference

TORCH = reference("quantized")
OPTIONS: dict[str, tuple[int, int | None, bool]] = {
    "int8_channel": (8, None, True),
    "int4_group32": (4, 32, True),
    "int4_zeros": (4, 16, False),
    "int8_zeros": (8, 8, False),
    "int2_zeros": (2, 4, False),
}
families = pytest.mark.parametrize("schedule", ["cpu", "gpu"])


def weights(out: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((out, width), dtype=np.float32)


def scale_of(packed: PackedWeight) -> np.ndarray:
    """The scale of every element, [out, in]."""
    return np.repeat(packed.scales, packed.group_size, axis=0)[: packed.shape[1]].T


# ---- the formula


def test_codes_by_hand() -> None:
    packed = asg.quantize_weight([[0.5, -3.5, 1.4, 0.0, 7.0]], bits=4, group_size=4)
    np.testing.assert_array_equal(packed.scales, [[0.5], [1.0]])
    # 8 + (1, -7, 3, 0), then 8 + 7; round(2.8) = 3.
    np.testing.assert_array_equal(packed.words, [[0x000F_8B19]])
    np.testing.assert_array_equal(asg.dequantize_weight(packed), [[0.5, -3.5, 1.5, 0.0, 7.0]])


def test_codes_with_zero_points_by_hand() -> None:
    packed = asg.quantize_weight([[-1.0, 2.0, 0.4, 0.0]], bits=2, group_size=None, symmetric=False)
    assert packed.zeros is not None
    np.testing.assert_array_equal(packed.scales, [[1.0]])
    np.testing.assert_array_equal(packed.zeros, [[1.0]])
    np.testing.assert_array_equal(packed.words, [[0b01_01_11_00]])
    np.testing.assert_array_equal(asg.dequantize_weight(packed), [[-1.0, 2.0, 0.0, 0.0]])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("width", "group"), [(64, 32), (61, 32), (7, 64), (1, 1), (130, None)])
def test_no_weight_is_off_by_more_than_half_a_step(
    bits: int, group: int | None, width: int, symmetric: bool
) -> None:
    weight = weights(5, width) * np.array([[1e-30], [1.0], [1e30], [0.0], [3.0]], np.float32)
    weight[4] = np.abs(weight[4])  # of one sign
    packed = asg.quantize_weight(weight, bits, group, symmetric)
    error = np.abs(weight.astype(np.float64) - asg.dequantize_weight(packed))
    # (q - z) s rounds once: by 2^-24 of a result of at most 255 steps.
    assert (error <= scale_of(packed) * (0.5 + 255 * 2.0**-24)).all()


def test_zero_stays_zero() -> None:
    weight = weights(4, 40)
    weight[:, ::3] = 0.0
    for symmetric in (True, False):
        packed = asg.quantize_weight(weight, 4, 8, symmetric)
        assert (asg.dequantize_weight(packed)[:, ::3] == 0.0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="infinite or NaN"):
        asg.quantize_weight([[1.0, bad]])


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ShapeError, match="quantised to 2, 4, 8 bits, not 3"):
        asg.quantize_weight([[1.0]], bits=3)
    with pytest.raises(ShapeError, match="at least 1 weight, not 0"):
        asg.quantize_weight([[1.0]], group_size=0)
    with pytest.raises(ShapeError, match=re.escape("got shape [2]")):
        asg.quantize_weight([1.0, 2.0])


# ---- PyTorch's numbers


@on_targets
@pytest.mark.parametrize("name", OPTIONS)
def test_as_pytorch(name: str, target: str) -> None:
    case, (bits, group, symmetric) = TORCH[name], OPTIONS[name]
    packed = asg.quantize_weight(case["weight"], bits, group, symmetric)
    np.testing.assert_allclose(packed.scales.T, case["scales"], rtol=2e-7)
    if packed.zeros is not None:
        np.testing.assert_array_equal(packed.zeros.T, case["zeros"])
    np.testing.assert_allclose(asg.dequantize_weight(packed), case["fake"], rtol=3e-7, atol=1e-7)

    linear = nn.Linear(case["weight"].shape[1], case["weight"].shape[0], bias=False)
    linear.weight.data = case["weight"]
    quantized = asg.quantize(linear, bits, group, symmetric=symmetric)

    def loss(x: asg.Tensor, g: asg.Tensor) -> dict[str, asg.Tensor]:
        y = quantized(x)
        return {"y": y, "loss": asg.sum(y * g)}

    graph = asg.trace(loss, case["x"], case["g"])
    joint = asg.value_and_grad(graph, of="loss", wrt=["x"])
    found = evaluate(joint, {"x": case["x"], "g": case["g"]}, target)
    np.testing.assert_allclose(found["y"], case["y"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["x.grad"], case["dx"], rtol=1e-5, atol=1e-5)


# ---- kernels


def product(
    rows: int, width: int, out: int, bits: int, group: int | None, symmetric: bool
) -> asg.Graph:
    linear = nn.Linear(width, out)
    linear.weight.data = weights(out, width)
    return asg.trace(
        asg.quantize(linear, bits, group, symmetric=symmetric), asg.spec((rows, width))
    )


@pytest.mark.device
@families
@pytest.mark.parametrize(
    ("rows", "width", "out", "group", "bits", "symmetric"),
    [
        (1, 64, 32, 32, 4, True), (1, 128, 7, 64, 8, False), (5, 37, 13, 8, 4, False),
        (32, 64, 64, 64, 8, True), (33, 96, 20, None, 4, True), (1, 1, 1, 1, 4, False),
        (3, 9, 66, 3, 8, True), (7, 50, 36, 10, 4, False), (2, 33, 16, 64, 2, True),
    ],
)  # fmt: skip
def test_one_kernel_unpacks_and_multiplies(
    rows: int, width: int, out: int, group: int | None, bits: int, symmetric: bool, schedule: str
) -> None:
    graph = product(rows, width, out, bits, group, symmetric)
    x = {"x": weights(rows, width, 1)}
    with asg.compile(graph, schedule=schedule) as exe:
        found = exe(x)["output"]
        report = exe.report()
    wanted = asg.compile(graph, target="numpy")(x)["output"]
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
    if width < 4:  # words and scales are no smaller than what they stand for
        return
    assert report["dispatch_count"] == 1
    # Words, scales, x, bias and result, each once: the weight in f32 lies nowhere.
    assert report["bytes_moved"] == report["bytes_lower_bound"]
    assert report["arena_bytes"] == -(-rows * out * 4 // 256) * 256


@pytest.mark.device
@families
def test_the_gradient_unpacks_too(schedule: str) -> None:
    linear = asg.quantize(nn.Linear(48, 20), 4, 16)

    def loss(x: asg.Tensor) -> asg.Tensor:
        return asg.sum(asg.tanh(linear(x)))

    graph = asg.trace(loss, asg.spec((6, 48)))
    joint = asg.value_and_grad(graph, of="output", wrt=["x"])
    x = {"x": weights(6, 48, 3)}
    with asg.compile(joint, schedule=schedule) as exe:
        found = exe(x)
        report = exe.report()
    wanted = asg.compile(joint, target="numpy")(x)
    np.testing.assert_allclose(found["x.grad"], wanted["x.grad"], rtol=1e-4, atol=1e-5)
    # Nothing as large as the weight is stored.
    assert report["arena_bytes"] < 48 * 20 * 4
    assert report["dispatches"]["contract"] == 2


@pytest.mark.device
@families
def test_a_whole_weight_may_be_asked_for(schedule: str) -> None:
    weight = nn.QuantizedWeight(asg.quantize_weight(weights(10, 30), 4, 8, symmetric=False))
    graph = asg.trace(lambda: weight())
    found = asg.compile(graph, schedule=schedule)({})["output"]
    np.testing.assert_array_equal(found, asg.dequantize_weight(weight.packed()))


# ---- modules


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.block = nn.TransformerBlock(16, 4)
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        y: asg.Tensor = self.head(self.block(self.embedding(x)))
        return y


def test_what_quantize_replaces() -> None:
    nn.manual_seed(0)
    model = Model()
    before = copy.deepcopy(model.state_dict())
    quantized = asg.quantize(model, 4, 8, symmetric=False, skip=["block.mlp"])
    names = quantized.state_dict().keys()
    assert {"head.weight.words", "head.weight.scales", "head.weight.zeros"} <= names
    assert "block.attn.in_proj_weight.words" in names
    assert "embedding.weight" in names
    assert not [name for name in names if name.startswith("block.mlp") and "words" in name]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    trained = {name for name, _ in quantized.named_parameters()}
    assert not [name for name in trained if "words" in name or "scales" in name]


@on_targets
def test_a_model_computes_with_what_its_weights_stand_for(target: str) -> None:
    """The quantised model is the model with each weight replaced by what its codes stand for."""
    nn.manual_seed(0)
    model = Model().eval()
    quantized = asg.quantize(model, 4, 8)
    rounded = copy.deepcopy(model)
    rounded.head.weight = nn.Parameter(model.head.weight.data)  # apart from the embedding's
    for path, part in quantized.named_modules():
        if isinstance(part, nn.QuantizedWeight):
            owner, _, name = path.rpartition(".")
            module = dict(rounded.named_modules())[owner]
            getattr(module, name).data = asg.dequantize_weight(part.packed())
    x = np.array([[1, 5, 3, 10, 0, 7]], np.int32)
    found = evaluate(asg.trace(quantized, asg.spec(x.shape, "i32")), {"x": x}, target)
    wanted = evaluate(asg.trace(rounded, asg.spec(x.shape, "i32")), {"x": x}, "numpy")
    np.testing.assert_allclose(found["output"], wanted["output"], rtol=1e-4, atol=1e-5)


def test_state_goes_from_module_to_module() -> None:
    nn.manual_seed(1)
    first = asg.quantize(Model(), 4, 8)
    other = asg.quantize(Model(), 4, 8)
    other.load_state_dict(first.state_dict())
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, first.state_dict()[name])
    packed = other.head.weight.packed()
    np.testing.assert_array_equal(packed.words, first.state_dict()["head.weight.words"])


@pytest.mark.device
def test_a_bundle_keeps_words(tmp_path: Path) -> None:
    graph = product(3, 64, 8, 4, 32, True)
    x = {"x": weights(3, 64, 1)}
    with asg.compile(graph) as exe:
        wanted = exe(x)["output"]
        exe.save(tmp_path / "linear.asg")
    with asg.load(tmp_path / "linear.asg") as exe:
        np.testing.assert_array_equal(exe(x)["output"], wanted)


@on_targets
def test_what_is_not_quantised_can_be_trained(target: str) -> None:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    model = asg.quantize(model, 8, 8, skip=["2"])

    def loss(model: nn.Sequential, batch: dict[str, asg.Tensor]) -> asg.Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    step = asg.training_step(
        model, loss, optim.AdamW(lr=0.05), x=asg.spec((16, 8)), y=asg.spec((16, 1))
    )
    x = weights(16, 8)
    batch = {"x": x, "y": x[:, :1]}
    with asg.compile(step, target=target) as exe:
        losses = [float(exe(batch)["loss"]) for _ in range(20)]
        words = exe.state_dict()["0.weight.words"]
    assert losses[-1] < 0.3 * losses[0]
    np.testing.assert_array_equal(words, model.state_dict()["0.weight.words"])


def test_wrong_names_are_refused() -> None:
    with pytest.raises(GraphError, match="no module is called 'tail'"):
        asg.quantize(nn.Linear(2, 2), skip=["tail"])
    with pytest.raises(GraphError, match="no linear layer"):
        asg.quantize(nn.Tanh())


# ---- graphs


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 3)
        self.other = nn.Parameter(weights(24, 5))

    def forward(self, x: asg.Tensor) -> dict[str, asg.Tensor]:
        return {"y": self.second(asg.tanh(self.first(x))), "z": x @ self.other}


@on_targets
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_graph_is_quantised_as_its_model(symmetric: bool, target: str) -> None:
    nn.manual_seed(0)
    model = Mlp()
    graph = asg.trace(model, asg.spec((4, 24)))
    found = QuantizeWeights(4, 8, symmetric, least=100)(graph)
    asg.verify(found)
    wanted = asg.trace(asg.quantize(model, 4, 8, symmetric=symmetric), asg.spec((4, 24)))
    for name in wanted.input_names("state"):
        np.testing.assert_array_equal(found.values[name], wanted.values[name], err_msg=name)
    # `x @ w` reads its weight [in, out] as it is.
    packed = asg.quantize_weight(model.other.data.T, 4, 8, symmetric)
    np.testing.assert_array_equal(found.values["other.words"], packed.words)
    x = {"x": weights(4, 24, 2)}
    results = evaluate(found, x, target)
    np.testing.assert_allclose(
        results["y"], evaluate(wanted, x, "numpy")["y"], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        results["z"], x["x"] @ asg.dequantize_weight(packed).T, rtol=1e-5, atol=1e-5
    )
    assert QuantizeWeights(4, 8, symmetric, least=100)(found) is found


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x, w: w @ x, "it is the left operand"),
        (lambda x, w: x @ w + asg.sum(w), "a sum reads it too"),
        (lambda x, w: (x @ w, w), "it is a result"),
        (lambda x, w: x @ w @ w.T, "it is read in two ways"),
        (lambda x, w: x @ asg.tanh(w), "something computes with it"),
    ],
)
def test_weights_that_a_graph_keeps(
    function: Callable[[asg.Tensor, asg.Tensor], object], why: str
) -> None:
    w = nn.Parameter(weights(8, 8))
    graph = asg.trace(lambda x: function(x, w), asg.spec((8, 8)))
    assert QuantizeWeights(least=1)(graph) is graph, why
    small = asg.trace(lambda x: x @ w, asg.spec((8, 8)))
    assert QuantizeWeights(least=65)(small) is small
    assert QuantizeWeights(least=64)(small) is not small
