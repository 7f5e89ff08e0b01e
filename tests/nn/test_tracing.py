"""Graphs from functions and modules: names, values, state, scopes, random keys."""

from __future__ import annotations

import numpy as np
import pytest

import asg
from asg import nn
from asg.errors import AsgError, GraphError, InputError
from asg.runtime import interpreter


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4, bias=False)])
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))

    def forward(self, x: asg.Tensor) -> asg.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_inputs_are_named_after_the_functions_parameters() -> None:
    graph = asg.trace(lambda left, right: left + right, asg.spec((2, 3)), "f32[3]")
    assert graph.input_names() == ["left", "right"]
    assert list(graph.outputs) == ["output"]
    assert str(graph.outputs["output"].type) == "f32[2, 3]"


def test_names_keywords_and_arrays_as_specs() -> None:
    def function(*terms: asg.Tensor, scale: asg.Tensor) -> tuple[asg.Tensor, asg.Tensor]:
        return terms[0] + terms[1], terms[0] * scale

    given = np.zeros((2,), np.float32)
    graph = asg.trace(function, given, given, scale=asg.spec(()))
    assert graph.input_names() == ["terms_0", "terms_1", "scale"]
    assert list(graph.outputs) == ["output_0", "output_1"]
    named = asg.trace(function, given, given, names=["a", "b"], scale=asg.spec(()), name="mine")
    assert named.input_names() == ["a", "b", "scale"]
    assert named.name == "mine"


def test_parameters_are_named_as_in_the_module() -> None:
    model = Net()
    graph = asg.trace(model, asg.spec((5, 4)))
    names = [name for name, _ in model.named_parameters()]
    assert graph.input_names("parameter") == names
    assert names == ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight",
                     "head.1.weight", "head.1.bias"]  # fmt: skip
    for name, parameter in model.named_parameters():
        assert graph.values[name] is parameter.data


def test_scopes_follow_the_calls() -> None:
    graph = asg.trace(Net(), asg.spec((5, 4)))
    scopes = {node.scope for node in graph.nodes if node.op.name == "matmul"}
    assert scopes == {"blocks.0", "blocks.1", "head/1"}


def test_modules_work_without_a_trace() -> None:
    nn.manual_seed(3)
    first, second = nn.Linear(4, 3), nn.Linear(3, 2)
    x = asg.input("x", (5, 4))
    graph = asg.graph(outputs={"y": second(first(x).relu()) + first.weight.sum()})
    assert graph.input_names() == ["x", "weight", "bias", "weight_2", "bias_2"]
    given = np.ones((5, 4), np.float32)
    hidden = np.maximum(given @ first.weight.data.T + first.bias.data, 0)
    expected = hidden @ second.weight.data.T + second.bias.data + first.weight.data.sum()
    np.testing.assert_allclose(interpreter.run(graph, {"x": given})["y"], expected, rtol=1e-5)


def test_without_a_trace_names_are_those_below_the_called_module() -> None:
    model = Net()
    graph = asg.graph(outputs={"y": model(asg.input("x", (5, 4)))})
    assert graph.input_names("parameter") == [name for name, _ in model.named_parameters()]


def test_values_are_those_at_the_time_of_the_graph() -> None:
    layer = nn.Linear(2, 2, bias=False)
    y = layer(asg.input("x", (1, 2)))
    layer.weight.data = np.eye(2)
    graph = asg.graph(outputs={"y": y})
    np.testing.assert_array_equal(graph.values["weight"], np.eye(2, dtype=np.float32))


def test_a_shared_parameter_is_one_input() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(6, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, x: asg.Tensor) -> asg.Tensor:
            return self.head(self.tokens(x))

    model = Tied()
    graph = asg.trace(model, asg.spec((3,), "i32"))
    assert graph.input_names("parameter") == ["tokens.weight"]
    assert sorted(model.state_dict()) == ["head.weight", "tokens.weight"]
    model.load_state_dict({"tokens.weight": np.ones((6, 4), np.float32)})
    assert model.head.weight.data.all()


def test_state_is_kept_between_runs() -> None:
    total = asg.state("total", np.zeros(2))
    x = asg.input("x", (2,))
    graph = asg.graph(outputs={"sum": total + x}, updates={"total": total + x})
    assert graph.input_names("state") == ["total"]
    with asg.compile(graph, target="numpy") as exe:
        exe({"x": np.ones(2, np.float32)})
        assert exe({"x": np.ones(2, np.float32)})["sum"].tolist() == [2.0, 2.0]


