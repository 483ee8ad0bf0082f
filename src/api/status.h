/* status.h - what a call can return */
#pragma once

/* What has come of a call; the text of a failure is the context's. */
typedef enum gfl_status {
    GFL_OK = 0,              /* it has done what it should */
    GFL_E_ARG = -1,          /* an argument is NULL or outside its range */
    GFL_E_MEMORY = -2,       /* the allocator returned NULL, or a size overflows */
    GFL_E_IO = -3,           /* a file cannot be opened, read or written */
    GFL_E_FORMAT = -4,       /* a file is not what it should be: truncated, malformed, hostile */
    GFL_E_MISMATCH = -5,     /* weights, state or classes do not fit the model or data at hand */
    GFL_E_DATA = -6,         /* annotations or results contradict themselves */
    GFL_E_DEVICE = -7,       /* no such device, or it failed */
    GFL_E_NONFINITE = -8,    /* a loss is NaN or infinite */
    GFL_E_STOPPED = -9,      /* a progress callback asked to stop */
    GFL_E_UNSUPPORTED = -10, /* understood, but not something this build can do */
    GFL_E_RANK = -11         /* another rank failed or does not answer */
} gfl_status;

/* gfl_status_get_name - "GFL_E_ARG" and so on; never NULL. */
GFL_API const char *gfl_status_get_name(gfl_status status);
