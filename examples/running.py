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


def show(text: str) -> None:
    """Print text as it is, without wrapping or colours."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def target_for(device: str | None) -> tuple[str, str | None]:
    """Return target and device for an adapter's name or "numpy": the interpreter, with a line
    that says why, where there is no adapter."""
    if device == "numpy":
        return "numpy", None
    probe = asg.graph(outputs={"y": asg.input("x", (1,)) + 1.0})
    try:
        asg.compile(probe, device=device).close()
    except asg.errors.DeviceError as error:
        reason = str(error).partition("\n")[0]
        console.print(f"[yellow]running on the NumPy interpreter: {reason}[/]", highlight=False)
        return "numpy", None
    return "wgpu", device


def compile_for(graphs: asg.Graph | Mapping[str, asg.Graph], device: str | None = None) -> Any:
    """Compile for an adapter, or for the interpreter (see `target_for`)."""
    target, adapter = target_for(device)
    return asg.compile(graphs, target=target, device=adapter)


def progress_bar(unit: str) -> Progress:
    """Return a bar whose tasks have the fields `loss` and `rate`."""
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
