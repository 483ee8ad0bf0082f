#!/bin/sh
# install.sh install|uninstall - called by make, which gives the folders, VERSION, SO (the SONAME's
# number) and CUDA_LIB and CUDA_LIBS: what was built with nvcc and what it is linked with, or nothing.
#
# Each file is named once, in a call of put or link, so that what is removed is what was installed.
# Modes do not depend on the umask.  Files of others are left alone.
set -eu
action=$1
lib=${DESTDIR:-}$LIBDIR
made=$BUILD/install
mkdir -p "$made"

# put MODE FROM TO
put() {
    if [ "$action" = uninstall ]; then rm -f "$3"; else
        install -d -m 755 "$(dirname "$3")"
        install -m "$1" "$2" "$3"
    fi
}

# link TEXT TO
link() {
    if [ "$action" = uninstall ]; then rm -f "$2"; else ln -sf "$1" "$2"; fi
}

# A folder as pkg-config and CMake should write it: movable where it is below PREFIX.
below() {
    case $1 in
    "$PREFIX"/*) echo "$2/${1#"$PREFIX"/}" ;;
    *) echo "$1" ;;
    esac
}

# package NAME DESCRIPTION LIBS PRIVATE: a .pc file
package() {
    cat <<EOF
prefix=$PREFIX
includedir=$(below "$INCLUDEDIR" '${prefix}')
libdir=$(below "$LIBDIR" '${prefix}')

Name: $1
Description: $2
Version: $VERSION
Cflags: -I\${includedir}
Libs: -L\${libdir} $3
EOF
    [ -z "$4" ] || echo "Libs.private: $4"
}

put 755 "$BUILD/gfl" "${DESTDIR:-}$BINDIR/gfl"
put 644 gfl.h "${DESTDIR:-}$INCLUDEDIR/gfl.h"
put 644 "$BUILD/libgfl.a" "$lib/libgfl.a"
put 755 "$BUILD/libgfl.so.$SO" "$lib/libgfl.so.$SO"
link "libgfl.so.$SO" "$lib/libgfl.so"
put 644 examples/gfl.1 "${DESTDIR:-}$MANDIR/man1/gfl.1"
package gfl 'Generalized Focal Loss object detection in C' -lgfl '-lm -pthread' > "$made/gfl.pc"
put 644 "$made/gfl.pc" "$lib/pkgconfig/gfl.pc"

# The GPU code calls functions of the library that the shared one does not export.
package gfl-cuda 'gfl with its code for NVIDIA GPUs' \
    "-lgfl_cuda -l:libgfl.a ${CUDA_LIBS:-} -lm -pthread" '' > "$made/gfl-cuda.pc"
cuda() {
    put 644 gfl_cuda.cu "${DESTDIR:-}$DATADIR/gfl/gfl_cuda.cu"
    put 644 "$CUDA_LIB" "$lib/libgfl_cuda.a"
    put 644 "$made/gfl-cuda.pc" "$lib/pkgconfig/gfl-cuda.pc"
}
# One without GPUs replaces one with: what is left over would not fit.
if [ -n "${CUDA_LIB:-}" ]; then cuda; else (CUDA_LIB='' action=uninstall && cuda); fi

case $LIBDIR in
"$PREFIX"/*) up='${gfl_here}/../..'$(echo "${LIBDIR#"$PREFIX"}" | sed 's|/[^/]*|/..|g') ;;
*) up=$PREFIX ;;
esac
include=$(below "$INCLUDEDIR" "$up")
sed "s|@INCLUDE@|$include|" > "$made/gflConfig.cmake" <<'EOF'
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)
get_filename_component(gfl_here "${CMAKE_CURRENT_LIST_DIR}" REALPATH)
get_filename_component(gfl_lib "${gfl_here}/../.." ABSOLUTE)
if(NOT TARGET gfl::gfl)
    add_library(gfl::gfl STATIC IMPORTED)
    set_target_properties(gfl::gfl PROPERTIES
        IMPORTED_LOCATION "${gfl_lib}/libgfl.a"
        INTERFACE_INCLUDE_DIRECTORIES "@INCLUDE@"
        INTERFACE_LINK_LIBRARIES "m;Threads::Threads")
endif()
# gfl::cuda is there where gfl was installed with nvcc and CUDA's runtime library is found.
if(NOT EXISTS "${gfl_lib}/libgfl_cuda.a")
    set(gfl_no_cuda "this gfl was installed without CUDA; run make install where nvcc is")
elseif(NOT TARGET gfl::cuda)
    find_package(CUDAToolkit QUIET)
    set(gfl_no_cuda "CUDA's runtime library was not found; set CUDAToolkit_ROOT")
    if(TARGET CUDA::cudart_static)
        add_library(gfl::cuda STATIC IMPORTED)
        set_target_properties(gfl::cuda PROPERTIES
            IMPORTED_LOCATION "${gfl_lib}/libgfl_cuda.a"
            INTERFACE_LINK_LIBRARIES "gfl::gfl;CUDA::cudart_static;stdc++")
    endif()
endif()
foreach(component ${gfl_FIND_COMPONENTS})
    if(TARGET gfl::${component})
        set(gfl_${component}_FOUND TRUE)
    elseif(gfl_FIND_REQUIRED_${component})
        set(gfl_FOUND FALSE)
        set(gfl_NOT_FOUND_MESSAGE "there is no gfl::${component}")
        if(component STREQUAL "cuda")
            set(gfl_NOT_FOUND_MESSAGE "there is no gfl::cuda: ${gfl_no_cuda}")
        endif()
    endif()
endforeach()
EOF
put 644 "$made/gflConfig.cmake" "$lib/cmake/gfl/gflConfig.cmake"

# The same major version is compatible; while it is 0, the same minor version.
cat > "$made/gflConfigVersion.cmake" <<EOF
set(PACKAGE_VERSION "$VERSION")
string(REGEX MATCH "^([0-9]+)[.]([0-9]+)" PACKAGE_VERSION_PARTS "\${PACKAGE_VERSION}")
set(PACKAGE_VERSION_COMPATIBLE FALSE)
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION
   AND PACKAGE_FIND_VERSION_MAJOR EQUAL CMAKE_MATCH_1
   AND (CMAKE_MATCH_1 GREATER 0 OR PACKAGE_FIND_VERSION_COUNT LESS 2
        OR PACKAGE_FIND_VERSION_MINOR EQUAL CMAKE_MATCH_2))
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
endif()
EOF
put 644 "$made/gflConfigVersion.cmake" "$lib/cmake/gfl/gflConfigVersion.cmake"

# Folders that carry our name, where they are empty.
if [ "$action" = uninstall ]; then
    rmdir "$lib/cmake/gfl" "${DESTDIR:-}$DATADIR/gfl" 2>/dev/null || :
fi
