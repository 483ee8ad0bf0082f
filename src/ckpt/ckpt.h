/* ckpt.h - checkpoints of PyTorch: the archive, the pickle inside, the tensors it tells of */
#pragma once

/* ---- zip: what torch.save writes since 1.6 -------------------------------------------------- */

typedef struct gfli_zip_record {
    char *name;
    uint64_t offset, size; /* of the stored bytes, from the start of the file */
    uint32_t crc;
    bool compressed, checked;
} gfli_zip_record;

typedef struct gfli_zip {
    gfli_blob *blob;
    gfli_zip_record *records; /* sorted by name */
    int n_records;
    size_t capacity;
    uint32_t crc_table[8][256];
} gfli_zip;

/* The directory of an archive; what it says of records is checked against the file's size. */
gfl_status gfli_zip_open(gfli_blob *blob, gfli_zip *out);
void gfli_zip_close(gfli_zip *zip);
gfli_zip_record *gfli_zip_find(const gfli_zip *zip, const char *name); /* NULL: absent */
/* Once a record: that its bytes are there, stored as they are, and fit their checksum.  `use` says
 * in an error what they are wanted for. */
gfl_status gfli_zip_check(gfli_zip *zip, gfli_zip_record *record, const char *use);
/* A number of a zip file, its lowest byte first. */
uint64_t gfli_zip_number(const uint8_t *at, int n_bytes);
gfl_status gfli_zip_broken(const gfli_zip *zip, const char *what);

/* ---- pickle ---------------------------------------------------------------------------------- */

/* Values are numbers of nodes; node 0 is None. */
typedef enum gfli_pickle_kind {
    GFLI_PICKLE_NONE,
    GFLI_PICKLE_BOOL,    /* n */
    GFLI_PICKLE_INT,     /* n */
    GFLI_PICKLE_LONG,    /* an integer beyond 64 bits: n is where its bytes are in texts */
    GFLI_PICKLE_OTHER,   /* not kept: floats, long texts */
    GFLI_PICKLE_TEXT,    /* n is where it is in texts */
    GFLI_PICKLE_LIST,    /* or tuple, or set: cells a to b, n of them */
    GFLI_PICKLE_DICT,    /* pairs a to b, n of them */
    GFLI_PICKLE_CELL,    /* value a, next b */
    GFLI_PICKLE_PAIR,    /* key a, value n, next b */
    GFLI_PICKLE_NAME,    /* of a function or class, "module.name": n is where in texts */
    GFLI_PICKLE_STORAGE, /* a: its persistent id */
    GFLI_PICKLE_TENSOR,  /* a: the arguments of its function, n: 2 with requires_grad, 1 without */
    GFLI_PICKLE_OPAQUE   /* made from a name that is not known, n as in NAME; stepped over */
} gfli_pickle_kind;

typedef struct gfli_pickle_node {
    gfli_pickle_kind kind;
    uint32_t a, b;
    int64_t n;
} gfli_pickle_node;

/* An unpickler that calls nothing: names become values of our own or opaque ones.  Its memory is at
 * most 80 times the bytes of the pickle, whatever these say, and its work in proportion too. */
typedef struct gfli_pickle {
    gfl_context *context;
    gfli_blob *blob;
    const char *where;       /* in messages: "data.pkl", "the second pickle" */
    uint64_t start, at, end; /* bytes of the file: of this pickle, next, where it must end */
    uint64_t earlier;        /* how long the pickles before it are together */
    uint8_t buffer[4096];
    uint64_t buffer_at;
    size_t buffered;
    gfli_pickle_node *nodes;
    uint32_t *stack, *marks, *memo;
    char *texts;
    size_t n_nodes, n_stack, n_marks, n_memo, n_texts;
    size_t node_capacity, stack_capacity, mark_capacity, memo_capacity, text_capacity;
} gfli_pickle;

void gfli_pickle_init(gfli_blob *blob, gfli_pickle *out);
void gfli_pickle_free(gfli_pickle *p);
/* The pickle that starts at byte `at` and ends by itself before `end`; p->at is then behind it.
 * Nodes of earlier pickles stay. */
gfl_status gfli_pickle_read(gfli_pickle *p, const char *where, uint64_t at, uint64_t end,
                            uint32_t *root);
