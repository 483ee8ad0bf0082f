/* fixture.h - reading ../shared/fixtures: its JSON, its tensors, its formula
 *
 *     fx_case one;
 *     for (fx_list list = fx_open("head"); fx_next(&list, &one);) { ... fx_free_case(&one); }
 *
 * Memory is from malloc; a test ends anyway when something here cannot be read. */
#ifndef GFL_FIXTURE_H
#define GFL_FIXTURE_H

#include "test.h"
#include <dirent.h>

/* ---- JSON as a tree -------------------------------------------------------------------------- */

typedef struct fx_json {
    gfli_json_kind kind;
    char *key; /* in an object */
    char *string;
    double number;
    struct fx_json *items; /* of objects and arrays */
    int n;
} fx_json;

static inline void fx_die(const char *what, const char *where) {
    printf("fixture: %s: %s\n", what, where);
    exit(1);
}

static inline char *fx_copy(const char *s) {
    size_t n = strlen(s) + 1;
    char *copy = (char *)malloc(n);
    memcpy(copy, s, n);
    return copy;
}

static inline void fx_read_value(gfli_json *j, gfli_json_kind kind, fx_json *out);

static inline fx_json *fx_push(fx_json *parent) {
    if (!(parent->n & (parent->n - 1)))
        parent->items = (fx_json *)realloc(parent->items, (size_t)(parent->n ? 2 * parent->n : 1) *
                                                              sizeof *parent->items);
    fx_json *item = &parent->items[parent->n++];
    memset(item, 0, sizeof *item);
    return item;
}

static inline void fx_read_value(gfli_json *j, gfli_json_kind kind, fx_json *out) {
    out->kind = kind;
    if (kind == GFLI_JSON_STRING) out->string = fx_copy(gfli_json_string(j, NULL));
    if (kind == GFLI_JSON_NUMBER) out->number = gfli_json_as_number(j);
    if (kind == GFLI_JSON_TRUE) out->number = 1;
    if (kind == GFLI_JSON_OBJECT) {
        const char *key;
        while ((key = gfli_json_key(j)) != NULL) {
            fx_json *item = fx_push(out);
            char *copy = fx_copy(key);
            fx_read_value(j, gfli_json_next(j), item);
            item->key = copy;
        }
    }
    if (kind == GFLI_JSON_ARRAY) {
        gfli_json_kind next;
        while ((next = gfli_json_next(j)) != GFLI_JSON_END) fx_read_value(j, next, fx_push(out));
    }
}

static inline void fx_free_json(fx_json *j) {
    for (int i = 0; i < j->n; i++) fx_free_json(&j->items[i]);
    free(j->items);
    free(j->key);
    free(j->string);
}

static inline fx_json fx_read_json(const char *path) {
    gfl_context *context = test_context(1);
    gfli_json *j = NULL;
    fx_json root;
    memset(&root, 0, sizeof root);
    if (gfli_json_open(context, path, &j) != GFL_OK) fx_die(path, gfl_context_get_error(context));
    fx_read_value(j, gfli_json_next(j), &root);
    if (gfli_json_status(j) != GFL_OK) fx_die(path, gfl_context_get_error(context));
    gfli_json_close(j);
    gfl_context_destroy(context);
    return root;
}

/* The member of a name, or NULL; the item of a number; both take NULL. */
static inline const fx_json *fx_get(const fx_json *j, const char *key) {
    for (int i = 0; j && i < j->n; i++)
        if (j->items[i].key && !strcmp(j->items[i].key, key)) return &j->items[i];
    return NULL;
}

static inline const fx_json *fx_at(const fx_json *j, int i) {
    return j && i < j->n ? &j->items[i] : NULL;
}

static inline double fx_number(const fx_json *j, const char *key, double otherwise) {
    const fx_json *item = fx_get(j, key);
    return item && (item->kind == GFLI_JSON_NUMBER || item->kind == GFLI_JSON_TRUE) ? item->number
                                                                                    : otherwise;
}

static inline int fx_int(const fx_json *j, const char *key, int otherwise) {
    return (int)fx_number(j, key, otherwise);
}

static inline const char *fx_string(const fx_json *j, const char *key) {
    const fx_json *item = fx_get(j, key);
    return item && item->string ? item->string : "";
}

/* ---- cases ----------------------------------------------------------------------------------- */

typedef struct fx_case {
    char name[128], folder[768]; /* "a_two_images", ".../fixtures/head" */
    fx_json json;
    gfl_context *context;
    gfli_blob blob; /* the tensors, when X.safetensors is there */
    bool has_blob;
} fx_case;

typedef struct fx_list {
    char folder[768];
    char (*names)[128];
    int n, next;
} fx_list;

static inline int fx_compare_names(const void *a, const void *b) {
    return strcmp((const char *)a, (const char *)b);
}

static inline const char *fx_root(void) {
    const char *root = getenv("GFL_FIXTURES");
    return root && *root ? root : "../shared/fixtures";
}

/* All X.json of a family's folder in ascending order; .n is 0 (and the test skips) without it. */
static inline fx_list fx_open(const char *family) {
    fx_list list;
    memset(&list, 0, sizeof list);
    snprintf(list.folder, sizeof list.folder, "%s/%s", fx_root(), family);
    DIR *dir = opendir(list.folder);
    if (!dir) {
        printf("skipped: no folder %s\n", list.folder);
        test_skips++;
        return list;
    }
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n < 6 || n > 120 || strcmp(e->d_name + n - 5, ".json") != 0) continue;
        if (memchr(e->d_name, '.', n - 5)) continue; /* X.gt.json and X.dets.json belong to X */
        list.names = (char(*)[128])realloc(list.names, (size_t)(list.n + 1) * sizeof *list.names);
        snprintf(list.names[list.n], sizeof *list.names, "%.*s", (int)(n - 5), e->d_name);
        list.n++;
    }
    closedir(dir);
    if (list.n) qsort(list.names, (size_t)list.n, sizeof *list.names, fx_compare_names);
    printf("%s: %d cases\n", list.folder, list.n);
    return list;
}

static inline bool fx_next(fx_list *list, fx_case *out) {
    if (list->next >= list->n) {
        free(list->names);
        list->names = NULL;
        return false;
    }
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", list->names[list->next++]);
    snprintf(out->folder, sizeof out->folder, "%s", list->folder);
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.json", out->folder, out->name);
    out->json = fx_read_json(path);
    out->context = test_context(1);
    snprintf(path, sizeof path, "%s/%s.safetensors", out->folder, out->name);
    FILE *f = fopen(path, "rb");
    if (f) {
        fclose(f);
        if (gfli_blob_open(out->context, path, &out->blob) != GFL_OK)
            fx_die(path, gfl_context_get_error(out->context));
        out->has_blob = true;
    }
    printf("case %s\n", out->name);
    return true;
}

static inline void fx_free_case(fx_case *one) {
    if (one->has_blob) gfli_blob_close(&one->blob);
    gfl_context_destroy(one->context);
    fx_free_json(&one->json);
}

/* ---- tensors --------------------------------------------------------------------------------- */

typedef struct fx_tensor {
    double *data; /* any type, as doubles; NULL: there is no such tensor */
    size_t count;
    int rank;
    int64_t shape[8];
} fx_tensor;

static inline double fx_element(const uint8_t *p, gfli_dtype type, size_t i) {
    switch (type) {
    case GFLI_F64: {
        double v;
        memcpy(&v, p + 8 * i, 8);
        return v;
    }
    case GFLI_F32: {
        float v;
        memcpy(&v, p + 4 * i, 4);
        return (double)v;
    }
    case GFLI_I32: {
        int32_t v;
        memcpy(&v, p + 4 * i, 4);
        return (double)v;
    }
    case GFLI_I64: {
        int64_t v;
        memcpy(&v, p + 8 * i, 8);
        return (double)v;
    }
    case GFLI_U8:
    case GFLI_BOOL: return (double)p[i];
    default: fx_die("a tensor of a type that fixtures do not use", ""); return 0;
    }
}

static inline bool fx_has(const fx_case *one, const char *name) {
    return one->has_blob && gfli_blob_find(&one->blob, name);
}

static inline fx_tensor fx_load_optional(fx_case *one, const char *name) {
    fx_tensor t;
    memset(&t, 0, sizeof t);
    const gfli_tensor *found = one->has_blob ? gfli_blob_find(&one->blob, name) : NULL;
    if (!found) return t;
    uint8_t *raw = (uint8_t *)malloc((size_t)found->bytes + 1);
    if (gfli_blob_read_raw(&one->blob, found, raw) != GFL_OK)
        fx_die(name, gfl_context_get_error(one->context));
    t.count = found->count;
    t.rank = found->rank;
    memcpy(t.shape, found->shape, sizeof t.shape);
    t.data = (double *)malloc((t.count ? t.count : 1) * sizeof *t.data);
    for (size_t i = 0; i < t.count; i++) t.data[i] = fx_element(raw, found->dtype, i);
    free(raw);
    return t;
}

static inline fx_tensor fx_load(fx_case *one, const char *name) {
    fx_tensor t = fx_load_optional(one, name);
    if (!t.data) fx_die("no such tensor", name);
    return t;
}

/* "name.3" and "name.3.4" without a buffer of one's own (the last four stay valid). */
static inline const char *fx_name(const char *name, int i, int j) {
    static char texts[4][160];
    static int next;
    char *text = texts[next++ % 4];
    if (j >= 0)
        snprintf(text, sizeof texts[0], "%s.%d.%d", name, i, j);
    else
        snprintf(text, sizeof texts[0], "%s.%d", name, i);
    return text;
}

/* sample_step of a tensor in the JSON: stored are the flat elements 0, step, 2 step ... */
static inline size_t fx_step(const fx_case *one, const char *name) {
    return (size_t)fx_number(fx_get(fx_get(&one->json, "tensors"), name), "sample_step", 1);
}

/* ---- the formula ----------------------------------------------------------------------------- */

static inline uint64_t fx_fnv1a64(const char *name) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) h = (h ^ (uint64_t)(unsigned char)*name) * 0x100000001b3u;
    return h;
}

static inline uint64_t fx_splitmix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline double fx_u(uint64_t hash, size_t i) {
    return (double)(fx_splitmix64(hash + (uint64_t)i) >> 40) * 0x1p-24;
}

static inline double fx_s(uint64_t hash, size_t i) {
    return 2 * fx_u(hash, i) - 1;
}

