# Two commands do everything on a machine with Python >= 3.11, pip, make and git:
#   make demo    the main job: one page that compares three mixers on a real corpus
#   make test    the tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOWEST := .venv-lowest
OTHERS := .venv-others

.PHONY: demo test fuzz test-lowest test-others lab doctor lint bench costs notebooks clean help

help:       ## show these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)       ## regroup a real corpus, train with three mixers, write reports/demo
	$(BIN)/rbkit demo

test: $(READY)       ## lint, types and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: $(READY)       ## 500 mutants of each kind of file that a stranger may hand over
	RBKIT_FUZZ=500 $(BIN)/python -m pytest -n 2 tests/test_fuzz.py

test-lowest: ## the fast tests with the lowest versions that pyproject.toml declares
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip uv
	@# torch alone stays where constraints.txt pins it: an older one would fetch gigabytes of CUDA.
	@# Without its dependencies, or uv would keep their newest versions.
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps torch
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable ".[dev,regmix]" "$$(grep ^torch== constraints.txt)"
	@# An old release may use what a newer one of another library deprecates.
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile -W default::DeprecationWarning \
		-m "not slow and not browser and not notebook"

test-others: ## the tests of what needs TRL, PEFT or reasoning-gym, in an environment of its own
	$(PYTHON) -m venv --clear $(OTHERS)
	$(OTHERS)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(OTHERS)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,tasks]" trl peft
	$(OTHERS)/bin/python -m pytest tests -k "trl or adapters or tasks or exits"

lab: $(READY)        ## JupyterLab on the notebooks
	$(BIN)/rbkit lab

doctor: $(READY)     ## what is installed, what is cached, and does it work?
	$(BIN)/rbkit doctor

bench: $(READY)      ## measure speed, scale, overhead, busy neighbours, live view, report; results in bench/results
	$(BIN)/python bench/regroup.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/tradeoff.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/neighbour.py
	$(BIN)/python bench/live.py
	$(BIN)/python bench/report.py

costs: $(READY)      ## what every rule costs on the demo corpus: reports/costs
	$(BIN)/rbkit costs

notebooks: $(READY)  ## make the notebooks from their masters
	$(BIN)/rbkit nb build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rbkit needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# torch first and pinned: left open, pip would fetch gigabytes of CUDA for any machine.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

clean:      ## remove the environments and what tools cached
	rm -rf $(VENV) $(LOWEST) $(OTHERS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
