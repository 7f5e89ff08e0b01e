"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import click

from asg.cli.models import Preparation
from asg.precision import NAMED

model_argument = click.argument("model", metavar="MODEL")
either_argument = click.argument("model", metavar="MODEL|BUNDLE")
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
device_option = click.option(
    "--device",
    metavar="SPEC",
    help="Adapter: its number, part of its name, cpu or gpu. By default ASG_DEVICE, or the best.",
)
input_option = click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="An input's array; or FILE.npz with an array for each name in it. May be repeated.",
)


def _sizes(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> Any:
    """Read `batch=4`."""
    sizes: dict[str, int] = {}
    for pair in pairs:
        name, _, size = pair.rpartition("=")
        if not name or not size.isdigit():
            raise click.BadParameter(f"NAME=SIZE is wanted, got {pair!r}")
        sizes[name] = int(size)
    return sizes


dims_option = click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=SIZE",
    callback=_sizes,
    help="The size of an open dimension of MODEL. May be repeated.",
)
static_option = click.option(
    "--static",
    "statics",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="Values of an input of MODEL that decide shapes. May be repeated.",
)
entry_option = click.option("--entry", metavar="NAME", help="Entry; by default the first.")
family_option = click.option(
    "--target-family",
    type=click.Choice(["cpu", "gpu"]),
    help="Schedules for processors or for graphics cards. By default the adapter decides.",
)
numerics_option = click.option(
    "--numerics",
    type=click.Choice(["precise", "fast"]),
    default="precise",
    show_default=True,
    help="Whether exponentials, tanh, sigmoid, erf and gelu are exact or faster; see numerics.md.",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of random inputs."
)


def prepared_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how a MODEL is read and prepared; they come as `preparation`."""

    @click.option(
        "--precision", type=click.Choice(sorted(NAMED)),
        help="Store in 16 bits what kernels of MODEL pass to each other, and fixed matrices.",
    )  # fmt: skip
    @click.option(
        "--freeze", is_flag=True,
        help="Take parameters of MODEL that nothing updates as constants.",
    )  # fmt: skip
    @click.option(
        "--float64", type=click.Choice(["error", "narrow"]), default="error", show_default=True,
        help="What becomes of f64 in an ONNX model: refused, or computed in f32.",
    )  # fmt: skip
    @wraps(command)
    def wrapped(
        *args: Any,
        precision: str | None,
        freeze: bool,
        float64: Literal["error", "narrow"],
        **others: Any,
    ) -> None:
        command(*args, preparation=Preparation(precision, freeze, float64), **others)

    return wrapped
