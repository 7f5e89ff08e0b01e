"""Recurrent layers, written out step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.registry import converter
from asg.tensor import Tensor
from asg.types import DType

Activation = Callable[[Tensor], Tensor]
STEPS = 1024  # a sequence longer than this would be too many nodes


@dataclass(frozen=True)
class Direction:
    """What one direction of a layer needs: weights by gate, and its functions."""

    w: Tensor  # [gates * hidden, input]
    r: Tensor  # [gates * hidden, hidden]
    input_bias: Tensor | None  # [gates * hidden]
    hidden_bias: Tensor | None
    peephole: Tensor | None  # [3 * hidden]
    activations: tuple[Activation, ...]
    hidden: int
    clip: float | None

    def gates(self, x: Tensor) -> Tensor:
        """Return what an input [..., input] gives to all gates."""
        y = F.matmul(x, self.w.T)
        return y if self.input_bias is None else y + self.input_bias

    def part(self, value: Tensor, gate: int) -> Tensor:
        """Return the columns of one gate."""
        return value[..., gate * self.hidden : (gate + 1) * self.hidden]

    def limited(self, x: Tensor) -> Tensor:
        """Return what goes into an activation."""
        return x if self.clip is None else F.clip(x, -self.clip, self.clip)


def _activation(call: Call, name: str, alpha: float | None, beta: float | None) -> Activation:
    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    table: dict[str, Activation] = {
        "affine": lambda x: x * given(alpha, 1.0) + given(beta, 0.0),
        "elu": lambda x: F.where(x > 0.0, x, F.expm1(F.minimum(x, 0.0)) * given(alpha, 1.0)),
        "hardsigmoid": lambda x: F.clip(x * given(alpha, 0.2) + given(beta, 0.5), 0.0, 1.0),
        "leakyrelu": lambda x: F.where(x < 0.0, x * given(alpha, 0.01), x),
        "relu": F.relu,
        "scaledtanh": lambda x: F.tanh(x * given(beta, 1.0)) * given(alpha, 1.0),
        "sigmoid": F.sigmoid,
        "softplus": F.softplus,
        "softsign": lambda x: x / (F.abs(x) + 1.0),
        "tanh": F.tanh,
        "thresholdedrelu": lambda x: F.where(x > given(alpha, 1.0), x, 0.0),
    }
    if name.lower() not in table:
        raise call.unsupported(f"activation {name!r}")
    return table[name.lower()]


def _activations(call: Call, names: Sequence[str], directions: int) -> list[Activation]:
    """Return the functions of all directions; alphas and betas go to those that take them."""
    listed = list(call.get_texts("activations", names)) or list(names)
    if len(listed) == len(names) // directions:
        listed *= directions
    alphas = list(call.get_floats("activation_alpha", ()))
    betas = list(call.get_floats("activation_beta", ()))
    takes_alpha = {
        "affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu",
    }  # fmt: skip
    takes_beta = {"affine", "hardsigmoid", "scaledtanh"}
    made = []
    for name in listed:
        alpha = alphas.pop(0) if alphas and name.lower() in takes_alpha else None
        beta = betas.pop(0) if betas and name.lower() in takes_beta else None
        made.append(_activation(call, name, alpha, beta))
    return made


@dataclass(frozen=True)
class Cell:
    """How a kind of layer goes one step on."""

    gates: int
    activations: tuple[str, ...]
    step: Callable[[Direction, Tensor, tuple[Tensor, ...], int], tuple[Tensor, ...]]
    states: int = 1


def _rnn_step(d: Direction, x: Tensor, state: tuple[Tensor, ...], _: int) -> tuple[Tensor, ...]:
    total = x + F.matmul(state[0], d.r.T)
    total = total if d.hidden_bias is None else total + d.hidden_bias
    return (d.activations[0](d.limited(total)),)


def _gru_step(d: Direction, x: Tensor, state: tuple[Tensor, ...], after: int) -> tuple[Tensor, ...]:
    """The gates are z (update), r (reset) and h; `after`: the reset comes after the product."""
    h = state[0]
    f, g = d.activations[:2]
    n = 2 * d.hidden
    both = x[..., :n] + F.matmul(h, d.r[:n].T)
    both = both if d.hidden_bias is None else both + d.hidden_bias[:n]
    gates = f(d.limited(both))
    z, r = gates[..., : d.hidden], gates[..., d.hidden :]
    bias = None if d.hidden_bias is None else d.hidden_bias[n:]
    if after:
        inner = F.matmul(h, d.r[n:].T)
        inner = r * (inner if bias is None else inner + bias)
    else:
        inner = F.matmul(r * h, d.r[n:].T)
        inner = inner if bias is None else inner + bias
    new = g(d.limited(x[..., n:] + inner))
    return ((1.0 - z) * new + z * h,)


def _lstm_step(
    d: Direction, x: Tensor, state: tuple[Tensor, ...], coupled: int
) -> tuple[Tensor, ...]:
    """The gates are i (input), o (output), f (forget) and c (cell)."""
    h, c = state
    f, g, last = d.activations[:3]
    total = x + F.matmul(h, d.r.T)
    total = total if d.hidden_bias is None else total + d.hidden_bias
    i, o, forget, cell = (d.part(total, gate) for gate in range(4))
    p = d.peephole
    if p is not None:
        i, forget = i + d.part(p, 0) * c, forget + d.part(p, 2) * c
    i = f(d.limited(i))
    forget = 1.0 - i if coupled else f(d.limited(forget))
    new = forget * c + i * g(d.limited(cell))
    if p is not None:
        o = o + d.part(p, 1) * new
    return (f(d.limited(o)) * last(new), new)


_CELLS = {
    "RNN": Cell(1, ("Tanh",), _rnn_step),
    "GRU": Cell(3, ("Sigmoid", "Tanh"), _gru_step),
    "LSTM": Cell(4, ("Sigmoid", "Tanh", "Tanh"), _lstm_step, 2),
}


@converter("RNN", "GRU", "LSTM", since=7)
def recurrent(call: Call) -> list[Tensor]:
    """Y [steps, directions, batch, hidden], the last h, and of LSTM the last c."""
    cell = _CELLS[call.op]
    x = call[0]
    is_batch_first = bool(call.get_int("layout", 0))
    x = F.swapaxes(x, 0, 1) if is_batch_first else x
    if x.shape[0] > STEPS:
        raise call.unsupported(
            f"a sequence of {x.shape[0]} steps would be written out", f"at most {STEPS} steps"
        )
    kind = call.get_text("direction", "forward")
    if kind not in ("forward", "reverse", "bidirectional"):
        raise call.malformed(f"direction {kind!r}")
    count = 2 if kind == "bidirectional" else 1
    activations = _activations(call, cell.activations * count, count)
    found = [
        _direction(call, cell, x, index, activations, kind == "reverse" or index == 1)
        for index in range(count)
    ]
    ys = F.stack([ys for ys, _ in found], 1)
    lasts = [F.stack([last[i] for _, last in found], 0) for i in range(cell.states)]
    if is_batch_first:
        return [F.permute(ys, (2, 0, 1, 3)), *(F.swapaxes(each, 0, 1) for each in lasts)]
    return [ys, *lasts]


def _direction(
    call: Call, cell: Cell, x: Tensor, index: int, every: list[Activation], is_reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the results [steps, batch, hidden] and the last states of one direction."""
    d = _weights(call, cell, index, every)
    batch = x.shape[1]
    lengths = F.cast(call[4], DType.I32) if call.has(4) else None
    states = tuple(
        _initial(call, 5 + i, index, (batch, d.hidden), x.dtype) for i in range(cell.states)
    )
    flag = "linear_before_reset" if call.op == "GRU" else "input_forget"
    option = 0 if call.op == "RNN" else call.get_int(flag, 0)
    gates = d.gates(x)
    results: list[Tensor | None] = [None] * x.shape[0]
    for step in reversed(range(x.shape[0])) if is_reverse else range(x.shape[0]):
        after = cell.step(d, gates[step], states, option)
        result = after[0]
        if lengths is not None:
            goes_on = F.unsqueeze(F.greater(lengths, step), 1)
            after = tuple(
                F.where(goes_on, new, old) for new, old in zip(after, states, strict=True)
            )
            result = F.where(goes_on, result, 0.0)
        states, results[step] = after, result
    return F.stack([each for each in results if each is not None], 0), states


def _weights(call: Call, cell: Cell, index: int, every: list[Activation]) -> Direction:
    w, r = call[1][index], call[2][index]
    hidden = r.shape[1]
    bias = call[3][index] if call.has(3) else None
    own = cell.gates * hidden
    if r.shape[0] != own or w.shape[0] != own:
        raise call.malformed(f"{call.op} of {hidden} has weights {w.shape} and {r.shape}")
    number = len(cell.activations)
    return Direction(
        w, r,
        None if bias is None else bias[:own],
        None if bias is None else bias[own:],
        call[7][index] if call.op == "LSTM" and call.has(7) else None,
        tuple(every[index * number : (index + 1) * number]),
        hidden,
        call.get_float("clip") if call.has_attribute("clip") else None,
    )  # fmt: skip


def _initial(call: Call, position: int, index: int, shape: tuple[int, int], dtype: DType) -> Tensor:
    if not call.has(position):
        return F.zeros(shape, dtype)
    given = call[position]
    return given[:, index] if call.get_int("layout", 0) else given[index]
