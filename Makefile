# Two commands do everything: `make run` and `make test`. `make help` lists the others.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := .flywheel/tools/bin/uv
VENV := .venv
EVALUATION := .venv-evaluation
ENGINE_VENV := .venv-engine
# Which lock the engine's environment follows: `engine` (vLLM for processors) or `engine-gpu`. See docs/engine.md.
ENGINE ?= engine

# A mirror or a folder of wheels that pip is told of is meant for uv as well.
empty :=
space := $(empty) $(empty)
comma := ,
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
export UV_LINK_MODE ?= copy
# Bytecode of libraries is written once, at installation: each of the many processes of a release would compile its libraries anew
# wherever it may not be written later (PYTHONDONTWRITEBYTECODE, a read-only environment).
export UV_COMPILE_BYTECODE ?= 1
export UV_NO_PROGRESS ?= 1

# What one domain alone needs is installed beside the rest while params.yaml names it; the tests need that of all.
DOMAIN := $(shell sed -n 's/^domain: *\([a-z0-9_]*\).*/\1/p' params.yaml)
package_stamps = $(patsubst infra/locks/packages-%.txt,.flywheel/packages/.complete-%,$(wildcard $(1)))
OWN_PACKAGES := $(call package_stamps,infra/locks/packages-$(DOMAIN).txt)
ALL_PACKAGES := $(call package_stamps,infra/locks/packages-*.txt)

ENVIRONMENTS := $(VENV)/.complete $(EVALUATION)/.complete $(ENGINE_VENV)/.complete .flywheel/packages/.complete \
  $(OWN_PACKAGES)

.PHONY: help run up down status test test-fast matrix lint types docs bench lock environments doctor clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: environments ## One whole release of the default domain: build, train, evaluate, judge, register
	@$(VENV)/bin/python -m flows.run

up: environments ## The platform in the background: Prefect, MLflow, engine, gateway with the chat page
	@$(VENV)/bin/dvc repro -q base_model
	@$(VENV)/bin/flywheel up

down: ## Stop the platform, with everything it started
	@if test -x $(VENV)/bin/flywheel; then $(VENV)/bin/flywheel down; else echo "Nothing was running."; fi

status: $(VENV)/.complete ## Services, what is served, nights, the alarm
	@$(VENV)/bin/flywheel status

# Two files of tests at a time, in the order of their names: the long ones come first. Much of a test is waiting.
test: environments $(ALL_PACKAGES) lint types ## Lint, types and the whole test suite
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: environments $(ALL_PACKAGES) ## The quick tests: no servers, no training; minutes
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not matrix" $(PYTEST_ARGS)

matrix: environments $(ALL_PACKAGES) ## Each method over each alignment, and every kind of domain: hours
	@$(VENV)/bin/python -m pytest -m matrix tests/flows/test_matrix.py $(PYTEST_ARGS)

lint: $(VENV)/.complete ## Style, dead code, and the layers of pyproject.toml
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-logo --no-cache

types: $(VENV)/.complete ## Static types
	@$(VENV)/bin/mypy

bench: environments ## The benchmarks, as tables
	@for bench in tests/bench/bench_*.py; do PYTHONPATH=. OMP_NUM_THREADS=1 $(VENV)/bin/python $$bench; done

environments: $(ENVIRONMENTS) ## Build the locked environments, or find them built

doctor: ## Say what this machine lacks, and how to fix it
	@$(PYTHON) -m flywheel.doctor

docs: $(VENV)/.complete ## Write the reference pages in docs/ anew from the code
	@$(VENV)/bin/python -m flywheel.reference

