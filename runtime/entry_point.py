"""An entry as users call it: `exe({...})`, `exe.predict({...})`, `exe.entries["predict"]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from asg.errors import InputError
from asg.runtime.arrays import check_finite as refuse_nonfinite
from asg.types import TensorType

Results = dict[str, Any]


class Runner(Protocol):
    """Runs one entry; the results are device arrays if `on_device` is set."""

    def __call__(
        self, inputs: Mapping[str, object], outputs: Iterable[str] | None, on_device: bool
    ) -> Results: ...


class EntryPoint:
    """A named program of an executable, with the types of what goes in and what comes out."""

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, TensorType],
        outputs: Mapping[str, TensorType],
        runner: Runner,
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.outputs = outputs
        self._runner = runner

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {kind}" for name, kind in self.inputs.items())
        outputs = ", ".join(f"{name}: {kind}" for name, kind in self.outputs.items())
        return f"<{self.name}({inputs}) -> {outputs or 'nothing'}>"

    def __call__(
        self,
        inputs: Mapping[str, object] | None = None,
        *,
        outputs: Iterable[str] | None = None,
        device_outputs: bool = False,
        check_finite: bool = False,
    ) -> Results:
        """Run the entry.

        Args:
            inputs: arrays by name, in host memory or on the device.
            outputs: compute and return only these; an input they do not need may be left out.
            device_outputs: leave the results on the device, valid until the next run.
            check_finite: refuse results that hold NaN or infinity.

        Raises:
            InputError: names, shapes or element types do not fit; nothing has run then.
            NonFiniteError: a result is not finite, and `check_finite` is set.
        """
        if check_finite and device_outputs:
            raise InputError(f"{self.name}: check_finite reads results back, device_outputs don't")
        if isinstance(outputs, str):
            raise InputError(f"{self.name}: outputs is a list of names: [{outputs!r}]")
        results = self._runner({} if inputs is None else inputs, outputs, device_outputs)
        if check_finite:
            refuse_nonfinite(self.name, results)
        return results
