"""The examples run; each checks its own result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.targets import EXAMPLES

SHORT = {
    "linear_regression.py": [],
    "xor.py": [],
    "anatomy.py": [],
    "custom_op.py": [],
    "digits.py": ["--epochs", "2"],
    "digits_cnn.py": ["--epochs", "1"],
    "char_gpt.py": ["--steps", "4", "--length", "8"],
}
FAST_ON_NUMPY = ("linear_regression.py", "xor.py", "anatomy.py")


def run(name: str, *arguments: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.device
@pytest.mark.parametrize("name", SHORT)
def test_example(name: str) -> None:
    printed = run(name, *SHORT[name])
    assert "NumPy interpreter" not in printed
    if name == "char_gpt.py":
        assert "wrote the same text" in printed
        assert "memory planned" in printed


@pytest.mark.parametrize("name", FAST_ON_NUMPY)
def test_example_without_a_device(name: str) -> None:
    run(name, *SHORT[name], "--device", "numpy")


@pytest.mark.soak
@pytest.mark.device
def test_char_gpt_learns(tmp_path: Path) -> None:
    assert "wrote the same text" in run("char_gpt.py", "--save", str(tmp_path / "gpt.asg"))
    assert (tmp_path / "gpt.asg").stat().st_size > 1_000_000


def test_every_example_is_listed() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SHORT, "running.py"}
