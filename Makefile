# Every target makes, or reuses, .venv by itself. On Linux without a GPU, PIP_EXTRA_INDEX_URL may name PyTorch's
# index of CPU builds, which are a tenth of the size.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= unscan-demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench foreign-envs clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unscan needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]' --config-settings editable_mode=strict
	@touch $@

demo: .venv/installed ## train, compile, export, simulate and verify on digits
	$(BIN)/unscan demo --out $(DEMO)

test: .venv/installed ## the tests, the tiny one first
	$(BIN)/pytest -q tests/test_tiny.py
	$(BIN)/pytest -q --deselect tests/test_tiny.py

test-all: .venv/installed foreign-envs ## the slow tests too, and other frameworks in environments of their own
	$(BIN)/pytest -q -m "slow or not slow"

foreign-envs: .venv/installed
	$(BIN)/python tests/foreign/environments.py

check: .venv/installed ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy reads the link tree of the strict editable install, which must know every file.
	@$(BIN)/pip install -q -e . --no-deps --config-settings editable_mode=strict
	$(BIN)/mypy

format: .venv/installed ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed ## the measured comparisons with named peers
	$(BIN)/pip install -q --no-deps snntorch==1.0.0
	for name in neurons training state_space memory_scan delta_rule memory inference; do $(BIN)/unscan bench $$name || exit 1; done

clean: ## remove what the other targets made
	rm -rf .venv .envs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis unscan-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
