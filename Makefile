# Everything a developer or CI does, from a bare clone: only Python 3.11+, make and a compiler are needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CLIENTS := .venv-clients
PERF   := .work/perf_analyzer
PEERS  := fastapi litserve bentoml mlserver kserve pytriton rayserve
PIP    := -m pip --quiet --disable-pip-version-check

.PHONY: install clients demo test fuzz lint bench peers bench-peers bench-targets bench-soak bench-while-compiling serve lock clean

install: $(STAMP)

$(STAMP): pyproject.toml lock/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r lock/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install        ## start, register a real model, compile it, predict, scrape, print the proof, stop
	$(BIN)/forgeway demo

clients: $(CLIENTS)/.installed $(PERF)/.installed  ## other people's clients, in an environment of their own

$(CLIENTS)/.installed: lock/clients.txt
	rm -rf $(CLIENTS)
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python $(PIP) install --require-hashes --no-compile -r lock/clients.txt
	touch $@

# A binary for Linux on x86-64; elsewhere its tests skip themselves.
$(PERF)/.installed: lock/perf_analyzer.txt tests/clients/unpack.py tests/clients/base64.c
	rm -rf $(PERF) && mkdir -p $(PERF)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(PYTHON) $(PIP) download --no-deps --require-hashes -r lock/perf_analyzer.txt -d $(PERF)/wheels && \
	  $(PYTHON) tests/clients/unpack.py $(PERF)/wheels $(PERF) && rm -rf $(PERF)/wheels; \
	else echo "perf_analyzer is left out: it exists for Linux on x86-64 only, this is $$(uname -sm)"; fi
	touch $@

# In the order of their names: left alone, xdist puts files with few tests last, which here are those that take longest.
test: install clients  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

fuzz: install clients  ## ten thousand requests made from the schema, against a live gateway
	$(BIN)/python -m tests.clients.fuzz --cases 10000

lint: install        ## style, types, import directions, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

bench: install       ## ratios through HTTP against the bare session
	$(BIN)/python -m benchmarks

peers: $(PEERS:%=.venv-peers/%.tried)  ## other people's servers, each in an environment of its own

# One that cannot be installed here is left out, and its log says why (the benchmark's table too).
.venv-peers/%.tried: lock/peers/%.txt
	rm -rf .venv-peers/$* && $(PYTHON) -m venv .venv-peers/$*
	@if .venv-peers/$*/bin/python $(PIP) install --require-hashes -r lock/peers/$*.txt > .venv-peers/$*.log 2>&1; \
	then touch .venv-peers/$*/.installed; else echo "$* could not be installed:"; tail -n 3 .venv-peers/$*.log; fi
	@touch $@

bench-peers: install peers  ## side by side with other people's servers: about 12 minutes on 2 cores
	$(BIN)/python -m benchmarks.peers

bench-targets: install  ## the target table of benchmarks/README.md, each row with its result: about 10 minutes
	$(BIN)/python -m benchmarks.targets

bench-soak: install  ## half an hour at 70 % of capacity: latency, errors, memory of every process
	$(BIN)/python -m benchmarks.soak --minutes 30

bench-while-compiling: install  ## what serving feels of a compilation, and a compilation of serving: about 15 minutes
	$(BIN)/python -m benchmarks.while_compiling
	$(BIN)/python -m benchmarks.while_compiling --subjects resnet50 --rounds 3
	$(BIN)/python -m benchmarks.while_compiling --subjects tiny --connections 8 --durations 2

serve: install
	$(BIN)/forgeway serve

stubs: install       ## gateway/grpc/*.proto -> the descriptor set that messages.py loads
	$(BIN)/python -m grpc_tools.protoc -I gateway/grpc --descriptor_set_out=gateway/grpc/inference.binpb inference.proto health.proto

lock:                ## resolve again (needs uv)
	uv pip compile pyproject.toml --extra cpu --extra postgres --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/dev.txt
	uv pip compile pyproject.toml --extra cpu --extra postgres --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/cpu.txt
	uv pip compile lock/clients.in --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/clients.txt
	for peer in $(PEERS); do uv pip compile lock/peers/$$peer.in --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/peers/$$peer.txt; done
	uv pip compile pyproject.toml --extra gpu --extra postgres --python-version 3.11 --generate-hashes --no-emit-index-url -q -o lock/gpu.txt

clean:
	rm -rf $(VENV) $(CLIENTS) $(PERF) .venv-peers build *.egg-info forgeway-data
