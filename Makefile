# One entry for everything; `make` alone lists the targets. Needs Python 3.11-3.13 and make, nothing else.

PYTHON ?= python3
VENV ?= .venv
# Processes that run at the same time. Each uses one thread, so numbers do not depend on the machine's cores.
JOBS ?= 2
# What the tests of `make test-system` need beside Python; names of Debian's packages.
SYSTEM_PACKAGES := chromium chromium-driver slurm-wlm
# The table that `make reproduce` ends with.
RESULTS ?= data/results/sweep_main.csv --dataset synthetic

# What `make test-processors` runs: tests of all methods, and the notebooks that train.
CONTRACT ?= tests/methods/test_contract.py tests/training tests/losses tests/nn
TRAINED ?= $(wildcard notebooks/0[0-69]*.ipynb notebooks/1*.ipynb)

# What `make results` writes and `make curate` reads: folders of runs that the sweeps of notebooks/sweeps made.
RUNS ?= runs

BIN := $(VENV)/bin
NBVAL = SOURCE_DATE_EPOCH=0 $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout 1200 \
	--nbval-kernel-startup-timeout 300 --nbval-sanitize-with tests/notebooks/sanitize.cfg
READY := $(VENV)/.ready
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test lint imports unit nbval test-processors mutants test-system test-extract notebooks book figures figures-check results curate lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

setup: $(READY)  ## create .venv with the locked packages and this one, if that is not done yet

reproduce: setup  ## run every notebook (synthetic data), redraw figures/, print a results table
	$(BIN)/mmsa-lib notebooks run --jobs $(JOBS)
	$(BIN)/mmsa-lib figures
	@echo
	@$(BIN)/mmsa-lib results table $(RESULTS) --metrics mae corr acc2_neg_pos
	@echo
	@echo "Executed notebooks: runs/notebooks/   Figures: figures/   Numbers behind them: data/results/"

test: lint imports unit nbval  ## everything that must pass: lint, import contracts, unit tests, committed notebooks

lint: setup  ## ruff on code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: setup  ## imports only point down the floors of the library
	$(BIN)/lint-imports

unit: setup  ## unit tests, in parallel
	$(BIN)/python -m pytest -n $(JOBS)

nbval: setup  ## run the committed notebooks and compare every output with the stored one
	$(NBVAL) notebooks/

test-processors: setup  ## the contract of the methods as by two other processors, trained notebooks as by the further one
	for processor in avx2 sse; do tools/processor.sh $$processor $(BIN)/python -m pytest $(CONTRACT) || exit 1; done
	tools/processor.sh sse $(NBVAL) $(TRAINED)

mutants: setup  ## change the science one operator at a time; fail if the tests do not see it (an hour of CPU)
	MUTANT_JOBS=$(JOBS) $(BIN)/python tools/mutants.py

test-system: setup  ## real JupyterLab in a browser and a real one-node SLURM; installs Debian packages
	tools/system_packages.sh $(SYSTEM_PACKAGES)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "browser or slurm" -n $(JOBS) --dist worksteal -rs

test-extract: setup  ## own videos with the real openSMILE and MediaPipe, installed once in build/extract (300 MB)
	@test -d build/extract || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock \
		--target build/extract $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["extract"])')
	PYTHONPATH=build/extract $(BIN)/python -m pytest tests/data/test_extract.py -rs
	PYTHONPATH=$(CURDIR)/build/extract $(NBVAL) notebooks/10_your_own_data.ipynb

notebooks: setup  ## execute the notebooks and store their outputs (10 needs build/extract of test-extract for all of it)
	PYTHONPATH=$(CURDIR)/build/extract $(BIN)/mmsa-lib notebooks run --jobs $(JOBS) --update

book: setup  ## the companion as pages with search, which need no network: build/book/index.html
	$(BIN)/python -m sphinx -W --keep-going --quiet -c book -b html -d build/doctrees . build/book

figures: setup  ## redraw figures/ from data/results and data/published
	$(BIN)/mmsa-lib figures

figures-check: setup  ## fail if a committed figure differs from what its data give
	$(BIN)/mmsa-lib figures --check

results: setup  ## run all sweeps that are not finished into RUNS (about 9 hours of two cores), then `make curate`
	$(BIN)/python -m companion run $(RUNS) --workers $(JOBS)
	$(MAKE) curate RUNS=$(RUNS)

curate: setup  ## write data/results and README's tables from the folders of runs below RUNS, then redraw figures/
	$(BIN)/python -m companion results $(RUNS)
	$(BIN)/python -m companion readme
	$(BIN)/mmsa-lib figures

lock: setup  ## write requirements.lock and environment.yml from what is installed in .venv
	$(BIN)/python tools/lock.py

clean:  ## remove .venv, caches and executed notebook copies; never data or runs
	rm -rf $(VENV) build dist book/api *.egg-info .pytest_cache .ruff_cache .import_linter_cache runs/notebooks
	find mmsa_lib companion tests tools -type d -name __pycache__ -prune -exec rm -rf {} +

# Made once, and again when the pinned versions or the project's metadata change.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit(f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; run: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements.lock into $(VENV) (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
