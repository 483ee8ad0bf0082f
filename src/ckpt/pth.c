/* pth.c - the tensors of a PyTorch checkpoint, in either container */
#pragma once

/* A checkpoint becomes a blob, as a safetensors file does: names, shapes and places in the file.
 *
 *   1. The container says where the pickle and the storages are: records of a zip archive, or one
 *      after the other in the older form.
 *   2. The pickle is read (pickle.c).  Of its value, the dictionary of tensors is looked for.
 *   3. Each tensor is a view of a storage.  Its size, stride and offset must stay inside, and all
 *      tensors together may share the file's bytes only so often.
 *   4. Class names, the configuration's text and what gfl_model_export wrote become metadata. */

enum {
    GFLI_PTH_META_MAX = 1 << 20,
    GFLI_PTH_SHARING = 4 /* how often all tensors together may have the file's bytes */
};

typedef struct gfli_pth_storage {
    const char *key;
    uint64_t offset; /* bytes from the start of the file */
    uint64_t count;  /* elements */
    gfli_dtype dtype;
} gfli_pth_storage;

typedef struct gfli_pth {
    gfli_blob *blob;
    gfli_pickle pickle;
    gfli_zip zip;               /* of the newer container */
    char *prefix;               /* of its records */
    gfli_pth_storage *storages; /* of the older one, sorted by key */
    int n_storages;
    size_t storage_capacity;
    uint64_t declared; /* bytes of all tensors together, however many share a storage */
} gfli_pth;

/* ---- storages -------------------------------------------------------------------------------- */

/* What a persistent id says: ('storage', class, key, device, elements[, view]). */
static bool gfli_pth_read_id(const gfli_pickle *p, uint32_t id, gfli_pth_storage *out) {
    static const struct {
        const char *name;
        gfli_dtype dtype;
    } classes[] = {{"Float", GFLI_F32},  {"Half", GFLI_F16}, {"BFloat16", GFLI_BF16},
                   {"Double", GFLI_F64}, {"Long", GFLI_I64}, {"Int", GFLI_I32},
                   {"Short", GFLI_I16},  {"Char", GFLI_I8},  {"Byte", GFLI_U8},
                   {"Bool", GFLI_BOOL}};
    const char *kind = gfli_pickle_text(p, gfli_pickle_item(p, id, 0));
    const gfli_pickle_node *type = &p->nodes[gfli_pickle_item(p, id, 1)];
    const gfli_pickle_node *count = &p->nodes[gfli_pickle_item(p, id, 4)];
    out->key = gfli_pickle_text(p, gfli_pickle_item(p, id, 2));
    if (!kind || strcmp(kind, "storage") != 0 || type->kind != GFLI_PICKLE_NAME || !out->key ||
        count->kind != GFLI_PICKLE_INT || count->n < 0 || gfli_tensor_name_is_long(out->key))
        return false;
    out->count = (uint64_t)count->n;
    for (size_t i = 0; i < GFLI_COUNT(classes); i++) {
        char name[64];
        snprintf(name, sizeof name, "torch.%sStorage", classes[i].name);
        out->dtype = classes[i].dtype;
        if (!strcmp(p->texts + type->n, name)) return true;
    }
    return false;
}

static gfl_status gfli_pth_broken(const gfli_pth *c, const char *name, const char *what) {
    return gfli_error(c->blob->context, GFL_E_FORMAT, "%s: %.200s: %s", c->blob->path, name, what);
}

static gfl_status gfli_pth_find_record(gfli_pth *c, const char *tensor, gfli_pth_storage *s) {
    char name[600];
    const int n = snprintf(name, sizeof name, "%sdata/%.200s", c->prefix, s->key);
    gfli_zip_record *r = n < (int)sizeof name ? gfli_zip_find(&c->zip, name) : NULL;
    if (!r) return gfli_pth_broken(c, tensor, "the archive lacks the record of its values");
    if (s->count > r->size / (uint64_t)gfli_dtype_bytes(s->dtype))
        return gfli_error(c->blob->context, GFL_E_FORMAT,
                          "%s: %.200s: its record %.200s holds %llu bytes, too few for %llu values",
                          c->blob->path, tensor, name, (unsigned long long)r->size,
                          (unsigned long long)s->count);
    GFLI_TRY(gfli_zip_check(&c->zip, r, tensor));
    s->offset = r->offset;
    return GFL_OK;
}

