# Two commands: `make demo` shows what the engine does, `make test` checks it. Both set up the environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs

.PHONY: help demo test lint bench clean

help:
	@echo "make demo   environment, a rendered street, training, evaluation, pictures (about 10 minutes on 2 cores)"
	@echo "make test   environment, formatting, lint, types, layers, tests"
	@echo "make lint   the checks alone"
	@echo "make bench  loader, step and evaluation against plain ones, on this machine"
	@echo "make clean  remove the environment and the runs"

$(BIN)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(BIN)/.installed-test: setup.py $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(BIN)/.installed
	$(BIN)/python -m benchmarks.demo --out $(RUNS)/demo

test: lint
	$(BIN)/python -m pytest

lint: $(BIN)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/.installed-bench: setup.py $(BIN)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@

bench: $(BIN)/.installed-bench
	$(BIN)/python -m benchmarks.bench_loader --save
	$(BIN)/python -m benchmarks.bench_step --save
	$(BIN)/python -m benchmarks.bench_eval --save
	$(BIN)/python -m benchmarks.table

clean:
	rm -rf $(VENV) $(RUNS) build dist *.egg-info
