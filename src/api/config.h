/* config.h - version, visibility and the sizes that are fixed at compile time */
#pragma once

#define GFL_VERSION_MAJOR 0
#define GFL_VERSION_MINOR 2
#define GFL_VERSION_PATCH 0
#define GFL_VERSION       200 /* major * 10000 + minor * 100 + patch */
#define GFL_VERSION_TEXT  "0.2.0"

/* The interface between a program and the library: every struct, enum and prototype of this header.
 * It is major * 100 + minor of the SONAME (libgfl.so.0.2); see STRUCTS. */
#define GFL_ABI 2

/* Predefine GFL_API to build a DLL or to hide the names inside your own library. */
#ifndef GFL_API
#    if defined(__GNUC__) && !defined(_WIN32)
#        define GFL_API __attribute__((__visibility__("default")))
#    else
#        define GFL_API
#    endif
#endif

/* Stands before functions whose body is in the header. */
#if defined(__GNUC__)
#    define GFL_INLINE static inline __attribute__((__unused__))
#else
#    define GFL_INLINE static inline
#endif

/* Largest side of an image, before or after resizing, in pixels. */
#define GFL_MAX_SIDE 16384
/* Pyramid levels: strides 8, 16, 32, 64, 128. */
#define GFL_LEVELS 5
/* Most bins a side's distribution can have (reg_max + 1). */
#define GFL_MAX_BINS 64
/* Most classes of a model. */
#define GFL_MAX_CLASSES 65536

/* gfl_get_version - the version the library was compiled as; compare with GFL_VERSION of your
 * header. */
GFL_API int gfl_get_version(void);
