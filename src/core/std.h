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

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>
#ifndef CLOCK_MONOTONIC
#    error "gfl: define GFL_IMPLEMENTATION before the first #include, or compile with -std=gnu11"
#endif
#if defined(__cplusplus) && __cplusplus < 201703L
#    error "gfl: the implementation in C++ needs -std=c++17"
#endif
#if defined(__x86_64__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif
