#!/bin/bash
# CMake: lz4 in C and pugixml in C++, by compiler launcher, by CC and CXX, and by a masquerade directory
need cmake cmake
WAYS="launcher CC masquerade"
# CMake writes down the compiler as it was given, and how long its own tests took.
LEFT_OUT=(! -path '*/CMakeFiles/[0-9]*' ! -name CMakeCache.txt ! -name '*.make' ! -name 'Makefile*' ! -name flags.make
	! -name '*.marks' ! -name 'cmake_install.cmake' ! -name 'DartConfiguration.tcl' ! -name '*.tcl' ! -name '*.json' ! -name 'CPack*'
	! -path '*/CMakeFiles/*.cmake' ! -name link.txt ! -name compiler_depend.internal ! -name 'compiler_depend.ts')
lz4=$(source_of lz4) pugixml=$(source_of pugixml)
fresh() {
	mkdir "$TREE"
	cp -a "$lz4" "$TREE/lz4"
	cp -a "$pugixml" "$TREE/pugixml"
}
build() {
	local project options=(-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_SHARED_LIBS=ON)
	local cc=$CROSS-gcc cxx=$CROSS-g++
	case $1 in
	launcher) options+=("-DCMAKE_C_COMPILER_LAUNCHER=rdcc;--toolchain;arm926" "-DCMAKE_CXX_COMPILER_LAUNCHER=rdcc;--toolchain;arm926") ;;
	CC) cc="rdcc --toolchain arm926 $cc" cxx="rdcc --toolchain arm926 $cxx" ;;
	masquerade)
		rdcc masquerade install "$RUN/links" --toolchain arm926
		PATH=$RUN/links:$PATH
		;;
	esac
	for project in lz4/build/cmake pugixml; do
		CC=$cc CXX=$cxx cmake -S "$TREE/$project" -B "$TREE/$project/out" "${options[@]}"
		make -s -C "$TREE/$project/out" -j"$JOBS"
	done
}
