# `make quickstart` and `make test` need Python 3.11 or later, and pip's network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STORAGE ?= magtkd-results

.PHONY: quickstart test test-cluster fuzz lint types contracts docs unit install install-dev clean

quickstart: $(VENV)/.installed
	$(BIN)/magtkd sweep experiments/quickstart_sweep.yaml --storage $(STORAGE) name=quickstart-$$(date +%m%d-%H%M%S)

test: lint types contracts docs unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

contracts: $(VENV)/.installed-dev
	$(BIN)/lint-imports

# The variable silences an advertisement of the theme.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Two test files at a time, as most of them wait for processes; a folder with a short name, since
# messages cut long paths.
unit: $(VENV)/.installed-dev
	folder=$$(mktemp -d) && $(BIN)/python -m pytest -n 2 --dist loadfile --basetemp $$folder $(PYTEST_ARGS) \
	  && rm -rf $$folder

# What lasts long and needs servers beside the sweep.
test-cluster: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/cluster tests/integration -m cluster $(PYTEST_ARGS)

# Each strategy of `tests/fuzz` with that many examples, other ones in each run.
EXAMPLES ?= 10000

fuzz: $(VENV)/.installed-dev
	MAGTKD_FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/fuzz --timeout=0 $(PYTEST_ARGS)

# Torch comes first and by its pinned version: what depends on it must not choose another.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
