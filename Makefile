# `make demo` and `make test` are all the set-up there is: both create .venv when it is missing and use it afterwards.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DOCS   := .venv-docs

.PHONY: help demo test test-all report lint docs audit format clean

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## is SOAP faster than AdamW? eight minutes of two cores, on real text, to a report
	$(BIN)/tuneopt compare soap --minutes 8 --ledger reports/demo

test: $(READY)  ## the test suite, without the slow set
	$(BIN)/python -m pytest -q -m "not slow"

test-all: $(READY)  ## every test, the slow ones included
	$(BIN)/python -m pytest -q

report: $(READY)  ## the pages in reports/, made anew from their ledgers to the same bytes
	$(BIN)/tuneopt report --published -o reports/published.html
	@for ledger in reports/*-study/ledger.parquet; do study=$${ledger%/ledger.parquet}; \
	  test ! -e $$study.html || $(BIN)/tuneopt report --ledger $$study -o $$study.html || exit 2; done

lint: $(READY)  ## ruff, mypy and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/house.py --check

docs: $(DOCS)/.ready  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	@echo "open: file://$(CURDIR)/site/index.html"

# An environment of its own: what builds pages is not what trains, and reading results takes little.
$(DOCS)/.ready: pyproject.toml requirements-light.txt
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check -r requirements-light.txt $$($(DOCS)/bin/python -c \
	  "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

audit: $(READY)  ## known vulnerabilities of what is installed, as a report
	.ci/audit

format: $(READY)  ## rewrite the code in the house format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and caches (ledgers stay)
	rm -rf $(VENV) $(DOCS) site .venv-audit .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
