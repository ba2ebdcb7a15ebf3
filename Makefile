# make plan   plan the built-in TG-119 C-shape and say where the figures are
# make test   everything a change must pass
# make long   tests that take more than half a minute each (never needed to pass)
# make docs   the site: guides, reference, gallery and course, all executed, into docs/_build/html
# make bench  speed, beside the peer where one is installed (slow, never needed to pass)
# make gpu    the numeric suite and the speed on a CUDA device (never needed to pass)

PYTHON ?= python3
VENV ?= .venv
# Where an environment keeps its programs: Scripts on Windows, bin elsewhere.
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT ?= out/tg119
# Compiled kernels outlive a run, and a checkout where CI keeps this folder.
export NUMBA_CACHE_DIR ?= $(CURDIR)/.numba_cache

.PHONY: plan test lint check long docs bench gpu clean
.DELETE_ON_ERROR:

plan: $(VENV)/.plan
	$(BIN)/python -m radplan plan tg119 --dicom --out $(OUT)

test: lint check

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=20 -m "not long"

long: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 -m long

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/_ext/check_site.py docs/_build/html

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.apertures
	$(BIN)/python -m tests.benchmarks.thorax_recalculation

gpu: $(VENV)/.test
	$(BIN)/python -m pytest -q -m "gpu or not slow" tests/conformance tests/arrays tests/optim
	$(BIN)/python -m tests.benchmarks --device torch:cuda

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.plan: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(PIP) --editable ".[viz]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(PIP) --editable ".[test]"
	touch $@ $(VENV)/.plan

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	$(PIP) --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .numba_cache out docs/_build docs/api docs/built_gallery docs/sg_execution_times.rst build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
