# make demo   sets up and runs the demo            make test   sets up, checks and tests everything
#
# Nothing is asked, and nothing is left outside this folder: the environments are `.venv*`, every
# cache is below `.cache`. Works with GNU make 3.81 (macOS) and a POSIX shell.

DEMO   = asyncflow run examples/weather/pipeline.py:Report
TESTED = 3.11 3.12 3.13
SEEDS ?= 1000

SHELL = /bin/sh
BIN   = .venv/bin
CACHE = $(CURDIR)/.cache

# pip's cache is kept, but here: several environments are made from the same downloads.
export PIP_CACHE_DIR                 = $(CACHE)/pip
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export MPLCONFIGDIR                  = $(CACHE)/matplotlib
export HYPOTHESIS_STORAGE_DIRECTORY  = $(CACHE)/hypothesis
# pyright runs on the copy and the node that its wheels bring; were it to download one, it would be to here.
export PYRIGHT_PYTHON_CACHE_DIR       = $(CACHE)/pyright
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
export npm_config_cache               = $(CACHE)/npm
export ASYNCFLOW_STATE               = $(CACHE)/state
export SEEDS

# ASYNCFLOW_REQUIRE_SERVICES=1 (a missing service fails its tests instead of skipping them) reaches the tests
# from the environment or from make's command line.

# --------------------------------------------------------------------------------------- shell functions

