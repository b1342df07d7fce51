# `make repro` runs the pipeline, `make test` the tests; both set up the environment first. `make help` lists all targets.

PYTHON ?= python3
VENV := .venv
REQUIREMENTS := requirements$(if $(GPU),-gpu,).txt
RUNTIME := $(VENV)/.installed-$(basename $(REQUIREMENTS))
TEAM_PACKAGES := $(VENV)/.installed-requirements-team
BENCH := .bench/venv
DEVELOPMENT := $(VENV)/.installed-requirements-dev
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup quick repro compare ui serve test check audit bench mnist readme lock

help:  ## list all targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(RUNTIME) $(if $(TEAM),$(TEAM_PACKAGES))  ## create .venv from the pinned requirements (GPU=1: TensorFlow with CUDA; TEAM=1: docs/team.md)

# Two kinds of pooling in one small network, few epochs, few images in the slow tests; works without a Git identity.
QUICK := data.dataset=mnist_5k data.limit=null fit.epochs=4 ~models.model_2 grid.base=model_1 grid.pooling=[average] \
  grid.dropout=[base] tune=null evaluate.seeds=1 evaluate.robustness.corrupted_images=50 \
  evaluate.robustness.shifted_images=20 evaluate.robustness.out_of_distribution_images=50
quick: setup  ## run all stages on a small experiment, in a minute; changes no results
	@$(foreach key,AUTHOR_NAME AUTHOR_EMAIL COMMITTER_NAME COMMITTER_EMAIL,GIT_$(key)=quick) \
	  dvc exp run --temp --force --name quick $(QUICK:%=-S '%')
	@dvc get --quiet --force . results/report.html --rev quick --out .cache/quick.html
	@echo 'report     .cache/quick.html'

repro: setup  ## run every out-of-date stage, networks side by side (REPRO_JOBS=N: N at a time)
	@python -m pipeline.repro

compare: setup  ## list the experiments, the best first (ARGS="-n 3": those of 3 commits)
	@python -m pipeline.compare $(ARGS)

ui: setup  ## open the MLflow UI on 127.0.0.1:5000 (PORT=5001 for another port)
	@python -m pipeline.tracking --port $(or $(PORT),5000)
	MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" \
	  mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000) --workers 1

serve: setup  ## serve the champion, and a page to draw on, at 127.0.0.1:5001 (PORT=..., MODEL=models:/NAME/VERSION)
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

mnist: setup  ## run the pipeline on all of MNIST, for hours, and write docs/mnist.md; resumable
	python -m benchmarks.mnist

readme: setup  ## update the table of results in the README
	python -m pipeline.report.readme

lock: $(DEVELOPMENT)  ## resolve the requirements files again, with the newest versions
	uv pip compile $(LOCK) pyproject.toml --output-file requirements.txt
	uv pip compile $(LOCK) pyproject.toml --extra gpu --constraint requirements.txt --output-file requirements-gpu.txt
	uv pip compile $(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt
	sed -n '/^python-dateutil==/d; s/^\([a-z].*\) \\$$/\1/p' requirements.txt | \
	  uv pip compile $(LOCK) --group team --constraint - --output-file requirements-team.txt  # botocore needs dateutil 2
	uv pip compile $(LOCK) benchmarks/requirements.in --constraint requirements.txt --output-file requirements-bench.txt

LOCK := --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" --upgrade

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(BENCH)/.installed: requirements-bench.txt
	$(PYTHON) -m venv $(BENCH)
	$(call install,$(BENCH))
	@touch $@

# pip with a count of packages: one line that changes, or a line every 10 s where there is no terminal. The count ends with
# the shell that runs pip. pip's status is kept.
define install
@installed() { ls $(1)/lib/python*/site-packages | grep -c 'dist-info$$'; }; log=$(1)/pip.log; first=$$(installed); \
if [ -t 1 ]; then before='\r' after='' pause=1; else before='' after='\n' pause=10; fi; \
count() { printf "$${before}packages: %d downloaded, %d installed$$after" \
  $$(grep -Ec '^(Collecting|Processing)' $$log) $$(($$(installed) - first)); }; \
echo 'installing the packages of $< in $(1)'; \
( while sleep $$pause >/dev/null 2>&1 && kill -0 $$$$ 2>/dev/null; do count; done ) & \
$(1)/bin/python -m pip install --disable-pip-version-check --require-hashes --requirement $< >$$log; \
status=$$?; kill $$! 2>/dev/null; after='\n'; count; exit $$status
endef

$(TEAM_PACKAGES): $(RUNTIME)  # after it: both install python-dateutil

# A marker per requirements file, so that pip runs only after a change of the file.
$(VENV)/.installed-%: %.txt | $(VENV)/bin/python
	$(call install,$(VENV))
	@touch $@
