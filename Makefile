# Two commands: `make demo` shows what the engine does, `make test` checks it. Both set up the environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
# RUN=python3 names an interpreter that has the packages already, as on a machine without a network. Nothing is installed then.
RUN ?=
# Of soak and fuzz: how long, and SAVE=1 to keep the figures; of fuzz: which parsers, how many files for each, and the seed of the damage.
MINUTES ?=
SAVE ?=
PARSER ?=
INPUTS ?=
SEED ?=
ifeq ($(RUN),)
PY := $(BIN)/python
INSTALLED := $(BIN)/.installed
INSTALLED_TEST := $(BIN)/.installed-test
INSTALLED_BENCH := $(BIN)/.installed-bench
INSTALLED_DOCS := $(BIN)/.installed-docs
else
PY := $(RUN)
endif
# pillow-simd takes the place of Pillow wherever it is installed, so it has a folder of its own.
SIMD := build/simd
# One line where an interpreter that was given lacks a package.
NEEDS_PACKAGES := $(PY) -c 'import sys; from importlib.util import find_spec; \
	lacks = ", ".join(name for name in ("click", "jaxtyping", "numpy", "psutil", "torch", "tqdm") if not find_spec(name)); \
	lacks and sys.exit(f"$(PY) has no {lacks}")'
NEEDS_CUDA := $(PY) -c 'import sys, torch; \
	torch.cuda.is_available() or sys.exit("no CUDA device: torch sees none, and this needs one")'

# As many tests at once as there are cores.
PARALLEL := -n auto --dist worksteal --durations 10

.PHONY: help demo docs test test-slow test-oldest test-gpu fuzz lint bench soak gpu-proof clean

help:
	@echo "make demo       environment, a rendered street, training, evaluation, pictures (a few minutes on 2 cores)"
	@echo "make test       environment, formatting, lint, types, layers, tests"
	@echo "make test-slow  the tests that are slow by nature: whole trainings, kernels in an interpreter, compilers"
	@echo "make test-oldest  the tests that depend on packages, with the oldest release of each that setup.py allows; PYTHON=python3.10 names the oldest Python"
	@echo "make lint       the checks alone"
	@echo "make bench      loader, start, traffic, memory, step, training (by one process and two, on a busy machine), evaluation, prediction against plain ones, on this machine's CPU; fills the tables of README and docs"
	@echo "make soak       an hour of training on the demo, watched: memory, handles, threads, pace, logs; MINUTES=5 is shorter, SAVE=1 keeps its table"
	@echo "make docs       the pages of docs/ and of the Python API as a site, in build/site"
	@echo "make test-gpu   the tests that need a GPU"
	@echo "make gpu-proof  tests and benchmarks of a GPU in 9 minutes, on one page; without a GPU a rehearsal at small sizes"
	@echo "make fuzz       damaged files for every parser, for MINUTES=10; PARSER=name, INPUTS=100000 each, SEED=0"
	@echo "make clean      remove the environment and the runs"
	@echo "With RUN=python3 (any interpreter that has the packages) nothing is installed: for a machine without a network."

$(BIN)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(BIN)/.installed-docs: setup.py $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(BIN)/.installed-test: setup.py $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: $(INSTALLED)
	$(PY) -m benchmarks.demo --out $(RUNS)/demo

# The switch is of mkdocs-material's: no word about versions to come.
docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "build/site/index.html"

test: lint
	$(PY) -m pytest $(PARALLEL) -m "not slow"

test-slow: $(INSTALLED_TEST)
	$(PY) -m pytest $(PARALLEL) -m slow

lint: $(BIN)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Each package at its lower bound in setup.py, in an environment of its own. What checks texts, pages and styles depends on no package.
OLDEST := build/oldest
OLDEST_TESTS := tests/splits tests/dataload tests/engine tests/export tests/project/test_packaging.py tests/project/test_oldest.py

$(OLDEST)/.installed: setup.py tests/support/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python tests/support/oldest.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	@touch $@

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest $(PARALLEL) -m "not slow" $(OLDEST_TESTS)

test-gpu: $(INSTALLED_TEST)
	@$(NEEDS_PACKAGES)
	@$(NEEDS_CUDA)
	$(PY) -m pytest -m gpu $$(grep -rl --include='test_*.py' 'mark\.gpu' tests)

$(BIN)/.installed-bench: setup.py $(BIN)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,bench]'
	@touch $@

$(SIMD)/PIL: | $(INSTALLED_BENCH)
	@CC="cc -mavx2" $(PY) -m pip install --quiet --disable-pip-version-check --target $(SIMD) --no-deps pillow-simd \
		|| echo "pillow-simd cannot be installed here (it is compiled: a C compiler, libjpeg's and zlib's headers, a processor with AVX2)"

bench: $(INSTALLED_BENCH) $(if $(RUN),,$(SIMD)/PIL)
	$(PY) -m benchmarks.bench_loader --simd $(SIMD) --save
	$(PY) -m benchmarks.bench_startup --save
	$(PY) -m benchmarks.bench_traffic --save
	$(PY) -m benchmarks.bench_memory --save
	$(PY) -m benchmarks.bench_step --save
	$(PY) -m benchmarks.bench_train --save
	$(PY) -m benchmarks.bench_busy --save
	$(PY) -m benchmarks.bench_scaling --no_cuda --save
	$(PY) -m benchmarks.bench_eval --save
	$(PY) -m benchmarks.bench_inference --save
	$(PY) -m benchmarks.bench_models --save
	$(PY) -m benchmarks.table

soak: $(INSTALLED_TEST)
	@$(NEEDS_PACKAGES)
	$(PY) -m benchmarks.soak --minutes $(or $(MINUTES),60) $(if $(SAVE),--save)
	$(if $(SAVE),$(PY) -m benchmarks.table)

# OUT=folder takes the results elsewhere than to benchmarks/results, as from a machine whose files must be copied back. BUDGET is in seconds.
# PARTS="step inference" runs these alone.
gpu-proof: $(INSTALLED_TEST)
	@$(NEEDS_PACKAGES)
	$(PY) -m benchmarks.gpu_proof $(if $(OUT),--out "$(OUT)") $(if $(BUDGET),--budget $(BUDGET)) $(if $(PARTS),--parts "$(PARTS)")

# What breaks a parser lies in build/fuzz/<parser>, and make ends with an error. SAVE=1 keeps the counts in benchmarks/results.
fuzz: $(INSTALLED_TEST)
	PYTHONPATH=tests/support:. OMP_NUM_THREADS=1 $(PY) tests/fuzz/run.py --minutes $(or $(MINUTES),10) $(if $(PARSER),--parser $(PARSER)) \
		$(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED)) $(if $(SAVE),--save)

clean:
	rm -rf $(VENV) $(RUNS) build dist *.egg-info
