"""The measuring tool, loaded from its file."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

import pytest

from support.imports import ROOT


@pytest.fixture(scope="session")
def ulp() -> ModuleType:
    """The module tools/ulp.py."""
    spec = spec_from_file_location("ulp_tool", ROOT / "tools" / "ulp.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module
