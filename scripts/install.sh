#!/bin/sh
# install.sh - called by `make install`; BUILD, PREFIX, DESTDIR and VERSION come from there, and
# CUDA_LIB and CUDA_LIBS: what was built with nvcc and what it is linked with, or nothing.
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
# The GPU code calls functions of the library that the shared one does not export.
rm -rf "$to/share/gfl" "$to/lib/libgfl_cuda.a" "$to/lib/pkgconfig/gfl-cuda.pc"
if [ -n "${CUDA_LIB:-}" ]; then
    mkdir -p "$to/share/gfl"
    install -m 644 gfl_cuda.cu "$to/share/gfl/gfl_cuda.cu"
    install -m 644 "$CUDA_LIB" "$to/lib/libgfl_cuda.a"
    cat > "$to/lib/pkgconfig/gfl-cuda.pc" <<EOF
prefix=$PREFIX
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: gfl-cuda
Description: gfl with its code for NVIDIA GPUs
Version: $VERSION
Cflags: -I\${includedir}
Libs: -L\${libdir} -lgfl_cuda -l:libgfl.a $CUDA_LIBS -lm -pthread
EOF
fi
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
# gfl::cuda is there where gfl was installed with nvcc and CUDA's runtime library is found.
if(NOT EXISTS "${gfl_prefix}/lib/libgfl_cuda.a")
    set(gfl_no_cuda "this gfl was installed without CUDA; run make install where nvcc is")
elseif(NOT TARGET gfl::cuda)
    find_package(CUDAToolkit QUIET)
    set(gfl_no_cuda "CUDA's runtime library was not found; set CUDAToolkit_ROOT")
    if(TARGET CUDA::cudart_static)
        add_library(gfl::cuda STATIC IMPORTED)
        set_target_properties(gfl::cuda PROPERTIES
            IMPORTED_LOCATION "${gfl_prefix}/lib/libgfl_cuda.a"
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
