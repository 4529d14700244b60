# make install | test | demo set everything up in .venv; a second call starts at once.

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LINK := .typing/sensorium
# Two of some 50 starts of two gloo processes aborted so, cause unknown; nothing else runs again.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal \
	--reruns 2 --only-rerun "terminate called without an active exception"

# Where it is set, as in many images, each process compiles the package and the tests anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install lint quick slow test coverage docs demo clean

help:
	@echo "make install  .venv with the pinned versions of constraints.txt (PYTHON=$(PYTHON))"
	@echo "make demo     pictures, volumes, speech and a robot on one decoder; writes runs/demo/report.html"
	@echo "              DEMO=quick make demo shows a small part of it"
	@echo "make test     lint, types, and every test that needs neither network nor accelerator"
	@echo "make quick    the tests that take no more than seconds, on JOBS=$(JOBS) processes"
	@echo "make coverage  classes of decoders and encoders, step by step; writes docs/coverage.md"
	@echo "make docs     the site, into docs/_build/html; warnings are errors"
	@echo "make lint     ruff and mypy alone"
	@echo "make clean    what builds and tools left behind; keeps .venv and runs/"

install: $(STAMP) $(LINK)

# setuptools and wheel first: an isolated build would fetch others than the pinned ones.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: there is no $(PYTHON); install Python 3.11 or newer, or name one:" \
			"make $(or $(MAKECMDGOALS),install) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import platform, sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"error: $(PYTHON) is Python " + platform.python_version() + ", Sensorium needs 3.11 or newer;" \
		" name one: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[dev,docs,retrieval,milvus,objects,ray,slurm,quantize,onnx,serve,audio,talker,control,video,mri,itk,series,generate]'
	@touch $@

# The checkout's folder may have any name: this link gives mypy the package's own.
$(LINK):
	@mkdir -p $(@D)
	@ln -sfn .. $@

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPYPATH=.typing $(BIN)/mypy -p sensorium

quick: install
	$(PYTEST) -m "not slow and not hub and not gpu"

slow: install
	$(PYTEST) -m "slow and not hub and not gpu"

# One after the other, the fast ones first, also under `make -j`.
test: install
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory quick
	@$(MAKE) --no-print-directory slow

# Rows with a result in runs/coverage.jsonl are kept; COVERAGE="--rerun all" runs all of them again.
coverage: install
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m sensorium.scripts.coverage \
		--jobs $(JOBS) --page docs/coverage.md $(COVERAGE)

# Offline: every page is here or is made from the package.
docs: install
	$(BIN)/python -m sensorium.scripts.docs
	$(BIN)/python -m sensorium.scripts.docs.screenshots
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

demo: install
	$(BIN)/python -m sensorium.scripts.examples.demo $(if $(filter quick,$(DEMO)),--quick)

clean:
	rm -rf build dist docs/_build docs/reference .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./runs -prune -o -name __pycache__ -print | xargs rm -rf
