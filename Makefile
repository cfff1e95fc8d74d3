# `make help` lists what there is. Every target sets up what it needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := libs services tests

.PHONY: help demo up test lint types check format bench lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Run a Claude and a Cursor task on a stack of its own, show logs and diffs, stop everything
	@$(BIN)/codefleet demo

up: $(INSTALLED) ## Start a stack for use: MongoDB, Redis and all services, data in .codefleet
	@$(BIN)/codefleet up

test: $(INSTALLED) ## Run the whole test suite, in parallel
	$(BIN)/pytest -n auto --dist worksteal

lint: $(INSTALLED) ## Check style and format
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(INSTALLED) ## Check types
	$(BIN)/mypy

check: lint types ## Everything that needs no server

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(INSTALLED) ## Measure, beside the peers; writes docs/benchmarks.md and .json
	$(BIN)/python -m tests.bench

lock: $(INSTALLED) ## Resolve pyproject.toml anew into requirements.lock
	$(BIN)/pip install -q uv==0.13.9
	$(BIN)/uv pip compile -q --universal --no-emit-index-url --no-annotate --no-header --all-extras pyproject.toml -o requirements.lock

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml requirements.lock
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/pip install -q --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $@
