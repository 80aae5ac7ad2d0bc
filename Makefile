# make run      watch the synthetic street being detected (core packages only)
# make test     install everything, then check format, style, types, and run all tests
# make check    the same without the slow tests; for every day
# make bench    measure against what else one could use; nothing else should run meanwhile
# make bench-full  the same against everything else, each in an environment of its own (gigabytes),
#               and make the README's chart of it
#
# `make run ARGS="drive.mp4 --out out/drive.mp4"` hands arguments on; likewise for the others.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: run test pytest check bench bench-full lint clean

PYTHON := .venv/bin/python
# Without compiling all of it to bytecode: Python does so for what is imported, a small part of it.
# It must be let, or each of the hundreds of processes that the tests start compiles anew.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-compile
# A few workers with one thread each: the same on a laptop and on a large server. One more than
# cores, because the tests with cameras mostly wait.
WORKERS = $(shell $(PYTHON) -c "import os; print(min((os.cpu_count() or 1) + 1, 4))")
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(WORKERS) -rs

# A .venv whose Python has gone is of no use.
$(shell [ -x $(PYTHON) ] || rm -rf .venv)

run: .venv/.core
	$(PYTHON) run_stream.py $(ARGS)

# Style and types are checked meanwhile, by one of the cores.
test: .venv/.everything
	+$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: .venv/.compiled
	$(PYTEST) $(ARGS)

check: lint .venv/.compiled
	$(PYTEST) -m "not slow" $(ARGS)

bench: .venv/.everything
	$(PYTHON) -m tests.benchmarks $(ARGS)

bench-full: .venv/.everything
	$(PYTHON) -m tests.benchmarks.full $(ARGS)
	$(PYTHON) -m tests.benchmarks.chart

lint: .venv/.everything
	$(PYTHON) -m ruff format --check --quiet
	$(PYTHON) -m ruff check --quiet
	$(PYTHON) -m mypy

clean:
	rm -rf .venv build dist out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps make a second call quick; a change of pyproject.toml installs anew.

.venv/.core: pyproject.toml | $(PYTHON)
	@echo "Installing the core packages into .venv ..."
	$(PIP_INSTALL) --editable .
	touch $@

.venv/.everything: pyproject.toml | $(PYTHON)
	@echo "Installing all packages into .venv (torch is large) ..."
	$(PIP_INSTALL) --editable ".[models,serve,brokers,test,bench]"
	touch .venv/.core $@

# What the tests import, compiled once and not by every worker at the same time. Whatever is wrong
# with the tests, they themselves say.
.venv/.compiled: .venv/.everything
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --collect-only --quiet >/dev/null || true
	touch $@

# Some distributions split venv: there, pip has to come from outside.
$(PYTHON):
	@for python in python3.13 python3.12 python3.11 python3; do \
	  if $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	    if $$python -m venv --clear .venv >/dev/null 2>&1; then exit; fi; \
	    if $$python -m venv --clear --without-pip .venv 2>/dev/null && $$python -m pip \
	      --python $(PYTHON) install --quiet pip 2>/dev/null; then exit; fi; \
	    rm -rf .venv; \
	  fi; \
	done; \
	echo "boxstream needs Python 3.11 or newer with its venv module" \
	  "(on Debian and Ubuntu: apt install python3 python3-venv)." >&2; \
	exit 1
