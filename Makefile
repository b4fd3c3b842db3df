# One virtual environment, created on the first use of any target. PYTHON, VENV and FAISS override the defaults.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

recent = $(shell $(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(1))
PYTHON ?= $(firstword $(foreach name,python3 python3.12 python3.13 python3.11,$(call recent,$(name))) python3)
VENV ?= .venv
FAISS ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
SUDO ?= $(if $(filter-out 0,$(shell id -u)),sudo)
PROMPTS ?= 280
SEED ?= 1
OUT ?= out
DEMO ?= a hoopoe in the snow
DEMO_SEED ?= 3
REPORTS ?= reports

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --retries 10 --timeout 60
STAMP := $(VENV)/.installed-$(FAISS)
OUTSIDE := $(VENV)/.installed-outside
DEBIAN := chromium tuxpaint-stamps-default

.PHONY: help install demo test test-outside check docs bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create the virtual environment with the locked packages

$(STAMP): pyproject.toml requirements.lock requirements-$(FAISS).lock
	@echo "installing into $(VENV) (FAISS: $(FAISS)); torch alone is some gigabytes" >&2
	$(PYTHON) -m venv $(VENV)
	$(PIP) uninstall --yes faiss-cpu faiss-gpu faiss-gpu-cuvs 2>/dev/null
	$(PIP) install --requirement requirements-$(FAISS).lock
	$(PIP) install --no-build-isolation --no-deps --editable .
	rm -f $(VENV)/.installed-cpu $(VENV)/.installed-gpu
	touch $@

demo: $(STAMP) ## generate a species that the generator has never seen, and export the storyboard
	$(BIN)/pleinair index
	$(BIN)/pleinair draw "$(DEMO)" --seed $(DEMO_SEED) --out $(OUT) || [ $$? = 3 ]  # 3: stopped, best image kept
	$(BIN)/pleinair trace export last $(OUT)/storyboard.png
	$(BIN)/pleinair trace export last $(OUT)/storyboard.html
	@echo "$(OUT)/storyboard.html shows the run; $(BIN)/pleinair serve opens chat and traces to a browser"

test: $(STAMP) ## run the tests
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

$(OUTSIDE): $(STAMP) requirements-outside.lock
	dpkg --status $(DEBIAN) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -y -qq --no-install-recommends $(DEBIAN); } >/dev/null
	$(PIP) install --requirement requirements-outside.lock
	touch $@

test-outside: $(OUTSIDE) ## install Debian packages and a model server, and run the tests that need them
	OMP_NUM_THREADS=1 PIP_COMPILE=0 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/outside \
		-n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## lint, check format and types, report sizes and wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p pleinair
	$(BIN)/mypy tests
	$(BIN)/python -m tests.support.style_report

docs: $(STAMP) ## write docs/settings.md, docs/pocket.md and its sheet from the code
	$(BIN)/python -m tests.support.settings_page
	$(BIN)/python -m tests.support.pocket_page

bench: $(STAMP) ## measure the pocket models and write the report
	$(BIN)/python -m pleinair.evals pocket --prompts $(PROMPTS) --seed $(SEED) \
		--json $(REPORTS)/pocket.json --out $(REPORTS)

lock: $(STAMP) ## resolve every package again and rewrite requirements.lock and requirements-outside.lock
	head -2 requirements.lock > $(VENV)/lock
	$(PIP) install --dry-run --ignore-installed --report - '.[dev]' | $(BIN)/python .ci/lock >> $(VENV)/lock
	mv $(VENV)/lock requirements.lock
	head -2 requirements-outside.lock > $(VENV)/lock
	$(PIP) install --dry-run --ignore-installed --report - --constraint requirements.lock '.[dev,outside]' \
		| $(BIN)/python .ci/lock | grep --invert-match --line-regexp --file requirements.lock >> $(VENV)/lock
	mv $(VENV)/lock requirements-outside.lock

clean: ## remove everything that the targets wrote, except the virtual environment
	rm -rf build dist $(OUT) $(REPORTS) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
