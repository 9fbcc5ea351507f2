# Every target sets up what it needs: `make serve` on a fresh machine is all there is to do.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?=
RECIPE ?=
DURATION ?= 60
KEEP ?=
ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help serve serve-fleet demo pictures test test-clients quick check bench bench-anytime bench-deadline bench-fleet bench-train train setup-verl train-verl test-verl results

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

serve: ## serve the bundled checkpoint (HOST, PORT, MODEL and ARGS override)
	@$(PYTHON) deploy/bootstrap.py engine
	@exec $(BIN)/ponder serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

serve-fleet: ## a fleet on this machine: vLLM servers, a router, Ponder servers, Redis, nginx (PORT, ARGS)
	@$(PYTHON) deploy/bootstrap.py engine fleet shared
	@$(PYTHON) deploy/programs.py prometheus nginx redis-server
	@exec $(BIN)/python deploy/fleet.py --port $(PORT) $(ARGS)

demo: ## measure what a budget saves: load for DURATION seconds, a report, the end (KEEP=1 runs on)
	@$(PYTHON) deploy/bootstrap.py engine
	@$(PYTHON) deploy/programs.py prometheus
	@exec $(BIN)/python deploy/demo.py --duration $(DURATION) $(if $(KEEP),--keep)

pictures: ## the README's pictures: the page in Chromium, on the bundled checkpoint
	@$(PYTHON) deploy/bootstrap.py engine
	@$(PYTHON) deploy/programs.py chromium
	@exec $(BIN)/python deploy/pictures.py $(ARGS)

test: ## install what is lacking and run all tests
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(PYTHON) deploy/programs.py promtool nginx chromium redis-server postgres || \
		echo "setup: without promtool the rules and the dashboard are not proved, without nginx the" \
		"rolling restart, without chromium the pages, without redis-server and postgres what" \
		"servers share: their tests are skipped"
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder --durations 25 --durations-min 5

test-clients: ## every client in an environment of its own, against a real server: writes docs/clients.md
	@$(PYTHON) deploy/bootstrap.py engine dev
	@PONDER_CLIENTS_REPORT=docs/clients.json $(BIN)/python -m pytest -m engine tests/clients/unmodified; \
		status=$$?; $(BIN)/python deploy/generate.py; exit $$status

quick: ## the rules of thoughts, of the wire and of the savings alone: a minute or two
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 4 -m quick tests/server

check: ## ruff, mypy, import rules and the architecture tests
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/architecture

bench: ## Ponder against vLLM's own server, and what observing it costs (about an hour)
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(BIN)/python -m tests.bench --out docs/benchmark.json
	@$(BIN)/python -m tests.bench.cost --out docs/benchmark-cost.json

bench-anytime: ## early ends of thoughts against the best plain cap: writes docs/anytime.md (an hour; ARGS)
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(BIN)/python -m tests.bench.anytime $(ARGS)
	@$(BIN)/python deploy/generate.py

bench-deadline: ## deadlines met under a load that swings, against means and a plain cap (20 minutes)
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(BIN)/python -m tests.bench.deadline --out docs/benchmark-deadline.json

bench-fleet: ## what HTTP, cuts and affinity cost and give on a fleet, as ratios (10 minutes)
	@$(PYTHON) deploy/bootstrap.py engine dev
	@PYTHONPATH=deploy $(BIN)/python -m tests.bench.fleet --out docs/benchmark-fleet.json

bench-train: ## the trainer against stock TRL, and without its shortcuts, as ratios
	@$(PYTHON) deploy/bootstrap.py engine dev bench
	@$(BIN)/python -m tests.bench.training --out docs/benchmark-train.json

train: ## install what training needs, then train RECIPE (without one: list them; ARGS follow)
	@$(PYTHON) deploy/bootstrap.py engine train
	@exec $(BIN)/ponder train $(or $(RECIPE),--list) $(ARGS)

setup-verl: ## make .venv-verl, in which verl trains on Ray (docs/howto/training-on-several-machines.md)
	@$(PYTHON) deploy/bootstrap.py verl

train-verl: ## train RECIPE by verl on Ray, on the GPUs of the cluster or on a CPU (ARGS follow)
	@$(PYTHON) deploy/bootstrap.py verl
	@exec .venv-verl/bin/ponder train $(or $(RECIPE),--list) --set optimisation.engine=verl $(ARGS)

test-verl: ## verl's workers against the accelerate engine, on the CPU (3 minutes)
	@$(PYTHON) deploy/bootstrap.py verl test
	@.venv-verl/bin/python -m pytest -q -m verl -p no:unraisableexception tests/training/engines/test_verl.py

results: ## the reproduction: docs/results, resumed run by run (days of two cores; ARGS="--for 3600" does a part)
	@$(PYTHON) deploy/bootstrap.py engine dev
	@$(BIN)/python -m studies.reproduction $(ARGS)
