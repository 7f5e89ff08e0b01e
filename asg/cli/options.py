"""Arguments and options that several commands share."""

from __future__ import annotations

import click

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
entry_option = click.option("--entry", metavar="NAME", help="Entry; by default the first.")
family_option = click.option(
    "--target-family",
    type=click.Choice(["cpu", "gpu"]),
    help="Schedules for processors or for graphics cards. By default the adapter decides.",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of random inputs."
)
