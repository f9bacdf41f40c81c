# Every target sets up what it needs: Python >= 3.11, make and a package index are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

.PHONY: setup setup-dev system-packages run demo test lint bench faults fuzz lock clean

setup: $(VENV)/.runtime
setup-dev: $(VENV)/.dev

# The stamps are renewed when a lock or the package's own metadata changes.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sevenfold needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 " )'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

run: setup
	@$(BIN)/sevenfold dev

# Walks through all seven patterns against a fresh stack; `sevenfold demo --url …` against a running one.
demo: setup
	@$(BIN)/sevenfold demo

# What the tests start that is not on the package index; without apt-get they skip what they cannot start.
system-packages:
	@sh tests/system_packages.sh redis-server chromium nats-server rabbitmq-server

test: setup-dev
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

# `bench` brings its own peers (Celery, DBOS) in an environment of their own.
bench: setup-dev
	$(BIN)/python -m bench

# Faults under load, and hostile inputs: real processes, 20 and 10 minutes at most; docs/reliability.md has the figures.
faults: setup-dev
	$(BIN)/python -m bench.faults --report faults.md

fuzz: setup-dev
	$(BIN)/python -m bench.fuzz

# Written without a package index's address, for every platform and Python that we support.
lock: setup-dev
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) --extra embedded --extra build pyproject.toml -o requirements.lock
	$(COMPILE) --extra dev --extra s3 --extra redis --extra brokers -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(COMPILE) --extra build -c requirements.lock pyproject.toml -o docker/requirements.lock

clean:
	rm -rf $(VENV)