static int gfli_compare_storages(const void *a, const void *b) {
    return strcmp(((const gfli_pth_storage *)a)->key, ((const gfli_pth_storage *)b)->key);
}

/* Where the values of a storage are.  The id's optional last part makes it a view of another:
 * (key, first element, elements). */
static gfl_status gfli_pth_locate(gfli_pth *c, const char *tensor, uint32_t id,
                                  gfli_pth_storage *s) {
    if (!gfli_pth_read_id(&c->pickle, id, s))
        return gfli_pth_broken(c, tensor, "its storage is of a kind that gfl does not know");
    if (c->prefix) return gfli_pth_find_record(c, tensor, s);
    const gfli_pth_storage *found = NULL;
    if (c->n_storages)
        found = (const gfli_pth_storage *)bsearch(s, c->storages, (size_t)c->n_storages,
                                                  sizeof *c->storages, gfli_compare_storages);
    if (!found || found->dtype != s->dtype || found->count < s->count)
        return gfli_pth_broken(c, tensor, "the file lacks its values");
    s->offset = found->offset;
    const uint32_t view = gfli_pickle_item(&c->pickle, id, 5);
    const gfli_pickle_node *first = &c->pickle.nodes[gfli_pickle_item(&c->pickle, view, 1)];
    const gfli_pickle_node *count = &c->pickle.nodes[gfli_pickle_item(&c->pickle, view, 2)];
    if (!view) return GFL_OK;
    if (first->kind != GFLI_PICKLE_INT || count->kind != GFLI_PICKLE_INT || first->n < 0 ||
        count->n < 0 || (uint64_t)first->n > s->count ||
        (uint64_t)count->n > s->count - (uint64_t)first->n)
        return gfli_pth_broken(c, tensor, "its storage is a view that runs out of another");
    s->offset += (uint64_t)first->n * (uint64_t)gfli_dtype_bytes(s->dtype);
    s->count = (uint64_t)count->n;
    return GFL_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* A tuple of up to 8 numbers that are not negative; returns how many, -1: it is something else. */
static int gfli_pth_numbers(const gfli_pickle *p, uint32_t list, int64_t out[8]) {
    int n = 0;
    if (p->nodes[list].kind != GFLI_PICKLE_LIST) return -1;
    for (uint32_t cell = p->nodes[list].a; cell; cell = p->nodes[cell].b, n++) {
        const gfli_pickle_node *number = &p->nodes[p->nodes[cell].a];
        if (n == 8 || number->kind != GFLI_PICKLE_INT || number->n < 0) return -1;
        out[n] = number->n;
    }
    return n;
}

/* Sizes and strides, and that no element lies beyond the storage. */
static gfl_status gfli_pth_layout(gfli_pth *c, const char *name, uint32_t args, uint64_t n_values,
                                  uint64_t *first, gfli_tensor *t) {
    const gfli_pickle *p = &c->pickle;
    const gfli_pickle_node *offset = &p->nodes[gfli_pickle_item(p, args, 1)];
    t->rank = gfli_pth_numbers(p, gfli_pickle_item(p, args, 2), t->shape);
    if (t->rank < 0 || gfli_pth_numbers(p, gfli_pickle_item(p, args, 3), t->stride) != t->rank ||
        offset->kind != GFLI_PICKLE_INT || offset->n < 0)
        return gfli_pth_broken(c, name, "its size, stride or offset makes no sense");
    uint64_t last = (uint64_t)offset->n, dense = 1;
    t->count = 1;
    for (int d = 0; d < t->rank; d++)
        if (!gfli_mul(t->count, (size_t)t->shape[d], &t->count) || t->count > INT64_MAX / 8)
            return gfli_pth_broken(c, name, "its size is too large for any file");
    for (int d = t->rank - 1; d >= 0 && t->count > 0; d--) {
        const uint64_t steps = (uint64_t)t->shape[d] - 1, stride = (uint64_t)t->stride[d];
        if (steps > 0 && stride != dense) t->strided = true;
        if (steps > 0 && stride > (n_values + 1) / steps + 1)
            return gfli_pth_broken(c, name, "its stride runs past the end of its storage");
        last += steps * stride;
        dense *= steps + 1;
    }
    if (t->count > 0 && last >= n_values)
        return gfli_error(c->blob->context, GFL_E_FORMAT,
                          "%s: %.200s: its size, stride and offset reach value %llu, counted "
                          "from 0, but its storage has %llu values",
                          c->blob->path, name, (unsigned long long)last,
                          (unsigned long long)n_values);
    *first = t->count > 0 ? (uint64_t)offset->n : 0; /* no values lie anywhere */
    return GFL_OK;
}

static gfl_status gfli_pth_tensor(gfli_pth *c, const char *name, uint32_t args) {
    const gfli_pickle *p = &c->pickle;
    const gfli_pickle_node *storage = &p->nodes[gfli_pickle_item(p, args, 0)];
    gfli_pth_storage s;
    gfli_tensor *t;
    uint64_t first = 0;
    if (storage->kind != GFLI_PICKLE_STORAGE)
        return gfli_pth_broken(c, name, "a tensor without a storage");
    const uint32_t id = storage->a;
    GFLI_TRY(gfli_pth_locate(c, name, id, &s));
    GFLI_TRY(gfli_blob_add(c->blob, name, &t));
    t->dtype = s.dtype;
    GFLI_TRY(gfli_pth_layout(c, name, args, s.count, &first, t));
    const uint64_t size = (uint64_t)gfli_dtype_bytes(s.dtype);
    t->offset = s.offset + first * size;
    t->bytes = (uint64_t)t->count * size;
    c->declared += t->bytes;
    if (c->declared / GFLI_PTH_SHARING <= c->blob->size) return GFL_OK;
    return gfli_pth_broken(c, name, "it repeats its values more often than any weight does");
}

static bool gfli_pth_is_opaque(const gfli_pickle_node *n) {
    return n->kind == GFLI_PICKLE_OPAQUE || n->kind == GFLI_PICKLE_NAME;
}

static gfl_status gfli_pth_refuse_opaque(const gfli_pth *c, const char *name, const char *wanted,
                                         const gfli_pickle_node *value) {
    return gfli_error(c->blob->context, GFL_E_FORMAT,
                      "%s: %.200s is not %s: the file wants %.200s to be called, which gfl never "
                      "does",
                      c->blob->path, name, wanted,
                      value->n >= 0 ? c->pickle.texts + value->n : "something");
}

/* Is an entry of this name a tensor?  In a dictionary of tensors all are but what modules add of
 * their own; beside the outermost's, whose names have dots, may stand anything. */
static bool gfli_pth_names_tensor(const char *name, bool outermost) {
    static const char extra[] = "_extra_state";
    if (gfli_tensor_name_is_long(name)) return false;
    const size_t n = strlen(name), m = sizeof extra - 1;
    if (n >= m && !strcmp(name + n - m, extra)) return false;
    return !outermost || strchr(name, '.') != NULL;
}

/* All tensors of a dictionary; what stands in the place of one is refused by name. */
static gfl_status gfli_pth_dict(gfli_pth *c, uint32_t dict, bool outermost) {
    const gfli_pickle *p = &c->pickle;
    for (uint32_t pair = p->nodes[dict].a; pair; pair = p->nodes[pair].b) {
        const char *name = gfli_pickle_text(p, p->nodes[pair].a);
        const gfli_pickle_node *value = &p->nodes[p->nodes[pair].n];
        if (value->kind == GFLI_PICKLE_TENSOR && !name)
            return gfli_pth_broken(c, "a tensor", "its key is no text");
        if (value->kind == GFLI_PICKLE_TENSOR) GFLI_TRY(gfli_pth_tensor(c, name, value->a));
        if (gfli_pth_is_opaque(value) && (!name || gfli_pth_names_tensor(name, outermost)))
            return gfli_pth_refuse_opaque(c, name ? name : "an entry", "a tensor", value);
    }
    return gfli_blob_sort(c->blob);
}

static bool gfli_pth_has_tensors(const gfli_pickle *p, uint32_t dict) {
    if (p->nodes[dict].kind != GFLI_PICKLE_DICT) return false;
    for (uint32_t pair = p->nodes[dict].a; pair; pair = p->nodes[pair].b)
        if (p->nodes[p->nodes[pair].n].kind == GFLI_PICKLE_TENSOR) return true;
    return false;
}

/* The dictionary of the model's tensors: the outermost, or one inside it that usually is. */
static gfl_status gfli_pth_find_dict(gfli_pth *c, uint32_t root, uint32_t *out) {
    static const char *const names[] = {
        "state_dict", "model_state_dict", "model", "ema_state_dict", "net", "module"};
    const gfli_pickle *p = &c->pickle;
    if (gfli_pth_is_opaque(&p->nodes[root]))
        return gfli_pth_refuse_opaque(c, "the whole file", "a dictionary of tensors",
                                      &p->nodes[root]);
    for (int depth = 0; depth < 2; depth++) {
        uint32_t inner = 0;
        for (size_t i = 0; i < GFLI_COUNT(names) && !inner; i++) {
            inner = gfli_pickle_get(p, root, names[i]);
            if (gfli_pth_is_opaque(&p->nodes[inner]))
                return gfli_pth_refuse_opaque(c, names[i], "a dictionary of tensors",
                                              &p->nodes[inner]);
            if (p->nodes[inner].kind != GFLI_PICKLE_DICT) inner = 0;
        }
        if (!inner) break;
        root = inner;
    }
    *out = root;
    if (gfli_pth_has_tensors(p, root)) return GFL_OK;
    return gfli_error(
        c->blob->context, GFL_E_FORMAT,
        "%s: %s; gfl reads dictionaries of tensors, as torch.save(model.state_dict(), "
        "...) and mmdetection write them",
        c->blob->path,
        p->nodes[root].kind == GFLI_PICKLE_DICT   ? "it holds no tensors"
        : p->nodes[root].kind == GFLI_PICKLE_LIST ? "it holds a list"
                                                  : "it holds no dictionary");
}

/* ---- what else the file says ----------------------------------------------------------------- */

/* A list of texts as a JSON array; a list of anything else says nothing. */
static gfl_status gfli_pth_classes(gfli_pth *c, uint32_t list) {
    const gfli_pickle *p = &c->pickle;
    gfli_text text = {c->blob->context, "class names", NULL, 0, 0};
    gfl_json_writer j = gfli_json_to_text(&text);
    gfl_status status = GFL_OK;
    gfl_json_array(&j, NULL);
    uint32_t cell = p->nodes[list].a;
    for (; cell && j.status == GFL_OK && text.length <= GFLI_PTH_META_MAX;
         cell = p->nodes[cell].b) {
        const char *name = gfli_pickle_text(p, p->nodes[cell].a);
        if (!name) break;
        gfl_json_text(&j, NULL, name);
    }
    gfl_json_end(&j);
    if (j.status != GFL_OK)
        status = j.status;
    else if (text.length > GFLI_PTH_META_MAX)
        status = gfli_pth_broken(c, "the class names", "more than a megabyte of them");
    else if (!cell)
        status = gfli_blob_add_meta(c->blob, "classes", text.bytes);
    gfli_free(c->blob->context, text.bytes);
    return status;
}

/* The text of the configuration: "config" of mmcv, "cfg" of mmengine. */
static gfl_status gfli_pth_config(gfli_pth *c, uint32_t meta) {
    static const char *const keys[] = {"cfg", "config"};
    for (size_t i = 0; i < GFLI_COUNT(keys) && !gfli_blob_meta(c->blob, "cfg"); i++) {
        const char *text = gfli_pickle_text(&c->pickle, gfli_pickle_get(&c->pickle, meta, keys[i]));
        if (text) GFLI_TRY(gfli_blob_add_meta(c->blob, "cfg", text));
    }
    return GFL_OK;
}

/* What gfl_model_export put there: the metadata of a weight file. */
static gfl_status gfli_pth_own_meta(gfli_pth *c, uint32_t own) {
    const gfli_pickle *p = &c->pickle;
    size_t size = 0;
    if (p->nodes[own].kind != GFLI_PICKLE_DICT) return GFL_OK;
    for (uint32_t pair = p->nodes[own].a; pair; pair = p->nodes[pair].b) {
        const char *key = gfli_pickle_text(p, p->nodes[pair].a);
        const char *value = gfli_pickle_text(p, (uint32_t)p->nodes[pair].n);
        if (!key || !value) continue;
        size += strlen(key) + strlen(value);
        if (size > GFLI_PTH_META_MAX)
            return gfli_pth_broken(c, "the metadata", "more than a megabyte of it");
        GFLI_TRY(gfli_blob_add_meta(c->blob, key, value));
    }
    return GFL_OK;
}

static gfl_status gfli_pth_meta(gfli_pth *c, uint32_t root) {
    static const char *const counters[] = {"epoch", "iter"};
    const gfli_pickle *p = &c->pickle;
    const uint32_t meta = gfli_pickle_get(p, root, "meta");
    const uint32_t set = gfli_pickle_get(p, meta, "dataset_meta");
    const uint32_t lists[] = {gfli_pickle_get(p, meta, "CLASSES"),
                              gfli_pickle_get(p, set, "classes"),
                              gfli_pickle_get(p, set, "CLASSES")};
    GFLI_TRY(gfli_pth_own_meta(c, gfli_pickle_get(p, meta, "gfl")));
    GFLI_TRY(gfli_pth_config(c, meta));
    for (size_t i = 0; i < GFLI_COUNT(lists) && !gfli_blob_meta(c->blob, "classes"); i++) {
        if (p->nodes[lists[i]].kind != GFLI_PICKLE_LIST || p->nodes[lists[i]].n == 0) continue;
        GFLI_TRY(gfli_pth_classes(c, lists[i]));
    }
    for (size_t i = 0; i < GFLI_COUNT(counters); i++) {
        char number[32];
        uint32_t counter = gfli_pickle_get(p, meta, counters[i]);
        if (!counter) counter = gfli_pickle_get(p, root, counters[i]);
        const gfli_pickle_node *value = &p->nodes[counter];
        if (value->kind != GFLI_PICKLE_INT) continue;
        snprintf(number, sizeof number, "%lld", (long long)value->n);
        GFLI_TRY(gfli_blob_add_meta(c->blob, counters[i], number));
    }
    return GFL_OK;
}

static gfl_status gfli_pth_take(gfli_pth *c, uint32_t root) {
    uint32_t dict = 0;
    GFLI_TRY(gfli_pth_find_dict(c, root, &dict));
    GFLI_TRY(gfli_pth_dict(c, dict, dict == root));
    return gfli_pth_meta(c, root);
}

/* ---- the newer container: a zip archive ------------------------------------------------------ */

static gfl_status gfli_pth_byte_order(gfli_pth *c) {
    char name[600], order[16] = "";
    snprintf(name, sizeof name, "%sbyteorder", c->prefix);
    gfli_zip_record *r = gfli_zip_find(&c->zip, name);
    if (!r) return GFL_OK; /* before torch 2.1 */
    GFLI_TRY(gfli_zip_check(&c->zip, r, "the byte order"));
    GFLI_TRY(gfli_blob_pread(c->blob, r->offset, order, r->size < 15 ? r->size : 15));
    if (!strcmp(order, "little")) return GFL_OK;
    return gfli_error(c->blob->context, GFL_E_UNSUPPORTED,
                      "%s: its byte order is \"%.15s\"; only little-endian checkpoints are read: "
                      "load and save it once on a little-endian machine",
                      c->blob->path, order);
}

static gfl_status gfli_pth_read_zip(gfli_pth *c) {
    static const char main_record[] = "data.pkl";
    gfli_zip_record *r = NULL;
    uint32_t root;
    GFLI_TRY(gfli_zip_open(c->blob, &c->zip));
    for (int i = 0; i < c->zip.n_records && !r; i++) {
        const char *name = c->zip.records[i].name, *slash = strrchr(name, '/');
        if (!strcmp(slash ? slash + 1 : name, main_record)) r = &c->zip.records[i];
    }
    if (!r)
        return gfli_error(
            c->blob->context, GFL_E_FORMAT,
            "%s: it is a zip archive without data.pkl, so torch.save did not write it",
            c->blob->path);
    GFLI_TRY(gfli_strdup(c->blob->context, r->name, &c->prefix));
    const size_t prefix = strlen(r->name) - (sizeof main_record - 1);
    c->prefix[prefix] = 0;
    if (prefix > 300) return gfli_zip_broken(&c->zip, "the names of its records are too long");
    GFLI_TRY(gfli_pth_byte_order(c));
    GFLI_TRY(gfli_zip_check(&c->zip, r, "the list of tensors"));
    GFLI_TRY(gfli_pickle_read(&c->pickle, main_record, r->offset, r->offset + r->size, &root));
    return gfli_pth_take(c, root);
}

/* ---- the older container: pickles, then the storages ----------------------------------------- */

/* The storages that the pickle mentions, each once, sorted by key. */
static gfl_status gfli_pth_list_storages(gfli_pth *c) {
    const gfli_pickle *p = &c->pickle;
    for (size_t i = 0; i < p->n_nodes; i++) {
        gfli_pth_storage s;
        memset(&s, 0, sizeof s);
        if (p->nodes[i].kind != GFLI_PICKLE_STORAGE || !gfli_pth_read_id(p, p->nodes[i].a, &s))
            continue;
        GFLI_TRY(gfli_grow(c->blob->context, &c->storages, &c->storage_capacity,
                           (size_t)c->n_storages + 1, sizeof s, "a checkpoint's storages"));
        c->storages[c->n_storages++] = s;
    }
    int kept = 0;
    if (c->n_storages)
        qsort(c->storages, (size_t)c->n_storages, sizeof *c->storages, gfli_compare_storages);
    for (int i = 0; i < c->n_storages; i++)
        if (!kept || strcmp(c->storages[kept - 1].key, c->storages[i].key) != 0)
            c->storages[kept++] = c->storages[i];
    c->n_storages = kept;
    return GFL_OK;
}

/* After the list of keys: for each a count and that many values. */
static gfl_status gfli_pth_walk_storages(gfli_pth *c, uint32_t keys) {
    const gfli_pickle *p = &c->pickle;
    uint64_t at = p->at;
    if (p->nodes[keys].kind != GFLI_PICKLE_LIST)
        return gfli_pth_broken(c, "the list of storages", "it is no list");
    for (uint32_t cell = p->nodes[keys].a; cell; cell = p->nodes[cell].b) {
        uint8_t number[8];
        gfli_pth_storage wanted;
        wanted.key = gfli_pickle_text(p, p->nodes[cell].a);
        gfli_pth_storage *s = NULL;
        if (wanted.key && c->n_storages)
            s = (gfli_pth_storage *)bsearch(&wanted, c->storages, (size_t)c->n_storages,
                                            sizeof *c->storages, gfli_compare_storages);
        if (!s)
            return gfli_pth_broken(c, wanted.key ? wanted.key : "a storage",
                                   "values that no tensor mentions, of unknown length");
        if (c->blob->size - at < 8)
            return gfli_pth_broken(c, "the values", "the file ends before them; fetch it again");
        GFLI_TRY(gfli_blob_pread(c->blob, at, number, 8));
        at += 8;
        const uint64_t size = (uint64_t)gfli_dtype_bytes(s->dtype);
        if (gfli_zip_number(number, 8) != s->count)
            return gfli_pth_broken(c, s->key,
                                   "the storage has another length than its tensors say");
        if (s->count > (c->blob->size - at) / size)
            return gfli_pth_broken(c, "the values", "the file ends among them; fetch it again");
        s->offset = at;
        at += s->count * size;
    }
    for (int i = 0; i < c->n_storages; i++) { /* those not in the list have no values */
        if (c->storages[i].offset) continue;
        return gfli_pth_broken(c, c->storages[i].key, "the file lacks the values of this storage");
    }
    return GFL_OK;
}

static gfl_status gfli_pth_check_machine(gfli_pth *c, uint32_t system) {
    const gfli_pickle_node *little =
        &c->pickle.nodes[gfli_pickle_get(&c->pickle, system, "little_endian")];
    if (little->kind != GFLI_PICKLE_BOOL || little->n) return GFL_OK;
    return gfli_error(c->blob->context, GFL_E_UNSUPPORTED,
                      "%s: it was written on a big-endian machine; only little-endian checkpoints "
                      "are read: load and save it once on a little-endian machine",
                      c->blob->path);
}

static gfl_status gfli_pth_read_legacy(gfli_pth *c) {
    /* 0x1950a86a20f9469cfc6c, lowest byte first */
    static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    static const char *const where[] = {
        "the first pickle (the magic number)", "the second pickle (the protocol)",
        "the third pickle (the machine)", "the fourth pickle (the tensors)",
        "the fifth pickle (the storages)"};
    uint32_t roots[5];
    uint64_t at = 0;
    for (int i = 0; i < 5; i++) {
        GFLI_TRY(gfli_pickle_read(&c->pickle, where[i], at, c->blob->size, &roots[i]));
        at = c->pickle.at;
        const gfli_pickle_node *node = &c->pickle.nodes[roots[i]];
        if (i == 0 && (node->kind != GFLI_PICKLE_LONG ||
                       memcmp(c->pickle.texts + node->n, magic, sizeof magic) != 0))
            return gfli_error(c->blob->context, GFL_E_FORMAT,
                              "%s: it is a pickle, but torch.save did not write it; gfl reads "
                              "checkpoints of PyTorch",
                              c->blob->path);
        if (i == 1 && (node->kind != GFLI_PICKLE_INT || node->n != 1001))
            return gfli_error(c->blob->context, GFL_E_UNSUPPORTED,
                              "%s: it is a checkpoint of an unknown protocol; write it again with "
                              "a current torch.save",
                              c->blob->path);
        if (i == 2) GFLI_TRY(gfli_pth_check_machine(c, roots[i]));
    }
    GFLI_TRY(gfli_pth_list_storages(c));
    GFLI_TRY(gfli_pth_walk_storages(c, roots[4]));
    return gfli_pth_take(c, roots[3]);
}

/* ---- any file -------------------------------------------------------------------------------- */

gfl_status gfli_pth_read(gfli_blob *blob) {
    gfli_pth c;
    uint8_t head[4] = {0};
    memset(&c, 0, sizeof c);
    c.blob = blob;
    gfli_pickle_init(blob, &c.pickle);
    GFLI_TRY(gfli_blob_pread(blob, 0, head, blob->size < 4 ? blob->size : 4));
    gfl_status status = memcmp(head, "PK", 2) ? gfli_pth_read_legacy(&c) : gfli_pth_read_zip(&c);
    gfli_zip_close(&c.zip);
    gfli_pickle_free(&c.pickle);
    gfli_free(blob->context, c.prefix);
    gfli_free(blob->context, c.storages);
    return status;
}
