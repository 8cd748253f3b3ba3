# `make demo` shows rdcc at work, `make test` runs every test. Both install what they need (Debian) and clean up.

.PHONY: all demo test check unit doc bench clean

all:
	scripts/prepare.sh build
	cargo build --release --bins

demo:
	scripts/demo.sh

test: check unit

# What every change has to pass before its tests are worth running.
check:
	scripts/prepare.sh test
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items

unit:
	scripts/prepare.sh test
	cargo test --no-fail-fast

clean:
	cargo clean
