# Every command first sets up what is missing; a finished set-up is recognised at once.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
TIERS ?= unit dag e2e slurm
# Render without a display, and let waiting OpenMP threads sleep: a spinning one would take the core of another job.
export MUJOCO_GL ?= egl
export OMP_WAIT_POLICY ?= PASSIVE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup decision why verify costs test lint dag lock soak clean slurm-up slurm-down

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## install system packages, .venv with the locked versions, LIBERO's assets
	@bash envs/setup.sh

decision: setup  ## run the whole experiment, up to results/decision.txt and its figures
	@python scripts/tools/clear_stale_lock.py
	@snakemake --quiet host reason --keep-going -- all
	@printf '\n'; cat results/decision.txt

why: setup  ## say what would run, and because of which key, source or file
	@python scripts/tools/why.py

verify: setup  ## check every artifact in results/ against its record of what it was made from
	@snakemake --quiet all -- verify

costs: setup  ## write what the last run took to experiments/costs.yaml, to read and commit; ON="one H100"
	@python scripts/tools/write_costs.py --on "$(ON)"
	@cat experiments/costs.yaml

test: setup  ## run lint, then every test, tier by tier; TIERS="unit" runs only some
	@bash tests/run_tiers.sh $(TIERS)

soak: setup  ## spoilt files for every reader, for SECONDS=60; not part of `make test`
	@SOAK_SECONDS=$(or $(SECONDS),60) python -m pytest tests/soak -s

lint: setup  ## check formatting, code, module order, rules (Snakemake's lint) and schemas
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	lint-imports --no-cache
	python scripts/tools/write_schemas.py --check
	snakemake --lint

dag: setup  ## draw results/dag.svg and results/rulegraph.svg, with both branches of the tree
	@mkdir -p results
	@for graph in dag rulegraph; do \
	  snakemake --$$graph --forceall --quiet all --configfile experiments/both_branches.yaml >results/$$graph.dot; \
	  dot -Tsvg -o results/$$graph.svg results/$$graph.dot; \
	  rm results/$$graph.dot; \
	  echo results/$$graph.svg; \
	done

slurm-up:  ## start a SLURM cluster on this machine, to try `--profile slurm` on
	@bash tests/slurm/cluster.sh up

slurm-down:  ## stop that cluster
	@bash tests/slurm/cluster.sh down

lock: setup  ## resolve pyproject.toml again into envs/ (UPGRADE=--upgrade for newer versions)
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.12 \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE) --quiet \
	  --output-file envs/requirements.lock
	python envs/write_conda_environment.py

clean:  ## remove results, logs and Snakemake's memory of them; .venv stays
	rm -rf results logs .snakemake
