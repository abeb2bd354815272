# `make` or `make help` lists what there is. Every path is relative and every word quoted: spaces are welcome.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH :=
# What failed is remembered by target: several run side by side.
PYTEST = python -m pytest -o cache_dir=.pytest_cache/$@ $(if $(CI),--durations=60 --durations-min=5)
# In CI what failed is run once more: the machines are shared, and a lab of four hosts is a lot for two cores. Both are shown.
TESTS = $(PYTEST) $(1) $(if $(CI),|| { echo "$@: once more what failed"; $(PYTEST) $(1) --last-failed --last-failed-no-failures=none; })
# Integration tests mostly wait, so two of these parts run side by side: that leaves CPU to those that watch time-outs.
PARTS := shim roles
INTEGRATION := $(addprefix integration-,$(PARTS) others)

LAB_NEEDS := debootstrap gpg gpgv haproxy iproute2 nftables openssh-client systemd-container
LAB := PYTHONPATH=tests python -m hosts.lab

.PHONY: lab-up lab-down lab-image help demo down setup test test-unit test-molecule test-live test-integration $(INTEGRATION) lint cli docs faults faults-migration bench-failover bench-calls bench-discovery bench-peers bench-agents bench-judge bench-migration lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

demo: ## the 77-agent fleet on this machine, in .outrider/, no root needed
	@began=$$(date +%s); scripts/setup && ansible-playbook -i inventories/local playbooks/site.yml && \
	    OUTRIDER_RUNTIME="$(CURDIR)/.outrider/run" python examples/demo.py --began "$$began"

down: ## end the demo: no process, mount or file is left
	@python3 scripts/down.py

lab-up: setup ## four throw-away systemd hosts for inventories/lab (root): ansible-playbook -i inventories/lab playbooks/site.yml
	@scripts/apt-install $(LAB_NEEDS)
	@$(LAB) up

lab-down: setup ## no trace of them is left
	@$(LAB) down

lab-image: setup
	@if [ "$$(id -u)" -eq 0 ]; then scripts/apt-install $(LAB_NEEDS) && $(LAB) image; fi

setup: ## .venv as requirements.lock says
	@scripts/setup

test: setup ## lint, and every test
	@if [ "$$(id -u)" -eq 0 ]; then scripts/apt-install chromium chromium-driver $(LAB_NEEDS); fi
	@echo "test: lint, the quick tests and Molecule's scenarios side by side, each shown at its end"
	@$(MAKE) -j3 --output-sync lint test-unit test-molecule
	@echo "test: browser, faults and hosts, then integration"
	@$(MAKE) --keep-going test-live test-integration

test-unit: setup ## the quick tests
	@$(call TESTS,tests/unit)

test-molecule: lab-image
	@$(call TESTS,tests/hosts/test_molecule.py)

# One after the other, with nothing beside: each needs the machine for itself.
test-live: setup
	@$(call TESTS,tests --ignore=tests/unit --ignore=tests/integration --ignore=tests/hosts/test_molecule.py)

test-integration: setup ## tests against a real Consul, which they start
	@$(MAKE) -j2 --output-sync --keep-going $(INTEGRATION)

$(PARTS:%=integration-%): integration-%:
	@$(call TESTS,tests/integration/$*)

integration-others:
	@$(call TESTS,tests/integration $(PARTS:%=--ignore=tests/integration/%))

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

faults: setup ## FAULTS faults from SEED on, singly and in pairs, on lab hosts (root); added up in build/faults.jsonl; ARGS=--help
	@scripts/apt-install $(LAB_NEEDS) gcc libc6-dev
	@PYTHONPATH=tests python -m faults.suite --faults $(or $(FAULTS),26) --seed $(or $(SEED),0) $(ARGS)

faults-migration: setup ## every fault in the middle of a migration, on this machine and on lab hosts (root)
	@scripts/apt-install $(LAB_NEEDS)
	@OUTRIDER_FAULTS=all $(PYTEST) tests/integration/shim/test_shim_migration_faults.py tests/faults/test_migration_faults.py

bench-failover: setup ## kills, hangs and lost hosts beside session TTLs, keepalived, systemd on lab hosts (root) -> build/bench/failover.json
	@scripts/apt-install $(LAB_NEEDS)
	@python tests/bench/failover.py $(ARGS)

bench-discovery: setup ## lookup and absence beside python-consul2, ?cached and DNS; as root also on lab hosts -> build/bench/discovery.json
	@if [ "$$(id -u)" -eq 0 ]; then scripts/apt-install $(LAB_NEEDS); fi
	@python tests/bench/discovery.py

bench-peers: setup ## news between hosts by datagrams beside Consul's user events, also with a frozen leader -> build/bench/peers.json
	@python tests/bench/peers.py

bench-agents: setup ## what each kind of sample agent costs, and 77 at once -> build/bench/agents.json
	@python tests/bench/agents.py

bench-calls: setup ## calls beside seven peers, on one host and across lab hosts; faults and a retry storm -> build/bench/calls.json
	@if [ "$$(id -u)" -eq 0 ]; then scripts/apt-install $(LAB_NEEDS); fi
	@PYTHONPATH="$$(scripts/bench-packages calls plots)" python tests/bench/calls.py $(ARGS)

bench-judge: setup ## the judge of migrations beside two usual rules, on simulated traffic -> build/bench/judge.json
	@PYTHONPATH="$$(scripts/bench-packages judge plots)" python tests/bench/judge.py $(ARGS)

bench-migration: setup ## migrations under 200 calls/s beside restarts, Ansible's and a plain switch on lab hosts (root) -> build/bench/migration.json
	@scripts/apt-install $(LAB_NEEDS)
	@python tests/bench/migration.py $(ARGS)

lock: ## requirements.lock anew from the ranges
	@scripts/lock
