# Stepwell: the commands of the house. `make` alone lists them.
# Needs git, make and Python 3.11 or newer with venv; everything else is fetched into .tools and .venv.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
RUN := .venv/bin/python
# More than the cores: much of the time goes by waiting for children and browsers.
PROCESSES ?= 3

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.stamp ## install everything into .venv, with the command .venv/bin/stepwell

.PHONY: demo
demo: setup ## start Stepwell with a sample shop and send an order through it
	@exec .venv/bin/stepwell demo

.PHONY: test
test: setup ## run the tests, about ten minutes on two cores
	@$(RUN) -m pytest -q -n $(PROCESSES) --dist loadgroup

.PHONY: test-all
test-all: setup ## run the tests in full size, chaos included
	@STEPWELL_TEST_SIZE=full $(RUN) -m pytest -q -n $(PROCESSES) --dist loadgroup --timeout 1800

.PHONY: check
check: setup ## check format, lint, types and import contracts
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports --no-logo
	@if [ -f Dockerfile ]; then .venv/bin/hadolint Dockerfile; fi

.PHONY: fmt
fmt: setup ## format the code and mend what can be mended
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

.PHONY: bench
bench: setup ## measure latencies and saturation (make bench ARGS="--against URL")
	@$(RUN) -m bench $(ARGS)

.PHONY: chaos
chaos: setup ## strike a running Stepwell and check that nothing is lost (make chaos SEED=7 MINUTES=5 JSON=result.json)
	@$(RUN) -m tests.chaos.storm $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),5) $(if $(JSON),--json $(JSON))

.PHONY: machines
machines: setup ## measure one and two worker machines, then cut one off and kill one (Linux, network namespaces)
	@$(RUN) -m tests.chaos.machines $(if $(JSON),--json $(JSON))

.PHONY: lock
lock: $(if $(findstring .tools,$(UV)),.tools/bin/uv) ## pin all dependencies anew, with hashes and without addresses
	@$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		pyproject.toml -o requirements.txt
	@$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		pyproject.toml --group dev -o requirements-dev.txt

# What a fresh machine may lack is said before anything fails in the middle.
.PHONY: .prerequisites
.prerequisites:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Stepwell needs Python 3.11 or newer as '$(PYTHON)' (or: make PYTHON=python3.12 setup)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

.tools/bin/uv: | .prerequisites
	@echo "Fetching the installer …"
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install -q --disable-pip-version-check "uv==$(UV_VERSION)"

.venv/.stamp: pyproject.toml requirements-dev.txt $(wildcard sdk/pyproject.toml) $(if $(findstring .tools,$(UV)),.tools/bin/uv) | .prerequisites
	@echo "Installing Stepwell into .venv …"
	@test -x $(RUN) || $(UV) venv -q --python "$$(command -v $(PYTHON))" .venv
	@$(UV) pip sync -q --python $(RUN) --require-hashes requirements-dev.txt
	@$(UV) pip install -q --python $(RUN) --no-deps -e . $(if $(wildcard sdk/pyproject.toml),-e sdk)
	@touch $@
