# smearlink: every command that a newcomer, a developer and CI need.
#   make demo             a phantom smear through the whole service, into demo-output/
#   make demo DATA=folder the same with your own JPG, PNG, BMP, TIFF or DICOM files
#   make demo STAY=1      the same, and the console stays up to look at it in a browser
#   make test             the tests that need nothing but Python

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.9
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := .venv/bin
# One more than the two cores for which it is meant: some tests wait for peers.
WORKERS ?= 3
KILLS ?= 200

# What was compiled is kept, whatever the environment says: tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test test-training test-all coverage check test-peers chaos fuzz siege benchmarks release

help:
	@sed -n 's/^#   //p' Makefile
	@echo "make install | check | coverage | test-all | test-training | test-peers | chaos KILLS=200 | benchmarks | release"

# --- the environment, exactly as locked

install: .venv/.locked

.venv/.locked: uv.lock pyproject.toml $(UV)
	$(UV) sync --frozen --quiet
	@touch $@

.uv/bin/uv:
	@echo "uv is not installed: putting it into .uv"
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet "uv>=$(UV_VERSION)"

# --- for people

demo: install
	$(RUN)/smearlink demo --out demo-output $(if $(DATA),--data "$(DATA)") $(if $(STAY),--stay)

# --- for developers and CI

# What needs nothing but Python and some minutes.
QUICK := not peers and not chaos and not siege and not fuzz
COVERAGE ?=
test: install
	$(RUN)/python -m pytest -n $(WORKERS) --dist worksteal -m "$(QUICK)" \
	  $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

check: install
	$(UV) lock --check
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/deptry .
	$(RUN)/codespell

# The tests of training, in an environment of its own: torch is never put beside the service.
test-training: .train/.installed
	.train/bin/python -m pytest -q tests/models/training

.train/.installed: models/training/requirements.txt
	$(PYTHON) -m venv .train
	.train/bin/pip install --quiet -r models/training/requirements.txt
	@touch $@

test-peers: install
	bash tests/install_peers.sh
	$(RUN)/python -m pytest -m peers

# The tests with branch coverage of the five packages without training; fails under the floor in
# pyproject.toml.
coverage:
	$(MAKE) test COVERAGE=1

# Every Python that the project supports, each in an environment of its own.
PYTHONS ?= 3.11 3.12 3.13
test-all: $(UV)
	@for version in $(PYTHONS); do \
	  echo "== Python $$version"; \
	  UV_PROJECT_ENVIRONMENT=.venv-$$version $(UV) sync --frozen --quiet --python $$version \
	    && .venv-$$version/bin/python -m pytest -q -n $(WORKERS) --dist worksteal -m "$(QUICK)" \
	    || exit 1; \
	done

# Wheel, source archive and SBOM in dist/; the wheel is installed into an empty environment and runs its demonstration there.
release: install
	bash tests/release.sh

chaos: install
	$(RUN)/python -m pytest -s -m chaos --kills $(KILLS) tests/acceptance

# Bounded, seeded changes of whatever comes from outside; the default takes about a minute.
CASES ?= 1000
SEED ?= 1
fuzz: install
	FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) $(RUN)/python -m pytest -q -n $(WORKERS) -m fuzz tests/fuzz

# Silence, drips, bombs and a full disk; SOCKETS=4000 is the whole of it.
SOCKETS ?= 300
siege: install
	SIEGE_SOCKETS=$(SOCKETS) $(RUN)/python -m pytest -s -m siege tests/siege

# Under ten minutes on two cores; each can be run alone with more: see docs/performance.md.
benchmarks: install
	@echo "== the service beside the bare analysis"; $(RUN)/python -m tests.benchmarks.bench_end_to_end --images 64 --large 4 $(if $(FIELDS),--data $(FIELDS))
	@echo "== receiving"; $(RUN)/python -m tests.benchmarks.bench_receive --quick
	@echo "== the queue"; $(RUN)/python -m tests.benchmarks.bench_queue --waiting 100 100000 --rounds 100 --trials 1
	@echo "== reports"; $(RUN)/python -m tests.benchmarks.bench_report
	@echo "== a review"; $(RUN)/python -m tests.benchmarks.bench_review --acts 40
	@echo "== the console"; $(RUN)/python -m tests.benchmarks.bench_console --events 200000
	@echo "== hospitals"; $(RUN)/python -m tests.benchmarks.simulate_hospitals
