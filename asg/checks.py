"""What verification yields: checks in order, each with its differences, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from asg.comparison import Difference, Verdict

Stage = Literal["gradients", "passes", "kernels", "memory", "whole"]

TITLES: Mapping[Stage, str] = {
    "gradients": "gradient rules against central differences",
    "passes": "pass by pass, each judged against the graph before it",
    "kernels": "kernel by kernel, each given what the interpreter computes",
    "memory": "memory: what a kernel reads is what was written for it",
    "whole": "whole programs against the interpreter",
}

# From the harmless to the worst.
_SEVERITY: tuple[Verdict, ...] = ("right", "undecided", "wrong")


@dataclass(frozen=True)
class Check:
    """One thing that was compared: a pass, a step of a program, a program.

    `where` names it. `note` says what differences can't: that a pass failed, who overwrote what.
    """

    stage: Stage
    entry: str
    where: str
    differences: tuple[Difference, ...] = ()
    note: str = ""
    is_fault: bool = False  # wrong whatever the differences say; the note says why
    step: int | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst of its differences."""
        return "wrong" if self.is_fault else worst(each.verdict for each in self.differences)

    @property
    def is_wrong(self) -> bool:
        return self.verdict == "wrong"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "stage": self.stage,
            "entry": self.entry,
            "where": self.where,
            "step": self.step,
            "verdict": self.verdict,
            "note": self.note,
            "differences": [each.to_dict() for each in self.differences],
        }

    def __str__(self) -> str:
        step = "" if self.step is None else f" (step {self.step})"
        lines = [f"{self.verdict}: {self.entry}: {self.where}{step}"]
        lines += [f"  {line}" for line in self.note.splitlines()]
        shown = [each for each in self.differences if each.verdict == self.verdict]
        return "\n".join([*lines, *(f"  {each}" for each in shown)])


@dataclass(frozen=True)
class DifferentialReport:
    """Everything that was compared with the interpreter, on which device, with which inputs.

    `inputs` says for each input where its values come from; `device` is empty where none ran.
    """

    checks: tuple[Check, ...]
    device: str
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst of all checks."""
        return worst(check.verdict for check in self.checks)

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong; `verdict` also tells what could not be decided."""
        return self.verdict != "wrong"

    @property
    def first_wrong(self) -> Check | None:
        """The first check that failed. Causes come before their effects."""
        return next((check for check in self.checks if check.is_wrong), None)

    def of(self, stage: Stage) -> list[Check]:
        """Return the checks of one stage."""
        return [check for check in self.checks if check.stage == stage]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "verdict": self.verdict,
            "device": self.device,
            "inputs": dict(self.inputs),
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        lines: list[str] = []
        for stage, title in TITLES.items():
            checks = self.of(stage)
            if not checks:
                continue
            counts = [sum(check.verdict == each for check in checks) for each in _SEVERITY]
            parts = [f"{n} {each}" for n, each in zip(counts, _SEVERITY, strict=True) if n]
            lines.append(f"{title}: {', '.join(parts)}")
            told = [check for check in checks if check.verdict != "right"]
            lines += [f"  {line}" for check in told for line in str(check).splitlines()]
        return "\n".join([*lines, f"on {self.device}" if self.device else "without a device"])


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of some verdicts; of none, `right`."""
    return max(verdicts, key=_SEVERITY.index, default="right")
