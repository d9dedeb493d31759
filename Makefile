# Every target makes what it needs, on a machine that has nothing but Python (3.11 or later) and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check format bench bench-photo examples docs clean

demo: .venv/core  ## Restore a sample image, end to end, and name the pictures.
	$(BIN)/unperturb demo -o demo --overwrite

# Tests that run side by side, each on one thread: on two cores they take five eighths of the time of one after another.
WORKERS ?= 2

test: .venv/dev  ## Run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

check: .venv/dev  ## Lint, formatting, types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev  ## Mend what can be mended by itself.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A dozen of all images: BM3D takes up to a minute a megapixel.
BENCH ?= --limit 12

bench: .venv/dev  ## Measure quality and speed beside other methods.
	$(BIN)/python -m benchmarks.denoise $(BENCH)

# Pairs of photographs: NAME_real.JPG, one shot, and NAME_mean.JPG, the mean of many.
PHOTOS ?= ../shared/data/test/polyu_crops --limit 6

bench-photo: .venv/dev  ## Measure what becomes of photographs beside other methods.
	$(BIN)/python -m benchmarks.photo $(PHOTOS)

examples: .venv/lab  ## Run the gallery, and draw its figures anew.
	for script in examples/[0-9]*.py; do $(BIN)/python $$script || exit 1; done

docs: .venv/core  ## Write the page of commands anew.
	$(BIN)/python -m unperturb.app.reference > docs/commands.md

clean:  ## Remove the environment and everything that was made.
	rm -rf .venv demo bench_results .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; name one with PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	touch $@

.venv/core: .venv/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

.venv/lab: .venv/core
	$(INSTALL) -e '.[lab]'
	touch $@

.venv/dev: .venv/core
	$(INSTALL) -e '.[bench,dev]'
	touch $@
