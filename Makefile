# `make demo` runs the main job, `make test` passes the tests; both prepare what they need.
.DEFAULT_GOAL := help
SHELL := bash
# Swift's tests have the FFI library fail on purpose; with one set of features all is built once.
TESTED := --workspace --exclude mlx-c-bindings --locked --features openelm-ffi/inject-faults

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## prepare MLX and the Rust bindings under .mlx (a minute, once)
	@setup/setup.sh

build: setup ## build the openelm tool for use: target/release/openelm
	@cargo build --release --locked --package openelm-cli

demo: ## let the bundled model tell a tale
	@setup/demo.sh

check: setup ## rustfmt, clippy and rustdoc, warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked --quiet

parity: setup ## compare logits and text with mlx-lm, live
	@parity/run.sh

parity-llama: build ## compare GGUF files with llama.cpp, which is built first (ten minutes, once)
	@parity/llama.sh

fuzz: setup ## fuzz the readers of files, a minute each (needs cargo-fuzz)
	@fuzz/run.sh

check-apple: setup ## type-check for macOS and iOS, link for macOS, from Debian (ten minutes, once)
	@setup/check-apple.sh
	@setup/link-macos.sh

dist-macos: check-apple ## pack the tool and the library for Macs: out/openelm-*-macos-arm64.tar.gz
	@setup/dist-macos.sh

xcframework: ## build the Swift package's library and GPU kernels on a Mac with Xcode: out/xcframework
	@setup/xcframework.sh

check-setup: ## the scripts: shellcheck (Debian: apt-get install shellcheck), and tests of those for Apple systems
	@command -v shellcheck >/dev/null || echo "check-setup: shellcheck is not installed: the scripts were not read by it" >&2
	! command -v shellcheck >/dev/null || shellcheck setup/*.sh swift/*.sh parity/*.sh bench/*.sh examples/tales/training/*.sh fuzz/*.sh .ci/run
	cd setup && python3 -B -m unittest --quiet

# mlx-lm and Swift, both at once: what takes long is the network. Where that fails it is told, and the
# steps that need them try again, after the tests that do not.
test-tools: setup
	@parity/setup.sh & bash -c '. swift/toolchain.sh'; wait

test: check test-tools check-setup ## everything: check, Rust tests, the Swift package, parity with mlx-lm
	@mkdir -p out
# Two tests run at once: with two threads each they would wait for each other.
	set -o pipefail; OPENBLAS_NUM_THREADS=1 cargo test $(TESTED) | tee out/rust-tests.log
	cargo test --quiet $(TESTED) --test native
	@swift/test.sh
	@parity/run.sh
	@awk '/^test result: ok/ { passed += $$4 } END { print "make test: passed: " passed " Rust tests, the scripts, the Swift package, parity with mlx-lm" }' out/rust-tests.log

setup-swift: ## prepare a Swift toolchain under .mlx/swift (Debian, no root)
	@setup/setup-swift.sh

test-swift: setup ## the Swift package alone: build it against the real library, test it, check its documentation
	@swift/test.sh

bench: build ## measure side by side with mlx-lm, and Swift with Rust; results go to bench/README.md
	@bench/run.sh

clean: ## remove what was built; `make clean setup` starts over
	rm -rf target out .mlx .build

.PHONY: help setup build demo check check-apple dist-macos xcframework check-setup test-tools parity parity-llama fuzz setup-swift test test-swift bench clean
