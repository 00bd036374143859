# SPDX-License-Identifier: Apache-2.0
# Every target does the set-up that it needs; see CONTRIBUTING.md.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
PYTHON ?= python3
BACKEND ?= qemu
BENCH ?=
MUTANTS ?=
# In the order that tests/conftest.py puts them: the long ones first.
PYTEST_FLAGS ?= -n 2 --dist loadgroup --no-loadscope-reorder
# The environment must not decide which packages our Python sees.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 12

.PHONY: setup
setup: ## Install what is missing: Debian packages, .venv, Skopeo with key providers
	@$(PYTHON) tools/setup.py

.PHONY: demo
demo: setup ## Run the guide's main job (EXPLAIN=1 shows the commands, BACKEND=local needs no VM)
	@$(BIN)/python tools/demo.py --backend $(BACKEND) $(if $(filter-out 0,$(EXPLAIN)),--explain)

.PHONY: lint
lint: setup ## Check style, format, types and generated stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/generate_stubs.py --check

.PHONY: format
format: setup ## Rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test
test: lint ## Everything that must pass before a change is merged
	$(BIN)/pytest $(PYTEST_FLAGS)

.PHONY: test-quick
test-quick: setup ## Two minutes: no virtual machines, no databases, no programs of ours as processes
	$(BIN)/pytest $(PYTEST_FLAGS) -m "not vm and not database and not programs and not guide"

.PHONY: mutants
mutants: setup ## Put faults into what trust rests on, and see tests fail (MUTANTS="kbs/session" less of it)
	@$(BIN)/python tools/mutants.py $(MUTANTS)

.PHONY: bench
bench: setup ## Measure, as ratios within one run (BENCH="--quick kbs" less of it, "--json FILE evidence")
	@$(BIN)/python bench/bench.py $(BENCH)

.PHONY: proto
proto: setup ## Make the gRPC stubs from proto/
	$(BIN)/python tools/generate_stubs.py

.PHONY: lock
lock: setup ## Choose new versions of all dependencies and write their hashes
	$(BIN)/python tools/lock.py

.PHONY: clean
clean: ## Remove everything that set-up and tests have made in this folder
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +
