"""`asg tune`: schedules tried on the device; `asg cache`: what is kept on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from asg.cli import output
from asg.cli.models import Preparation, load_model, read_inputs
from asg.cli.options import (
    device_option,
    dims_option,
    family_option,
    json_option,
    model_argument,
    prepared_model,
    static_option,
)
from asg.errors import GraphError

if TYPE_CHECKING:
    from asg.tuning import Progress, Tuned, Tuning

_DIFFERS = 1


@click.command("tune")
@model_argument
@click.option(
    "-o", "--output", "bundle", metavar="BUNDLE",
    help="Also write a bundle with the schedules that were found.",
)  # fmt: skip
@click.option(
    "--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
    help="Stop trying after so long.",
)  # fmt: skip
@click.option(
    "--compile-limit", type=click.FloatRange(min=0), default=10.0, show_default=True,
    metavar="SECONDS", help="Give up a candidate that the driver compiles for longer.",
)  # fmt: skip
@dims_option
@static_option
@device_option
@family_option
@prepared_model
@json_option
def tune_command(
    model: str,
    bundle: str | None,
    budget: float,
    compile_limit: float,
    dims: dict[str, int],
    statics: tuple[str, ...],
    device: str | None,
    target_family: str | None,
    preparation: Preparation,
    as_json: bool,
) -> None:
    """Try schedules for the products of MODEL on the device, and keep the fastest.

    What is found is kept for asg.compile(tune=True) on the same adapter and driver. A candidate
    whose results are wrong is reported, and the exit status is 1.
    """
    from asg.compiler import (
        as_entries,
        for_target,
        fuse,
        lower,
        prepare,
        target_for,
        with_choices,
    )
    from asg.cutting import uncut_entries
    from asg.runtime.bundle import save_bundle
    from asg.runtime.devices import shared_device
    from asg.tuning import report, tune

    loaded = load_model(model, dims, read_inputs(statics), preparation)
    if loaded.artefact is not None:
        raise GraphError(f"{model} is a bundle already; tune the model that it came from")
    opened = shared_device(device)
    entries = uncut_entries(as_entries(loaded.entries))
    target = target_for(opened.adapter_class, target_family)
    plans = {
        key: fuse(prepare(graph, (), for_target(loaded.passes, target)))
        for key, graph in entries.items()
    }
    with _progress() as on_progress:
        tuning = tune(
            plans, opened, target,
            budget=budget, compile_limit=compile_limit, on_progress=on_progress,
        )  # fmt: skip
    if bundle is not None:
        target = with_choices(target, tuning.choices)
        artefact = lower(entries, target=target, passes=loaded.passes, name=loaded.name)
        save_bundle(artefact, artefact.values, bundle)
    if as_json:
        data = {"device": opened.description, "seconds": tuning.seconds, "left": tuning.left}
        output.write_json({**data, "bundle": bundle, "kernels": report(tuning)})
    else:
        _write(tuning, opened.description, bundle)
    has_wrong = any(trial.outcome == "wrong" for each in tuning.found for trial in each.trials)
    sys.exit(_DIFFERS if has_wrong else 0)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Give what shows progress: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tuning", total=None, text="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, text=progress.text)

        yield show


def _write(tuning: Tuning, device: str, bundle: str | None) -> None:
    rows = [_row(each) for each in tuning.found]
    if rows:
        output.write_table(("kernel", ">alike", "schedule", ">gain", "tried", "sizes"), rows)
    else:
        output.write_text("no kernel has several schedules")
    for each in tuning.found:
        for trial in each.trials:
            if trial.outcome == "wrong":
                text = f"{each.kernel}: {trial.schedule} is wrong: {trial.detail}"
                output.write_verdict("wrong", text)
        if each.problem:
            output.write_text(f"{each.kernel}: not tried: {each.problem}")
    if tuning.left:
        output.write_text(f"no time for {', '.join(tuning.left)}; a larger --budget reaches them")
    if bundle is not None:
        output.write_text(f"wrote {bundle}")
    output.write_text(f"{tuning.seconds:.1f} s on {device}")


def _row(each: Tuned) -> tuple[Any, ...]:
    tried = "known" if each.is_known else f"{sum(t.seconds < 1e9 for t in each.trials)} timed"
    return each.kernel, each.count, each.winner, f"{each.gain:.2f}x", tried, each.bucket


@click.group("cache")
def cache_command() -> None:
    """Show or clear what is kept on disk between runs."""


@cache_command.command("show")
@json_option
def cache_show(as_json: bool) -> None:
    """Show where the caches are, and what each holds."""
    from asg.machine import CACHES
    from asg.runtime.disk_cache import cache_root

    root = cache_root()
    usage = {cache.name: cache.usage() for cache in CACHES}
    if as_json:
        held = {cache.name: {**vars(usage[cache.name]), "limit": cache.limit} for cache in CACHES}
        output.write_json({"folder": None if root is None else str(root), "caches": held})
        return
    output.write_text(f"{root or 'caches are off (ASG_CACHE=0, or there is no home)'}")
    rows = [(c.name, usage[c.name].files, usage[c.name].size, c.limit) for c in CACHES]
    output.write_table(("cache", ">files", ">bytes", ">at most"), rows)


@cache_command.command("clear")
@click.argument("names", nargs=-1, metavar="[CACHE]...")
def cache_clear(names: tuple[str, ...]) -> None:
    """Delete the files of a CACHE, or of all; files of others stay."""
    from asg.machine import CACHES

    known = {cache.name: cache for cache in CACHES}
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no cache {name!r}; caches: {', '.join(known)}")
    for name in names or known:
        removed = known[name].clear()
        output.write_text(f"{name}: {removed.files:,} files, {removed.size:,} bytes deleted")
