"""Both compilers accept every shader that the other tests made, naga also the native ones.

`make test` runs this in a second, short run of pytest, when all workers of the first are done.
"""

from collections.abc import Callable

import pytest

from support.shader_dump import dump_folder, kept
from support.wgsl_check import (
    Verdicts,
    check_naga,
    check_tint,
    is_native,
    needs_raised_limits,
)


def tint_for_all(shaders: dict[str, str]) -> Verdicts:
    """Tint's verdicts on what browsers can run: within default limits, where these suffice."""
    portable = {name: code for name, code in shaders.items() if not is_native(code)}
    large = {name: code for name, code in portable.items() if needs_raised_limits(code)}
    usual = {name: code for name, code in portable.items() if name not in large}
    return {**check_tint(usual), **check_tint(large, raised=True)}


@pytest.mark.tint
@pytest.mark.parametrize("check", [check_naga, tint_for_all], ids=["naga", "tint"])
def test_all_shaders_compile(check: Callable[[dict[str, str]], Verdicts]) -> None:
    folder = dump_folder()
    if folder is None:
        pytest.skip("ASG_WGSL_DUMP names no folder of shaders; `make test` sets it")
    shaders = kept(folder)
    assert shaders, f"no shader was collected in {folder}"
    refused = {name: message for name, message in check(shaders).items() if message}
    report = "\n\n".join(f"{name}: {message}" for name, message in refused.items())
    assert not refused, f"{len(refused)} of {len(shaders)} shaders refused:\n{report}"
