"""Initial weights: the distributions of PyTorch, the same numbers from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from asg import nn
from asg.errors import ShapeError
from asg.nn import init
from support.targets import reference

STATISTICS = reference("initialisers")
CASES: dict[str, Callable[[Sequence[int]], np.ndarray]] = {
    "kaiming_uniform": init.kaiming_uniform,
    "kaiming_uniform_sqrt5": lambda shape: init.kaiming_uniform(shape, 5**0.5),
    "kaiming_normal": init.kaiming_normal,
    "xavier_uniform": init.xavier_uniform,
    "xavier_normal": init.xavier_normal,
    "normal": lambda shape: init.normal(shape, 0.5, 0.1),
    "trunc_normal": init.trunc_normal,
    "uniform": lambda shape: init.uniform(shape, -0.2, 0.6),
}


@pytest.mark.parametrize("shape", [(800, 300), (64, 48, 9, 9)])
@pytest.mark.parametrize("name", CASES)
def test_distribution(name: str, shape: tuple[int, ...]) -> None:
    drawn = CASES[name](shape)
    mean, deviation, largest = STATISTICS[f"{name}_{len(shape)}"][""]
    assert drawn.dtype == np.float32
    assert drawn.shape == shape
    assert abs(drawn.mean(dtype=np.float64) - mean) < 0.01 * deviation
    assert drawn.std(dtype=np.float64) == pytest.approx(deviation, rel=0.01)
    is_bounded = "uniform" in name or "trunc" in name
    assert np.abs(drawn).max() == pytest.approx(largest, rel=0.001 if is_bounded else 0.25)


def test_the_same_seed_gives_the_same_model() -> None:
    def draw(seed: int) -> dict[str, np.ndarray]:
        nn.manual_seed(seed)
        return nn.TransformerBlock(8, 2).state_dict()

    one, again, other = draw(5), draw(5), draw(6)
    for name, array in one.items():
        assert array.tobytes() == again[name].tobytes()
    assert one["mlp.fc1.weight"].tobytes() != other["mlp.fc1.weight"].tobytes()


def test_known_numbers() -> None:
    """Guards the promise that a seed means the same next year."""
    rng = np.random.default_rng(0)
    known = np.array([0.27392337, -0.46042657], np.float32)
    np.testing.assert_array_equal(init.uniform((2,), -1.0, 1.0, rng), known)
    parameter = init.ones_(nn.Parameter(np.zeros(2)))
    assert parameter.data.tolist() == [1.0, 1.0]
    drawn = init.normal_(nn.Parameter(np.zeros(1)), rng=np.random.default_rng(0)).data
    assert drawn.tolist() == [np.float32(0.12573022)]


def test_linear_begins_as_in_pytorch() -> None:
    layer = nn.Linear(400, 300)
    for drawn in (layer.weight.data, layer.bias.data):
        assert np.abs(drawn).max() == pytest.approx(1 / 20, rel=0.02)
        assert drawn.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.08)


def test_refused() -> None:
    with pytest.raises(ShapeError, match=r"need two axes or more, got \[3\]"):
        init.xavier_uniform((3,))
    with pytest.raises(ValueError, match="is in 9 … 10"):
        init.trunc_normal((3,), low=9, high=10)
