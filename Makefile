# Latlas: install, run, test. `make` alone lists the targets.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-arm64 lint format protos bench clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." is passed on, as in: make test ARGS="-x tests/latency"'
	@echo '  PYTHON=... picks the Python 3.10 or newer that the environment is made with.'

install: $(INSTALLED) ## Create .venv with everything that Latlas and its tests need.

quickstart: $(INSTALLED) ## The whole loop on this machine; results in quickstart/.
	@$(BIN)/latlas quickstart $(ARGS)

test: $(INSTALLED) ## Run the tests.
	@$(BIN)/python -m pytest $(ARGS)

test-arm64: $(INSTALLED) ## The agent on an emulated arm64 board: minutes, needs qemu-user and debootstrap.
	@PYTHON=$(BIN)/python bash tests/arm64/run.sh

lint: $(INSTALLED) ## Check style, formatting and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(INSTALLED) ## Rewrite the code in the project's format.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

protos: ## Regenerate the code of protos/**/*.proto.
	@PYTHON="$(PYTHON)" sh protos/generate.sh

bench: $(INSTALLED) ## Judge a finished quickstart folder (after make quickstart).
	@$(BIN)/python bench/loop.py $(ARGS)

clean: ## Remove the environment, caches and builds; keep quickstart/.
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Shortens pip's log to the names of the packages, the larger downloads and, if it fails, its end.
define PROGRESS
  function newline() { if (width) printf "\n"; width = 0 }
  /^pip ended with / { status = $$4; next }
  { recent[NR % 30] = $$0 }
  /^Collecting |^Processing .*\.whl/ {
    name = $$2; sub(/.*\//, "", name); sub(/-[0-9].*|[^A-Za-z0-9._-].*/, "", name)
    if (width + length(name) > 90) newline()
    printf "%s%s", width ? " " : "  ", name; fflush()
    width += length(name) + 2
  }
  /^ *Downloading .* \([0-9.]+ MB\)/ {
    if (substr($$(NF - 1), 2) + 0 < 10) next
    newline(); print "  downloading " $$2, $$(NF - 1), $$NF; fflush()
  }
  /^Installing collected packages/ { newline(); print "  unpacking " NF - 3 " in all"; fflush() }
  END {
    newline()
    if (status) for (i = NR; i < NR + 30; i++) if (i % 30 in recent) print recent[i % 30]
    exit status
  }
endef
export PROGRESS

$(INSTALLED): pyproject.toml constraints/base.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  found=$$(command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo missing); \
	  echo "Latlas needs Python 3.10 or newer, but this is what there is: $(PYTHON): $$found. Name another: make PYTHON=python3.11 ..." >&2; \
	  exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "Creating the environment $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing Latlas and what it needs into $(VENV): once, a minute or more, 1.7 GB on disk"
	@echo "(several GB with the CUDA build of torch; constraints/base.txt tells how to take the CPU build)"
	@{ $(BIN)/python -m pip install --no-input --progress-bar off \
	     -c constraints/base.txt -e '.[dev]' 2>&1; echo "pip ended with $$?"; } | awk "$$PROGRESS"
	@touch $@
