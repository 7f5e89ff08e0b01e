"""What the examples share: a device where there is one, and progress bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import asg

console = Console()


def compile_for(graphs: asg.Graph | Mapping[str, asg.Graph], device: str | None = None) -> Any:
    """Compile for `device` (an adapter, or "numpy"), for the interpreter where there is none."""
    if device == "numpy":
        return asg.compile(graphs, target="numpy")
    try:
        return asg.compile(graphs, device=device)
    except asg.errors.DeviceError as error:
        reason = str(error).partition("\n")[0]
        console.print(f"[yellow]running on the NumPy interpreter: {reason}[/]", highlight=False)
        return asg.compile(graphs, target="numpy")


def progress_bar(unit: str) -> Progress:
    """Return a bar whose task has the fields `loss` and `rate`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[rate]:,.0f} " + f"{unit}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
