# vbinfer: `make demo` gives a posterior from real fMRI, `make test` runs the suite. Both set up .venv first.
#   PYTHON=python3.12 make demo     another interpreter (3.11 or newer)
#   make test ARGS="-k features"    options for pytest

PYTHON ?= python3
ARGS ?=
EXTRAS := test,dev,docs
FLOORS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH_CPU := https://download.pytorch.org/whl/cpu

# a file at a time in processes of their own, at most four
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

# what is ours from end to end: simulation, features, priors
X64_TESTS := $(wildcard $(addsuffix *.py,$(addprefix tests/test_,connectome coupling delays features forward gradients \
  integrators models monitors noise prior simulate sparse stimuli)))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-faults test-browser test-parity test-x64 test-types test-python documents \
  docs notebooks durations mutants bench bench-peers fmt lint type audit lock clean

help:
	@echo "make demo         a posterior from a real fMRI recording, with a report"
	@echo "make test         the test suite; test-slow: the long ones, test-x64: in float64, test-browser: in Chromium,"
	@echo "                  test-faults: processes are killed half-way, test-parity: against TVB, Jaxley, norse, snnTorch"
	@echo "make test-python PYTHON=python3.13    a smoke selection under another Python; FLOORS=1: with the oldest packages"
	@echo "make documents    what docstrings and documents show runs; notebooks: the notebooks, in a fast setting"
	@echo "make docs         the site with the reference, in build/site; no network"
	@echo "make durations    tests that took over 5 CPU-seconds in the last run and are not marked slow"
	@echo "make mutants      would the tests notice? 120 small faults in the core files, one at a time"
	@echo "make fmt lint type    format; check format and style; check types"
	@echo "make lock         requirements.lock, one version of everything, written anew from pyproject.toml"
	@echo "make audit        known vulnerabilities of the packages that are installed"
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
	@$(if $(FLOORS),$(BIN)/python .ci/floors.py > $(VENV)/floors.txt)
	@$(PIP) install -e ".[$(EXTRAS)]" $(if $(FLOORS),-c $(VENV)/floors.txt)
	@touch $@

demo: $(READY)
	@$(BIN)/vbinfer demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -q $(PARALLEL) $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-faults: $(READY)
	$(BIN)/python -m pytest -q -m faults $(ARGS)

test-browser: $(READY)
	$(BIN)/python -m pytest -q -m browser $(ARGS)

# in the environment of the benchmarks against other packages, which has tvb-library
PEERS := .venv-peers/bin/python
test-parity: $(READY)
	@cd benchmarks && ../$(BIN)/python -c "import _peers; _peers.environment()"
	@$(PEERS) -m pip --disable-pip-version-check -qq install pytest beartype equinox jaxtyping lazy-loader
	@$(PEERS) -c 'import torch' 2>/dev/null || $(PEERS) -m pip -qq install "torch==2.13.0+cpu" 2>/dev/null \
	  || $(PEERS) -m pip -qq install "torch==2.13.0" --index-url $(TORCH_CPU)
	@$(PEERS) -m pip --disable-pip-version-check -qq install optax h5py
	@$(PEERS) -m pip --disable-pip-version-check -qq install --no-deps nir==1.0.8 nirtorch==2.6 norse==1.1.0 snntorch==1.0.0
	PYTHONPATH=. $(PEERS) -m pytest -q -m parity tests/test_parity_tvb.py tests/test_parity_bridge.py tests/test_parity_jaxley.py tests/test_parity_spiking.py tests/test_host.py $(ARGS)

test-x64: $(READY)
	VBINFER_X64=1 $(BIN)/python -m pytest -q $(PARALLEL) $(X64_TESTS) $(ARGS)

# every module's shapes are checked, not only those where shapes are the subject
test-types: $(READY)
	VBINFER_TYPES=all $(BIN)/python -m pytest -q $(PARALLEL) $(ARGS)

# a smoke selection under another Python, in .venv-3.13 and so on: the newest of everything or, with FLOORS=1, the oldest
# that pyproject.toml allows (torch apart)
OTHER = .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')$(if $(FLOORS),-floors)
test-python:
	@$(MAKE) --no-print-directory setup VENV=$(OTHER) EXTRAS=test
	$(OTHER)/bin/python -m pytest -q -m smoke $(ARGS)

documents: $(READY)
	$(BIN)/python -m pytest -q $(PARALLEL) --doctest-modules -m documents tests/test_documents.py vbinfer $(ARGS)

# the site, into build/site: no network, notebooks as committed
docs: $(READY)
	@$(BIN)/python docs/site.py

durations: $(READY)
	@$(BIN)/python .ci/durations.py $(ARGS)

mutants: $(READY)
	$(BIN)/python .ci/mutants.py $(ARGS)

notebooks: $(READY)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 2 -m "slow or not slow" tests/test_notebooks.py $(ARGS)

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

audit: $(READY)
	@$(BIN)/python .ci/audit.py

# one version of everything, for every system: the network is asked
lock: $(READY)
	@$(BIN)/python .ci/lock.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
