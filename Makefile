# make demo   set up, then index the standard library's documentation and answer questions about it
# make test   set up, then run every check: format, lint, types, import directions, tests
# make test-all, make test-bare (no extra installed), make test-oldest (the oldest frameworks supported)
# make bench       measure beside other libraries, each in an environment of its own (an hour), and rewrite the README's table
# make benchmarks, make format, make clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

BENCHMARKS := quality lexical_build lexical_query encoding overhead update import_time limit compare adapting bridging ql_rerank trie \
  adapters borrowed onnx_runtime
BENCH := encoding dense_search import_time cold_start hybrid lexical_peers memory growth
# In a process of their own: they fork, which takes long in one that has loaded models.
RELIABILITY := tests/reliability

.PHONY: demo test test-all test-bare test-oldest bench benchmarks format clean

demo: $(STAMP)
	$(BIN)/python -m demo

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow" $(RELIABILITY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered -m "not slow" --ignore=$(RELIABILITY)

test-all: $(STAMP)
	RAGISTRY_THOROUGH=1 $(BIN)/python -m pytest
	$(MAKE) test-bare test-oldest

# In environments of their own, made afresh.
test-bare:
	$(PYTHON) -m venv --clear $(VENV)-bare
	$(VENV)-bare/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . hypothesis pytest pytest-asyncio
	RAGISTRY_BARE=1 $(VENV)-bare/bin/python -m pytest -m "not slow" --ignore=$(RELIABILITY)

test-oldest:
	$(PYTHON) -m venv --clear $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints.txt
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt --editable ".[dense,langchain,llama-index,mcp,haystack,dspy]" hypothesis pytest pytest-asyncio
	RAGISTRY_BARE=1 RAGISTRY_OLDEST=1 $(VENV)-oldest/bin/python -m pytest -m "not slow" tests/integrations

bench: $(STAMP)
	$(PIP) --editable ".[benchmarks]"
	$(BIN)/python benchmarks/onnx_runtime.py --rounds 5
	for script in $(BENCH); do $(BIN)/python benchmarks/$$script.py || exit 1; done
	$(BIN)/python benchmarks/table.py

benchmarks: $(STAMP)
	$(PIP) --editable ".[benchmarks]"
	for script in $(BENCHMARKS); do $(BIN)/python benchmarks/$$script.py || exit 1; done

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-bare $(VENV)-oldest .demo

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; torch is large)"
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed; name one with: make PYTHON=...' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[dense,dev]"
	@touch $@
