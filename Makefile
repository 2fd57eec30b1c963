PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv run test lint format lock audit fuzz bench container-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' Makefile

# Two stamps: serving installs what runs, testing what tests as well. Each is remade only when its lock changes.
$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=..." % v[:2])'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run

venv: $(VENV)/.test ## make .venv with everything that serving and testing need

run: $(VENV)/.run ## serve the bundled checkpoint on port 8000
	$(BIN)/sknet serve

# All of them in two processes side by side; with ARGS as one, on what these say.
test: $(VENV)/.test ## run the tests
	$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tests)

lint: $(VENV)/.test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url
lock: $(VENV)/.test ## pin anew what runs and what tests, for Python 3.11 to 3.13
	$(LOCK) --upgrade pyproject.toml --all-extras --group dev -o requirements-dev.lock
	$(LOCK) --upgrade pyproject.toml --extra heif --extra figures --extra grpc --extra tracing -c requirements-dev.lock -o requirements.lock
	$(LOCK) --upgrade --group fuzz -c requirements-dev.lock -o requirements-fuzz.lock

$(VENV)-fuzz/.fuzz: requirements-fuzz.lock
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --require-hashes -r requirements-fuzz.lock
	@touch $@

fuzz: $(VENV)-fuzz/.fuzz ## look for inputs that break a parser: make fuzz TARGET=form ARGS=-max_total_time=1260
	$(VENV)-fuzz/bin/python -m tests.fuzz $(or $(TARGET),image) $(ARGS)

# Strict: a dependency that the database of vulnerabilities was not asked about must not pass for one without any.
audit: $(VENV)/.test ## ask whether a pinned dependency has a known vulnerability (needs the network)
	$(BIN)/uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes -r requirements.lock

bench: $(VENV)/.test ## measure speed; one JSON line last
	$(BIN)/python -m benchmarks $(ARGS)

container-test: $(VENV)/.test ## build the image without a Docker engine and try it (root; Debian packages debootstrap, buildah)
	PYTHON=$(BIN)/python bash deploy/container-test.sh

clean: ## remove the environment and every cache
	rm -rf $(VENV) $(VENV)-fuzz build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
