.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than cores, since some tests wait for watchdogs and other processes.
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))')
# One set of pins serves 3.11; newer interpreters resolve newer releases of jax and flax.
PINS := constraints/$(shell $(PYTHON) -c 'import sys; print("py311" if sys.version_info < (3, 12) else "py312")').txt

.PHONY: help train test lint docs docs-serve wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(VENV)/.run-ready ## set up .venv and train the TAL1 model (configs/tal1.py)
	$(BIN)/jaxdna train --config=configs/tal1.py

test: $(VENV)/.dev-ready lint ## set up .venv, then lint, types and the whole suite
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/.dev-ready ## ruff (lint and format), mypy, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(VENV)/.dev-ready ## build the site into site/ (`make docs-serve` shows it while you write)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.dev-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

wheel: $(VENV)/.dev-ready ## build the wheel and the sdist into dist/
	$(BIN)/python -m build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "jaxdna needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: $(BIN)/python pyproject.toml $(PINS)
	@echo "installing jaxdna with jax, flax and what they need into $(VENV), as $(PINS) pins them: about a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) -e .
	@touch $@

$(VENV)/.dev-ready: $(BIN)/python pyproject.toml $(PINS)
	@echo "installing jaxdna with what tests and docs need into $(VENV), as $(PINS) pins them: some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) -e '.[dev]'
	@touch $@ $(VENV)/.run-ready

clean: ## remove the environment and caches (run folders stay)
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
