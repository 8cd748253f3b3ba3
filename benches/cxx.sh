#!/bin/bash
# Measures rdcc on C++ with deep template headers: the unit tests of nlohmann's JSON library (Debian's nlohmann-json3),
# compiled for the Arietta. The table is that of kernel.sh.
#   benches/cxx.sh [DIRECTORY-OF-THE-SOURCE] [UNITS]          default: target/json, the first 16 units
# JOBS=N is make's -j for all builds (8); BIN=DIR takes binaries that are there instead of building them;
# ROUNDS=N measures N times (1), and prints the medians; PEERS=0 leaves distcc out.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
TREE=$(realpath -m "${1:-$TOP/target/json}")
UNITS=${2:-16}
JOBS=${JOBS:-8}
TOOLCHAIN=$TOP/toolchains/arm926.toml
RDCC="rdcc --toolchain arm926 --driver c++"
scripts/prepare.sh bench
scripts/fetch-source.sh nlohmann-json3 "$TREE"
REAL=$(command -v arm-linux-gnueabi-g++)
. benches/build-cost.sh

mkdir "$RUN/build"
echo '#define TEST_DATA_DIRECTORY "data"' >"$RUN/build/test_data.hpp"
cat >"$RUN/build/Makefile" <<'MAKE'
CXX = arm-linux-gnueabi-g++
CXXFLAGS = -std=c++17 -O2 -DDOCTEST_CONFIG_SUPER_FAST_ASSERTS -DJSON_TEST_KEEP_MACROS
INCLUDES = -I. -I$(TREE)/include -I$(TREE)/tests/thirdparty/doctest -I$(TREE)/tests/thirdparty/fifo_map
all: $(patsubst %,%.o,$(NAMES))
%.o: $(TREE)/tests/src/%.cpp
	$(CXX) $(CXXFLAGS) $(INCLUDES) -MD -MF $@.d -c $< -o $@
MAKE
names=$(cd "$TREE/tests/src" && ls unit*.cpp | head -n "$UNITS" | sed 's/\.cpp$//' | tr '\n' ' ')

compiler() { echo "CXX=$1"; }
settle() { :; }
build() {
	make -s -C "$RUN/build" -j"$JOBS" TREE="$TREE" NAMES="$names" "$@" >"$RUN/make.log" 2>&1 ||
		{ tail -n 30 "$RUN/make.log" >&2; exit 1; }
}
clean() { rm -f "$RUN"/build/*.o "$RUN"/build/*.d; }
objects() { (cd "$RUN/build" && sha256sum ./*.o); }
lists() { (cd "$RUN/build" && sha256sum ./*.d); }
keep_floor() { cp "$RUN"/build/*.o "$RUN"/build/*.d "$1"; }
measure_all
