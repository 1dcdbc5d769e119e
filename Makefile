# smearlink: every command that a newcomer, a developer and CI need.
#   make demo             a phantom smear through the whole service, into demo-output/
#   make demo DATA=folder the same with your own JPG, PNG, BMP, TIFF or DICOM files
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

.PHONY: help install demo test check test-peers chaos benchmarks

help:
	@sed -n 's/^#   //p' Makefile
	@echo "make install | check | test-peers | chaos KILLS=200 | benchmarks"

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
	$(RUN)/smearlink demo --out demo-output $(if $(DATA),--data "$(DATA)")

# --- for developers and CI

test: install
	$(RUN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not peers and not chaos"

check: install
	$(UV) lock --check
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

test-peers: install
	bash tests/install_peers.sh
	$(RUN)/python -m pytest -m peers

chaos: install
	$(RUN)/python -m pytest -s -m chaos --kills $(KILLS) tests/acceptance

benchmarks: install
	@for bench in tests/benchmarks/bench_*.py; do echo "== $$bench"; $(RUN)/python "$$bench"; done
