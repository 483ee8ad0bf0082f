/* blob.h - safetensors: read with suspicion, write atomically */
#pragma once

typedef enum gfli_dtype {
    GFLI_F32,
    GFLI_F16,
    GFLI_BF16,
    GFLI_F64,
    GFLI_I64,
    GFLI_I32,
    GFLI_I16,
    GFLI_I8,
    GFLI_U8,
    GFLI_BOOL
} gfli_dtype;

/* Longer names are nobody's; each is looked at several times, and pickles repeat them cheaply. */
enum { GFLI_TENSOR_NAME_MAX = 512 };

typedef struct gfli_tensor {
    char *name;
    gfli_dtype dtype;
    int rank; /* 0..8 */
    int64_t shape[8];
    size_t count;      /* elements */
    uint64_t offset;   /* bytes from the start of the file */
    uint64_t bytes;    /* of the elements, close together */
    bool strided;      /* they lie apart, or in another order: */
    int64_t stride[8]; /* elements, not negative; of strided tensors only */
} gfli_tensor;

/* An open file (or caller's bytes): the header is in memory, the data is read on demand. */
typedef struct gfli_blob {
    gfl_context *context;
    char *path;           /* for messages */
    gfli_tensor *tensors; /* sorted by name */
    int n_tensors;
    size_t tensor_capacity, name_bytes;
    char **meta; /* [2 * n_meta]: key, value */
    int n_meta;
    size_t meta_capacity;
    const uint8_t *bytes; /* or NULL with file */
    uint64_t size;
    gfli_handle file;
} gfli_blob;

gfl_status gfli_blob_open(gfl_context *context, const char *path, gfli_blob *out);
gfl_status gfli_blob_open_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out);
void gfli_blob_close(gfli_blob *blob);
/* For readers of other formats: a file or bytes without tensors yet; bytes from anywhere in it;
 * another tensor, cleared but for its name, and another piece of metadata; and at the end, tensors
 * sorted and names told apart. */
gfl_status gfli_blob_open_bare(gfl_context *context, const char *path, gfli_blob *out);
gfl_status gfli_blob_bare_memory(gfl_context *context, const void *bytes, size_t size,
                                 const char *name, gfli_blob *out);
gfl_status gfli_blob_read_header(gfli_blob *blob); /* a bare one as safetensors */
gfl_status gfli_blob_pread(gfli_blob *blob, uint64_t offset, void *out, uint64_t size);
gfl_status gfli_blob_add(gfli_blob *blob, const char *name, gfli_tensor **out);
gfl_status gfli_blob_add_meta(gfli_blob *blob, const char *key, const char *value);
gfl_status gfli_blob_sort(gfli_blob *blob);
bool gfli_tensor_name_is_long(const char *name); /* looks at no more of it than may be */
int gfli_dtype_bytes(gfli_dtype dtype);
const char *gfli_dtype_name(gfli_dtype dtype); /* as files have it */
const gfli_tensor *gfli_blob_find(const gfli_blob *blob, const char *name);
const char *gfli_blob_meta(const gfli_blob *blob, const char *key); /* NULL: absent */
/* All elements as f32 (from any of the float types), or raw bytes. */
gfl_status gfli_blob_read_f32(gfli_blob *blob, const gfli_tensor *tensor, float *out);
gfl_status gfli_blob_read_raw(gfli_blob *blob, const gfli_tensor *tensor, void *out);

/* Writing: declare everything, then the data in the same order; the file appears under its name
 * (temporary name, fsync, rename), or in memory, only when finish succeeds. */
typedef struct gfli_blob_writer gfli_blob_writer;
gfl_status gfli_blob_create(gfl_context *context, gfli_sink to, gfli_blob_writer **out);
gfl_status gfli_blob_put_meta(gfli_blob_writer *w, const char *key, const char *value);
gfl_status gfli_blob_declare(gfli_blob_writer *w, const char *name, gfli_dtype dtype, int rank,
                             const int64_t *shape);
/* In declared order. */
gfl_status gfli_blob_write(gfli_blob_writer *w, const void *data, size_t bytes);
gfl_status gfli_blob_finish(gfli_blob_writer *w); /* frees w, also on failure */
void gfli_blob_abandon(gfli_blob_writer *w);      /* removes the temporary file; NULL allowed */

float gfli_f16_to_f32(uint16_t h);
float gfli_bf16_to_f32(uint16_t h);
