# `make help` lists the targets. Needs Python 3.11 or newer as python3 (or PYTHON=…), and nothing else.
PYTHON ?= python3
BIN := .venv/bin
SCALE ?= smoke
PAPER ?= pe
N ?= 1
BENCH := runs/bench

.PHONY: help setup demo table figure all-tables dashboard test test-quick test-slow test-browser lint reference pretrain bench bench-gpu studies docs docs-check lock clean

help:            ## this list
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@for kind in table figure; do for paper in pe dpd loda digits mnist pneumonia; do test ! -d conf/$$kind/$$paper || \
	    echo "make $$kind PAPER=$$paper N=" $$(ls conf/$$kind/$$paper | sed 's/.yaml//' | sort -V); done; done

setup: .venv/installed   ## install everything into .venv, at the versions of constraints.txt

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo "setting up .venv (a few GB, mostly PyTorch; minutes) …"
	@test -d .venv || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=26.1"
	@$(BIN)/python -m pip install --quiet --only-deps --constraint constraints.txt ".[dev]"
	@rm -rf build *.egg-info && touch $@

demo: setup      ## Private Evolution on the embedded digits, end to end, in minutes
	@echo "Private Evolution on the embedded digits: about 2 minutes on two cores …"
	@$(BIN)/python run.py

table figure: setup  ## make table PAPER=pe N=1, make figure PAPER=dpd N=9, with SCALE=smoke, hour or paper
	@$(BIN)/python -m scripts.paper $@ $(PAPER) $(N) scale=$(SCALE) $(ARGS)

all-tables: setup ## every table and figure of the papers, at SCALE (smoke: under an hour on two cores)
	@$(BIN)/python -m scripts.paper all all all scale=$(SCALE) $(ARGS)

dashboard: setup ## one page of all runs, into runs/dashboard.html
	@$(BIN)/python -m scripts.dashboard

test: setup lint ## what must pass before a change: linting, types, tests
	@$(BIN)/python -m pytest -q -m "not slow" -n 3 --dist worksteal

test-quick: setup ## the tests of the parts, without those that start the command: about two minutes on two cores
	@$(BIN)/python -m pytest -q -m "not slow and not end_to_end" -n 2 --dist worksteal --ignore=tests/scripts --ignore=tests/conf

test-slow: setup ## the tests that take minutes
	@$(BIN)/python -m pytest -q -m slow

test-browser: setup ## dashboard and report in a real browser; needs chromium (Debian: apt-get install chromium)
	@REQUIRE_BROWSER=1 $(BIN)/python -m pytest -q -m browser tests/scripts

lint: setup      ## ruff, import-linter (which folder may import which) and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache --no-logo && $(BIN)/mypy

reference: setup ## measure the floor and the ceiling that every report shows (about 17 minutes)
	@$(BIN)/python -m scripts.reference

pretrain: setup  ## train the embedded public model again, into pretrained/digits (about 25 minutes)
	@$(BIN)/python -m scripts.pretrain_public

# $(call table,NAME,COMMAND): the command's Markdown, into $(BENCH)/NAME.md once it is whole
table = mkdir -p $(BENCH) && echo '$(2)' && $(2) > $(BENCH)/$(1).partial && mv $(BENCH)/$(1).partial $(BENCH)/$(1).md

bench: setup     ## the tables of docs/performance.md of a processor, into runs/bench (over an hour on two cores)
	@$(call table,dp_step,$(BIN)/python -m scripts.bench_dp_step --device cpu)
	@$(call table,dp_engines,OMP_NUM_THREADS=1 $(BIN)/python -m scripts.bench_dp_step --device cpu \
	    --engines-only --processor-time --augmults 1 4 16 --repetitions 6)
	@$(call table,dp_whole_step,$(BIN)/python -m scripts.bench_dp_step --device cpu \
	    --whole-step-only --step-examples 64 --augmults 16 --repetitions 6)
	@$(call table,dp_adapters,$(BIN)/python -m scripts.bench_dp_step --device cpu --adapter loda)
	@$(call table,pe,$(BIN)/python -m scripts.bench_pe --device cpu)
	@$(call table,patches,OMP_NUM_THREADS=1 $(BIN)/python -m scripts.bench_pe --device cpu --model mnist_unet --beside mnist_patches)
	@$(call table,bfloat16,OMP_NUM_THREADS=1 $(BIN)/python -m scripts.bench_pe --device cpu --model mnist_patches \
	    --sampling-only --precision bfloat16 --repetitions 8)
	@$(call table,many,$(BIN)/python -m scripts.bench_many)
	@$(call table,start,$(BIN)/python -m scripts.bench_start)

bench-gpu: setup ## those of a GPU, into runs/bench
	@$(call table,gpu_dp_step,$(BIN)/python -m scripts.bench_dp_step --device cuda --views 128 --step-examples 16 --repetitions 3)
	@$(call table,gpu_pe,$(BIN)/python -m scripts.bench_pe --device cuda --images 4000)

studies: setup   ## the sweeps behind docs/digits.md: views, adapters, shrinking private data (about two hours)
	@for study in views adapters fractions; do $(BIN)/python -m scripts.paper figure digits $$study scale=paper $(ARGS) || exit 1; done

docs: setup      ## the pages of docs/ as a site, into site/; broken links are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo site/index.html

docs-check: setup ## the worked example of docs/own-images.md, every command as it is written
	@$(BIN)/python -m pytest -q -m slow tests/docs

lock: setup      ## write the installed versions to constraints.txt
	@{ echo "# Versions that were tested together; made by 'make lock'."; $(BIN)/python -m pip freeze --exclude dp-image-synthesis; } > constraints.txt

clean:           ## remove .venv and caches; runs/ stays
	rm -rf .venv build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
