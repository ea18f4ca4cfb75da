# `make demo` and `make test` set themselves up: a virtual environment here, with the tested versions of everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where the peers of `make bench` live.
PEERS ?= .peers

# All tests write below a folder of such a name; these run once more where the system knows no letters beyond ASCII (and
# tests/cli/test_letters.py starts the command there).
ODD := наши 写真 صور 📷
ANY_LOCALE := tests/test_configuration.py $(addprefix tests/data/test_formats_,yolo.py coco.py voc.py)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types format bench bench-peers bench-gpu comparison release docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Set up .venv with the tested versions (demo and test do this by themselves)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# It asks for opencv-python, whose files would take the place of opencv-python-headless's.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps trackers
	touch $@

demo: $(VENV)/.installed ## Train on handwriting for 3 minutes, evaluate, and show the detections
	$(BIN)/tood demo

# Accessibility of the page of `tood serve` is tested where npm can be asked for axe-core (MPL-2.0, so no part of this).
AXE := $(VENV)/node_modules/axe-core/axe.min.js
$(AXE): $(VENV)/.installed
	-command -v npm >/dev/null && timeout 60 npm install --silent --no-save --no-audit --prefix $(VENV) axe-core@4.14.1

test: lint types $(AXE) ## Lint, check types, run all tests with coverage
	where="$$(mktemp -d)" && trap 'rm -rf "$$where"' EXIT && \
	$(BIN)/python -m pytest -n 2 --cov --cov-fail-under=85 --basetemp "$$where/$(ODD)"
	PYTHONUTF8=0 LC_ALL=C $(BIN)/python -m pytest -n 2 $(ANY_LOCALE)

lint: $(VENV)/.installed ## Check the style, that imports go one way, and the workflows
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml
	$(BIN)/zizmor --offline --quiet .github/workflows

types: $(VENV)/.installed ## Check the types
	$(BIN)/mypy

format: $(VENV)/.installed ## Put the code into the house's style
	$(BIN)/ruff check --fix src tests benchmarks tools
	$(BIN)/ruff format src tests benchmarks tools

bench: $(VENV)/.installed ## Time everything beside the peers: one table (ROWS=assign,start QUICK=1 PEERS=folder)
	$(BIN)/python -m benchmarks.bench --peers $(PEERS) $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

bench-peers: ## Set up MMDetection, Ultralytics and pycocotools for that table, in .peers (20 minutes)
	PYTHON=$(PYTHON) benchmarks/peers/setup.sh $(PEERS)

bench-gpu: $(if $(DRY),$(VENV)/.installed) ## Measure all on one GPU in 8 minutes, its environment included (DRY=1 tries it on the CPU)
	$(if $(DRY),$(BIN)/python -m benchmarks.gpu --dry-run,$(PYTHON) benchmarks/gpu/start.py $(if $(WHEELS),--wheels $(WHEELS)) --peers $(PEERS)) \
	$(if $(PARTS),--parts $(PARTS)) $(if $(OUT),--out $(OUT)) $(if $(TOGETHER),--together $(TOGETHER))

comparison: $(VENV)/.installed ## Test TOOD's claim on small data, hours on two cores, and make docs/comparison.md (QUICK=1: minutes)
	$(BIN)/python -m benchmarks.comparison $(if $(QUICK),--quick) $(if $(CELLS),--cells $(CELLS)) $(if $(OUT),--out $(OUT))

release: $(VENV)/.installed ## Check, build and try a release in fresh environments; nothing is published (TRY=1: uncommitted files too)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build
	$(BIN)/python tools/release.py $(if $(TRY),--try)

docs: ## Build the site into site/
	$(PYTHON) -m venv .venv-docs && .venv-docs/bin/pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5,<10'
	.venv-docs/bin/mkdocs build --site-dir site

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) .venv-gpu .venv-docs build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