lock: $(UV) ## Resolve new locks from pyproject.toml and infra/locks/*.in
	@$(UV) pip compile -q --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header --python-version 3.11 \
	  --extra test pyproject.toml -o infra/locks/main.txt
	@$(UV) pip compile -q --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header --python-version 3.11 \
	  infra/locks/evaluation.in -o infra/locks/evaluation.txt
	@$(UV) pip compile -q --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header --python-version 3.11 \
	  --override infra/locks/engine.overrides infra/locks/engine.in -o infra/locks/engine.txt
	@UV_FIND_LINKS= $(UV) pip compile -q --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  --python-version 3.11 infra/locks/engine-gpu.in -o infra/locks/engine-gpu.txt
	@$(UV) pip compile -q --upgrade --no-deps --no-emit-index-url --no-emit-find-links --no-annotate --no-header --python-version 3.11 \
	  infra/locks/packages.in -o infra/locks/packages.txt
	@for list in infra/locks/packages-*.in; do $(UV) pip compile -q --upgrade --no-deps --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --python-version 3.11 $$list -o $${list%.in}.txt; done
	@grep -v '^trl==' infra/locks/main.txt > .flywheel/constraints.txt
	@$(UV) pip compile -q --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header --python-version 3.11 \
	  -c .flywheel/constraints.txt infra/locks/bench-trl.in -o infra/locks/bench-trl.txt
	@sed -i 's/+cpu$$//' infra/locks/main.txt infra/locks/evaluation.txt infra/locks/engine.txt infra/locks/bench-trl.txt
	@wc -l infra/locks/*.txt

clean: ## Remove what the stages made (not the environments, registry or caches)
	@rm -rf data models reports

# Installing is idempotent and the stamp comes last, so a killed installation is simply continued.
$(UV): infra/locks/tools.txt
	@$(PYTHON) -m flywheel.doctor --machine
	@echo "Setting up the installer"
	@$(PYTHON) -m venv .flywheel/tools
	@.flywheel/tools/bin/python -m pip install -q -r infra/locks/tools.txt
	@touch $@

$(VENV)/.complete: infra/locks/main.txt pyproject.toml | $(UV)
	@echo "Installing the main environment (about 2 GB)"
	@test -x $(VENV)/bin/python || $(UV) venv -q --python $(PYTHON) $(VENV)
	@$(UV) pip install -q --python $(VENV)/bin/python -r infra/locks/main.txt
	@$(UV) pip install -q --python $(VENV)/bin/python --no-deps -e .
	@touch $@

$(EVALUATION)/.complete: infra/locks/evaluation.txt | $(UV)
	@echo "Installing the evaluation environment (about 2 GB)"
	@test -x $(EVALUATION)/bin/python || $(UV) venv -q --python $(PYTHON) $(EVALUATION)
	@$(UV) pip install -q --python $(EVALUATION)/bin/python -r infra/locks/evaluation.txt
	@touch $@

# The stamp holds the name of the lock, for `flywheel doctor`.
$(ENGINE_VENV)/.complete: infra/locks/$(ENGINE).txt | $(UV)
	@echo "Installing the engine's environment (about 2 GB)"
	@test -x $(ENGINE_VENV)/bin/python || $(UV) venv -q --python $(PYTHON) $(ENGINE_VENV)
	@$(UV) pip install -q --python $(ENGINE_VENV)/bin/python -r $< \
	  $(addprefix --override ,$(wildcard infra/locks/$(ENGINE).overrides))
	@echo $(ENGINE) > $@

.flywheel/packages/.complete: infra/locks/packages.txt | $(UV) $(VENV)/.complete
	@echo "Installing data and the base model"
	@rm -rf .flywheel/packages
	@UV_COMPILE_BYTECODE=0 $(UV) pip install -q --python $(VENV)/bin/python --no-deps --target .flywheel/packages -r infra/locks/packages.txt
	@touch $@

.flywheel/packages/.complete-%: infra/locks/packages-%.txt .flywheel/packages/.complete | $(UV)
	@echo "Installing data and the base model of the domain $*"
	@UV_COMPILE_BYTECODE=0 $(UV) pip install -q --python $(VENV)/bin/python --no-deps --target .flywheel/packages -r $<
	@touch $@