static inline bool fx_ends(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* Is this the last batch norm of a residual block, e.g. backbone.layer1.0.bn2.weight? */
static inline bool fx_is_last_bn(const char *name, int depth) {
    return strstr(name, ".layer") && fx_ends(name, depth >= 50 ? ".bn3.weight" : ".bn2.weight");
}

/* Element i (in the file's OIHW order) of a state-dict entry, as fixtures/README.md says. */
static inline float fx_weight(const char *name, int rank, const int64_t *shape, int depth,
                              size_t i) {
    uint64_t h = fx_fnv1a64(name);
    double fan_in = rank == 4 ? (double)(shape[1] * shape[2] * shape[3]) : 1;
    if (strstr(name, "conv_offset.weight")) return (float)(fx_s(h, i) * sqrt(0.03 / fan_in));
    if (strstr(name, "conv_offset.bias")) return (float)(0.5 * fx_s(h, i));
    if (rank == 4) {
        bool damped = strstr(name, "neck.") || strstr(name, "gfl_cls") || strstr(name, "gfl_reg");
        return (float)(fx_s(h, i) * sqrt((damped ? 3 : 6) / fan_in));
    }
    if (fx_ends(name, "gfl_cls.bias")) return (float)(-2 + 0.5 * fx_s(h, i));
    if (fx_ends(name, "running_mean")) return (float)(0.1 * fx_s(h, i));
    if (fx_ends(name, "running_var")) return (float)(0.5 + fx_u(h, i));
    if (fx_ends(name, ".scale")) return (float)(0.8 + 0.4 * fx_u(h, i));
    if (fx_ends(name, ".bias")) return (float)(0.1 * fx_s(h, i));
    if (fx_is_last_bn(name, depth)) return (float)(0.2 + 0.2 * fx_u(h, i));
    return (float)(0.5 + fx_u(h, i));
}

/* Fill every parameter of a trainable model by the formula (kept OHWI, so transposed here), then
 * fold and pack. */
static inline gfl_status fx_fill_param(void *unused, gfl_model *model, int index, float *values) {
    const gfli_param *param = &model->params[index];
    size_t spatial = 1, in = 1;
    (void)unused;
    if (param->rank == 4) {
        in = (size_t)param->shape[1];
        spatial = (size_t)(param->shape[2] * param->shape[3]);
    }
    for (size_t i = 0; i < param->count; i++) {
        size_t to = i;
        if (param->rank == 4) {
            size_t o = i / (in * spatial), c = i / spatial % in, k = i % spatial;
            to = (o * spatial + k) * in + c;
        }
        values[to] = fx_weight(param->name, param->rank, param->shape, model->arch.depth, i);
    }
    return GFL_OK;
}

static inline void fx_fill_model(gfl_model *model) {
    float *values = (float *)malloc(gfli_largest_param(model) * sizeof *values);
    for (int p = 0; p < model->n_params; p++) {
        (void)fx_fill_param(NULL, model, p, values);
        gfli_param_store(model, p, values);
    }
    free(values);
    gfli_model_changed(model, 0);
    if (gfli_model_pack(model) != GFL_OK) fx_die("pack", gfl_context_get_error(model->context));
}

/* A filled model on any device; not trainable.  preprocess may be NULL: the usual. */
static inline gfl_model *fx_model(gfl_context *context, const gfl_arch *arch,
                                  const gfl_preprocess *preprocess) {
    gfl_model *model = NULL;
    gfl_preprocess usual;
    memset(&usual, 0, sizeof usual);
    if (!preprocess) preprocess = &usual;
    if (gfli_model_new(context, arch, preprocess, NULL, false, &model) != GFL_OK ||
        gfli_model_build(model, fx_fill_param, NULL) != GFL_OK)
        fx_die("model", gfl_context_get_error(context));
    return model;
}

/* 2 s("name", i) over (n, 3, h, w), into an NHWC map. */
static inline void fx_fill_input(const char *name, const gfli_map *map) {
    uint64_t hash = fx_fnv1a64(name);
    size_t hw = (size_t)map->h[0] * (size_t)map->w[0], c = (size_t)map->c;
    for (size_t i = 0; i < (size_t)map->n * c * hw; i++) {
        size_t n = i / (c * hw), channel = i / hw % c, at = i % hw;
        map->data[(n * hw + at) * c + channel] = (float)(2 * fx_s(hash, i));
    }
}

/* The architecture in a case's "model" block. */
static inline void fx_arch(const fx_case *one, gfl_arch *out) {
    static const char *const names[] = {"c2", "c3", "c4", "c5"};
    const fx_json *m = fx_get(&one->json, "model"), *stages = fx_get(m, "dcn_stages");
    const char *dcn = fx_string(m, "dcn");
    memset(out, 0, sizeof *out);
    out->depth = fx_int(m, "depth", 50);
    out->groups = fx_int(m, "groups", 1);
    out->base_width = fx_int(m, "base_width", 0);
    out->base_channels = fx_int(m, "base_channels", 64);
    out->fpn_channels = fx_int(m, "fpn_out", 256);
    out->head_channels = fx_int(m, "head_feat", 256);
    out->stacked_convs = fx_int(m, "stacked_convs", 4);
    out->n_classes = fx_int(m, "num_classes", 80);
    out->reg_max = fx_int(m, "reg_max", 16);
    out->style = !strcmp(fx_string(m, "style"), "caffe") ? GFL_STYLE_CAFFE : GFL_STYLE_PYTORCH;
    out->deform = !strcmp(dcn, "v1") ? 1 : !strcmp(dcn, "v2") ? 2 : 0;
    for (int i = 0; stages && i < stages->n; i++)
        for (int k = 0; k < 4; k++)
            if (!strcmp(fx_at(stages, i)->string, names[k])) out->deform_stages |= 1 << k;
}

/* Largest |map - tensor| over the stored elements of an NCHW tensor (perhaps a sample). */
static inline double fx_map_error(const gfli_map *map, const fx_tensor *want, size_t step) {
    size_t hw = (size_t)map->h[0] * (size_t)map->w[0], c = (size_t)map->c;
    double worst = 0;
    for (size_t k = 0; k < want->count; k++) {
        size_t i = k * step, n = i / (c * hw), channel = i / hw % c, at = i % hw;
        if (n >= (size_t)map->n) return INFINITY;
        double e = fabs((double)map->data[(n * hw + at) * c + channel] - want->data[k]);
        if (!(e <= worst)) worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}

#endif
