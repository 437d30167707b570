# Every target sets up what it needs in .venv first. PYTHON=python3.12 make ... picks another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes; a file's tests stay together, for they share what is slow to make. In their own
# order, or files with one long test would come last, on one process.
PYTEST = TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo docs notebooks test test-slow test-device device-tools coverage check lint types clean

help:
	@echo "make demo         train, convert and verify a 2-bit digit classifier (demo_output/)"
	@echo "make notebooks    run the notebooks, and keep what they show (examples/notebooks/)"
	@echo "make docs         build the documentation site (site/)"
	@echo "make test         run the tests"
	@echo "make test-slow    run the slow tests too"
	@echo "make test-device  run generated C on emulated Cortex-M and RISC-V processors"
	@echo "make coverage     run the tests and show what they leave out (.coverage/html)"
	@echo "make check        lint, types and tests"
	@echo "make clean        remove the environment and the demo's output"

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed: PYTHON=python3.12 make ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python examples/digits.py --output_dir demo_output

notebooks: $(READY)
	$(BIN)/python examples/notebooks/execute.py

# Not --quiet: warnings would pass.
docs: $(READY)
	$(BIN)/python -m mkdocs build --strict --site-dir site

test: $(READY)
	$(PYTEST) -m 'not slow and not device'

test-slow: $(READY)
	$(PYTEST) -m 'not device'

coverage: $(READY)
	$(PYTEST) -m 'not slow and not device' --cov --cov-report=term --cov-report=html

# Says what is missing; installs nothing.
device-tools: $(READY)
	@$(BIN)/python -c 'import sys; from tflite_tools.c import boards; \
	  sys.exit(" ".join(("Missing Debian packages:", *boards.missing())) if boards.missing() else 0)'

# Nearly all are in one file and share little: dealt out one by one.
test-device: device-tools
	$(PYTEST) -m device --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) demo_output site .coverage *.egg-info
