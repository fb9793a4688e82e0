# make env    the environment: a virtual environment with every version of requirements.lock
# make demo   environment, data, all training stages and one streamed video, on a CPU; then the character that ships speaks
# make train PRESET=NAME ARGS='key=value ...'   a preset's whole chain in the background; again to go on with it
# make test   the tests (what CI runs); make test-all adds the slow ones and goes on where it was cut off
# STREAMCHAR_VENV=DIR puts the environment elsewhere, STREAMCHAR_PYTHON=python3.12 chooses the interpreter.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

STREAMCHAR_VENV ?= .venv
STREAMCHAR_PYTHON ?= python3
VENV := $(abspath $(STREAMCHAR_VENV))
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
LOCK_HASH := $(shell sha256sum requirements.lock | cut -c1-64)
PROJECT_HASH := $(shell { pwd; cat pyproject.toml; } | sha256sum | cut -c1-64)
EXTRAS := --extra train --extra eval --extra puppet --extra lyra --extra diffusers --extra dev

.PHONY: help env demo train test test-all lint lock clean

help:
	@sed -n '1,5s/^# //p' Makefile

# Two stamps: the packages depend on the lock alone, the project's own (editable) install on this checkout.
env:
	@if [ "$$(cat $(VENV)/.lock 2>/dev/null)" != "$(LOCK_HASH)" ]; then \
	  [ -x $(PY) ] || $(STREAMCHAR_PYTHON) -m venv $(VENV); \
	  [ -x $(UV) ] || $(PY) -m pip install --quiet uv==0.13.9; \
	  echo "installing requirements.lock into $(VENV) (some GB at the first time)"; \
	  $(UV) pip install --quiet --compile-bytecode --python $(PY) -r requirements.lock; \
	  echo $(LOCK_HASH) > $(VENV)/.lock; \
	fi
	@if [ "$$(cat $(VENV)/.project 2>/dev/null)" != "$(PROJECT_HASH)" ]; then \
	  $(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .; \
	  echo $(PROJECT_HASH) > $(VENV)/.project; \
	fi

demo: env
	$(PY) pipelines/run.py stage=all preset=demo name=demo
	$(PY) pipelines/run.py stage=stream model=puppet root=runs

# A chain that outlives the terminal: complete stages are skipped and a stage that was cut off goes on, so say it again.
train: env
	@: "$${PRESET:?make train PRESET=grid ARGS='data.shards=FOLDER'}"; mkdir -p runs
	@setsid nohup $(PY) pipelines/run.py stage=all preset=$(PRESET) $(ARGS) >> runs/$(PRESET).log 2>&1 < /dev/null & \
	  echo "process $$!, log runs/$(PRESET).log"

test: env
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "not slow" -n 2 --dist loadscope

test-all: env
	$(PY) -m pytest -q --resume

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/shellcheck -x slurm/*.sbatch slurm/*.sh .ci/run

# Resolve anew within pyproject.toml's ranges, keeping today's versions where they still fit.
lock: env
	{ sed -n 1p requirements.lock; \
	  $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	    $(EXTRAS) -c <(grep -v -e '^#' requirements.lock) pyproject.toml; } > requirements.lock.part
	mv requirements.lock.part requirements.lock

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
