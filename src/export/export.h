/* export.h - what the writers of other programs' files share */
#pragma once

/* Bytes that grow; the first failure sticks. */
typedef struct gfli_bytes {
    gfl_context *context;
    uint8_t *data;
    size_t n, capacity;
    gfl_status status;
} gfli_bytes;

/* One tensor of a PyTorch state dict: a parameter, or a constant that such files hold too. */
typedef struct gfli_state_entry {
    char name[128];
    int param; /* -1: a constant */
    gfli_dtype dtype;
    int rank;
    int64_t shape[4];
    size_t count;
} gfli_state_entry;
