# `make` or `make help` lists what there is. Every path is relative and every word quoted: spaces are welcome.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH :=
PYTEST := python -m pytest

.PHONY: help demo down setup test test-unit test-integration lint cli docs bench-discovery bench-agents lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

demo: ## the 77-agent fleet on this machine, in .outrider/, no root needed
	@began=$$(date +%s); scripts/setup && ansible-playbook -i inventories/local playbooks/site.yml && \
	    OUTRIDER_RUNTIME="$(CURDIR)/.outrider/run" python examples/demo.py --began "$$began"

down: ## end the demo: no process, mount or file is left
	@python3 scripts/down.py

setup: ## .venv as requirements.lock says
	@scripts/setup

test: setup ## lint, then every test
	@$(MAKE) lint
	@if [ "$$(id -u)" -eq 0 ]; then scripts/apt-install gpg gpgv chromium chromium-driver; fi
	@echo "test: unit, integration, browser"
	@$(PYTEST) tests

test-unit: setup ## the quick tests
	@$(PYTEST) tests/unit

test-integration: setup ## tests against a real Consul, which they start
	@$(PYTEST) tests/integration

lint: setup ## ruff, mypy, import-linter, ansible-lint, yamllint
	@echo "lint: ruff" && ruff check . && ruff format --check --quiet .
	@echo "lint: mypy" && mypy --config-file pyproject.toml
	@echo "lint: import-linter" && lint-imports --no-logo
	@python scripts/docs.py --check
	@echo "lint: yamllint" && yamllint --strict .
	@echo "lint: ansible-lint" && ansible-lint -q

cli: setup ## the CLI against the running demo: make cli ARGS='status'
	@OUTRIDER_RUNTIME="$(CURDIR)/.outrider/run" outrider $(ARGS)

docs: setup ## reference pages and the JSON Schema, generated from the code
	@python scripts/docs.py

bench-discovery: setup ## lookup and absence beside python-consul2, ?cached and DNS -> build/bench/discovery.json
	@python tests/bench/discovery.py

bench-agents: setup ## what each kind of sample agent costs, and 77 at once -> build/bench/agents.json
	@python tests/bench/agents.py

lock: ## requirements.lock anew from the ranges
	@scripts/lock
