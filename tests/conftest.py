"""Fixtures and rules for all tests: golden files, what a test needs, which shaders are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from support import needs, shader_dump
from support.golden import GOLDEN, difference, golden_path

# A software device may take seconds for one example, and a suite that gates changes must not
# fail by chance: chance has its place in `make soak`.
settings.register_profile("test", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile("test")

# Every test compiles for itself; those of the caches turn them on, in folders of their own.
os.environ["ASG_CACHE"] = "0"

Golden = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing"
    )


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if needs.is_required() and not is_worker:
        problem = needs.device_problem() or needs.tint_problem()
        if problem:
            pytest.exit(f"ASG_REQUIRE_DEVICE is set, but {problem}", returncode=1)
    shader_dump.watch_runtime()


def pytest_runtest_setup(item: pytest.Item) -> None:
    problem = None
    if item.get_closest_marker("device"):
        problem = needs.device_problem()
    if problem is None and item.get_closest_marker("tint"):
        problem = needs.tint_problem()
    if problem and needs.is_required():
        pytest.fail(problem, pytrace=False)
    if problem:
        pytest.skip(problem)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def golden(request: pytest.FixtureRequest, update_golden: bool) -> Golden:
    """`golden(name, text)`: the text is what tests/golden/<test module>/<name> holds."""

    def compare(name: str, text: str) -> None:
        path = golden_path(request.path.stem, name)
        problem = difference(path, text, update_golden)
        if problem:
            pytest.fail(problem, pytrace=False)

    return compare


@pytest.fixture
def golden_file(update_golden: bool) -> Callable[[Path, str], None]:
    """`golden_file(path, text)`: the same for one file under tests/golden, named in full."""

    def compare(path: Path, text: str) -> None:
        problem = difference(GOLDEN / path, text, update_golden)
        if problem:
            pytest.fail(problem, pytrace=False)

    return compare


@pytest.fixture
def collect_wgsl() -> Callable[[str, str], None]:
    """`collect_wgsl(name, code)`: both compilers judge this shader after the run as well."""
    return shader_dump.keep
