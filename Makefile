# Everything runs from a fresh clone with python3 (3.11 or newer), its venv module and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCE := preprocess train tests

.PHONY: help demo test check format bench clean

help:
	@echo "make demo    install, build the built-in image set in three color spaces, verify it, draw contact sheets"
	@echo "make test    install with the development tools, run every test without and with compiled kernels"
	@echo "make check   formatting, lint, types"
	@echo "make format  put the code into the project's format"
	@echo "make bench   measure this machine beside scikit-image, OpenCV and the published pipeline"
	@echo "make clean   remove the environment and caches; shards in data_cache stay"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The marks say what an environment holds; pyproject.toml changed means install again.
$(VENV)/.prep: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[prep]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[prep,train,dev]'
	@touch $@ $(VENV)/.prep

demo: $(VENV)/.prep
	$(BIN)/sbprep build --colorspace rgb --colorspace lab --colorspace rescaled_lab
	$(BIN)/sbprep verify data_cache
	$(BIN)/sbprep inspect data_cache --sheet data_cache/sheet.png

# Without the JIT coverage sees the bodies of the kernels; with it the compiled code is put to the same tests.
# The trainer has no kernels of Numba: once is enough.
test: $(VENV)/.dev
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q --cov --cov-report= --ignore=tests/sbtrain
	$(BIN)/python -m pytest -q --cov --cov-append --cov-fail-under=95 --doctest-modules tests preprocess train

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCE)
	$(BIN)/ruff check $(SOURCE)
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCE)
	$(BIN)/ruff check --fix $(SOURCE)

bench: $(VENV)/.dev
	$(BIN)/sbprep bench

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage
