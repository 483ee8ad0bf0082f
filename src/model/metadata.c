/* metadata.c - what a weight file says beside its tensors */
#pragma once

/* Did an array end where its last element `kind` was read, and the text with it? */
static bool gfli_is_whole(gfli_json *j, gfli_json_kind kind) {
    return kind == GFLI_JSON_END && gfli_json_next(j) == GFLI_JSON_END &&
           gfli_json_status(j) == GFL_OK;
}

/* Exactly n numbers from "[1, 2]" or "1,2" or "1x2". */
static gfl_status gfli_parse_numbers(gfli_weights *w, const char *key, int n, double *out) {
    const char *text = gfli_blob_meta(&w->blob, key);
    size_t size = strlen(text) + 3;
    gfli_json *j = NULL;
    char *list;
    int got = 0;
    GFLI_TRY(gfli_alloc(w->context, size, 1, "metadata", &list));
    snprintf(list, size, text[0] == '[' ? "%s" : "[%s]", text);
    for (char *c = list; *c; c++)
        if (*c == 'x') *c = ',';
    gfl_status status = gfli_json_open_memory(w->context, list, strlen(list), key, &j);
    if (status == GFL_OK) {
        gfli_json_kind kind = gfli_json_next(j);
        bool good = kind == GFLI_JSON_ARRAY;
        while (good && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER)
            if (got++ < n) out[got - 1] = gfli_json_as_number(j);
        if (!good || got != n || !gfli_is_whole(j, kind))
            status = gfli_error(w->context, GFL_E_FORMAT,
                                "%s: metadata %s is \"%.100s\"; it should "
                                "be %d numbers",
                                w->blob.path, key, text, n);
        gfli_json_close(j);
    }
    gfli_free(w->context, list);
    return status;
}

const char *gfli_order_key(const gfli_weights *w) {
    static const char *const keys[] = {"input", "channel_order"};
    for (size_t i = 0; i < GFLI_COUNT(keys); i++)
        if (gfli_blob_meta(&w->blob, keys[i])) return keys[i];
    return NULL;
}

static gfl_status gfli_read_channel_order(gfli_weights *w, int *bgr) {
    const char *key = gfli_order_key(w);
    if (!key) return GFL_OK;
    const char *order = gfli_blob_meta(&w->blob, key);
    if (strcmp(order, "RGB") != 0 && strcmp(order, "BGR") != 0)
        return gfli_error(w->context, GFL_E_FORMAT,
                          "%s: metadata %s is \"%.100s\"; it should be RGB or BGR", w->blob.path,
                          key, order);
    *bgr = order[0] == 'B';
    return GFL_OK;
}

static gfl_status gfli_read_mean(gfli_weights *w, gfl_preprocess *p) {
    double mean[3], deviation[3];
    bool has_mean = gfli_blob_meta(&w->blob, "mean") != NULL;
    if (has_mean != (gfli_blob_meta(&w->blob, "std") != NULL))
        return gfli_error(w->context, GFL_E_FORMAT,
                          "%s: metadata has mean or std without the other", w->blob.path);
    if (!has_mean) return GFL_OK;
    GFLI_TRY(gfli_parse_numbers(w, "mean", 3, mean));
    GFLI_TRY(gfli_parse_numbers(w, "std", 3, deviation));
    for (int i = 0; i < 3; i++) {
        p->mean[i] = (float)mean[i];
        p->std[i] = (float)deviation[i];
        if (!gfli_is_finite(mean[i]) || !gfli_is_finite(deviation[i]) || !(p->std[i] > 0))
            return gfli_error(w->context, GFL_E_FORMAT,
                              "%s: metadata has mean %g and std %g; the std must be positive",
                              w->blob.path, mean[i], deviation[i]);
    }
    return GFL_OK;
}

static gfl_status gfli_read_scale(gfli_weights *w, gfl_preprocess *p) {
    double scale[2];
    if (!gfli_blob_meta(&w->blob, "scale")) return GFL_OK;
    GFLI_TRY(gfli_parse_numbers(w, "scale", 2, scale));
    for (int i = 0; i < 2; i++)
        if (!(scale[i] >= 1 && scale[i] <= GFL_MAX_SIDE) || scale[i] != (floor)(scale[i]))
            return gfli_error(w->context, GFL_E_FORMAT,
                              "%s: metadata scale has %g; sides are whole numbers, 1..%d",
                              w->blob.path, scale[i], GFL_MAX_SIDE);
    p->scale_long = (int)(scale[0] > scale[1] ? scale[0] : scale[1]);
    p->scale_short = (int)(scale[0] > scale[1] ? scale[1] : scale[0]);
    return GFL_OK;
}

/* Was a fact assumed already when the file was written?  Then its value is there, and no more is
 * known of it than before. */
static bool gfli_is_assumed(const gfli_weights *w, const char *fact) {
    const char *list = gfli_blob_meta(&w->blob, "assumed");
    const size_t n = strlen(fact);
    for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',')
        if (!strncmp(at, fact, n) && (!at[n] || at[n] == ',')) return true;
    return false;
}

gfl_origin gfli_scale_origin(const gfli_weights *w) {
    const bool said = gfli_blob_meta(&w->blob, "scale") && !gfli_is_assumed(w, "scale");
    return said ? GFL_ORIGIN_FILE : GFL_ORIGIN_DEFAULT;
}

gfl_status gfli_read_preprocess(gfli_weights *w, gfl_preprocess *p, gfl_origin *origin) {
    memset(p, 0, sizeof *p);
    GFLI_TRY(gfli_read_channel_order(w, &p->bgr));
    GFLI_TRY(gfli_read_mean(w, p));
    GFLI_TRY(gfli_read_scale(w, p));
    const bool said =
        gfli_blob_meta(&w->blob, "mean") && gfli_order_key(w) && !gfli_is_assumed(w, "input");
    *origin = said ? GFL_ORIGIN_FILE : GFL_ORIGIN_DEFAULT;
    gfl_status status = gfli_preprocess_resolve(w->context, p, p);
    return status == GFL_OK ? GFL_OK : gfli_error_in(w->context, GFL_E_FORMAT, w->blob.path);
}

/* Which of n names metadata `key` is, from 1; 0 where the file has none. */
static gfl_status gfli_read_choice(gfli_weights *w, const char *key, const char *const *names,
                                   int n, int *out) {
    const char *said = gfli_blob_meta(&w->blob, key);
    *out = 0;
    for (int i = 0; said && i < n; i++)
        if (strcmp(said, names[i]) == 0) *out = i + 1;
    if (!said || *out) return GFL_OK;
    return gfli_error(w->context, GFL_E_FORMAT,
                      "%s: metadata %s is \"%.100s\"; it should be %s or %s", w->blob.path, key,
                      said, names[0], names[1]);
}

/* What the caller demands: 0 for whatever there is, or one of two names. */
static gfl_status gfli_check_choice(gfl_context *context, const char *what, int wanted) {
    GFLI_DEMAND(context, wanted >= 0 && wanted <= 2, "%s is %d; it must be a gfl_%s", what, wanted,
                what);
    return GFL_OK;
}

static const char *const gfli_style_names[2] = {"pytorch", "caffe"};

const char *gfli_style_name(const gfl_arch *arch) {
    return gfli_style_names[arch->style == GFL_STYLE_CAFFE];
}

/* The dialect decides the geometry of boxes, so it is never guessed. */
gfl_status gfli_read_dialect(gfli_weights *w, gfl_dialect wanted, gfl_dialect *out,
                             gfl_origin *origin) {
    const char *const names[2] = {gfli_dialect_get(GFL_DIALECT_MMDET)->name,
                                  gfli_dialect_get(GFL_DIALECT_GFOCAL)->name};
    const char *teller = NULL;
    GFLI_TRY(gfli_check_choice(w->context, "dialect", (int)wanted));
    int by_meta, by_tensor = 0;
    GFLI_TRY(gfli_read_choice(w, "dialect", names, 2, &by_meta));
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < w->blob.n_tensors; i++)
            if (gfli_ends_with(w->blob.tensors[i].name,
                               gfli_dialect_get((gfl_dialect)(k + 1))->project)) {
                by_tensor = k + 1;
                teller = w->blob.tensors[i].name;
            }
    if (by_meta && by_tensor && by_meta != by_tensor)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: metadata says dialect %s, but %s is of dialect %s", w->blob.path,
                          names[by_meta - 1], teller, names[by_tensor - 1]);
    int found = by_meta ? by_meta : by_tensor;
    if (found && wanted && found != (int)wanted)
        return gfli_error(
            w->context, GFL_E_MISMATCH,
            "%s: its weights are of dialect %s, but %s was asked for; boxes would be wrong",
            w->blob.path, names[found - 1], names[wanted - 1]);
    *origin = found ? GFL_ORIGIN_FILE : GFL_ORIGIN_GIVEN;
    *out = found ? (gfl_dialect)found : wanted;
    if (*out) return GFL_OK;
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: nothing in the file says which dialect its weights are of; demand "
                      "one (gfl convert --dialect): mmdet where they come from mmdetection 2.18 or "
                      "later, gfocal where from implus/GFocal",
                      w->blob.path);
}

/* No tensor shows where a bottleneck has its stride. */
gfl_status gfli_read_style(gfli_weights *w, gfl_style wanted, gfl_style *out, gfl_origin *origin) {
    int said;
    GFLI_TRY(gfli_check_choice(w->context, "style", (int)wanted));
    GFLI_TRY(gfli_read_choice(w, "style", gfli_style_names, 2, &said));
    if (gfli_is_assumed(w, "style")) said = 0;
    if (said && wanted && said != (int)wanted)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: its metadata says style %s, but %s was asked for", w->blob.path,
                          gfli_style_names[said - 1], gfli_style_names[wanted - 1]);
    *origin = said ? GFL_ORIGIN_FILE : wanted ? GFL_ORIGIN_GIVEN : GFL_ORIGIN_DEFAULT;
    *out = said ? (gfl_style)said : wanted ? wanted : GFL_STYLE_PYTORCH;
    return GFL_OK;
}

static gfl_status gfli_add_class(gfli_weights *w, const char *name, size_t length) {
    char *own;
    GFLI_TRY(gfli_alloc(w->context, length + 1, 1, "class name", &own));
    memcpy(own, name, length);
    own[length] = 0;
    w->classes[w->n_classes].name = own;
    w->classes[w->n_classes].id = w->n_classes + 1;
    w->n_classes++;
    return GFL_OK;
}

static gfl_status gfli_wrong_classes(gfli_weights *w, const char *key, int n) {
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: metadata %s does not have the %d entries of "
                      "bbox_head.gfl_cls.weight; name the classes yourself (gfl convert --classes)",
                      w->blob.path, key, n);
}

/* Names in a JSON array, or in the older files separated by commas. */
static gfl_status gfli_read_class_names(gfli_weights *w, int n) {
    const char *text = gfli_blob_meta(&w->blob, "classes");
    if (text[0] != '[') {
        for (const char *at = text;; at += strcspn(at, ",") + 1) {
            if (w->n_classes == n) return gfli_wrong_classes(w, "classes", n);
            GFLI_TRY(gfli_add_class(w, at, strcspn(at, ",")));
            if (at[strcspn(at, ",")] == 0) break;
        }
        return w->n_classes == n ? GFL_OK : gfli_wrong_classes(w, "classes", n);
    }
    gfli_json *j = NULL;
    GFLI_TRY(gfli_json_open_memory(w->context, text, strlen(text), "classes", &j));
    gfl_status status = GFL_OK;
    gfli_json_kind kind = gfli_json_next(j);
    bool good = kind == GFLI_JSON_ARRAY;
    while (good && status == GFL_OK && (kind = gfli_json_next(j)) == GFLI_JSON_STRING) {
        size_t length;
        const char *name = gfli_json_string(j, &length);
        if (w->n_classes == n)
            status = gfli_wrong_classes(w, "classes", n);
        else if (strlen(name) != length)
            good = false;
        else
            status = gfli_add_class(w, name, length);
    }
    if (status == GFL_OK && (!good || !gfli_is_whole(j, kind)))
        status = gfli_error(w->context, GFL_E_FORMAT,
                            "%s: metadata classes is not a JSON array of strings", w->blob.path);
    if (status == GFL_OK && w->n_classes != n) status = gfli_wrong_classes(w, "classes", n);
    gfli_json_close(j);
    return status;
}

static gfl_status gfli_read_class_ids(gfli_weights *w, int n) {
    const char *text = gfli_blob_meta(&w->blob, "class_ids");
    gfli_json *j = NULL;
    GFLI_TRY(gfli_json_open_memory(w->context, text, strlen(text), "class_ids", &j));
    gfl_status status = GFL_OK;
    int got = 0;
    gfli_json_kind kind = gfli_json_next(j);
    bool good = kind == GFLI_JSON_ARRAY;
    while (good && status == GFL_OK && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER) {
        if (got == n)
            status = gfli_wrong_classes(w, "class_ids", n);
        else
            good = gfli_json_as_integer(j, &w->classes[got].id);
        if (good && status == GFL_OK && got > 0) good = w->classes[got].id > w->classes[got - 1].id;
        got++;
    }
    if (status == GFL_OK && (!good || !gfli_is_whole(j, kind)))
        status = gfli_error(w->context, GFL_E_FORMAT,
                            "%s: metadata class_ids is not a JSON array of ascending integers",
                            w->blob.path);
    if (status == GFL_OK && got != n) status = gfli_wrong_classes(w, "class_ids", n);
    gfli_json_close(j);
    return status;
}

gfl_status gfli_read_classes(gfli_weights *w, int n, const gfl_class **out, gfl_origin *origin) {
    *origin = gfli_blob_meta(&w->blob, "classes") ? GFL_ORIGIN_FILE : GFL_ORIGIN_DEFAULT;
    if (*origin == GFL_ORIGIN_DEFAULT) return GFL_OK;
    GFLI_TRY(gfli_calloc(w->context, (size_t)n, sizeof *w->classes, "classes", &w->classes));
    *out = w->classes;
    if (gfli_is_assumed(w, "classes")) *origin = GFL_ORIGIN_DEFAULT;
    GFLI_TRY(gfli_read_class_names(w, n));
    w->has_ids = gfli_blob_meta(&w->blob, "class_ids") != NULL;
    return w->has_ids ? gfli_read_class_ids(w, n) : GFL_OK;
}

/* The number in a name like "GFL R50", "resnet50" or "resnext101_32x4d"; 0: none. */
static int gfli_depth_in_name(const char *const *before, const char *name) {
    for (; *name; name++)
        for (const char *const *b = before; *b; b++) {
            size_t n = strlen(*b);
            if (strncmp(name, *b, n) == 0 && name[n] >= '1' && name[n] <= '9')
                return (int)strtol(name + n, NULL, 10);
        }
    return 0;
}

gfl_status gfli_check_labels(gfli_weights *w, const gfl_arch *arch) {
    const char *const *before = gfli_backbone_of(w->context, arch->depth)->before_depth;
    static const char *const keys[] = {"architecture", "arch"};
    const char *format = gfli_blob_meta(&w->blob, "gfl_format");
    if (format && strcmp(format, "1") != 0)
        return gfli_error(w->context, GFL_E_UNSUPPORTED,
                          "%s: metadata gfl_format is \"%.100s\"; this version reads 1",
                          w->blob.path, format);
    for (size_t i = 0; i < GFLI_COUNT(keys); i++) {
        const char *name = gfli_blob_meta(&w->blob, keys[i]);
        int said = name ? gfli_depth_in_name(before, name) : 0;
        if (said != 0 && said != arch->depth)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: metadata %s is \"%.100s\", but the tensors are of depth %d",
                              w->blob.path, keys[i], name, arch->depth);
    }
    return GFL_OK;
}
