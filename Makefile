# `make repro` runs the pipeline, `make test` the tests; both set up the environment first. `make help` lists all targets.

PYTHON ?= python3
VENV := .venv
REQUIREMENTS := requirements$(if $(GPU),-gpu,).txt
RUNTIME := $(VENV)/.installed-$(basename $(REQUIREMENTS))
BENCH := .bench/venv
DEVELOPMENT := $(VENV)/.installed-requirements-dev
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro ui serve test check audit bench readme lock

help:  ## list all targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(RUNTIME)  ## create .venv from the pinned requirements (GPU=1: TensorFlow with CUDA)

repro: setup  ## run every out-of-date stage
	dvc repro

ui: setup  ## open the MLflow UI on 127.0.0.1:5000 (PORT=5001 for another port)
	python -m pipeline.tracking
	MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" \
	  mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1

serve: setup  ## serve the champion over HTTP on 127.0.0.1:5001 (PORT=..., MODEL=models:/NAME/VERSION)
	python -m pipeline.serve --port $(or $(PORT),5001) $(if $(MODEL),--model $(MODEL))

test: setup $(DEVELOPMENT)  ## run the tests (ARGS=... are passed to pytest)
	pytest $(ARGS)

check: setup $(DEVELOPMENT)  ## run ruff and pyright
	ruff check
	ruff format --check
	pyright

audit: $(DEVELOPMENT)  ## compare the pinned packages with known advisories (needs an advisory service)
	uvx pip-audit --require-hashes --disable-pip --requirement requirements.txt

bench: setup $(BENCH)/.installed  ## compare speed with plain Keras and PyTorch (ARGS="--only training")
	python -m benchmarks.speed $(ARGS)

readme: setup  ## update the table of results in the README
	python -m pipeline.report.readme

lock: $(DEVELOPMENT)  ## resolve the requirements files again, with the newest versions
	uv pip compile $(LOCK) pyproject.toml --output-file requirements.txt
	uv pip compile $(LOCK) pyproject.toml --extra gpu --constraint requirements.txt --output-file requirements-gpu.txt
	uv pip compile $(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt
	uv pip compile $(LOCK) benchmarks/requirements.in --constraint requirements.txt --output-file requirements-bench.txt

LOCK := --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" --upgrade

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(BENCH)/.installed: requirements-bench.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# A marker per requirements file, so that pip runs only after a change of the file.
$(VENV)/.installed-%: %.txt | $(VENV)/bin/python
	$(PIP) --requirement $<
	@touch $@
