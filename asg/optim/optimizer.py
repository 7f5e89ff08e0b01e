"""What optimizers have in common: groups, packing, clipping, schedules, the names of state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from asg import functions
from asg.errors import GraphError
from asg.optim.flat import Chunk, Scalar, layout
from asg.optim.groups import Named, resolve
from asg.optim.scaling import SCALE, Scaler
from asg.optim.schedules import Schedule
from asg.site import scope
from asg.tensor import Tensor, as_tensor
from asg.tracing import state

PREFIX = "optimizer"
Rate = float | Schedule
Groups = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Update:
    """What parameters and optimizer state become by one step, by name, and what to report."""

    updates: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class Optimizer:
    """Builds the graph of an update; the state that it needs are inputs `optimizer.*`.

    A subclass names its moments and writes `rule`, in terms of whole vectors.
    """

    def __init__(
        self,
        groups: Groups | None,
        defaults: Mapping[str, Any],
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        for name, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} must be positive, got {limit}")
        self.groups, self.defaults = groups, dict(defaults)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        for options in (self.defaults, *(groups or ())):
            self.check(options)

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options out of range; those of one group, or the defaults.

        Raises:
            TypeError: the rate is neither a number nor a schedule.
            ValueError: one of them makes no sense.
        """
        rate = options.get("lr", 0.0)
        if not isinstance(rate, (Schedule, Real)):
            raise TypeError(f"lr is a number or a schedule, got {type(rate).__name__} {rate!r}")
        if not isinstance(rate, Schedule) and rate < 0:
            raise ValueError(f"lr must not be negative, got {rate}")
        if options.get("weight_decay", 0.0) < 0:
            raise ValueError(f"weight_decay must not be negative, got {options['weight_decay']}")

    def moments(self, options: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Return the names of the tensors kept for each parameter."""
        raise NotImplementedError

    def needs_step(self, options: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether the rule reads the number of updates made."""
        raise NotImplementedError

    def rule(
        self, p: Tensor, g: Tensor, moments: Mapping[str, Tensor], each: Options
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return new parameters and moments, all f32 [total]."""
        raise NotImplementedError

    def apply(
        self,
        params: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        named: Named | None = None,
        scaler: Scaler | None = None,
    ) -> Update:
        """Return the updates of `params` (f32, any shapes) and of the optimizer's state.

        `named` says the name of parameter objects (by id) where groups list such. Values are
        clipped before the norm is taken. With `scaler`, `grads` are those of its scaled loss;
        where one of them is not finite, everything stays as it is.

        Raises:
            GraphError: gradients are missing, or groups do not fit.
        """
        missing = [name for name in params if name not in grads]
        if missing or not params:
            raise GraphError(f"no gradient of: {', '.join(missing) or 'anything'}")
        groups = resolve(self.groups, self.defaults, params, named or {})
        with scope(PREFIX):
            return self._apply(params, grads, layout(groups, params), scaler)

    def _apply(
        self,
        params: Mapping[str, Tensor],
        grads: Mapping[str, Tensor],
        chunks: Sequence[Chunk],
        scaler: Scaler | None,
    ) -> Update:
        options = [group.options for chunk in chunks for group in chunk.groups]
        rates = list(dict.fromkeys(option["lr"] for option in options))
        has_schedule = any(isinstance(rate, Schedule) for rate in rates)
        updates: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        step: Tensor | None = None
        gradients = [chunk.pack(grads) for chunk in chunks]
        is_good: Tensor | None = None
        if scaler is not None:
            gradients, is_good = scaler.unscaled(gradients)
            updates |= scaler.updates(is_good)
            metrics["loss_scale"] = updates[SCALE]
        if has_schedule or self.needs_step(options):
            step = state(f"{PREFIX}.step", np.array(0, np.int32))
            updates[f"{PREFIX}.step"] = _chosen(is_good, step + 1, step)
        gradients, norm = self._clip(gradients)
        if norm is not None:
            metrics["grad_norm"] = norm
        if has_schedule and len(rates) == 1 and step is not None:
            metrics["lr"] = rates[0](step)
        moments = self.moments(options)
        for chunk, g in zip(chunks, gradients, strict=True):
            kept = {moment: _states(moment, chunk, params) for moment in moments}
            flat = {moment: chunk.pack(tensors) for moment, tensors in kept.items()}
            before = chunk.pack(params)
            p, changed = self.rule(before, g, flat, Options(chunk, step))
            updates |= chunk.unpack(_chosen(is_good, p, before), params)
            for moment, vector in changed.items():
                parts = chunk.unpack(_chosen(is_good, vector, flat[moment]), params)
                updates |= {_state_name(moment, name): part for name, part in parts.items()}
        return Update(updates, metrics)

    def _clip(self, gradients: list[Tensor]) -> tuple[list[Tensor], Tensor | None]:
        """Limit values, then the norm over all of them, as PyTorch's `clip_grad_norm_`:
        g * min(1, limit / (norm + 1e-6)). Return the norm too, where it is known."""
        if self.clip_value is not None:
            limit = self.clip_value
            gradients = [functions.clip(g, -limit, limit) for g in gradients]
        if self.clip_norm is None:
            return gradients, None
        total = functions.sum(gradients[0] * gradients[0])
        for g in gradients[1:]:
            total = total + functions.sum(g * g)
        norm = functions.sqrt(total)
        factor = functions.minimum(self.clip_norm / (norm + 1e-6), 1.0)
        return [g * factor for g in gradients], norm


@dataclass(frozen=True)
class Options:
    """The options of a chunk's groups as operands, and the number of updates made before."""

    chunk: Chunk
    step: Tensor | None

    @property
    def count(self) -> Tensor:
        """Number of this update, 1 for the first, as f32."""
        result: Tensor = (self._needed() + 1).cast("f32")
        return result

    @property
    def is_first(self) -> Tensor:
        """Whether this update is the first, as bool."""
        return self._needed() == 0

    def _needed(self) -> Tensor:
        if self.step is None:
            raise GraphError("this optimizer's rule reads the step; needs_step must say so")
        return self.step

    def rate(self, rate: Rate) -> Scalar:
        """Return a learning rate for this update."""
        return rate(self._needed()) if isinstance(rate, Schedule) else rate

    def __call__(self, keys: str, scalar: Any = None) -> Scalar:
        """Return `scalar(*values)` of the options `keys` (separated by blanks); a learning rate
        is evaluated first. Groups that differ make it a vector [total]."""
        names = keys.split()

        def evaluate(*values: Any) -> Scalar:
            ready = [
                self.rate(value) if name == "lr" else value
                for name, value in zip(names, values, strict=True)
            ]
            result: Scalar = scalar(*ready) if scalar is not None else ready[0]
            return result

        return self.chunk.each(names, evaluate)

    def differ(self, key: str) -> list[Any]:
        """Return the distinct values of an option."""
        return list(dict.fromkeys(group.options[key] for group in self.chunk.groups))


def _chosen(is_good: Tensor | None, after: Tensor, before: Tensor) -> Tensor:
    """Return `after`, or `before` where a step is skipped."""
    if is_good is None:
        return after
    result: Tensor = functions.where(is_good, after, before)
    return result


def _state_name(moment: str, name: str) -> str:
    return f"{PREFIX}.{moment}.{name}"


def _states(moment: str, chunk: Chunk, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one input for each parameter, zero at first."""
    return {
        name: state(_state_name(moment, name), np.zeros(params[name].shape, np.float32))
        for name in chunk.names
    }


def scaled(x: Tensor, factor: Scalar) -> Tensor:
    """Return x * factor, and `x` itself where the factor is the number 1."""
    return x if isinstance(factor, float) and factor == 1.0 else x * as_tensor(factor)
