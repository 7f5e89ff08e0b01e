"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asg import functions
from asg.optim.optimizer import Groups, Optimizer, Options, Rate
from asg.tensor import Tensor

BUFFER = "momentum_buffer"


class SGD(Optimizer):
    """Stochastic gradient descent, by the formulas of `torch.optim.SGD`.

    g += weight_decay p;  b = momentum b + (1 - dampening) g, and b = g in the first step;
    g = g + momentum b with `nesterov`, b without;  p -= lr g.
    """

    def __init__(
        self,
        groups: Groups | None = None,
        *,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs momentum, and no dampening")
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        options |= {"weight_decay": weight_decay}
        self.nesterov = nesterov
        super().__init__(groups, options, clip_norm, clip_value)

    def moments(self, options: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return (BUFFER,) if any(option["momentum"] for option in options) else ()

    def needs_step(self, options: Sequence[Mapping[str, Any]]) -> bool:
        return any(option["momentum"] and option["dampening"] for option in options)

    def rule(
        self, p: Tensor, g: Tensor, moments: Mapping[str, Tensor], each: Options
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if each.differ("weight_decay") != [0.0]:
            g = g + each("weight_decay") * p
        changed: dict[str, Tensor] = {}
        if BUFFER in moments:
            momentum = each("momentum")
            buffer = momentum * moments[BUFFER] + each("dampening", lambda d: 1.0 - d) * g
            if each.differ("dampening") != [0.0]:
                buffer = functions.where(each.is_first, g, buffer)
            g = g + momentum * buffer if self.nesterov else buffer
            changed[BUFFER] = buffer
        return p - each("lr") * g, changed
