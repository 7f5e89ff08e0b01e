# `make demo` and `make test` set up all they need: a virtual environment in .venv, and software
# Vulkan where no adapter is found. What is there already is not made again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# More workers than this wait for each other: a software adapter uses every core by itself.
WORKERS ?= 4
MYPY := $(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy
PYTEST := $(BIN)/python -m pytest
SHADERS := build/wgsl

# ASG beside its peers, which nothing else needs.
BENCH := .venv-bench

# wgpu complains where the system sets none.
export XDG_RUNTIME_DIR ?= $(CURDIR)/$(VENV)/run

.PHONY: help demo test lint typecheck soak bench choices docs setup setup-dev vulkan clean distclean
.NOTPARALLEL:

help:
	@echo "make demo       set up, then train a small character model and let it write"
	@echo "make test       set up, then lint, check types and run every test"
	@echo "make lint       ruff"
	@echo "make typecheck  mypy --strict, inside a tree that shows the folders under asg/"
	@echo "make soak       the slow tests"
	@echo "make bench      compare ASG with its peers (in an environment of its own)"
	@echo "make choices    measure which schedules win, and write passes/choices.json"
	@echo "make docs       write the generated pages of docs/ anew"
	@echo "make setup      the environment for using ASG;  make setup-dev  for working on it"
	@echo "make clean      remove what was built;  make distclean  the environment as well"

demo: setup vulkan
	@$(BIN)/python examples/char_gpt.py

# Two runs: the first also collects every shader that it makes, the second gives them all to naga
# and Tint.
test: export ASG_REQUIRE_DEVICE = 1
test: export ASG_WGSL_DUMP = $(CURDIR)/$(SHADERS)
test: lint typecheck
	@$(BIN)/python tools/install_vulkan.py --required --recent
	@rm -rf $(SHADERS) && mkdir -p $(SHADERS)
	$(PYTEST) --numprocesses auto --maxprocesses $(WORKERS) --ignore tests/test_zz_all_shaders.py
	$(PYTEST) tests/test_zz_all_shaders.py

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup-dev
	@$(BIN)/python tools/link_tree.py
	cd build/typecheck && ../../$(MYPY) asg && ../../$(MYPY) ../../tools

soak: export ASG_REQUIRE_DEVICE = 1
soak: setup-dev vulkan
	$(PYTEST) -m soak --hypothesis-profile soak

bench: setup $(BENCH)/installed
	@$(BIN)/python tools/install_vulkan.py --required --recent
	$(BENCH)/bin/python benchmarks/run.py $(ARGUMENTS)

# Takes some ten minutes; the table that it writes is part of the package.
choices: setup vulkan
	$(BIN)/python tools/tune_table.py --runs 2 --budget 300 --cpu-time

docs: setup-dev
	$(BIN)/python tools/docs.py

setup: $(VENV)/installed

setup-dev: $(VENV)/installed-dev .tools/installed

vulkan: setup
	@$(BIN)/python tools/install_vulkan.py

$(VENV)/made:
	@command -v $(PYTHON) > /dev/null || \
	  { echo "Python is missing; install version 3.11 or newer, or name one: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo "Python's venv module is missing; install it: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p -m 700 $(VENV)/run
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/made
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --editable '.[dev]'
	@touch $@

$(BENCH)/installed: pyproject.toml $(VENV)/made
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[bench]'
	@touch $@

.tools/installed: tests/tint/package.json $(VENV)/installed-dev
	@mkdir -p .tools && cp tests/tint/package.json .tools/
	PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix .tools --no-package-lock --ignore-scripts \
	  --no-audit --no-fund --loglevel error
	@touch $@

clean:
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache

distclean: clean
	rm -rf $(VENV) $(BENCH) .tools
