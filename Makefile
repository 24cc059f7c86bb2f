# Everything a developer or CI does, from a bare clone: only Python 3.11+, make and a compiler are needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo test lint bench serve lock clean

install: $(STAMP)

$(STAMP): pyproject.toml lock/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install        ## start, register a real model, compile it, predict, scrape, print the proof, stop
	$(BIN)/forgeway demo

test: install        ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install        ## style, types, import directions, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

bench: install       ## ratios through HTTP against the bare session
	$(BIN)/python -m benchmarks

serve: install
	$(BIN)/forgeway serve

lock:                ## resolve again (needs uv)
	uv pip compile pyproject.toml --extra cpu --extra postgres --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/dev.txt
	uv pip compile pyproject.toml --extra cpu --extra postgres --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/cpu.txt
	uv pip compile pyproject.toml --extra gpu --extra postgres --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/gpu.txt

clean:
	rm -rf $(VENV) build *.egg-info forgeway-data
