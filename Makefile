# make run and make test are all a fresh Debian machine with a Rust toolchain needs; `make` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
# Where `make run` listens, and what else `portcullis dev` is to be told.
ADDRESS ?= 127.0.0.1:5443
ARGS ?=

# The second backend: the system's OpenSSL, and a target directory of its own so that the two don't evict each other.
OPENSSL := --no-default-features --features openssl --target-dir target/openssl
WITH_OPENSSL := OPENSSL_NO_VENDOR=1

NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
ifeq ($(NEXTEST),yes)
  TEST := $(CARGO) nextest run --locked --no-fail-fast
else
  TEST := $(CARGO) test --locked --no-fail-fast
endif

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: run
run: ## start a registry and the gateway in front of it, and print how to use them
	@.ci/setup run
	@$(CARGO) build --locked
	@target/debug/portcullis dev --address $(ADDRESS) $(ARGS)

.PHONY: test
test: test-boringssl test-openssl ## run all tests with both TLS backends

.PHONY: test-boringssl
test-boringssl: ## run all tests with BoringSSL, the default
	@.ci/setup test
	$(TEST)
ifeq ($(NEXTEST),yes)
	$(CARGO) test --locked --doc
endif

.PHONY: test-openssl
test-openssl: ## run all tests with the system's OpenSSL
	@.ci/setup test
	$(WITH_OPENSSL) $(TEST) $(OPENSSL)

.PHONY: lint
lint: ## formatting, clippy with both backends, dependencies, the layout of the source
	@.ci/setup lint
	$(CARGO) fmt --check
	$(CARGO) deny --locked check bans licenses sources
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(WITH_OPENSSL) $(CARGO) clippy --locked --all-targets $(OPENSSL) -- -D warnings
	$(CARGO) test --locked --test tidy
	@$(MAKE) --no-print-directory doc

.PHONY: doc
doc: ## build the documentation of the crate; a warning is an error
	@.ci/setup build
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: release
release: ## build the binary for production
	@.ci/setup build
	$(CARGO) build --locked --release

.PHONY: bench
bench: ## measure the gateway beside envoy, nginx, haproxy, traefik and caddy, if they are here; ARGS="--help" tells more
	@.ci/setup bench
	$(CARGO) bench --locked --bench peers -- $(ARGS)

.PHONY: bench-parts
bench-parts: ## measure the parts: routes, decisions, revocation, identities, access records, loading
	@.ci/setup bench
	$(CARGO) bench --locked --bench parts --bench policy --bench revocation

.PHONY: pgo
pgo: ## build it with a profile of itself at work, a tenth faster: target/pgo/portcullis (takes two such builds)
	@.ci/setup bench pgo
	conf/packaging/pgo

.PHONY: image
image: pgo ## build the container image portcullis around that binary
	conf/packaging/image target/pgo/portcullis
	docker build --build-arg BINARY=prebuilt --tag portcullis .

.PHONY: deb
deb: release ## build the Debian package, into target/debian; ARGS="--binary target/pgo/portcullis" for another binary
	conf/packaging/deb $(ARGS)

.PHONY: fmt
fmt: ## format the source
	$(CARGO) fmt

.PHONY: clean
clean: ## remove what was built, and the development directory
	$(CARGO) clean
	rm -rf dev
