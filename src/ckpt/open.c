/* open.c - a weight file of any kind */
#pragma once
static gfl_status gfli_ckpt_open(gfl_context *context, const char *path, gfli_blob *out) {
    return gfli_blob_open(context, path, out);
}
