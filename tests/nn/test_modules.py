"""Modules: registration, walking, state dicts, modes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import asg
from asg import nn
from asg.errors import AsgError, InputError, ShapeError


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.scale = nn.Parameter(np.ones(2), requires_grad=False)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("seen", np.zeros(2))
        self.register_buffer("cache", np.zeros(5), persistent=False)

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        return self.drop(self.first(x)) * self.scale


def test_walking() -> None:
    model = Pair()
    names = ["scale", "first.weight", "first.bias"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_modules()] == ["", "first", "drop"]
    assert [name for name, _ in model.named_buffers()] == ["seen", "cache"]
    assert list(model.state_dict()) == ["scale", "seen", "first.weight", "first.bias"]
    assert list(model.children()) == [model.first, model.drop]


def test_modes_reach_everything_below() -> None:
    model = Pair().eval()
    assert not model.drop.training
    assert model.train().drop.training
    model.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_printed() -> None:
    assert repr(nn.Sequential(nn.Linear(4, 8), nn.GELU("tanh"), nn.LayerNorm(8))) == (
        "Sequential(\n"
        "  (0): Linear(4, 8, bias=True)\n"
        "  (1): GELU(approximate='tanh')\n"
        "  (2): LayerNorm((8,), eps=1e-05)\n"
        ")"
    )


def test_state_dict_round_trip() -> None:
    one, other = Pair(), Pair()
    assert (one.first.weight.data != other.first.weight.data).any()
    assert other.load_state_dict(one.state_dict()) == ([], [])
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


def test_load_lists_everything_that_is_wrong_and_changes_nothing() -> None:
    model = Pair()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    state = {"scale": np.full(2, 7.0), "first.weight": np.zeros((2, 4)), "extra": np.zeros(1)}
    with pytest.raises(InputError) as caught:
        model.load_state_dict(state)
    assert str(caught.value) == (
        "Pair can't load the state dict:\n"
        "  missing: seen, first.bias\n"
        "  unexpected: extra\n"
        "  first.weight: the module has f32[2, 3], the state dict [2, 4]"
    )
    for name, array in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], array)


def test_load_in_parts() -> None:
    model = Pair()
    difference = model.load_state_dict({"scale": np.full(2, 7.0), "extra": 1}, strict=False)
    assert difference.unexpected_keys == ["extra"]
    assert "first.weight" in difference.missing_keys
    assert model.scale.data.tolist() == [7.0, 7.0]
    assert model.scale.data.dtype == np.float32


def test_attributes() -> None:
    model = Pair()
    with pytest.raises(AttributeError, match="Pair has no attribute 'second'"):
        model.second  # noqa: B018
    with pytest.raises(AsgError, match="'scale' is registered"):
        model.scale = np.ones(2)
    model.scale = None
    assert [name for name, _ in model.named_parameters()] == ["first.weight", "first.bias"]
    del model.first
    assert not list(model.parameters())
    with pytest.raises(ShapeError, match="cache is f32"):
        model.cache.data = np.zeros(3)


def test_init_comes_first() -> None:
    class Hasty(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 2)

    with pytest.raises(AsgError, match=r"Hasty.__init__ must call super\(\).__init__\(\) first"):
        Hasty()


def test_copies_have_parameters_of_their_own() -> None:
    model = Pair()
    y = model.eval()(asg.input("x", (1, 3)))
    assert y.shape == (1, 2)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(other.state_dict()) == list(model.state_dict())
        assert not other.scale.requires_grad
        other.scale.data = np.zeros(2)
        assert model.scale.data.tolist() == [1.0, 1.0]


def test_lists() -> None:
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    layers.append(nn.Linear(2, 1)).extend([nn.ReLU()])
    assert len(layers) == 5
    assert layers[-2].out_features == 1
    assert len(layers[1:3]) == 2
    assert [name for name, _ in layers.named_children()] == list("01234")


def test_parameters_compute() -> None:
    parameter = nn.Parameter(np.arange(4.0).reshape(2, 2))
    assert (parameter.shape, str(parameter.type), parameter.ndim) == ((2, 2), "f32[2, 2]", 2)
    y = 2.0 * parameter @ parameter + 1.0 - parameter.T.sum(axis=0)
    assert y.shape == (2, 2)
    np.testing.assert_array_equal(np.asarray(parameter), parameter.data)


def test_positions() -> None:
    x = asg.input("x", (2, 6, 8))
    for layer in (nn.LearnedPositionalEmbedding(6, 8), nn.SinusoidalPositionalEncoding(8, 6)):
        assert layer(x).shape == (2, 6, 8)
        with pytest.raises(ShapeError, match="with T at most 6"):
            layer(asg.input("x", (2, 7, 8)))
    table = nn.layers.sinusoids(10, 7)
    np.testing.assert_allclose(table[3, :2], [np.sin(3.0), np.cos(3.0)], rtol=1e-6)
    np.testing.assert_allclose(table[5, 6], np.sin(5.0 / 10000 ** (6 / 7)), rtol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_block_takes_any_batch_and_length(norm_first: bool) -> None:
    block = nn.TransformerBlock(8, 2, hidden=16, causal=True, norm_first=norm_first)
    for shape in ((1, 3, 8), (4, 7, 8)):
        assert block(asg.input("x", shape)).shape == shape
    assert nn.MultiHeadAttention(8, 2)(asg.input("x", (5, 8))).shape == (5, 8)
    with pytest.raises(ShapeError, match="9 channels do not divide into 2 heads"):
        nn.MultiHeadAttention(9, 2)
