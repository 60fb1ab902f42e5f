# Needs Python 3.11 or newer, make and git; everything else is installed into $(VENV).
# On Linux without a GPU install PyTorch's CPU build first (README, "Install"): it is much smaller.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
OUT ?= build

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv demo test check student notebooks browser bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	  awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

venv: $(VENV)/.dev-ready  ## make $(VENV) with everything for development

demo: $(VENV)/.demo-ready  ## run notebook 01 in a real kernel; pages in build/demo
	$(BIN)/python notebooks/run.py notebooks/01_first_finetune.ipynb --out $(OUT)/demo

test: $(VENV)/.dev-ready  ## run the tests
	$(BIN)/python -m pytest

check: $(VENV)/.dev-ready  ## format, lint, types, who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

student: $(VENV)/.demo-ready  ## rebuild the built-in student's weights (about half an hour)
	$(BIN)/python -m ftmagic.local.student.pretrain --out $(OUT)/student
	@echo "Look at it, then ship it: cp $(OUT)/student/*.json $(OUT)/student/*.safetensors ftmagic/local/student/"

notebooks: $(VENV)/.demo-ready  ## run every notebook from clean
	set -e; for notebook in notebooks/*.ipynb; do \
	  $(BIN)/python notebooks/run.py "$$notebook" \
	    --out "$(OUT)/notebooks/$$(basename "$$notebook" .ipynb)"; \
	done

browser: $(VENV)/.dev-ready  ## drive JupyterLab in Chromium
	$(BIN)/python -m pytest tests/browser -m browser

bench: $(VENV)/.dev-ready  ## run the benchmarks, one JSON line each
	set -e; for script in benchmarks/[a-z]*.py; do $(BIN)/python "$$script"; done

clean:  ## remove what the targets made, but not $(VENV)
	rm -rf $(OUT) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ftmagic tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no python3 found: set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: $(INPUTS) | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[local,notebooks]'
	@touch $@

# Dependency groups need pip 25.1.
$(VENV)/.dev-ready: $(VENV)/.demo-ready
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --quiet --constraint constraints.txt --group dev
	@touch $@
