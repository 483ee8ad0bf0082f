/* std.h - the C library and the system for the implementation */
#pragma once
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(_WIN32)
/* Without what it can be asked to leave out, and without leaving the asking behind. */
#    if defined(WIN32_LEAN_AND_MEAN) && defined(NOMINMAX)
#        include <windows.h>
#    elif defined(WIN32_LEAN_AND_MEAN)
#        define NOMINMAX
#        include <windows.h>
#        undef NOMINMAX
#    elif defined(NOMINMAX)
#        define WIN32_LEAN_AND_MEAN
#        include <windows.h>
#        undef WIN32_LEAN_AND_MEAN
#    else
#        define NOMINMAX
#        define WIN32_LEAN_AND_MEAN
#        include <windows.h>
#        undef WIN32_LEAN_AND_MEAN
#        undef NOMINMAX
#    endif
#    if defined(__MINGW32__) && !defined(_UCRT) && !__USE_MINGW_ANSI_STDIO
#        error "gfl: Windows' old printf knows no %zu: compile with -D__USE_MINGW_ANSI_STDIO=1"
#    endif
#else
#    include <fcntl.h>
#    include <pthread.h>
#    include <sys/stat.h>
#    include <unistd.h>
#    if !defined(CLOCK_MONOTONIC) || !defined(O_CLOEXEC)
#        error "gfl: this needs POSIX: -std=gnu11, or -D_POSIX_C_SOURCE=200809L before any #include"
#    endif
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "gfl: this machine is big-endian; only little-endian ones are supported"
#endif
#if defined(__cplusplus) && __cplusplus < 201703L
#    error "gfl: the implementation in C++ needs -std=c++17"
#endif
#if defined(__x86_64__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif
