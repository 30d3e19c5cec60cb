# Every target sets up what it needs: a virtual environment in .venv, the pinned dependencies, the package.
PYTHON ?= python3
RUN = .venv/bin/python
# Tests that run at a time.
JOBS ?= 2

.PHONY: help demo test lint bench gpu clean

help:
	@echo "make demo    blur photographs, fine-tune a trained U-Net with MAE - w Q, show what it did (CPU, minutes)"
	@echo "make test    the test suite, two tests at a time; JOBS=8 for eight"
	@echo "make lint    format and lint checks"
	@echo "make bench   the benchmarks that run on a CPU, into bench/results/"
	@echo "make gpu     GPU tests and benchmarks with the python3 at hand (no virtual environment, no network);"
	@echo "             PART=tests, PART=bench or PART=train for one part of it"
	@echo "make clean   remove the environment and what was built"

demo: .venv/.package
	$(RUN) -m model demo

test: .venv/.package
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist worksteal -m "not gpu"

lint: .venv/.dependencies
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: .venv/.package
	$(RUN) -m bench micro
	$(RUN) -m bench overhead
	$(RUN) -m bench accuracy
	$(RUN) -m bench train

# Only for the GPUs that are there, unless others are asked for: the ten minutes are for them.
gpu:
	QKERNEL_CUDA_ARCHS="$${QKERNEL_CUDA_ARCHS:-native}" $(PYTHON) setup.py -q build_ext --inplace
	$(PYTHON) -m bench gpu $(if $(PART),--$(PART)-only) $(if $(OUT),--out "$(OUT)")

clean:
	rm -rf .venv build qkernel/*.so qkernel.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "qkernel needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

# torch by itself first: a CPU build offered to pip is taken, where a later package could pull in the CUDA build.
.venv/.dependencies: requirements.txt | .venv/bin/python
	$(RUN) -m pip install -q --disable-pip-version-check torch==2.13.0
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.package: .venv/.dependencies setup.py pyproject.toml $(wildcard csrc/*.* csrc/*/*.*)
	$(RUN) -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
