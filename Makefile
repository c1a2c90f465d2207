# `make` alone lists the targets. Names are relative throughout, so the checkout may lie in any folder.
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
COVERAGE ?=
SEED ?= 0
SECONDS ?= 50

BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.mtl-installed
DEV := $(VENV)/.mtl-dev-installed

# What went wrong in one line; a second attempt may follow.
FETCH := $(PY) -c "import sys; \
sys.excepthook = lambda kind, error, trace: print(f'{kind.__name__}: {error}', file=sys.stderr); \
from mtl.sources.fashion_mnist import fetch; fetch()"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run data apt-data apt-strace apt-chromium test slow faults fuzz soak bench check format docs clean

help: ## list the targets
	@echo "Targets (VENV=$(VENV) PYTHON=$(PYTHON)):"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-15s %s\n", $$1, $$2}'

run: data ## train the Fashion-MNIST recipe; overrides in ARGS, as in ARGS="train.epochs=1"
	$(BIN)/mtl run recipes/fashion_stitch.yaml $(ARGS)

data: $(INSTALLED) ## find Fashion-MNIST on this machine, or else get it
	@$(FETCH) || { $(MAKE) --no-print-directory apt-data && $(FETCH); }

apt-data: PACKAGE := dataset-fashion-mnist
apt-strace: PACKAGE := strace
apt-chromium: PACKAGE := chromium
apt-data apt-strace apt-chromium:
	@command -v apt-get >/dev/null || { echo "make: no apt-get here to install $(PACKAGE) with" >&2; exit 1; }
	@if [ "$$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi; \
	echo "installing the Debian package $(PACKAGE)"; \
	$$as_root apt-get update -q </dev/null || echo "apt-get update failed; trying the lists at hand"; \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(PACKAGE) </dev/null

test: COV := $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=95)
test: $(DEV) data ## all tests but the slow ones; COVERAGE=1: whether they reach 95% of lines and every refusal; options in ARGS
	MTL_REQUIRE_TIMM=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup $(COV) $(ARGS)
	$(if $(COVERAGE),$(PY) -m tests.support.raise_sites)

slow: $(DEV) data ## the tests marked slow
	$(PY) -m pytest -m slow $(ARGS)

faults: $(DEV) ## every fault at every system call of a save, and five runs killed 75 times and more
	MTL_REQUIRE_STRACE=1 $(PY) -m pytest tests/faults -m "slow or not slow" $(ARGS)

fuzz: $(DEV) ## mutated input for every reader, SECONDS=50 for each; another SEED gives other input
	MTL_FUZZ_SECONDS=$(SECONDS) MTL_FUZZ_SEED=$(SEED) $(PY) -m pytest tests/fuzz -s $(ARGS)

soak: $(DEV) ## 100,000 steps of a toy task, and 10,000 saves: what grows?
	OMP_NUM_THREADS=1 $(PY) -m tests.load.soak --steps 100000
	OMP_NUM_THREADS=1 $(PY) -m tests.load.soak --steps 10000 --save-every-step

bench: $(DEV) data ## how fast mtl is, beside plain PyTorch and more: ten minutes on a machine that does nothing else; options in ARGS
	$(PY) -m bench.speed $(ARGS)

check: $(DEV) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV) ## write the JSON schema, the key tables of docs/recipe.md and the schemes of docs/sharing.md anew
	$(PY) -c "from pathlib import Path; from mtl.recipe.json_schema import schema_text; \
	Path('recipes/recipe.schema.json').write_text(schema_text(), encoding='utf-8')"
	$(PY) -m docs.tools.key_table
	$(PY) -m docs.tools.scheme_table
	$(PY) -m docs.tools.weighting_table

clean: ## remove what can be made again: environment, caches, builds; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mtl tasks tests examples bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

define install
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
|| { echo "make: $(PYTHON) is not Python 3.11 or newer; use make PYTHON=/path/to/python" >&2; exit 1; }
@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV)
$(PY) -m pip install -q -c constraints.txt -e
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(install) .
	@touch $@

$(DEV): pyproject.toml constraints.txt
	$(install) '.[dev]'
	$(PY) -m pip install -q -c constraints.txt --no-deps timm  # its torchvision may not belong to this torch
	@touch $(INSTALLED) $@