def test_buffers_are_state() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", np.array(0, np.int32))

        def forward(self, x: asg.Tensor) -> asg.Tensor:
            self.calls.update(self.calls + 1)
            return x * self.calls

    graph = asg.trace(Counting(), asg.spec((2,)))
    assert graph.input_names("state") == ["calls"]
    with asg.compile(graph, target="numpy") as exe:
        outputs = [exe({"x": np.ones(2, np.float32)})["output"][0] for _ in range(3)]
    assert outputs == [0.0, 1.0, 2.0]


def test_two_states_of_one_name_must_agree() -> None:
    y = asg.state("s", np.zeros(2)) + asg.state("s", np.ones(2))
    with pytest.raises(GraphError, match="two inputs are called 's' and start with different"):
        asg.graph(outputs={"y": y})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: asg.trace(lambda x: x, asg.spec(()), asg.spec(())), InputError, "2 specs for a"),
        (lambda: asg.trace(lambda x: x, 3), InputError, "3 is no spec"),
        (lambda: asg.trace(lambda x: x, asg.spec(()), names=["a", "b"]), InputError, "1 specs but"),
        (lambda: asg.trace(lambda x: x, asg.spec(()), x=asg.spec(())), InputError, "'x' is given"),
        (lambda: asg.trace(lambda x: (x, 1), asg.spec(())), GraphError, "returns int as 'output_1"),
        (lambda: asg.trace(Net(), asg.spec((1, 4)), names=["head.1.bias"]), GraphError, "the name"),
        (lambda: asg.graph(asg.input("x", ())), GraphError, "outputs are a dict of names"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_every_dropout_has_a_mask_of_its_own() -> None:
    def masks(x: asg.Tensor) -> dict[str, asg.Tensor]:
        return {name: nn.functional.dropout(x, 0.5) for name in ("first", "second")}

    graph = asg.trace(masks, asg.spec((4000,)), seed=7)
    assert graph.values["rng"].tolist() == [7, 0]
    with asg.compile(graph, target="numpy") as exe:
        runs = [exe({"x": np.ones(4000, np.float32)}) for _ in range(2)]
        assert exe.state_dict()["rng"].tolist() == [7, 2]
    drawn = [run[name] for run in runs for name in ("first", "second")]
    for i, one in enumerate(drawn):
        assert set(np.unique(one)) == {0.0, 2.0}
        assert abs(one.mean() - 1.0) < 0.06
        for other in drawn[:i]:
            assert 0.4 < (one == other).mean() < 0.6


def test_the_same_seed_gives_the_same_masks() -> None:
    layer = nn.Dropout(0.3)
    runs = []
    for seed in (1, 1, 2):
        graph = asg.trace(layer, asg.spec((64,)), seed=seed)
        runs.append(interpreter.run(graph, {"x": np.ones(64, np.float32)})["output"])
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


def test_dropout_does_nothing_in_evaluation_or_for_zero() -> None:
    x = asg.input("x", (3,))
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    graph = asg.trace(nn.Dropout(1.0), asg.spec((3,)))
    assert not interpreter.run(graph, {"x": np.ones(3, np.float32)})["output"].any()


def test_dropout_outside_a_trace_needs_a_key() -> None:
    x = asg.input("x", (300,))
    with pytest.raises(AsgError, match=r"randomness .* needs a trace \(at test_tracing.py:"):
        nn.Dropout(0.5)(x)
    y = nn.functional.dropout(x, 0.5, key=asg.key(1))
    found = interpreter.run(asg.graph(outputs={"y": y}), {"x": np.ones(300, np.float32)})["y"]
    assert 100 < (found == 2.0).sum() < 200


def test_dropout_sends_gradients_where_values_passed() -> None:
    def loss(x: asg.Tensor) -> dict[str, asg.Tensor]:
        y = nn.functional.dropout(x, 0.25)
        return {"y": y, "loss": asg.sum(y * y)}

    graph = asg.value_and_grad(asg.trace(loss, asg.spec((50,))), of="loss", wrt=["x"])
    found = interpreter.run(graph, {"x": np.ones(50, np.float32)})
    np.testing.assert_allclose(found["x.grad"], 2 * found["y"] * (found["y"] > 0) / 0.75, rtol=1e-6)
