# vbinfer: `make demo` gives a posterior from real fMRI, `make test` runs the suite. Both set up .venv first.
#   PYTHON=python3.12 make demo     another interpreter (3.11 or newer)
#   make test ARGS="-k features"    options for pytest

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH_CPU := https://download.pytorch.org/whl/cpu

# what is ours from end to end: simulation, features, priors
X64_TESTS := $(addprefix tests/test_,models.py monitors.py noise.py simulate.py forward.py features.py prior.py connectome.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-browser test-x64 notebooks bench bench-peers fmt lint type clean

help:
	@echo "make demo         a posterior from a real fMRI recording, with a report"
	@echo "make test         the test suite; test-slow: the long ones, test-x64: in float64, test-browser: in Chromium"
	@echo "make notebooks    execute the notebooks in a fast setting"
	@echo "make fmt lint type    format; check format and style; check types"
	@echo "make bench        the benchmarks (bench-peers: against other packages)"

setup: $(READY)

# Torch first, and as a CPU build wherever one can be had: left to itself, pip takes several GB of GPU libraries.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is `$(PYTHON) -V 2>&1`; vbinfer needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "[1/3] virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip || echo "      pip could not be upgraded; going on with the one that is there"
	@echo "[2/3] torch, CPU build"
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) install "torch==2.13.0+cpu" 2>/dev/null \
	  || $(PIP) --timeout 20 --retries 1 install "torch>=2.4" --index-url $(TORCH_CPU) 2>/dev/null \
	  || $(PIP) install "torch==2.13.0" 2>/dev/null \
	  || $(PIP) install "torch>=2.4"
	@echo "[3/3] vbinfer and what it needs (a few minutes the first time)"
	@$(PIP) install -e ".[test,dev]"
	@touch $@

demo: $(READY)
	@$(BIN)/vbinfer demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -q $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-browser: $(READY)
	$(BIN)/python -m pytest -q -m browser $(ARGS)

test-x64: $(READY)
	VBINFER_X64=1 $(BIN)/python -m pytest -q $(X64_TESTS) $(ARGS)

notebooks: $(READY)
	$(BIN)/python -m pytest -q -m "slow or not slow" tests/test_notebooks.py $(ARGS)

bench: $(READY)
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

bench-peers: $(READY)
	@for file in benchmarks/peers_*.py; do echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

fmt: $(READY)
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(READY)
	$(BIN)/pyright

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
