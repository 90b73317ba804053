# `make demo` and `make test` do all set-up by themselves; `make help` lists the rest.

SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BIN := .venv/bin
PYTHON := $(BIN)/python
LOCKS := requirements
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

SEEDS ?= 200
FROM ?= 0
PROVE_SEEDS ?= 20000
ARGS ?=
CLIENTS ?= optional

# The environment that a person has activated is left alone; everything here works in `.venv`.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME CONDA_PREFIX
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_LINK_MODE ?= copy
# Compiled while installing, as pip does: where the environment keeps Python from writing bytecode, each start of a
# process would compile all libraries again, which takes longer than anything else that a short command does.
export UV_COMPILE_BYTECODE ?= 1

INSTALL := sh .ci/install .venv
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock'

.PHONY: help venv demo kpc test test-clients check format simulate simulate-shared prove bench bench-twin bench-oracle lock clean

help: ## Show this list
	@echo "make demo    a real migration into a simulated org, from set-up to the end"
	@echo "make test    linters, types, import contracts, tests, 200 simulated schedules"
	@echo
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  \1\t\2/p' Makefile | expand -t 18

venv: .venv/.dev ## Make the virtual environment with all that development needs
	@:

demo: .venv/.demo ## Run the demo (ARGS="--help" for its options)
	@echo "the command is $(BIN)/forcelift; \`. $(BIN)/activate\` puts it on your path"
	@$(BIN)/forcelift demo $(ARGS)

kpc: .venv/.dev ## Serve an Oracle for examples/kpc-tms, until it is ended
	@$(PYTHON) -m tests.oracle_server --port 1521 --user KPS --password kps --auditor FORCELIFT=audit < /dev/tty

test: check .venv/.demo ## Linters, tests and simulated schedules: what has to pass before a commit
	@echo "simulation: $(SEEDS) schedules on $(CORES) cores"
	@$(MAKE) --no-print-directory simulate
	@$(MAKE) --no-print-directory simulate-shared SEEDS=$$(( ($(SEEDS) + 9) / 10 ))
	@echo "pytest: on $(CORES) cores"
	@$(PYTHON) -m pytest -q -m "not slow and not clients" -n $(CORES) --dist worksteal $(ARGS)

check: .venv/.dev ## Linters, types and import contracts only
	@echo "ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted; run \`make format\`" >&2; exit 1; }
	@echo "mypy"
	@$(PYTHON) -m mypy
	@echo "import contracts"
	@$(BIN)/lint-imports --no-logo

format: .venv/.dev ## Format the code and mend what the linter can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

simulate: .venv/.dev ## Replay schedules of crashes and lost replies: SEEDS=N FROM=K
	@$(PYTHON) -m tests.simulation --seeds $(SEEDS) --from $(FROM)

test-clients: .venv/.dev ## Clients that others wrote, against the twin (CLIENTS=required: fail where one is missing)
	@$(PYTHON) -m tests.clients.install $(if $(filter required,$(CLIENTS)),--required)
	@FORCELIFT_CLIENTS=$(CLIENTS) sh .ci/loopback-only $(PYTHON) -m pytest -q -m clients -n $(CORES) --dist loadfile \
		tests/clients $(ARGS)

simulate-shared: .venv/.dev ## The same with several runners on one batch, killed or frozen: SEEDS=N FROM=K
	@$(PYTHON) -m tests.simulation --shared --seeds $(SEEDS) --from $(FROM)

prove: .venv/.dev .venv/.demo ## All slow proofs (hours): kill loops, long simulations, real processes
	@$(MAKE) --no-print-directory simulate SEEDS=$(PROVE_SEEDS)
	@$(MAKE) --no-print-directory simulate-shared SEEDS=$$(( $(PROVE_SEEDS) / 4 ))
	@$(PYTHON) -m pytest -q -m slow --timeout 7200 $(ARGS)

# One part that fails keeps no other from being measured, but the whole has failed then.
bench: .venv/.bench ## Measure against the floor and other clients, twin and profile: 55 minutes (ARGS="--help": parts of it)
	-@$(PYTHON) -m tests.clients.install
	@failed=; \
	$(PYTHON) -m bench $(or $(ARGS),--out docs/benchmarks.md) || failed="$$failed load"; \
	for part in twin_ingest oracle_read profile_scan; do \
		$(PYTHON) -m bench.$$part || failed="$$failed $$part"; \
	done; \
	[ -z "$$failed" ] || { echo "not measured:$$failed" >&2; exit 1; }

bench-twin: .venv/.base ## Measure how fast the twin takes rows
	@$(PYTHON) -m bench.twin_ingest $(ARGS)

bench-oracle: .venv/.dev ## Measure how fast rows come out of an Oracle source, beside the bare driver
	@$(PYTHON) -m bench.oracle_read $(ARGS)

lock: $(BIN)/uv ## Make the pins in requirements/ anew from pyproject.toml, newest versions
	@$(LOCK) --upgrade --group uv -o $(LOCKS)/uv.txt
	@$(LOCK) --upgrade --group build -o $(LOCKS)/build.txt
	@$(LOCK) --upgrade --all-extras pyproject.toml -o $(LOCKS)/base.txt
	@$(LOCK) --upgrade --group dev -c $(LOCKS)/base.txt -o $(LOCKS)/dev.txt
	@$(LOCK) --upgrade --group bench -c $(LOCKS)/base.txt -o $(LOCKS)/bench.txt
	@$(LOCK) --upgrade --no-deps --group demo -o $(LOCKS)/demo.txt
	@$(LOCK) --upgrade --group clients-airflow -o $(LOCKS)/clients-airflow.txt
	@$(LOCK) --upgrade --group clients-cumulusci -o $(LOCKS)/clients-cumulusci.txt
	@$(LOCK) --upgrade --group clients-node -o $(LOCKS)/clients-node.txt
	@$(LOCK) --upgrade --group clients-simple-salesforce -o $(LOCKS)/clients-simple-salesforce.txt
	@$(PYTHON) -m tests.clients.install --lock

clean: ## Remove the virtual environment and what tools and the demo left
	@rm -rf .venv .clients .bench build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -rf src/*.egg-info
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The order-only prerequisite makes a missing interpreter (removed, or upgraded away) be found again.
$(BIN)/uv: $(LOCKS)/uv.txt | $(PYTHON)
	@sh .ci/make-venv .venv $(LOCKS)/uv.txt
	@touch $@

$(PYTHON):
	@sh .ci/make-venv .venv $(LOCKS)/uv.txt

.venv/.base: $(LOCKS)/base.txt $(LOCKS)/build.txt pyproject.toml $(BIN)/uv
	@echo "installing forcelift and what it needs"
	@$(INSTALL) --require-hashes -r $(LOCKS)/build.txt -r $(LOCKS)/base.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(PYTHON) -m compileall -q src
	@touch $@

.venv/.demo: $(LOCKS)/demo.txt .venv/.base
	@echo "installing the demo's data"
	@$(INSTALL) --no-deps --no-build-isolation --require-hashes -r $(LOCKS)/demo.txt
	@touch $@

# The plots; little else is needed to measure.
.venv/.bench: $(LOCKS)/bench.txt .venv/.dev
	@echo "installing what the plots need"
	@$(INSTALL) --require-hashes -r $(LOCKS)/bench.txt
	@touch $@

.venv/.dev: $(LOCKS)/dev.txt .venv/.base
	@echo "installing tests and linters"
	@$(INSTALL) --require-hashes -r $(LOCKS)/dev.txt
	@touch $@
