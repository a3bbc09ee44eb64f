# Every command sets up first what it lacks; a finished set-up is recognised at once.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
TIERS ?= unit dag e2e slurm
# MuJoCo draws without a display; a spinning OpenMP thread would take the core of the job beside it.
export MUJOCO_GL ?= egl
export OMP_WAIT_POLICY ?= PASSIVE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup decision why verify costs test lint dag lock clean slurm-up slurm-down

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## system packages, .venv with the locked versions, LIBERO's assets
	@bash envs/setup.sh

decision: setup  ## the whole experiment, ending in results/decision.txt and its figures
	@python scripts/tools/clear_stale_lock.py
	@snakemake --quiet host reason --keep-going -- all
	@printf '\n'; cat results/decision.txt

why: setup  ## what would be made anew, and because of which key, source or file
	@python scripts/tools/why.py

verify: setup  ## check every artifact in results/ against what it says it was made from
	@snakemake --quiet all -- verify

costs: setup  ## experiments/costs.yaml from what the last run took, to read and commit; ON="one H100"
	@python scripts/tools/write_costs.py --on "$(ON)"
	@cat experiments/costs.yaml

test: setup  ## lint, then every test, tier by tier; TIERS="unit" for some of them
	@bash tests/run_tiers.sh $(TIERS)

lint: setup  ## formatting, static checks, module order, Snakemake's lint, schema drift
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	lint-imports --no-cache
	python scripts/tools/write_schemas.py --check
	snakemake --lint

dag: setup  ## results/dag.svg and results/rulegraph.svg, both branches of the tree included
	@mkdir -p results
	@for graph in dag rulegraph; do \
	  snakemake --$$graph --forceall --quiet all --configfile experiments/both_branches.yaml >results/$$graph.dot; \
	  dot -Tsvg -o results/$$graph.svg results/$$graph.dot; \
	  rm results/$$graph.dot; \
	  echo results/$$graph.svg; \
	done

slurm-up:  ## a SLURM cluster on this machine, to try `--profile slurm` on
	@bash tests/slurm/cluster.sh up

slurm-down:  ## stop it
	@bash tests/slurm/cluster.sh down

lock: setup  ## resolve pyproject.toml again into envs/ (UPGRADE=--upgrade for newer versions)
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --python-version 3.12 \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE) --quiet \
	  --output-file envs/requirements.lock
	python envs/write_conda_environment.py

clean:  ## remove results, logs and Snakemake's memory of them; .venv stays
	rm -rf results logs .snakemake
