.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/towline/v1/*.proto)
GENERATED := protos/towline/v1/descriptors.binpb
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo up test simulate check bench format docs proto lock baseline clean

help: ## Explain every target
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 12

demo: $(VENV)/run.stamp $(GENERATED) ## Start everything, run the examples end to end, print the results, stop
	@$(BIN)/python -m examples.demo

up: $(VENV)/run.stamp $(GENERATED) ## Start everything and stay up; Ctrl-C stops it
	@exec $(BIN)/towline up

test: $(VENV)/dev.stamp $(GENERATED) ## Run the whole test suite
	$(BIN)/pytest -n auto --dist loadgroup $(ARGS)

simulate: $(VENV)/dev.stamp $(GENERATED) ## Simulate SEEDS=n storms of faults on virtual time, or replay SEED=k
	@PYTHONPATH=tests/simulation $(BIN)/python -m simulate $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000)) $(if $(FIRST),--first $(FIRST)) $(if $(MUTANT),--mutant $(MUTANT))

check: $(VENV)/dev.stamp $(GENERATED) ## The gate: format, lint, types, import rules, contract, file sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking protos --against protos/baseline.binpb
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/pytest -q tests/architecture

bench: $(VENV)/dev.stamp $(GENERATED) ## Measure the control plane beside bare statements, on both databases; print the ratios
	$(BIN)/python -m bench.raw_statements
	$(BIN)/python -m bench.store_rounds
	$(BIN)/python -m bench.group_commit
	$(BIN)/python -m bench.run_size
	$(BIN)/python -m bench.log_redaction
	$(BIN)/python -m bench.log_readers
	$(BIN)/python -m bench.workloads

format: $(VENV)/dev.stamp ## Format code and protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w protos

docs: $(VENV)/run.stamp $(GENERATED) ## Write the documents that are derived from code
	$(BIN)/python docs/generate.py

proto: $(VENV)/run.stamp ## Generate the Python of the contract
	$(BIN)/python protos/generate.py

lock: $(VENV)/dev.stamp ## Renew the pinned versions and hashes of the dependencies
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --extra all --group build --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -q -o requirements/run.txt
	$(BIN)/uv pip compile pyproject.toml --extra all --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -q -o requirements/dev.txt

baseline: $(VENV)/dev.stamp $(GENERATED) ## At a release: make the contract of today the one that later changes must not break
	$(BIN)/buf build --exclude-source-info -o protos/baseline.binpb

clean: ## Remove the environment, generated code and caches
	rm -rf $(VENV) .build .pytest_cache .ruff_cache .hypothesis .import_linter_cache third_party
	rm -f protos/towline/v1/*_pb2.py protos/towline/v1/*_pb2.pyi protos/towline/v1/*_pb2_grpc.py $(GENERATED)

# The environment. Hashes are checked; the project itself is installed in place, without a second download.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@test -e $(VENV)/dev.stamp || echo "Installing Towline into $(VENV) …"
	@$(PIP) install --require-hashes -r $(if $(wildcard $(VENV)/dev.stamp),requirements/dev.txt,requirements/run.txt)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

$(GENERATED): $(PROTOS) protos/generate.py | $(VENV)/run.stamp
	@$(BIN)/python protos/generate.py
