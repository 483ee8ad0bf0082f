/* export.h - what the writers of other programs' files share */
#pragma once

/* Bytes that grow; the first failure sticks. */
typedef struct gfli_buffer {
    gfl_context *context;
    uint8_t *data;
    size_t n, capacity;
    gfl_status status;
} gfli_buffer;

/* One tensor of a PyTorch state dict: a parameter, or a constant that such files hold too. */
typedef struct gfli_state_entry {
    char name[128];
    int param; /* -1: a constant */
    gfli_dtype dtype;
    int rank;
    int64_t shape[4];
    size_t count;
} gfli_state_entry;

/* ---- bytes (bytes.c) ------------------------------------------------------------------------- */

void gfli_buffer_put(gfli_buffer *b, const void *data, size_t n);
void gfli_buffer_text(gfli_buffer *b, const char *text);
void gfli_buffer_number(gfli_buffer *b, uint64_t value, int n_bytes);
void gfli_buffer_free(gfli_buffer *b);

/* ---- a state dict (entries.c) ---------------------------------------------------------------- */

/* In the order of a state dict.  The caller frees *out. */
gfl_status gfli_state_entries(const gfl_model *model, gfli_state_entry **out, int *n_out);
size_t gfli_state_bytes(const gfli_state_entry *e);
gfl_status gfli_state_values(const gfl_model *model, const gfli_state_entry *e, gfli_values *values,
                             const void **out);

/* ---- protocol buffers (protobuf.c) ----------------------------------------------------------- */

void gfli_pb_int(gfli_buffer *b, int field, int64_t value);
void gfli_pb_float(gfli_buffer *b, int field, float value);
/* What stands before `size` bytes of a text, of bytes or of a message. */
void gfli_pb_head(gfli_buffer *b, int field, uint64_t size);
void gfli_pb_text(gfli_buffer *b, int field, const char *text);
/* A message: open, its fields, close with what open gave.  Its length is put in at the end;
 * `more` bytes of it come after. */
size_t gfli_pb_open(gfli_buffer *b, int field);
void gfli_pb_close_before(gfli_buffer *b, size_t start, uint64_t more);
void gfli_pb_close(gfli_buffer *b, size_t start);

/* ---- the formats (entries.c, pth.c, onnx.c) -------------------------------------------------- */

gfl_status gfli_export_mmdet(const gfl_model *model, gfli_sink to);
gfl_status gfli_export_pth(const gfl_model *model, gfli_sink to);
gfl_status gfli_export_onnx(const gfl_model *model, const gfl_export_opts *opts, gfli_sink to);
