"""The command line: `asg compile`, `inspect`, `run`, `profile`, `tune`, `verify` …

Roof: uses everything, lazily, so that `asg --help` is quick. `models.py` finds what MODEL names,
`output.py` writes for a terminal, a pipe, or as JSON; the rest is a file per command.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

import asg
from asg.cli.compile import compile_command
from asg.cli.doctor import doctor_command
from asg.cli.export import export_command
from asg.cli.inspect import inspect_command
from asg.cli.run import profile_command, run_command
from asg.cli.tune import cache_command, tune_command
from asg.cli.verify import bisect_command, verify_command
from asg.errors import AsgError, DeviceError, OutOfMemoryError, ShaderError, UnsupportedError

EXIT_CODES = {
    0: "all is well",
    1: "something differs from the interpreter",
    2: "the command line is wrong",
    3: "the model needs what this version does not support",
    4: "no device, or it refuses what is needed",
    5: "a file, an input or the model can't be used, or ASG itself is at fault",
}
UNSUPPORTED, NO_DEVICE, UNUSABLE = 3, 4, 5

_EPILOG = "\b\nExit status:\n" + "\n".join(f"  {n}  {text}" for n, text in EXIT_CODES.items())


class _Commands(click.Group):
    """Commands whose errors are one message, unless ASG_DEBUG=1 asks for the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AsgError as error:
            if _is_debugging():
                raise
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(exit_code(error))
        except BrokenPipeError:  # whoever read our output has seen enough
            sys.stdout = None
            ctx.exit(0)
        except OSError as error:
            if _is_debugging():
                raise
            click.echo(f"{error.filename or 'a file'}: {error.strerror or error}", err=True)
            ctx.exit(UNUSABLE)


def _is_debugging() -> bool:
    return os.environ.get("ASG_DEBUG", "0") not in ("", "0")


def exit_code(error: AsgError) -> int:
    """Return the exit status for an error."""
    match error:
        case UnsupportedError():
            return UNSUPPORTED
        case ShaderError() | OutOfMemoryError():
            return UNUSABLE
        case DeviceError():
            return NO_DEVICE
        case _:
            return UNUSABLE


@click.group(
    cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(asg.__version__, prog_name="asg")
def main() -> None:
    """Compile model graphs to WebGPU shaders, look at them, run them, and check them.

    MODEL is an ONNX model (NAME.onnx), a saved graph (NAME.graph), or FILE.py:OBJECT, where the
    object is a graph, a dict of graphs, or a function without arguments that returns one. Open
    sizes get numbers by --dim or by the arrays given. BUNDLE is what `asg compile` writes: a
    folder, or one file NAME.asg.
    """


for _command in (
    compile_command,
    export_command,
    inspect_command,
    run_command,
    profile_command,
    tune_command,
    verify_command,
    bisect_command,
    doctor_command,
    cache_command,
):
    main.add_command(_command)
