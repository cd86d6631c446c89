# Every target sets itself up: Python >= 3.11, make and a package index are enough.
#   make demo PYTHON=python3.12      another interpreter
#   make test VENV=/somewhere/else   another place for the environment
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.crossfake-ready
PYTHON ?=

.PHONY: help setup demo test test-slow lint bench docs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 18

setup: $(READY) ## only make the environment in .venv

demo: $(READY) ## the whole loop on drawn faces, ending with an HTML report
	$(BIN)/crossfake demo

# Folder by folder: what tests share is made in one go, and the small files at the end leave no core idle. Tests start
# many processes: they read what others compiled, also where the shell says not to write it.
test: $(READY) ## the tests, without the slow ones
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## the tests that take minutes
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m slow

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## speed of shards, generation and detection on this machine
	$(BIN)/python benchmarks/bench.py

docs: $(READY) ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open build/site/index.html, or, for search as well: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

# The stamp is younger than setup.cfg and constraints.txt, or the environment is brought up to date.
$(READY): setup.cfg constraints.txt pyproject.toml
	@set -e; if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "crossfake needs Python 3.11 or newer and $(if $(PYTHON),$(PYTHON) is not one,found none on the PATH): install it, or name it with PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	  echo "making $(VENV) with $$("$$found" --version)"; \
	  "$$found" -m venv $(VENV) || { echo "$$found cannot make virtual environments: install its venv module (python3-venv on Debian and Ubuntu), or name another with PYTHON=" >&2; exit 1; }; \
	fi
	@echo "installing crossfake and what it needs into $(VENV) (the first time PyTorch is a large download)"
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