/* The text of a node, or NULL where it is none. */
const char *gfli_pickle_text(const gfli_pickle *p, uint32_t node);
/* The value of a key, or 0 (None) where there is none; of equal keys the last. */
uint32_t gfli_pickle_get(const gfli_pickle *p, uint32_t dict, const char *key);
/* Item i of a list, or 0. */
uint32_t gfli_pickle_item(const gfli_pickle *p, uint32_t list, int i);

/* ---- Python literals: the text of a configuration ------------------------------------------- */

typedef enum gfli_py_kind {
    GFLI_PY_UNKNOWN, /* no literal, or an unknown name's value; node 0 too */
    GFLI_PY_NONE,
    GFLI_PY_BOOL,   /* first */
    GFLI_PY_NUMBER, /* first is where it is in texts */
    GFLI_PY_TEXT,   /* the same */
    GFLI_PY_LIST,   /* or tuple: items first to last */
    GFLI_PY_DICT,   /* dict(a=1) or {'a': 1}: entries first to last, those without key "**" */
    GFLI_PY_SAME    /* another name of value first */
} gfli_py_kind;

typedef struct gfli_py_node {
    gfli_py_kind kind;
    uint32_t key; /* of an entry: where in texts */
    uint32_t first, last, next;
} gfli_py_node;

/* A text of assignments.  Memory is in proportion to the text, and so is the time of all lookups
 * together: once `steps` is 0 they find nothing more. */
typedef struct gfli_py {
    gfl_context *context;
    const char *at;
    gfli_py_node *nodes; /* 1: a dictionary of what was assigned, one name perhaps several times */
    char *texts;
    size_t n_nodes, node_capacity, n_texts, steps;
} gfli_py;

/* Whatever is no literal - calls, sums, imports - is unknown or passed over; only lack of memory is
 * an error, after which py needs no freeing. */
gfl_status gfli_py_read(gfl_context *context, const char *text, gfli_py *py);
void gfli_py_free(gfli_py *py);
/* The value of "a.b.c", or 0.  As configurations inherit, what a later assignment to the same name
 * does not say is looked up in the earlier ones, unless it says _delete_. */
uint32_t gfli_py_find(gfli_py *py, const char *path);
uint32_t gfli_py_get(gfli_py *py, uint32_t dict, const char *key); /* or 0 */
/* The value itself where a node is only another name of it. */
uint32_t gfli_py_target(const gfli_py *py, uint32_t node);
/* Items of a list: 0 behind the last, and where it is no list. */
uint32_t gfli_py_first(const gfli_py *py, uint32_t list);
uint32_t gfli_py_next(const gfli_py *py, uint32_t item);
const char *gfli_py_text(const gfli_py *py, uint32_t node); /* or NULL */
bool gfli_py_bool(const gfli_py *py, uint32_t node, bool otherwise);
bool gfli_py_number(const gfli_py *py, uint32_t node, double *out); /* finite; else false */
/* The value as Python's print() has it, a tuple as a list; cut where it is long or deep. */
const char *gfli_py_shown_as(const gfli_py *py, uint32_t node, char *out, size_t size);

/* ---- checkpoints ----------------------------------------------------------------------------- */

/* Fill a bare blob with the tensors of the checkpoint that its bytes are, named as the file names
 * them: those of "state_dict", or of another dictionary known to hold a model's, or of the
 * outermost. Metadata "classes" (a JSON array), "cfg" (the text of mmdetection's configuration),
 * "epoch" and "iter" are there where the file has them, and what gfl_model_export said of the
 * model. */
gfl_status gfli_pth_read(gfli_blob *blob);

/* ---- configurations (config.c) --------------------------------------------------------------- */

/* Metadata "cfg" as metadata that metadata.c reads, where the file does not say it itself. */
gfl_status gfli_config_read(gfli_blob *blob);
/* An error where the configuration wants what gfl does not have, in the backbone or anywhere; a
 * warning where detections of another setting are a little different. */
gfl_status gfli_config_refuse(const gfli_weights *w, bool detector, bool scale_given);
/* An error where it contradicts the tensors, whose architecture this is. */
gfl_status gfli_config_compare(const gfli_weights *w, const gfl_arch *arch, bool detector);

/* A weight file of any kind, told by its content; on error out needs no closing. */
gfl_status gfli_ckpt_open(gfl_context *context, const char *path, gfli_blob *out);

/* Put what the caller knows of the input in place of what the file says. */
gfl_status gfli_override(gfli_weights *w, const gfl_preprocess *given, gfl_preprocess *p,
                         gfl_origin *origin);