# find_python VERSION: prints an interpreter of that version ("3": 3.11 or newer), or nothing. It is run before it
# is believed: a pyenv shim exists also for versions that are not switched on.
FIND_PYTHON = find_python() { \
	  if [ "$$1" = 3 ]; then \
	    set -- '>= (3, 11)' python3 python3.13 python3.12 python3.11 python3.14 \
	      "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[1-9].*/bin/python; \
	  else \
	    set -- "[:2] == ($${1%.*}, $${1\#*.})" "python$$1" \
	      "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/"$$1".*/bin/python; \
	  fi; \
	  is=$$1; shift; \
	  for python in "$$@"; do \
	    if "$$python" -c "import sys; sys.exit(not sys.version_info$$is)" >/dev/null 2>&1; then \
	      command -v "$$python"; return 0; \
	    fi; \
	  done; \
	  return 0; }

# make_venv PYTHON FOLDER. Debian and Ubuntu ship `ensurepip` in a package of its own; without it another pip of
# that interpreter does, then (as root) apt, then a person.
MAKE_VENV = make_venv() { \
	  if "$$2/bin/python" -m pip --version >/dev/null 2>&1; then return 0; fi; \
	  rm -rf "$$2"; \
	  if "$$1" -c 'import ensurepip, venv; ensurepip.version()' >/dev/null 2>&1; then \
	    "$$1" -m venv "$$2"; return; fi; \
	  if "$$1" -m venv --without-pip "$$2" >/dev/null 2>&1 \
	    && "$$1" -m pip --python "$$2/bin/python" install -q pip >/dev/null 2>&1; then return 0; fi; \
	  rm -rf "$$2"; \
	  package=$$("$$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    echo "==> $$1 cannot make virtual environments: installing Debian's $$package"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    if apt-get update -qq && apt-get install -y -qq "$$package" >/dev/null && "$$1" -m venv "$$2"; then \
	      return 0; fi; \
	    rm -rf "$$2"; \
	  fi; \
	  echo "$$1 cannot make virtual environments. On Debian or Ubuntu type this, and try again:" >&2; \
	  echo "    sudo apt-get install -y $$package" >&2; \
	  return 1; }

# ------------------------------------------------------------------------------------------------ targets

# Three at a time, since the tests wait more than they work; each tells all it has to at its end, if make can do that.
SYNC = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# What wants an extra, and mostly a server: tested on the main interpreter alone.
APART = targets/s3 targets/ftp targets/sql examples

.PHONY: help demo test test-main test-stores soak bench bench-stores bench-peers clean
.SECONDARY:

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo 'make test-3.12   the core tests alone, on that interpreter'

demo: .venv/.demo  ## set up, and run the demo
	$(BIN)/$(DEMO)

test: .venv/.test  ## set up, and run every check and every test, on each of Python 3.11, 3.12, 3.13 found
	@mkdir -p .cache
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --cache-dir .cache/import-linter
	@$(FIND_PYTHON); \
	main=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	all='test-main test-stores'; \
	for version in $(TESTED); do \
	  if [ "$$version" = "$$main" ]; then continue; fi; \
	  if [ -z "$$(find_python "$$version")" ]; then \
	    echo "==> Python $$version is not on this machine: not tested on it"; continue; fi; \
	  $(MAKE) --no-print-directory ".venv-$$version/.test" || exit 1; \
	  all="$$all test-$$version"; \
	done; \
	$(MAKE) --no-print-directory -j 3 $(SYNC) $$all

# The core on the main interpreter; beside it the stores, with every server that can be had, and the examples.
test-main: .venv/.test
	$(BIN)/python -m pytest --basetemp=.cache/tmp $(APART:%=--ignore=tests/%)

test-stores: .venv/.test
	$(BIN)/python -m pytest --basetemp=.cache/tmp-stores -o cache_dir=.cache/pytest-stores $(APART:%=tests/%)

# The core on another interpreter: no type checkers, no matplotlib, no servers.
test-3.%: .venv-3.%/.test
	.venv-3.$*/bin/python -m pytest --basetemp=.cache/tmp-3.$* -o cache_dir=.cache/pytest-3.$* \
	  --ignore=tests/test_typing.py $(APART:%=--ignore=tests/%) \
	  -m 'not soak and not examples'

soak: .venv/.test  ## the long seeded runs; SEEDS=1000
	@mkdir -p .cache
	$(BIN)/python -m pytest -m soak --timeout=7200 --basetemp=.cache/tmp-soak

# Other engines are installed in environments of their own, .cache/bench-*; each has 60 s a workload.
bench: .venv/.test  ## the measurements: one table, with Luigi and stardag beside it (JSON in output/benchmarks)
	@$(BIN)/python -m benchmarks.report

bench-stores: .venv/.test  ## S3Target beside aiobotocore by hand and Luigi, a million rows beside the driver
	@$(BIN)/python -m benchmarks.s3
	@$(BIN)/python -m benchmarks.sql

bench-peers: .venv/.test  ## the same workloads, small, by Dask, Prefect, Hamilton, doit and redun
	@$(BIN)/python -m benchmarks.report dask prefect hamilton doit redun

clean:  ## remove the environments, the caches and what was built
	rm -rf .venv .venv-3.* .cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -------------------------------------------------------------------------------------------- environments
# The stamps are inside the environment: a second `make test` installs nothing unless pyproject.toml changed.

.venv/.made:
	@$(FIND_PYTHON); $(MAKE_VENV); \
	python=$$(find_python 3); \
	if [ -z "$$python" ]; then echo 'asyncflow needs Python 3.11 or newer, and found none.' >&2; exit 1; fi; \
	echo "==> setting up .venv ($$("$$python" -V))"; \
	make_venv "$$python" .venv
	@touch $@

.venv/.demo: .venv/.made pyproject.toml asyncflow/_version.py
	@echo '==> installing asyncflow and what the examples need'
	@$(BIN)/python -m pip install -q -e '.[examples]'
	@touch $@

.venv/.test: .venv/.made pyproject.toml asyncflow/_version.py
	@echo '==> installing asyncflow, what the examples need, and the tools'
	@$(BIN)/python -m pip install -q -e '.[dev,examples]'
	@examples/servers/fetch.sh || echo 'the servers could not be fetched: what wants one is skipped' >&2
	@touch $@ .venv/.demo

.venv-3.%/.test: pyproject.toml asyncflow/_version.py
	@$(FIND_PYTHON); $(MAKE_VENV); \
	python=$$(find_python 3.$*); \
	if [ -z "$$python" ]; then echo 'Python 3.$* is not on this machine.' >&2; exit 1; fi; \
	echo "==> setting up .venv-3.$* ($$("$$python" -V))"; \
	make_venv "$$python" .venv-3.$*
	@.venv-3.$*/bin/python -m pip install -q -e '.[test]'
	@touch $@
