# `make demo` shows rdcc at work, `make test` runs every test. Both install what they need (Debian) and clean up.

.PHONY: all demo test check deny unit prove fuzz matrix replay systems test-a20 test-skew soak armv7 static clean

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

# Licences and sources of what we depend on, as in CI, and then what is known against it, where the database of
# advisories (RustSec's, on GitHub) can be had: that changes by itself, so no change of ours is judged by it.
deny:
	scripts/prepare.sh deny
	cargo deny check licenses bans sources
	@if cargo deny fetch db; then cargo deny check --disable-fetch advisories; \
	else echo "deny: the database of advisories cannot be had here: advisories were NOT checked" >&2; fi

unit:
	scripts/prepare.sh test
	cargo test --no-fail-fast

# The scanner against the compiler at length: some hours. KERNEL=DIR adds the headers of a kernel tree prepared for ARM.
TREES ?= 5000
prove:
	scripts/prepare.sh test
	RDCC_SCAN_TREES=$(TREES) RDCC_SCAN_CASES=all RDCC_SCAN_HEADERS=all RDCC_SCAN_KERNEL='$(KERNEL)' \
		cargo test --release --test it includes:: -- --nocapture
	PROPTEST_CASES=100000 cargo test --release --test it fuzz::

# Readers of foreign bytes under libFuzzer, TIME seconds each: eleven hours. `make fuzz TARGET="scan reducer" TIME=60`.
TIME ?= 3600
fuzz:
	scripts/fuzz.sh $(TIME) $(TARGET)

# Some 500 kinds of commands, five ways each, against the local compiler; `make test` runs every tenth, in one way.
# `make matrix ROWS=-fanalyzer` takes those that contain that.
ROWS ?= 1
matrix:
	scripts/prepare.sh test
	RDCC_MATRIX="$(ROWS)" cargo test --test it matrix -- --nocapture

# rdcc and distcc on simulated clusters: benches/replay.sh says what there is. `make replay SCENARIO="owner mixed"`.
replay:
	benches/replay.sh $(or $(SCENARIO),all)

# Real programs of each build system, locally and through rdcc, every file compared: docs/systems.md.
# `make systems SYSTEM="linux uboot" FULL=1`, `make systems SYSTEM=buildroot BUILDROOT=DIR`; `make systems SYSTEM=list`.
systems:
	scripts/systems.sh $(SYSTEM)

# Two boards in emulation, with their own kernel and compiler, and this machine: docs/systems.md. As root; some 20 minutes.
test-a20:
	scripts/a20.sh

# Farms of two versions: these programs and those of an earlier commit (FROM=COMMIT; the last tag, or before the protocol changed).
test-skew:
	scripts/skew.sh $(FROM)

# A cluster whose parts are killed, frozen and started anew while it builds; MINUTES=480 for a night.
MINUTES ?= 20
soak:
	scripts/soak.sh $(MINUTES)

# The three programs for the boards, on Debian 12, and for this kind of machine; STATIC=1 needs no C library there.
armv7:
	scripts/programs.sh armv7 $(if $(STATIC),static)

static:
	scripts/programs.sh here static

clean:
	cargo clean
