#!/bin/sh
# install.sh - called by `make install`; BUILD, PREFIX, DESTDIR and VERSION come from there.
set -eu
to=${DESTDIR:-}$PREFIX
major=${VERSION%%.*}
mkdir -p "$to/bin" "$to/include" "$to/lib/pkgconfig" "$to/lib/cmake/gfl" "$to/share/man/man1"
install -m 755 "$BUILD/gfl" "$to/bin/gfl"
install -m 644 gfl.h "$to/include/gfl.h"
install -m 644 "$BUILD/libgfl.a" "$to/lib/libgfl.a"
install -m 755 "$BUILD/libgfl.so.$major" "$to/lib/libgfl.so.$major"
ln -sf "libgfl.so.$major" "$to/lib/libgfl.so"
cat > "$to/lib/pkgconfig/gfl.pc" <<EOF
prefix=$PREFIX
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: gfl
Description: Generalized Focal Loss object detection in C
Version: $VERSION
Cflags: -I\${includedir}
Libs: -L\${libdir} -lgfl
Libs.private: -lm -pthread
EOF
cat > "$to/lib/cmake/gfl/gflConfig.cmake" <<'EOF'
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)
get_filename_component(gfl_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET gfl::gfl)
    add_library(gfl::gfl STATIC IMPORTED)
    set_target_properties(gfl::gfl PROPERTIES
        IMPORTED_LOCATION "${gfl_prefix}/lib/libgfl.a"
        INTERFACE_INCLUDE_DIRECTORIES "${gfl_prefix}/include"
        INTERFACE_LINK_LIBRARIES "m;Threads::Threads")
endif()
EOF
# The same major version is compatible; while it is 0, the same minor version.
cat > "$to/lib/cmake/gfl/gflConfigVersion.cmake" <<EOF
set(PACKAGE_VERSION "$VERSION")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
elseif(PACKAGE_FIND_VERSION_MAJOR EQUAL $major)
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
else()
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
EOF
if [ -f examples/gfl.1 ]; then install -m 644 examples/gfl.1 "$to/share/man/man1/gfl.1"; fi
