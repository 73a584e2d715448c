# Every target makes, or reuses, .venv by itself. On Linux without a GPU, PIP_EXTRA_INDEX_URL may name PyTorch's
# index of CPU builds, which are a tenth of the size.

PYTHON ?= python3
BIN := .venv/bin
DEMO ?= unscan-demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format bench foreign-envs lava-env nir-matrix clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unscan needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]' --config-settings editable_mode=strict
	@# norse asks for torchvision, too, which may belong to another build of torch and which no test needs.
	$(BIN)/pip install -q -c constraints.txt --no-deps norse nirtorch
	@touch $@

demo: .venv/installed ## train, compile, export, simulate and verify on digits
	$(BIN)/unscan demo --out $(DEMO)

test: .venv/installed lava-env ## the tests, the tiny one first
	$(BIN)/pytest -q tests/test_tiny.py
	$(BIN)/pytest -q --deselect tests/test_tiny.py

test-all: .venv/installed lava-env foreign-envs ## the slow tests too, and other frameworks in environments of their own
	$(BIN)/pytest -q -m "slow or not slow"

foreign-envs: .venv/installed ## environments of other frameworks; needs node and npm for onnxruntime-web
	$(BIN)/python tests/foreign/environments.py
	$(BIN)/python tests/foreign/onnx_web.py

lava-env: .lava-venv/unscan-requirements.txt ## Lava, which runs in an environment of its own

.lava-venv/unscan-requirements.txt: runtime/lava/requirements.txt .venv/installed
	$(BIN)/unscan lava install
	@touch $@

nir-matrix: .venv/installed foreign-envs ## write the tables of docs/nir.md from a run in every framework
	$(BIN)/python -m tests.foreign.nir_matrix

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
	for name in neurons training state_space memory_scan delta_rule memory memory_inference inference c_inference convolution stream activity sparse_fan_out gather density counting; do $(BIN)/unscan bench $$name || exit 1; done

clean: ## remove what the other targets made
	rm -rf .venv .lava-venv .envs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis unscan-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
