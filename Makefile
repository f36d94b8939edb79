# The one door. `make` alone lists what there is; CI calls the same targets (.ci/run).
#
#   PYTHON=…   the Python 3.11 that .venv is made with (default: python3.11 on the PATH)
#   TESTS=…    what `make test` hands to pytest, for example TESTS="tests/test_readers.py -k acts"

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
TESTS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo lab test lint bench

help:  ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

install: $(INSTALLED)  ## make .venv with everything in it, at the versions of constraints.txt

# torch comes first and alone: it is by far the largest, and its pin picks the build.
# repo2docker renders binder/ in a test; it builds environments and so is part of none.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 is missing ($(PYTHON)): install it, or name one: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then \
	    export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install --no-install-recommends -y python3.11-venv; \
	  else echo "Python's venv is missing: sudo apt-get install python3.11-venv" >&2; exit 1; fi; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "installing the packages of constraints.txt into .venv: some minutes the first time"
	@$(BIN)/python -m pip install -c constraints.txt torch | sed '/^Requirement already satisfied/d'
	@$(BIN)/python -m pip install -c constraints.txt -e '.[physics,dev]' jupyter-repo2docker | sed '/^Requirement already satisfied/d'
	@$(BIN)/python -m pip check
	@touch $@

demo: install  ## run the tour notebook here, at most 10 minutes on two cores
	@$(BIN)/sml run notebooks/00_tour.ipynb -p site=laptop --folder runs/demo-$$(date +%Y%m%d-%H%M%S)

lab: install  ## open JupyterLab on the notebooks, reachable from this machine only
	@$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 notebooks

# A Slurm that runs already is used and left running.
test: install  ## all tests; as root on Debian against a real Slurm, which is started and stopped
	@slurm=tests/slurm/slurm.sh; \
	if $$slurm status >/dev/null 2>&1; then echo "tests use the Slurm that runs here"; \
	elif [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then \
	  trap '$$slurm stop' EXIT; \
	  $$slurm start || { echo "Slurm did not start: its tests fail under CI=true, and skip elsewhere" >&2; }; \
	else echo "no Slurm here: its tests skip; as root on Debian $$slurm start makes one" >&2; fi; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS)

lint: install  ## ruff (check and format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: install  ## side-by-side ratios: the network, gangs, one rank against two, stacks; on a quiet machine
	@$(BIN)/python benchmarks/gnn.py
	@$(BIN)/python benchmarks/gangs.py
	@$(BIN)/python benchmarks/ranks.py --folder runs/ranks-$$(date +%Y%m%d-%H%M%S)
	@$(BIN)/python benchmarks/ensembles.py --threads 2

# The package's own line would be looked for in binder/; binder/postBuild installs it instead.
binder/environment.yml: environment.yml
	@{ echo "# Made from ../environment.yml by: make binder/environment.yml"; \
	  sed '/^#/d; /- -e \.$$/d' $<; } > $@
