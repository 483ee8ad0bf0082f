/* open.c - a weight file of any kind */
#pragma once

/* By content, since names lie: a safetensors file begins with a length and a brace, a checkpoint
 * with the mark of a zip archive or of a pickle. */
static gfl_status gfli_ckpt_read(gfli_blob *b) {
    uint8_t head[9] = {0};
    GFLI_TRY(gfli_blob_pread(b, 0, head, b->size < 9 ? b->size : 9));
    if (b->size >= 9 && head[8] == '{') return gfli_blob_read_header(b);
    if (!memcmp(head, "PK", 2) || head[0] == 0x80) return gfli_pth_read(b);
    if (b->size == 0)
        return gfli_error(b->context, GFL_E_FORMAT, "%s is empty; fetch it again", b->path);
    return gfli_error(b->context, GFL_E_FORMAT,
                      "%s is neither safetensors nor a checkpoint of PyTorch; look at it: a page "
                      "that says why the download failed may have been saved under its name",
                      b->path);
}

gfl_status gfli_ckpt_open(gfl_context *context, const char *path, gfli_blob *out) {
    GFLI_TRY(gfli_blob_open_bare(context, path, out));
    gfl_status status = gfli_ckpt_read(out);
    if (status == GFL_OK) status = gfli_config_read(out);
    if (status != GFL_OK) gfli_blob_close(out);
    return status;
}
