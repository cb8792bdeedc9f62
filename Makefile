# make demo: the whole job in miniature, on a CPU.  make test: format, lint, types, tests.
# No compiler is needed. The one system package is bubblewrap, which runs model-written code
# in a sandbox; SANDBOX=none goes without it (see `make help`).
PYTHON ?= python3
SANDBOX ?= bubblewrap
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo smoke test test-slow format lint types check-sandbox clean

help:
	@echo "make demo        install, fetch the base model, run recipes/demo.yaml, show the scores"
	@echo "make smoke       all stages on a random two-layer model, in a minute or two"
	@echo "make test        format, lint, types and tests"
	@echo "make test-slow   the tests that take over a minute as well"
	@echo "make clean       remove the virtual environment and caches"
	@echo "JOBS=2           processes that make test runs its tests in"
	@echo "SANDBOX=none     run model-written code WITHOUT a sandbox (make demo, make smoke), and"
	@echo "                 skip the tests that need one, with their count (make test)"

# bubblewrap runs model-written code; libgomp is what llama.cpp's prebuilt package links, and is
# there already on nearly every machine.
check-sandbox:
	@missing=""; \
	[ "$(SANDBOX)" = none ] || command -v bwrap >/dev/null || missing="bubblewrap"; \
	ldconfig -p 2>/dev/null | grep -q 'libgomp\.so\.1' || missing="$$missing libgomp1"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing$$missing (bubblewrap runs model-written code in a sandbox)"; \
	  (apt-get install -qy $$missing || (apt-get update -q && apt-get install -qy $$missing)) >/dev/null; \
	else \
	  echo "missing: $$missing (bubblewrap runs model-written code in a sandbox). Install:"; \
	  echo "    sudo apt-get install $$missing"; \
	  echo "To run model-written code WITHOUT a sandbox instead of bubblewrap: make $(MAKECMDGOALS) SANDBOX=none"; \
	  exit 1; \
	fi

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: check-sandbox $(STAMP)
	$(BIN)/python recipes/fetch_demo_base.py
	$(BIN)/cuvee run recipes/demo.yaml --set sandbox=$(SANDBOX)

smoke: check-sandbox $(STAMP)
	$(BIN)/cuvee run recipes/smoke.yaml --set sandbox=$(SANDBOX)

test: check-sandbox lint types
	CUVEE_TEST_SANDBOX=$(SANDBOX) $(BIN)/pytest -m "not slow" -n $(JOBS) --dist loadfile --no-loadscope-reorder -rs --durations=25

test-slow: check-sandbox $(STAMP)
	CUVEE_TEST_SANDBOX=$(SANDBOX) $(BIN)/pytest -rs

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
