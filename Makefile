# Everything runs from a fresh clone with python3 (3.11 or newer), its venv module and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCE := preprocess train tests

.PHONY: help demo test check format bench clean

help:
	@echo "make demo    install, prepare the built-in images, pretrain on them, fine-tune on few labels, make the report page"
	@echo "make test    install with the development tools, run every test without and with compiled kernels"
	@echo "make check   formatting, lint, types"
	@echo "make format  put the code into the project's format"
	@echo "make bench   measure this machine: preparation and loading beside what others use, training steps"
	@echo "make clean   remove the environment and caches; shards in data_cache stay"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The marks say what an environment holds; pyproject.toml changed means install again.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "Installing (a few minutes, torch is large) …"
	$(PIP) install --editable '.[prep,train,report]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing (a few minutes, torch is large) …"
	$(PIP) install --editable '.[all]'
	@touch $@ $(VENV)/.run

# A second call goes on, or finds everything done. docs/training.md says why Lab, and why this layer.
DEMO := $(BIN)/sbtrain finetune --run runs/demo --shards data_cache --samples-per-class 1,4,16 \
	--layer conv4 --pool 1 --head ridge --compare

demo: $(VENV)/.run
	$(BIN)/sbprep build --colorspace rgb --colorspace lab --colorspace rescaled_lab
	$(BIN)/sbprep verify data_cache
	$(BIN)/sbprep inspect data_cache --sheet data_cache/sheet.png
	$(BIN)/sbtrain pretrain --shards data_cache --colorspace lab --preset modern/simplenet --batch-size 32 \
		--run-dir runs/demo
	$(DEMO) --draws 20 --freeze
	$(DEMO) --draws 3 --min-steps 60
	$(BIN)/sbtrain probe --run runs/demo --shards data_cache
	$(BIN)/sbtrain features --run runs/demo --shards data_cache --split val --layer conv4 --pool 1
	$(BIN)/sbtrain reconstruct --run runs/demo --shards data_cache
	$(BIN)/sbtrain report runs/demo --out runs/demo/report.html

# Without the JIT coverage sees the bodies of the kernels; with it the compiled code is put to the same tests.
# The trainer has no kernels of Numba, and clusters run the same ones: once is enough.
# One thread a process: tests start several, and threads of torch that wait for a core are many times slower than one.
# Files go to two workers: much of the time is waiting, for Slurm, Ray and processes that start.
TEST := $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --cov

test: export OMP_NUM_THREADS := 1
test: $(VENV)/.dev
	NUMBA_DISABLE_JIT=1 $(TEST) --cov-report= --ignore=tests/sbtrain --ignore=tests/cluster \
		--ignore=tests/sbprep/test_dask.py --ignore=tests/sbprep/test_ray.py
	$(TEST) --cov-append --cov-fail-under=93 --doctest-modules tests preprocess train

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCE)
	$(BIN)/ruff check $(SOURCE)
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCE)
	$(BIN)/ruff check --fix $(SOURCE)

# MosaicML Streaming wants an older NumPy, so it gets an environment of its own.
PEERS := $(VENV)/peers

$(PEERS)/.done: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(PEERS)
	@echo "Installing (a few minutes, torch is large) …"
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[train,peers]' pillow scikit-image
	@touch $@

bench: $(VENV)/.dev $(PEERS)/.done
	$(BIN)/sbprep bench
	$(PEERS)/bin/sbtrain bench

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage
