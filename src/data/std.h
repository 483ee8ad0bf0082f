/* std.h - stb_image, private to this file: the system's, or the program's own */
#pragma once
#ifndef GFL_NO_STB_IMAGE
#    ifdef __cplusplus
extern "C" {
#    endif
/* Memory for stb_image: data/image.c. */
static void *gfli_stb_alloc(size_t size);
static void *gfli_stb_realloc(void *p, size_t old_size, size_t size);
static void gfli_stb_free(void *p);
#    ifdef __cplusplus
}
#    endif
#    define STB_IMAGE_STATIC
#    define STB_IMAGE_IMPLEMENTATION
#    define STBI_MAX_DIMENSIONS              GFL_MAX_SIDE
#    define STBI_MALLOC(size)                gfli_stb_alloc(size)
#    define STBI_REALLOC_SIZED(p, old, size) gfli_stb_realloc(p, old, size)
#    define STBI_FREE(p)                     gfli_stb_free(p)
#    define STBI_ASSERT(condition)           ((void)0) /* a file never ends the process */
#    define STBI_NO_STDIO
/* Only JPEG is given to it.  Its PNG stays, as it declares functions that it would not define. */
#    define STBI_NO_BMP
#    define STBI_NO_HDR
#    define STBI_NO_LINEAR
#    define STBI_NO_PIC
#    define STBI_NO_PNM
#    define STBI_NO_PSD
#    define STBI_NO_GIF
#    define STBI_NO_TGA
/* stb_image declares the first name and defines the second. */
#    define stbi__unpremultiply_on_load_thread stbi_set_unpremultiply_on_load_thread
#    if defined(__GNUC__)
#        pragma GCC diagnostic push
#        pragma GCC diagnostic ignored "-Wunused-function"
#        if !defined(__clang__) /* of readers by callback, which are not used */
#            pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#        endif
#    endif
/* Names of its own that hosts have macros for. */
#    pragma push_macro("L")
#    pragma push_macro("abs")
#    undef L
#    undef abs
#    if !defined(__has_include)
#        include <stb/stb_image.h>
#    elif __has_include(<stb/stb_image.h>)
#        include <stb/stb_image.h>
#    elif __has_include("stb_image.h")
#        include "stb_image.h"
#    else
#        error                                                                                     \
            "gfl: stb_image.h: install libstb-dev, put it beside this, or define GFL_NO_STB_IMAGE"
#    endif
#    pragma pop_macro("abs")
#    pragma pop_macro("L")
#    undef stbi__unpremultiply_on_load_thread
#    if defined(__GNUC__)
#        pragma GCC diagnostic pop
#    endif
#endif
