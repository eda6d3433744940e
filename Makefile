# Every target does its own set-up: a machine with only python3 and make is enough.
# An accelerator machine or another index: make venv TORCH="torch==2.13.0 --index-url https://…"
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test bench check venv clean
.DEFAULT_GOAL := test

demo: $(READY)  ## train, compress, measure and export on a small public dataset; open out/demo/report.html
	$(BIN)/triptych fit easy-vqa --budget p50=1ms,size=500kB,memory=45MB,drop=0.5 --out out/demo --seed 0 --minutes 6

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

bench: $(READY)  ## hours: every set against every control; writes docs/results and docs/results.md
	$(BIN)/python bench/main_job.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

venv: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "triptych needs Python 3.11 or newer; point to one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && $(PYTHON) -m venv $(VENV); } || \
	  { echo "cannot create $(VENV): this Python has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[train,demo,dev]'
	@touch $@

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache
