# make run    set up, then start proxyctl with the built-in example (http://127.0.0.1:8080)
# make test   set up, install what the tests need (as root), then lint, types and tests
# make lint   formatting, lint and types only
# make build  compile the hot path anew, after a change to it
# make load   30 s of mixed load with a reload every 2 s; prints failures
# make soak   60 s of reloads, resizes and kills under load, and 30 s with users of HTTP and
#             WebSocket; every connection and request accounted for
# make compare  side by side with HAProxy and nginx
# make clean  remove what the above has made

SHELL := /bin/sh
PYTHON ?= python3
SECONDS ?= 60
BIN := .venv/bin
INSTALLED := .venv/.installed
BUILT := .venv/.built
# Tests of the hot path that run with its source too.
PURE = $(wildcard tests/unit/test_worker_*.py) tests/unit/test_tls_engine.py \
    tests/unit/test_compiled.py tests/unit/test_syscalls.py \
    tests/unit/test_sockets.py $(wildcard tests/integration/test_relay_*.py) \
    tests/integration/test_tls_relay.py
# Two files at a time: most tests wait for something.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
INSTALLED_LOAD := .venv/.installed-load
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore

.PHONY: help run test lint build load soak compare packages clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# //p' Makefile

run: $(BUILT)
	@exec $(BIN)/proxyctl start

test: packages $(BUILT)
	$(MAKE) --no-print-directory lint
	$(PYTEST)
	PROXYCTL_PURE=1 $(PYTEST) $(PURE)

build: $(BUILT)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

load: packages $(INSTALLED_LOAD) $(BUILT)
	$(BIN)/python -m loadtests.run_load

soak: $(BUILT)
	$(BIN)/python -m loadtests.soak --seconds $(SECONDS)
	$(BIN)/python -m loadtests.soak_http --seconds $$(awk 'BEGIN { print $(SECONDS) / 2 }')

compare: packages $(INSTALLED_LOAD) $(BUILT)
	$(BIN)/python -m loadtests.compare

packages:
	@tests/install_packages.sh

$(INSTALLED): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "proxyctl needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "Python's venv module is missing. As root: apt install make python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (once; takes two to four minutes)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) -e '.[dev]' </dev/null
	@touch $@ $(BUILT)

# Modules whose source is newer than what was compiled of it.
$(BUILT): $(INSTALLED) $(wildcard worker/*.py worker/*.[ch] shared/*hello*.py shared/http/*.py)
	@$(PIP) --no-deps -e . </dev/null
	@touch $@

$(INSTALLED_LOAD): $(INSTALLED)
	@$(PIP) -e '.[dev,load]' </dev/null
	@touch $@ $(BUILT)

clean:
	rm -rf .venv build dist worker/*.so shared/*.so shared/http/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
