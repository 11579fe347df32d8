# Everything runs from .venv, made from the pinned requirements.txt with uv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
# Compiled once here, not by every process that starts: where PYTHONDONTWRITEBYTECODE is set, `import torch` takes half.
INSTALL := $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python
CONFIG ?= configs/digits.yaml
ARGS ?=

.PHONY: help setup train test bench lint types contracts docs format lock clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed  ## make .venv with the pinned requirements

# uv trusts a list of authorities of its own; behind a company's proxy the machine's list is the right one.
# torch and torchvision must match: a mismatch shows at import only, so it is tried here.
$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zskt-dist needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	for system in false true; do \
		export UV_SYSTEM_CERTS=$$system; \
		$(INSTALL) -r requirements.txt && $(INSTALL) --no-deps --editable . && break; \
	done
	$(BIN)/python -c 'import torch, torchvision; print("torch", torch.__version__, "torchvision", torchvision.__version__)'
	touch $@

train: setup  ## the main job: CONFIG=configs/digits.yaml ARGS='dotted.key=value …'
	$(BIN)/python -m zskt_dist.train --config $(CONFIG) $(ARGS)

test: lint types contracts docs  ## everything CI checks
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# At sizes that end in about 15 minutes on two quiet cores; benchmarks/README.md has those of the published figures.
BENCH := $(BIN)/python -m benchmarks
bench: setup  ## measure the benchmarks' claims; the numbers are in runs/benchmarks/
	$(BENCH).iteration --repetitions 2 --json runs/benchmarks/iteration.json
	$(BENCH).data_parallel --iterations 1 --json runs/benchmarks/data_parallel.json
	$(BENCH).overhead --repetitions 3 --json runs/benchmarks/overhead.json
	$(BENCH).scaling --repetitions 2 --json runs/benchmarks/scaling.json --figure runs/benchmarks/scaling.png
	$(BENCH).startup --repetitions 2 --json runs/benchmarks/startup.json
	$(BENCH).transitions --images 40 --sample 1 --repetitions 2 --json runs/benchmarks/transitions.json

lint: setup  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

contracts: setup  ## who may import whom
	$(BIN)/lint-imports

docs: setup  ## the site with the API reference, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: setup  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## pin the requirements anew (no index address in the file)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra all --extra dev --extra docs \
		--no-emit-index-url --custom-compile-command "make lock" -o requirements.txt pyproject.toml

clean:  ## remove the environment and caches (runs/ stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
