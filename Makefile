# `make help` says what there is. Everything runs in .venv, with the versions of requirements.lock.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# One thread a process: the processes, not the threads, share the cores.
ONE_THREAD := OMP_NUM_THREADS=1 VAELIB_PROGRESS=0

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help book test check lint types unit chapters pages browser \
	run lab serve stale address benchmark weights bench gpu torture colab clean

help: ## this list
	@grep -E '^[a-z]+:.* ## ' $(MAKEFILE_LIST) \
	  | awk -F ':.* ## ' '{ printf "make %-10s %s\n", $$1, $$2 }'

# Again only where the lock or pyproject.toml changed. pip keeps what is already right.
.venv/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(0 if (3, 11) <= v < (3, 14) else "This needs Python 3.11, 3.12 or 3.13, and \
	$(PYTHON) is %d.%d: say which to use, as in make PYTHON=python3.13" % v[:2])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Installing the locked versions into .venv (the first time: minutes, about 6 GB) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

book: .venv/.ready ## build the book and say where it is
	$(BIN)/jupyter-book build book --config _config.yml --path-output _site -W --keep-going
	@echo "Open $(CURDIR)/_site/_build/html/index.html"

test: browser lint types unit chapters book pages ## every check, one after the other
	@echo "All checks passed."

check: lint types .venv/.ready ## the checks that take less than two minutes
	$(ONE_THREAD) $(PYTEST) -q --doctest-modules vaelib
	$(ONE_THREAD) $(PYTEST) -q -m "not slow" tests/unit tests/book

lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.ready
	$(BIN)/mypy

unit: .venv/.ready
	$(ONE_THREAD) $(PYTEST) -q --doctest-modules vaelib
	$(ONE_THREAD) $(PYTEST) -q -n 2 --dist loadfile tests/unit tests/gpu tests/bench tests/torture

# Stamps and form first, for they take seconds; then every chapter runs, two at a time.
chapters: .venv/.ready
	$(PYTEST) -q -m "not slow" tests/book
	$(ONE_THREAD) $(PYTEST) -q -m slow -n 2 tests/book

pages: book browser
	$(PYTEST) -q -n 2 --dist worksteal tests/browser

browser: tests/browser/node_modules/.package-lock.json
	@missing=; for tool in chromium chromedriver; do \
	  command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	test -z "$$missing" && exit; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	    chromium chromium-driver >/dev/null; \
	else \
	  echo "The browser tests need$$missing (on Debian: apt-get install chromium chromium-driver)." >&2; \
	  exit 1; \
	fi

# axe-core, which looks for what keeps readers out.
tests/browser/node_modules/.package-lock.json: tests/browser/package-lock.json
	@command -v npm >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq --no-install-recommends npm >/dev/null; } \
	  || { echo "The browser tests need npm (on Debian: apt-get install npm)." >&2; exit 1; }
	@npm ci --prefix tests/browser --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# All cores: give it a quiet machine, or set OMP_NUM_THREADS=1 (threads that compete are slow).
run: .venv/.ready ## run a chapter in full and store its outputs: make run CHAPTER=05
	@test -n "$(CHAPTER)" || { echo "Which one? make run CHAPTER=05" >&2; exit 1; }
	VAELIB_PROGRESS=0 $(BIN)/python tools/chapters.py run $(CHAPTER)

lab: .venv/.ready ## open the chapters in JupyterLab
	$(BIN)/jupyter-lab book

serve: book ## build the book and serve it at http://localhost:8000 (PORT=...)
	$(BIN)/python -m http.server $(PORT) --bind localhost --directory _site/_build/html

stale: .venv/.ready ## list chapters and benchmarks that a change in vaelib or data can alter
	$(BIN)/python tools/chapters.py stale

address: .venv/.ready ## copy the repository's address from pyproject.toml into the chapters
	$(BIN)/python tools/chapters.py address

benchmark: .venv/.ready ## run again what is too long for a chapter, into data/results
	$(BIN)/python tools/benchmark.py

weights: .venv/.ready ## train again what data/weights holds: ten minutes
	$(ONE_THREAD) $(BIN)/python tools/weights.py

bench: .venv/.ready ## measure the speed of fit against peers: a quiet machine, 15 minutes
	$(BIN)/python tests/bench/bench.py

# With whatever torch is there: nothing is installed, on a machine that is lent for minutes.
gpu: ## run the CUDA tests and the benchmark on a GPU, into data/results/gpu
	VAELIB_PROGRESS=0 PYTHONPATH=. $(PYTHON) -m pytest -q -c /dev/null --rootdir . tests/gpu
	VAELIB_PROGRESS=0 PYTHONPATH=. $(PYTHON) tests/bench/bench.py --gpu
	PYTHONPATH=. $(PYTHON) tests/bench/scale.py

torture: .venv/.ready ## break fit for half an hour: kills, lost workers, damaged files
	VAELIB_TORTURE=full $(ONE_THREAD) $(PYTEST) -q -x tests/torture

# Colab has Python 3.13: make colab PYTHON=python3.13
colab: ## run the last commit with Colab's versions, in .venv-colab: 15 minutes, 6 GB
	$(PYTHON) tests/colab.py

clean: ## remove what was built, .venv-colab too (.venv stays)
	rm -rf .venv-colab _site build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find book tests vaelib -name __pycache__ -o -name .ipynb_checkpoints -o -name .ruff_cache \
	  | xargs rm -rf
