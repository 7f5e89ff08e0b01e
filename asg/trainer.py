"""`Trainer`: the loop around a compiled training step, with checkpoints and a progress bar.

Roof: uses the compiler.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from asg.checkpoint import Progress as Position
from asg.checkpoint import list_checkpoints, read_checkpoint, write_checkpoint
from asg.compiler import compile as compile_graphs
from asg.errors import AsgError, InputError, NonFiniteError
from asg.nn.module import Module
from asg.optim.optimizer import Optimizer
from asg.optim.scaling import LossScaling
from asg.precision import Precision, as_policy
from asg.tolerances import Numerics
from asg.tracing import as_spec
from asg.training import LossFunction, trace_loss, training_step

Array = np.ndarray[Any, Any]
Batch = dict[str, Any]


@dataclass
class History:
    """What `fit` reports: the loss of every step made, and what `evaluate` found on the way."""

    losses: list[float] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Trainer:
    """Trains `model` by a compiled step; all batches have the shapes of the first.

    A loader yields batches: dicts of arrays, or tuples, whose members are then called x and y.
    Passing over it is an epoch. For `loss_fn(model, batch)` see `asg.training_step`.

    Args:
        target, device: where to train, as in `asg.compile`.
        checkpoints: a folder for checkpoints, written every `every` steps and at the end; the
            newest `keep` stay.
        loss_scaling: as in `asg.training_step`; the scale is part of checkpoints.
        precision: as in `asg.compile`, but all parameters stay f32.
        numerics: as in `asg.compile`.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: LossFunction,
        optimizer: Optimizer,
        *,
        target: str = "wgpu",
        device: str | None = None,
        checkpoints: str | Path | None = None,
        every: int = 1000,
        keep: int = 2,
        seed: int | None = None,
        loss_scaling: LossScaling | bool | None = None,
        precision: Precision = None,
        numerics: Numerics = "precise",
    ) -> None:
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.target, self.device, self.seed = target, device, seed
        self.loss_scaling, self.numerics = loss_scaling, numerics
        policy = as_policy(precision)
        # The model gets its weights back, also those that were not trained: they stay f32.
        self.policy = policy and replace(policy, parameters=False)
        self.checkpoints = None if checkpoints is None else Path(checkpoints)
        self.every, self.keep = every, keep
        self.position = Position()
        self.exe: Any = None
        self._evaluators: dict[tuple[Any, ...], Any] = {}

    def fit(
        self,
        loader: Iterable[Any],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        validation: Iterable[Any] | None = None,
        progress: bool = True,
        resume: bool = False,
    ) -> History:
        """Train until `epochs` or `steps` in all are done (one epoch unless told).

        With `resume`, begin at the newest checkpoint: weights, optimizer, random key, and the
        position in the data, as though nothing had come between. After every epoch,
        `validation` is evaluated. At the end the model has the trained weights.

        Raises:
            NonFiniteError: the loss is no longer a finite number.
            AsgError: the loader has no batches.
        """
        limit = epochs if epochs is not None or steps is not None else 1
        history, start = History(), time.perf_counter()
        if resume:
            self._resume(loader)
        with _bar(progress) as bar:
            task = _Task(bar, _total(loader, limit, steps), self.position.step)
            for epoch in itertools.count(self.position.epoch):
                if (limit is not None and epoch >= limit) or self._is_done(steps):
                    break
                before = len(history.losses)
                for batch in self._batches(loader, epoch):
                    if self._is_done(steps):
                        break
                    history.losses.append(self._step(batch, task))
                else:
                    self.position = Position(self.position.step, epoch + 1, 0)
                if len(history.losses) == before and not self._is_done(steps):
                    raise AsgError(f"the loader has no batches left in epoch {epoch}")
                if validation is not None:
                    history.validation.append(self.evaluate(validation))
        if self.checkpoints is not None and self.exe is not None:
            self.save_checkpoint()
        self.update_model()
        history.seconds = time.perf_counter() - start
        return history

    def evaluate(self, loader: Iterable[Any]) -> dict[str, float]:
        """Return the mean of each output of `loss_fn` over the batches, in evaluation mode.

        Raises:
            AsgError: the loader has no batches.
        """
        sums: dict[str, float] = {}
        count = 0
        for batch in map(as_batch, loader):
            for name, value in self._evaluator(batch)(batch).items():
                sums[name] = sums.get(name, 0.0) + float(np.mean(value))
            count += 1
        if not count:
            raise AsgError("the loader has no batches")
        return {name: total / count for name, total in sums.items()}

    def update_model(self) -> None:
        """Give the model the weights as they are now."""
        if self.exe is not None:
            names = self.model.state_dict()
            state = self.exe.state_dict()
            self.model.load_state_dict(
                {name: state[name] for name in names if name in state}, strict=False
            )

    def save_checkpoint(self) -> Path:
        """Write a checkpoint now.

        Raises:
            AsgError: there is no folder for it, or nothing was trained yet.
        """
        if self.checkpoints is None or self.exe is None:
            missing = "a folder" if self.checkpoints is None else "a first step"
            raise AsgError(f"a checkpoint needs {missing}")
        return write_checkpoint(self.checkpoints, self.position, self.exe.state_dict(), self.keep)

    def _resume(self, loader: Iterable[Any]) -> None:
        found = list_checkpoints(self.checkpoints) if self.checkpoints is not None else []
        if not found:
            return
        position, state = read_checkpoint(found[-1])
        if self.exe is None:
            self._compile(as_batch(next(iter(loader))))
        self.exe.load_state_dict(state)
        self.position = position

    def _batches(self, loader: Iterable[Any], epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch that are still to come."""
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        return map(as_batch, itertools.islice(loader, self.position.batch, None))

    def _is_done(self, steps: int | None) -> bool:
        return steps is not None and self.position.step >= steps

    def _step(self, batch: Batch, task: _Task) -> float:
        if self.exe is None:
            self._compile(batch)
        loss = float(self.exe.train(batch, outputs=["loss"])["loss"])
        step = self.position.step + 1
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss of step {step} is {loss}; a smaller learning rate or clip_norm may help"
            )
        self.position = replace(self.position, step=step, batch=self.position.batch + 1)
        task.advance(loss, batch)
        if self.checkpoints is not None and step % self.every == 0:
            self.save_checkpoint()
        return loss

    def _compile(self, batch: Batch) -> None:
        step = training_step(
            self.model,
            self.loss_fn,
            self.optimizer,
            seed=self.seed,
            loss_scaling=self.loss_scaling,
            **_specs(batch),
        )
        graphs = {"train": step, "evaluate": self._evaluation(batch)}
        self.exe = compile_graphs(
            graphs, target=self.target, device=self.device, precision=self.policy,
            numerics=self.numerics,
        )  # fmt: skip

    def _evaluation(self, batch: Batch) -> Any:
        return trace_loss(self.model, self.loss_fn, _specs(batch), training=False)

    def _evaluator(self, batch: Batch) -> Any:
        """Return an executable for the shapes of `batch`, with the weights of now."""
        shapes = tuple((name, str(spec)) for name, spec in sorted(_specs(batch).items()))
        if self.exe is None:
            self._compile(batch)
        types = self.exe.entries["evaluate"].inputs
        if shapes == tuple((name, str(types[name])) for name in sorted(types)):
            return self.exe.evaluate
        if shapes not in self._evaluators:
            self._evaluators[shapes] = compile_graphs(
                self._evaluation(batch),
                target=self.target,
                device=self.device,
                precision=self.policy,
                numerics=self.numerics,
            )
        other = self._evaluators[shapes]
        other.load_state_dict(self.exe.state_dict(), strict=False)
        return other


def as_batch(batch: Any) -> Batch:
    """Return a batch as a dict; members of a tuple are x and y, or x0, x1 … where more.

    Raises:
        InputError: it is neither a dict nor a tuple of arrays.
    """
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, (tuple, list)):
        names = "xy" if len(batch) <= 2 else [f"x{index}" for index in range(len(batch))]
        return dict(zip(names, batch, strict=False))
    raise InputError(f"a batch is a dict or a tuple of arrays, got {type(batch).__name__}")


def _specs(batch: Batch) -> dict[str, Any]:
    """Return the types of a batch; 64-bit arrays count as 32-bit ones."""
    narrow = {"f": np.float32, "i": np.int32, "u": np.uint32, "b": np.bool_}
    specs = {}
    for name, value in batch.items():
        array = np.asarray(value)
        specs[name] = as_spec(np.empty(array.shape, narrow.get(array.dtype.kind, array.dtype)))
    return specs


@dataclass
class _Task:
    """A progress bar, or nothing."""

    bar: Progress | None
    total: int | None
    done: int

    def __post_init__(self) -> None:
        self.clock, self.items = time.perf_counter(), 0
        if self.bar is not None:
            self.id = self.bar.add_task(
                "training", total=self.total, completed=self.done, loss=math.nan, rate=""
            )

    def advance(self, loss: float, batch: Batch) -> None:
        """Count a step; batches of indices [B, T] count tokens, others samples."""
        if self.bar is None:
            return
        first = np.asarray(next(iter(batch.values())))
        is_text = first.dtype.kind in "iu" and first.ndim == 2
        self.items += first.size if is_text else len(first) if first.ndim else 1
        rate = self.items / max(time.perf_counter() - self.clock, 1e-9)
        unit = "tokens" if is_text else "samples"
        self.bar.update(self.id, advance=1, loss=loss, rate=f"{rate:,.0f} {unit}/s")


def _bar(is_shown: bool) -> AbstractContextManager[Progress | None]:
    if not is_shown:
        return nullcontext()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )


def _total(loader: Any, epochs: int | None, steps: int | None) -> int | None:
    """Return how many steps there will be, where the loader tells its length."""
    known = len(loader) * epochs if epochs is not None and hasattr(loader, "__len__") else None
    if steps is None or known is None:
        return steps if known is None else known
    return min(steps, known)
