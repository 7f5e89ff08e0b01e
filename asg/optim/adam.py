"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from asg import functions
from asg.optim.optimizer import Groups, Optimizer, Options, Rate, scaled
from asg.tensor import Tensor

FIRST, SECOND, LARGEST = "exp_avg", "exp_avg_sq", "max_exp_avg_sq"
Betas = tuple[float, float]


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), by the formulas of `torch.optim.Adam`.

    g += weight_decay p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;
    p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps), where t counts from 1. With
    `amsgrad` the largest v so far stands for v (Reddi et al. 2018).
    """

    decoupled = False

    def __init__(
        self,
        groups: Groups | None = None,
        *,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        self.amsgrad = amsgrad
        super().__init__(groups, options, clip_norm, clip_value)

    def check(self, options: Mapping[str, Any]) -> None:
        super().check(options)
        for beta in options.get("betas", ()):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"betas must lie in 0 … 1 without 1, got {options['betas']}")
        if options.get("eps", 0.0) < 0:
            raise ValueError(f"eps must not be negative, got {options['eps']}")

    def moments(self, options: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        return (FIRST, SECOND, LARGEST) if self.amsgrad else (FIRST, SECOND)

    def needs_step(self, options: Sequence[Mapping[str, Any]]) -> bool:
        return True

    def rule(
        self, p: Tensor, g: Tensor, moments: Mapping[str, Tensor], each: Options
    ) -> tuple[Tensor, dict[str, Tensor]]:
        has_decay = each.differ("weight_decay") != [0.0]
        if has_decay and self.decoupled:
            p = scaled(p, each("lr weight_decay", lambda lr, decay: 1.0 - lr * decay))
        elif has_decay:
            g = g + each("weight_decay") * p
        m, v = moments[FIRST], moments[SECOND]
        m = m + (g - m) * each("betas", lambda betas: 1.0 - betas[0])
        v = v * each("betas", lambda betas: betas[1])
        v = v + (g * g) * each("betas", lambda betas: 1.0 - betas[1])
        changed = {FIRST: m, SECOND: v}
        if self.amsgrad:
            changed[LARGEST] = v = functions.maximum(moments[LARGEST], v)
        count = each.count
        root = each("betas", lambda betas: functions.sqrt(_correction(betas[1], count)))
        step_size = each("lr betas", lambda lr, betas: lr / _correction(betas[0], count))
        return p - step_size * (m / (functions.sqrt(v) / root + each("eps"))), changed


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p *= 1 - lr weight_decay."""

    decoupled = True

    def __init__(
        self,
        groups: Groups | None = None,
        *,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            clip_norm=clip_norm, clip_value=clip_value,
        )  # fmt: skip


def _correction(beta: float, count: Tensor) -> Tensor:
    """Return 1 - beta^count; the difference would cancel in f32, expm1 does not."""
    if beta == 0.0:
        return count * 0.0 + 1.0
    result: Tensor = -functions.expm1(count * math.log(beta))
    return result
