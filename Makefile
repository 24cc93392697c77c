# Common tasks: `make demo` generates text with the bundled model, `make test` runs all tests. Both
# prepare their requirements.
.DEFAULT_GOAL := help
SHELL := bash
# Swift's tests need injected failures in the FFI library; one set of features avoids a second
# build. FEATURES=--no-default-features omits Metal when MLX is built from source.
TESTED := --workspace --exclude mlx-c-bindings --locked --features openelm-ffi/inject-faults $(FEATURES)
SCRIPTS := setup/*.sh setup/native/tests/*.sh apple/*.sh release/*.sh swift/*.sh parity/*.sh bench/*.sh fuzz/*.sh \
  examples/tales/training/*.sh .ci/run .github/*.sh
# Steps of `make test` run in sequence: parallel steps would compete for the cores.
.NOTPARALLEL:

##@ Use

help: ## show this list
	@awk -F ':.*## ' '/^##@ / { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## prepare MLX and its Rust declarations under .mlx (a minute, once)
	@setup/setup.sh

build: setup ## build the openelm tool for use: target/release/openelm
	@cargo build --release --locked --package openelm-cli

demo: ## generate text with the bundled model
	@setup/demo.sh

clean: ## remove all build results; `make clean setup` starts over
	rm -rf target out .mlx .build

##@ Test

test: lint test-tools test-scripts test-native test-rust test-mutations test-page test-swift parity ## everything: lint, the scripts, the native kernels, the Rust tests, mutated inputs, the server's page, the Swift package, parity with mlx-lm
	@awk '/^test result: ok/ { passed += $$4 } END { print "make test: passed: " passed " Rust tests, the native kernels, mutated inputs, the scripts, the Swift package, parity with mlx-lm" }' out/rust-tests.log

# float32 products on the matrix units of M5 and A19 would otherwise use TF32, below the tests' bounds.
test-rust test-swift parity: export MLX_ENABLE_TF32 = 0

# Two tests run at the same time: with two threads each they would compete for the cores.
test-rust: setup ## the Rust tests alone; with OPENELM_TEST_DATA those that need its data too
	@mkdir -p out
	set -o pipefail; OPENBLAS_NUM_THREADS=1 cargo test $(TESTED) | tee out/rust-tests.log
	cargo test --quiet $(TESTED) --test native
	set -o pipefail; [ -z "$$OPENELM_TEST_DATA" ] || OPENBLAS_NUM_THREADS=1 \
	  cargo test $(TESTED) --lib --test gguf --test tales -- --ignored external_data --skip loss_of_all | tee -a out/rust-tests.log

test-native: setup ## the native CPU kernels under sanitizers, for AVX2 and AVX-512
	@setup/native/tests/run.sh

test-swift: setup ## the Swift package alone: build it against the real library, test it, check its documentation
	@swift/test.sh

# A fixed seed and a minute at most; `make fuzz` runs all cases with a new seed.
test-mutations: setup ## a few hundred mutated files and extreme options of the built tool
	cargo build --quiet $(TESTED) --bin openelm
	python3 -B fuzz/mutations --openelm target/debug/openelm --seed 20 --cases 300,150 --seconds 60

test-page: setup ## the server's page in a headless Chromium (Debian: apt-get install chromium)
	cargo build --quiet $(TESTED) --bin openelm
	cd openelm-server/tests/page && OPENELM_TOOL="$$PWD/../../../target/debug/openelm" python3 -B -m unittest --quiet

test-scripts: ## the scripts of apple/, release/, .github/, fuzz/, bench/mac, examples/lm_eval and the chat app, on any system
	cd apple && python3 -B -m unittest --quiet
	cd release && python3 -B -m unittest --quiet
	cd .github && python3 -B -m unittest --quiet
	cd fuzz/mutations && python3 -B -m unittest --quiet
	cd bench/mac && python3 -B -m unittest --quiet
	cd examples/lm_eval && python3 -B -m unittest --quiet
	cd swift/Examples/Chat && python3 -B -m unittest --quiet

# Both in parallel, because most of the time is spent downloading. A failed download is retried by
# the step that needs it.
test-tools: setup ## download mlx-lm and a Swift toolchain, which the tests use
	@parity/setup.sh & bash -c '. swift/toolchain.sh'; wait

parity: setup ## compare logits, text, conversions and training with mlx-lm, live
	@parity/run.sh

parity-llama: build ## compare GGUF files with llama.cpp (builds it first: ten minutes, once)
	@parity/llama.sh

parity-evaluate: build ## compare log-likelihoods with lm-eval and mlx-lm (installs lm-eval first; needs OPENELM_TEST_DATA)
	@parity/evaluate.sh

parity-server: build ## compare openelm serve with openelm evaluate by lm-eval and the openai client (installs both first; without OPENELM_TEST_DATA the client alone)
	@parity/server.sh

fuzz: build ## kill each long command at 20 moments, run 16,500 mutated files, options and requests, then fuzz the readers, a minute each (needs cargo-fuzz)
	OPENELM_KILLS=20 cargo test --locked --package openelm-cli --test killed
	OPENELM_MUTATED_REQUESTS=5000 cargo test --locked --package openelm-server --test server mutated
	python3 -B fuzz/mutations --openelm target/release/openelm
	@fuzz/run.sh

##@ Develop

fmt: ## format the Rust code
	@cargo fmt --all

lint: setup lint-workflows ## rustfmt, clippy, rustdoc, shellcheck (Debian: apt-get install shellcheck), the workflows; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
	python3 -B docs/check.py
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked --quiet
	@command -v shellcheck >/dev/null || { echo "lint: WARNING: shellcheck is not installed: the scripts were not checked" >&2; [ "$$CI" != true ]; }
	! command -v shellcheck >/dev/null || shellcheck $(SCRIPTS)

lint-workflows: ## check .github/workflows with actionlint
	@.github/lint.sh

deny: ## check the licences, advisories and sources of all crates (needs cargo-deny: cargo install --locked cargo-deny)
	cargo deny --locked check

bindings: setup ## update Swift's declarations of openelm-ffi and swift/API.md, then test the package
	@swift/test.sh --write

run-swift: setup ## generate text with the bundled model from Swift, with release builds
	cargo build --release --locked --package openelm-ffi
	. swift/toolchain.sh && OPENELM_LIBRARY_DIR="$$PWD/target/release" \
	  swift run --configuration release openelm-swift examples/tales "Once upon a time" 40

setup-swift: ## prepare a Swift toolchain under .mlx/swift (Debian, no root), and print the lines for a shell
	@setup/setup-swift.sh
	@swift/environment.sh

bench: build ## measure side by side with mlx-lm, and Swift with Rust; results go to bench/README.md
	@bench/run.sh

mac: ## on a Mac: build, test, compare and measure with Metal, and write one report to send: out/mac
	@python3 -B bench/mac

launches: setup ## count the kernel launches of a step beside mlx-lm's; results go to bench/README.md
	@parity/setup.sh
	cargo build --quiet --locked --package openelm-core --example launches
	python3 -B bench/launches.py

##@ Apple and release

check-apple: setup ## type-check for macOS and iOS, link for macOS, from Debian (ten minutes, once)
	@apple/check-apple.sh
	@apple/link-macos.sh

xcframework: ## build the Swift package's library and GPU kernels on a Mac with Xcode: out/xcframework
	@apple/xcframework.sh

consumer: ## build a scratch package that depends on this one: out/consumer
	@apple/consumer.sh

ios: ## build the Swift package for iOS and its simulator on a Mac with Xcode, after make xcframework
	@apple/ios.sh

chat-simulator: ## run the chat app in the iOS simulator and take screenshots: out/chat
	@apple/chat-simulator.sh

dist-macos: check-apple ## pack the tool and the library for Macs: out/openelm-*-macos*-arm64.tar.gz
	@apple/dist-macos.sh

.PHONY: help setup build demo clean test test-native test-rust test-mutations test-page test-swift test-scripts test-tools parity parity-evaluate parity-llama parity-server fuzz
.PHONY: fmt lint lint-workflows deny bindings run-swift setup-swift bench mac launches
.PHONY: check-apple xcframework consumer ios chat-simulator dist-macos
