# The verbs of this project. CI calls check and test.
#
#   make run     build fnbus and start it with the example project; WASM=1 with functions in WebAssembly
#   make test    every test; WASM=1 those of WebAssembly too
#   make check   formatting, lints, docs
#   make bench   figures, as ratios to a floor measured in the same run
#   make faults  every fault with patience, and a table; FAULTS="1 2 --seed 7" chooses
#   make simulate the owner, relay and log under SEEDS=20000 seeds, or one: FNBUS_SEED=7
#   make soak    faults of all kinds at random for MINUTES=60

CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
TOOLS := $(TARGET)/tools
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build run test check fmt bench faults soak simulate

help:
	@sed -n 's/^#   //p' Makefile

# WebAssembly takes longer to build than all the rest: it is there when WASM=1 asks for it, in tests and checks too.
WASM_FEATURES := $(if $(WASM),--features fnbus/wasm)
ALL_FEATURES := $(if $(WASM),--features fnbus/wasm --features fnbus-tests/wasm)

build:
	$(CARGO) build --release --locked $(WASM_FEATURES)

run: build
	@server=$$(sh tools/nats-server.sh $(TOOLS)) && \
	NATS_SERVER="$$server" PATH="$(abspath $(TARGET))/release:$$PATH" \
	exec $(TARGET)/release/fnbus up --config functions/fnbus.toml

# The tests drive the binary of their own profile: it is built first.
test:
	$(CARGO) build --workspace --all-targets --locked $(ALL_FEATURES)
	@server=$$(sh tools/nats-server.sh $(TOOLS)) && export NATS_SERVER="$$server" && \
	clients=$$(sh tools/clients.sh $(TOOLS)) && export FNBUS_CLIENTS="$$clients" && \
	if [ -n "$(WASM)" ]; then modules=$$(sh tools/wasm.sh $(TOOLS)) && export FNBUS_WASM="$$modules"; fi && \
	if [ -n "$(NEXTEST)" ]; then $(CARGO) nextest run --workspace --locked --no-fail-fast $(ALL_FEATURES); \
	else $(CARGO) test --workspace --locked --no-fail-fast $(ALL_FEATURES); fi

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked $(ALL_FEATURES) -- -D warnings
	@# documentation here is for those who change the code: links to private items are welcome
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --locked --document-private-items $(ALL_FEATURES)
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; fi

fmt:
	$(CARGO) fmt --all

# BENCH: words for the bench, such as --quick, or rows: BENCH="P2 P7"; WASM=1 with those of WebAssembly
bench:
	$(CARGO) build --release --locked --workspace $(WASM_FEATURES)
	@server=$$(sh tools/nats-server.sh $(TOOLS)) && \
	if [ -n "$(WASM)" ]; then modules=$$(sh tools/wasm.sh $(TOOLS)) && export FNBUS_WASM="$$modules"; fi && \
	NATS_SERVER="$$server" $(TARGET)/release/fnbus-bench $(BENCH)

# A debug build: it has the failpoints.
faults:
	$(CARGO) build --workspace --bins --locked
	@server=$$(sh tools/nats-server.sh $(TOOLS)) && \
	NATS_SERVER="$$server" $(TARGET)/debug/fnbus-faults $(FAULTS)

# The bus is optimised here: many schedules are worth the build. FNBUS_SEED=7 repeats one step by step.
SEEDS ?= 20000
simulate:
	FNBUS_SEEDS=$(SEEDS) $(CARGO) test --workspace --lib --locked --config 'profile.dev.package.fnbus-bus.opt-level=2' \
		whatever_happens -- --nocapture

MINUTES ?= 60
soak:
	$(CARGO) build --workspace --bins --locked
	@server=$$(sh tools/nats-server.sh $(TOOLS)) && \
	NATS_SERVER="$$server" $(TARGET)/debug/fnbus-faults soak --minutes $(MINUTES)
