"""What `asg.tolerances` promises about every function holds on this device, and is documented."""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np
import pytest

from asg.op import Elementwise
from asg.ops import TABLE
from asg.tolerances import (
    ACCURACY,
    COMPOSED,
    FAST,
    FAST_COMPOSED,
    NUMERICS,
    Numerics,
    promise,
    rounding,
)
from asg.types import DType, parse_type
from support.imports import ROOT

NAMES = [name for name in (*ACCURACY, *COMPOSED) if name not in ("select", "stop_gradient")]
FAST_NAMES = [*FAST, *FAST_COMPOSED]
PAGE = ROOT / "docs" / "numerics.md"


def _subject(ulp: ModuleType, name: str, numerics: Numerics = "precise"):
    return next(subject for subject in ulp.subjects(numerics) if subject.name == name)


@pytest.mark.device
@pytest.mark.parametrize("name", NAMES)
def test_promise_holds(ulp: ModuleType, name: str) -> None:
    subject = _subject(ulp, name)
    finding = ulp.measure(subject, ulp.operands_of(subject, ulp.points(32, 4096)))
    assert finding.holds, finding


@pytest.mark.device
@pytest.mark.parametrize("schedule", ["cpu", "gpu"])
@pytest.mark.parametrize("name", FAST_NAMES)
def test_fast_promise_holds(ulp: ModuleType, name: str, schedule: str) -> None:
    subject = _subject(ulp, name, "fast")
    operands = ulp.operands_of(subject, ulp.points(32, 4096))
    finding = ulp.measure(subject, operands, schedule, "fast")
    assert finding.holds, finding
    assert finding.ulp > promise(name, "precise").ulp  # it is another form that was measured


@pytest.mark.device
@pytest.mark.parametrize("name", ["exp", "tanh", "pow", "sin"])
def test_promise_holds_in_the_other_family(ulp: ModuleType, name: str) -> None:
    subject = _subject(ulp, name)
    operands = ulp.operands_of(subject, ulp.points(32, 4096))
    finding = ulp.measure(subject, operands, schedule="gpu")
    assert finding.holds, finding


@pytest.mark.soak
@pytest.mark.device
@pytest.mark.parametrize("name", FAST_NAMES)
def test_fast_promise_holds_densely(ulp: ModuleType, name: str) -> None:
    subject = _subject(ulp, name, "fast")
    operands = ulp.operands_of(subject, ulp.points(4096, 1 << 19, seed=7), seed=8)
    finding = ulp.measure(subject, operands, numerics="fast")
    assert finding.holds, finding


@pytest.mark.soak
@pytest.mark.device
@pytest.mark.parametrize("name", NAMES)
def test_promise_holds_densely(ulp: ModuleType, name: str) -> None:
    subject = _subject(ulp, name)
    operands = ulp.operands_of(subject, ulp.points(4096, 1 << 19, seed=7), seed=8)
    finding = ulp.measure(subject, operands)
    assert finding.holds, finding


def test_errors_are_seen(ulp: ModuleType) -> None:
    exact = np.array([1.0, 1.0, 1.0, np.nan, 0.0, np.inf, 3.5e38, 2.0**-127, 2.0**-127, 1.0])
    found = np.array(
        [1.0, 1 + 2.0**-23, 1 - 2.0**-24, 1.0, 2.0**-140, 3e38, 3.4028235e38, 0.0, 1e-37, np.nan],
        np.float32,
    )
    errors = ulp.errors(found, exact, exact)
    assert list(errors[:5]) == [0.0, 1.0, 0.5, np.inf, 0.0]
    assert errors[5] > 1e6  # infinity is far from 3e38
    assert errors[6] == 1.0  # 3.5e38 counts as 2^128, next to the largest number
    assert list(errors[7:]) == [0.0, errors[8], np.inf]
    assert errors[8] > 1e6


def test_every_function_of_floats_has_a_promise() -> None:
    missing = [
        op.name
        for op in TABLE.values()
        if isinstance(op.kind, Elementwise)
        and op.name not in ("cast", "bitcast")
        and any(_is_float_to_float(op, sample) for sample in op.samples)
    ]
    assert [name for name in missing if name not in ACCURACY] == []
    assert [name for name in ACCURACY if name not in TABLE] == []


def _is_float_to_float(op, sample) -> bool:
    types = tuple(parse_type(text) for text in sample.types)
    result = op.shape(types, sample.attrs or {})
    results = result if isinstance(result, tuple) else (result,)
    return types[-1].dtype is DType.F32 and results[0].dtype is DType.F32


def test_rounding_follows_from_promises() -> None:
    assert rounding(TABLE["exp"]).result == 2 * ACCURACY["exp"].ulp
    assert rounding(TABLE["div"]).result == 5.0  # WGSL's 2.5 units in the last place
    assert rounding(TABLE["add"]).result == 1.0


def test_fast_forms_are_the_files_there_are() -> None:
    files = (ROOT / "shaders" / "helpers" / "fast").glob("asg_*.wgsl.j2")
    names = {path.name.removeprefix("asg_").removesuffix(".wgsl.j2") for path in files}
    others = {"exp2", "exp_down"}  # of attention, whose promise is a composite's; of exp
    assert names - others == set(FAST)
    for op in FAST:
        assert rounding(TABLE[op], "fast") != rounding(TABLE[op])
    for op in set(ACCURACY) - set(FAST):
        assert rounding(TABLE[op], "fast") == rounding(TABLE[op])


@pytest.mark.parametrize("numerics", NUMERICS)
def test_page_shows_what_is_promised(ulp: ModuleType, numerics: Numerics) -> None:
    text = PAGE.read_text("utf-8").partition(ulp.BEGIN[numerics])[2].partition(ulp.END)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", text, re.MULTILINE))
    names = NAMES if numerics == "precise" else FAST_NAMES
    promised = {name: promise(name, numerics) for name in names}
    assert list(rows) == names
    for name in names:
        cells = [cell.strip() for cell in rows[name].split("|")]
        assert float(cells[0].removesuffix(" of x")) == promised[name].ulp, name
        assert float(cells[1] or 0) == promised[name].allowance, name
        assert float(cells[2]) <= promised[name].ulp, name
