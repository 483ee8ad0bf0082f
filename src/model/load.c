/* load.c - weights from safetensors: what is it, does it fit, what became of each tensor */
#pragma once

/* A weight file on its way into a model. */
typedef struct gfli_weight_load {
    gfl_context *context;
    gfli_blob blob;
    float *raw, *ready; /* one tensor as the file has it, and as the model wants it */
    size_t raw_capacity, ready_capacity;
    gfl_class *classes; /* names owned; NULL: the file has none */
    int n_classes;
} gfli_weight_load;

/* What messages say of a tensor's shape. */
typedef struct gfli_shape_text {
    char text[96];
} gfli_shape_text;

static gfli_shape_text gfli_shape(int rank, const int64_t *shape) {
    gfli_shape_text out;
    size_t used = 1;
    snprintf(out.text, sizeof out.text, "(");
    for (int i = 0; i < rank && used < sizeof out.text; i++) {
        int n = snprintf(out.text + used, sizeof out.text - used, i ? ", %lld" : "%lld",
                         (long long)shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < sizeof out.text) snprintf(out.text + used, sizeof out.text - used, ")");
    return out;
}

static bool gfli_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool gfli_starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* Counters and constants that files carry and nobody needs. */
static bool gfli_is_ignored(const char *name) {
    return gfli_ends_with(name, ".num_batches_tracked") ||
           strcmp(name, "bbox_head.integral.project") == 0;
}

static void gfli_free_classes(gfl_context *context, gfl_class *classes, int n) {
    for (int i = 0; classes && i < n; i++) gfli_free(context, (void *)(uintptr_t)classes[i].name);
    gfli_free(context, classes);
}

static void gfli_loader_close(gfli_weight_load *l) {
    gfli_free_classes(l->context, l->classes, l->n_classes);
    gfli_free(l->context, l->raw);
    gfli_free(l->context, l->ready);
    gfli_blob_close(&l->blob);
}

/* ---- reports --------------------------------------------------------------------------------- */

void gfli_clear_reports(gfl_model *model) {
    for (int i = 0; i < model->n_reports; i++) {
        gfli_free(model->context, (void *)(uintptr_t)model->reports[i].name);
        gfli_free(model->context, (void *)(uintptr_t)model->reports[i].why);
    }
    gfli_free(model->context, model->reports);
    model->reports = NULL;
    model->n_reports = 0;
}

/* Room for a report on every parameter and every tensor of the file. */
static gfl_status gfli_open_reports(gfl_model *model, const gfli_blob *blob) {
    gfli_clear_reports(model);
    return gfli_calloc(model->context, (size_t)model->n_params + (size_t)blob->n_tensors,
                       sizeof *model->reports, "load report", &model->reports);
}

static gfl_status gfli_report(gfl_model *model, const char *name, gfl_fate fate, int rank,
                              const int64_t *shape, const char *why) {
    char *own_name = NULL, *own_why = NULL;
    GFLI_TRY(gfli_strdup(model->context, name, &own_name));
    gfl_status status = gfli_strdup(model->context, why, &own_why);
    if (status != GFL_OK) {
        gfli_free(model->context, own_name);
        return status;
    }
    gfl_tensor_report *r = &model->reports[model->n_reports++];
    r->name = own_name;
    r->why = own_why;
    r->fate = fate;
    r->rank = gfli_min(rank, 4);
    for (int i = 0; i < r->rank; i++) r->shape[i] = shape[i];
    return GFL_OK;
}

int gfl_model_report(const gfl_model *model, int i, gfl_tensor_report *out) {
    if (!model || !out || i < 0 || i >= model->n_reports) return 0;
    *out = model->reports[i];
    return 1;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* A scalar may be stored without dimensions or with a single one. */
static bool gfli_same_shape(const gfli_param *param, const gfli_tensor *tensor) {
    if (param->rank == 0 && tensor->rank == 1) return tensor->shape[0] == 1;
    if (param->rank != tensor->rank) return false;
    for (int i = 0; i < param->rank; i++)
        if (param->shape[i] != tensor->shape[i]) return false;
    return true;
}

static void gfli_oihw_to_ohwi(const int64_t shape[4], const float *in, float *out) {
    size_t o_n = (size_t)shape[0], i_n = (size_t)shape[1], area = (size_t)(shape[2] * shape[3]);
    for (size_t o = 0; o < o_n; o++)
        for (size_t i = 0; i < i_n; i++)
            for (size_t k = 0; k < area; k++)
                out[(o * area + k) * i_n + i] = in[(o * i_n + i) * area + k];
}

/* The values of a tensor of the right shape, checked, in the model's layout. */
static gfl_status gfli_read_values(gfli_weight_load *l, const gfli_param *param,
                                   const gfli_tensor *tensor, float *out) {
    float *raw = out;
    if (param->rank == 4) {
        GFLI_TRY(gfli_reserve(l->context, &l->raw, &l->raw_capacity, param->count, sizeof(float),
                              "tensor"));
        raw = l->raw;
    }
    GFLI_TRY(gfli_blob_read_f32(&l->blob, tensor, raw));
    bool variance = gfli_ends_with(param->name, ".running_var");
    for (size_t i = 0; i < param->count; i++) {
        if (!(fabsf(raw[i]) <= FLT_MAX))
            return gfli_error(l->context, GFL_E_FORMAT,
                              "%s: %s: element %zu is %s; the file is damaged or its training "
                              "diverged",
                              l->blob.path, tensor->name, i, raw[i] != raw[i] ? "NaN" : "infinite");
        if (variance && !(raw[i] + GFLI_NORM_EPS > 0))
            return gfli_error(l->context, GFL_E_FORMAT,
                              "%s: %s: element %zu is %g, a variance "
                              "below zero",
                              l->blob.path, tensor->name, i, (double)raw[i]);
    }
    if (param->rank == 4) gfli_oihw_to_ohwi(param->shape, raw, out);
    return GFL_OK;
}

static gfl_status gfli_fill_from_file(void *arg, gfl_model *model, int index) {
    gfli_weight_load *l = (gfli_weight_load *)arg;
    gfli_param *param = &model->params[index];
    param->loaded = true;
    return gfli_read_values(l, param, gfli_blob_find(&l->blob, param->name), param->data);
}

/* ---- the architecture in the shapes ---------------------------------------------------------- */

/* Dimension `axis` of a convolution's weights. */
static gfl_status gfli_deduce_dim(gfli_weight_load *l, const char *name, int axis, int *out) {
    const gfli_tensor *t = gfli_blob_find(&l->blob, name);
    if (!t)
        return gfli_error(l->context, GFL_E_MISMATCH, "%s: the tensor %s is missing", l->blob.path,
                          name);
    if (t->rank != 4 || t->shape[axis] < 1 || t->shape[axis] > 1 << 24)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: %s has shape %s, which is not a convolution's", l->blob.path, name,
                          gfli_shape(t->rank, t->shape).text);
    *out = (int)t->shape[axis];
    return GFL_OK;
}

/* How many tensors a format with one number has, counting from 0. */
static int gfli_count_numbered(const gfli_blob *blob, const char *before, const char *after) {
    char name[96];
    int n = 0;
    do snprintf(name, sizeof name, "%s%d%s", before, n, after);
    while (gfli_blob_find(blob, name) && ++n < 1000);
    return n;
}

static gfl_status gfli_deduce_depth(gfli_weight_load *l, gfl_arch *arch) {
    const gfli_blob *blob = &l->blob;
    static const int known[] = {18, 34, 50, 101};
    bool bottleneck = gfli_blob_find(blob, "backbone.layer1.0.conv3.weight") != NULL;
    int blocks[4];
    for (int stage = 1; stage <= 4; stage++) {
        char before[32];
        snprintf(before, sizeof before, "backbone.layer%d.", stage);
        blocks[stage - 1] = gfli_count_numbered(blob, before, ".conv1.weight");
    }
    for (size_t i = 0; i < GFLI_COUNT(known); i++) {
        const gfli_depth *d = gfli_arch_depth(known[i]);
        if (d->bottleneck == bottleneck && memcmp(d->blocks, blocks, sizeof blocks) == 0)
            arch->depth = known[i];
    }
    if (arch->depth != 0) return GFL_OK;
    for (int stage = 1; stage <= 4; stage++)
        if (blocks[stage - 1] == 0)
            return gfli_error(l->context, GFL_E_MISMATCH,
                              "%s: the tensor backbone.layer%d.0.conv1.weight is missing",
                              blob->path, stage);
    return gfli_error(l->context, GFL_E_UNSUPPORTED,
                      "%s: stages of %d, %d, %d and %d %s blocks; ResNet-18, 34, 50 and 101 are "
                      "supported",
                      blob->path, blocks[0], blocks[1], blocks[2], blocks[3],
                      bottleneck ? "bottleneck" : "basic");
}

/* Things that look like a GFL detector and are not one that this build can run. */
static gfl_status gfli_refuse_relatives(gfli_weight_load *l) {
    const gfli_blob *blob = &l->blob;
    if (!gfli_blob_find(blob, "backbone.conv1.weight"))
        return gfli_error(
            l->context, GFL_E_MISMATCH,
            gfli_blob_find(blob, "conv1.weight")
                ? "%s: the tensor backbone.conv1.weight is missing; this looks like a "
                  "bare backbone, which gfl_model_load_backbone reads"
                : "%s: the tensor backbone.conv1.weight is missing; this is not a "
                  "detector with mmdetection's names",
            blob->path);
    for (int i = 0; i < blob->n_tensors; i++) {
        const char *name = blob->tensors[i].name;
        if (strstr(name, ".conv_offset.") || strstr(name, ".conv2_offset."))
            return gfli_error(l->context, GFL_E_UNSUPPORTED,
                              "%s: %s: deformable convolutions are not supported by this version",
                              blob->path, name);
    }
    const char *style = gfli_blob_meta(blob, "style");
    if (style && strcmp(style, "pytorch") != 0)
        return gfli_error(l->context, GFL_E_UNSUPPORTED,
                          "%s: blocks of style \"%s\"; only \"pytorch\" is supported", blob->path,
                          style);
    return GFL_OK;
}

static gfl_status gfli_deduce_arch(gfli_weight_load *l, gfl_arch *arch) {
    const gfli_blob *blob = &l->blob;
    int width, per_group, rows;
    memset(arch, 0, sizeof *arch);
    GFLI_TRY(gfli_refuse_relatives(l));
    GFLI_TRY(gfli_deduce_depth(l, arch));
    GFLI_TRY(gfli_deduce_dim(l, "backbone.conv1.weight", 0, &arch->base_channels));
    GFLI_TRY(gfli_deduce_dim(l, "backbone.layer1.0.conv2.weight", 0, &width));
    GFLI_TRY(gfli_deduce_dim(l, "backbone.layer1.0.conv2.weight", 1, &per_group));
    if (width % per_group != 0)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: backbone.layer1.0.conv2.weight has %d filters of %d channels, which "
                          "are no groups",
                          blob->path, width, per_group);
    arch->groups = width / per_group;
    arch->base_width = arch->groups > 1 ? per_group : 0;
    GFLI_TRY(gfli_deduce_dim(l, "neck.lateral_convs.0.conv.weight", 0, &arch->fpn_channels));
    GFLI_TRY(gfli_deduce_dim(l, "bbox_head.cls_convs.0.conv.weight", 0, &arch->head_channels));
    arch->stacked_convs = gfli_count_numbered(blob, "bbox_head.cls_convs.", ".conv.weight");
    GFLI_TRY(gfli_deduce_dim(l, "bbox_head.gfl_cls.weight", 0, &arch->n_classes));
    GFLI_TRY(gfli_deduce_dim(l, "bbox_head.gfl_reg.weight", 0, &rows));
    if (rows % 4 != 0 || rows < 8)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: bbox_head.gfl_reg.weight has %d filters; four sides need a multiple "
                          "of 4, at least 8",
                          blob->path, rows);
    arch->reg_max = rows / 4 - 1;
    gfl_status status = gfli_arch_resolve(l->context, arch, arch);
    if (status == GFL_OK) return GFL_OK;
    return gfli_error_in(l->context, GFL_E_MISMATCH, blob->path);
}

/* Does every parameter have its tensor, and every tensor of the network its parameter? */
static gfl_status gfli_check_tensors(gfli_weight_load *l, gfl_model *model) {
    const gfli_blob *blob = &l->blob;
    const char *missing = NULL;
    int n_missing = 0;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        const gfli_tensor *t = gfli_blob_find(blob, p->name);
        if (!t) {
            if (n_missing++ == 0) missing = p->name;
        } else if (!gfli_same_shape(p, t)) {
            char name[32];
            gfli_arch_name(&model->arch, name);
            return gfli_error(
                l->context, GFL_E_MISMATCH,
                "%s: %s has shape %s; the network that the other shapes describe (%s) "
                "needs %s",
                blob->path, p->name, gfli_shape(t->rank, t->shape).text, name,
                gfli_shape(p->rank, p->shape).text);
        }
    }
    if (n_missing > 1)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: the tensor %s and %d more are missing; the file is incomplete",
                          blob->path, missing, n_missing - 1);
    if (n_missing == 1)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: the tensor %s is missing; the file is incomplete", blob->path,
                          missing);
    for (int i = 0; i < blob->n_tensors; i++) {
        const gfli_tensor *t = &blob->tensors[i];
        bool ours = gfli_starts_with(t->name, "backbone.") || gfli_starts_with(t->name, "neck.") ||
                    gfli_starts_with(t->name, "bbox_head.");
        if (ours && !gfli_is_ignored(t->name) && gfli_model_find(model, t->name) < 0)
            return gfli_error(l->context, GFL_E_MISMATCH,
                              "%s: %s %s has no place in the network that the other tensors "
                              "describe; without it the detections would be wrong",
                              blob->path, t->name, gfli_shape(t->rank, t->shape).text);
    }
    return GFL_OK;
}

static gfl_status gfli_report_load(gfl_model *model, const gfli_blob *blob) {
    GFLI_TRY(gfli_open_reports(model, blob));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        GFLI_TRY(gfli_report(model, p->name, GFL_FATE_LOADED, p->rank, p->shape, ""));
    }
    for (int i = 0; i < blob->n_tensors; i++) {
        const gfli_tensor *t = &blob->tensors[i];
        if (gfli_is_ignored(t->name) || gfli_model_find(model, t->name) >= 0) continue;
        GFLI_TRY(gfli_report(model, t->name, GFL_FATE_LEFT_OVER, t->rank, t->shape,
                             "the network has no such tensor"));
    }
    return GFL_OK;
}

/* ---- metadata -------------------------------------------------------------------------------- */

/* Did an array end where its last element `kind` was read, and the text with it? */
static bool gfli_is_whole(gfli_json *j, gfli_json_kind kind) {
    return kind == GFLI_JSON_END && gfli_json_next(j) == GFLI_JSON_END &&
           gfli_json_status(j) == GFL_OK;
}

/* Exactly n numbers from "[1, 2]" or "1,2" or "1x2". */
static gfl_status gfli_parse_numbers(gfli_weight_load *l, const char *key, int n, double *out) {
    const char *text = gfli_blob_meta(&l->blob, key);
    size_t size = strlen(text) + 3;
    gfli_json *j = NULL;
    char *list;
    int got = 0;
    GFLI_TRY(gfli_alloc(l->context, size, 1, "metadata", &list));
    snprintf(list, size, text[0] == '[' ? "%s" : "[%s]", text);
    for (char *c = list; *c; c++)
        if (*c == 'x') *c = ',';
    gfl_status status = gfli_json_open_memory(l->context, list, strlen(list), key, &j);
    if (status == GFL_OK) {
        gfli_json_kind kind = gfli_json_next(j);
        bool good = kind == GFLI_JSON_ARRAY;
        while (good && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER)
            if (got++ < n) out[got - 1] = gfli_json_number(j);
        if (!good || got != n || !gfli_is_whole(j, kind))
            status = gfli_error(l->context, GFL_E_FORMAT,
                                "%s: metadata %s is \"%.100s\"; it should "
                                "be %d numbers",
                                l->blob.path, key, text, n);
        gfli_json_close(j);
    }
    gfli_free(l->context, list);
    return status;
}

static gfl_status gfli_read_channel_order(gfli_weight_load *l, const char *key, int *bgr) {
    const char *order = gfli_blob_meta(&l->blob, key);
    if (!order) return GFL_OK;
    if (strcmp(order, "RGB") != 0 && strcmp(order, "BGR") != 0)
        return gfli_error(l->context, GFL_E_FORMAT,
                          "%s: metadata %s is \"%.100s\"; it should be RGB or BGR", l->blob.path,
                          key, order);
    *bgr = order[0] == 'B';
    return GFL_OK;
}

/* Mean, std, channel order and scale, where the file has them. */
static gfl_status gfli_read_preprocess(gfli_weight_load *l, const char *order_key,
                                       gfl_preprocess *p) {
    double mean[3], deviation[3], scale[2];
    memset(p, 0, sizeof *p);
    GFLI_TRY(gfli_read_channel_order(l, order_key, &p->bgr));
    bool has_mean = gfli_blob_meta(&l->blob, "mean") != NULL;
    if (has_mean != (gfli_blob_meta(&l->blob, "std") != NULL))
        return gfli_error(l->context, GFL_E_FORMAT,
                          "%s: metadata has mean or std without the other", l->blob.path);
    if (has_mean) {
        GFLI_TRY(gfli_parse_numbers(l, "mean", 3, mean));
        GFLI_TRY(gfli_parse_numbers(l, "std", 3, deviation));
        for (int i = 0; i < 3; i++) {
            p->mean[i] = (float)mean[i];
            p->std[i] = (float)deviation[i];
            if (!(p->std[i] > 0))
                return gfli_error(l->context, GFL_E_FORMAT,
                                  "%s: metadata std has %g; it must be positive", l->blob.path,
                                  deviation[i]);
        }
    }
    if (gfli_blob_meta(&l->blob, "scale")) {
        GFLI_TRY(gfli_parse_numbers(l, "scale", 2, scale));
        for (int i = 0; i < 2; i++)
            if (!(scale[i] >= 1 && scale[i] <= GFL_MAX_SIDE) || scale[i] != floor(scale[i]))
                return gfli_error(l->context, GFL_E_FORMAT,
                                  "%s: metadata scale has %g; sides are whole numbers, 1..%d",
                                  l->blob.path, scale[i], GFL_MAX_SIDE);
        p->scale_long = (int)(scale[0] > scale[1] ? scale[0] : scale[1]);
        p->scale_short = (int)(scale[0] > scale[1] ? scale[1] : scale[0]);
    }
    gfl_status status = gfli_preprocess_resolve(l->context, p, p);
    return status == GFL_OK ? GFL_OK : gfli_error_in(l->context, GFL_E_FORMAT, l->blob.path);
}

/* The dialect decides the geometry of boxes, so it is never guessed. */
static gfl_status gfli_read_dialect(gfli_weight_load *l, gfl_dialect wanted, gfl_dialect *out) {
    static const char *const names[] = {"", "mmdet", "gfocal"};
    const gfli_blob *blob = &l->blob;
    const char *said = gfli_blob_meta(blob, "dialect");
    gfl_dialect by_meta = GFL_DIALECT_DEFAULT, by_tensor = GFL_DIALECT_DEFAULT;
    for (int i = 1; said && i <= 2; i++)
        if (strcmp(said, names[i]) == 0) by_meta = (gfl_dialect)i;
    if (said && by_meta == GFL_DIALECT_DEFAULT)
        return gfli_error(l->context, GFL_E_FORMAT,
                          "%s: metadata dialect is \"%.100s\"; it should be mmdet or gfocal",
                          blob->path, said);
    if (gfli_blob_find(blob, "bbox_head.integral.project")) by_tensor = GFL_DIALECT_MMDET;
    if (gfli_blob_find(blob, "bbox_head.distribution_project.project"))
        by_tensor = GFL_DIALECT_GFOCAL;
    if (by_meta && by_tensor && by_meta != by_tensor)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: metadata says dialect %s, but bbox_head.%s.project is of dialect %s",
                          blob->path, said,
                          by_tensor == GFL_DIALECT_MMDET ? "integral" : "distribution_project",
                          names[by_tensor]);
    *out = by_meta ? by_meta : by_tensor;
    if (*out && wanted && *out != wanted)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: weights of dialect %s, where %s is demanded; boxes would be wrong",
                          blob->path, names[*out], names[wanted]);
    if (!*out) *out = wanted;
    if (*out) return GFL_OK;
    return gfli_error(l->context, GFL_E_MISMATCH,
                      "%s: nothing in the file says which dialect its weights are of; name it: "
                      "mmdet where they come from mmdetection 2.18 or later, gfocal where from "
                      "implus/GFocal",
                      blob->path);
}

static gfl_status gfli_add_class(gfli_weight_load *l, const char *name, size_t length) {
    char *own;
    GFLI_TRY(gfli_alloc(l->context, length + 1, 1, "class name", &own));
    memcpy(own, name, length);
    own[length] = 0;
    l->classes[l->n_classes].name = own;
    l->classes[l->n_classes].id = l->n_classes + 1;
    l->n_classes++;
    return GFL_OK;
}

static gfl_status gfli_wrong_classes(gfli_weight_load *l, const char *key, int n) {
    return gfli_error(l->context, GFL_E_MISMATCH,
                      "%s: metadata %s does not have the %d entries of bbox_head.gfl_cls.weight",
                      l->blob.path, key, n);
}

/* Names in a JSON array, or in the older files separated by commas. */
static gfl_status gfli_read_class_names(gfli_weight_load *l, int n) {
    const char *text = gfli_blob_meta(&l->blob, "classes");
    if (text[0] != '[') {
        for (const char *at = text;; at += strcspn(at, ",") + 1) {
            if (l->n_classes == n) return gfli_wrong_classes(l, "classes", n);
            GFLI_TRY(gfli_add_class(l, at, strcspn(at, ",")));
            if (at[strcspn(at, ",")] == 0) break;
        }
        return l->n_classes == n ? GFL_OK : gfli_wrong_classes(l, "classes", n);
    }
    gfli_json *j = NULL;
    GFLI_TRY(gfli_json_open_memory(l->context, text, strlen(text), "classes", &j));
    gfl_status status = GFL_OK;
    gfli_json_kind kind = gfli_json_next(j);
    bool good = kind == GFLI_JSON_ARRAY;
    while (good && status == GFL_OK && (kind = gfli_json_next(j)) == GFLI_JSON_STRING) {
        size_t length;
        const char *name = gfli_json_string(j, &length);
        if (l->n_classes == n)
            status = gfli_wrong_classes(l, "classes", n);
        else if (strlen(name) != length)
            good = false;
        else
            status = gfli_add_class(l, name, length);
    }
    if (status == GFL_OK && (!good || !gfli_is_whole(j, kind)))
        status = gfli_error(l->context, GFL_E_FORMAT,
                            "%s: metadata classes is not a JSON array of strings", l->blob.path);
    if (status == GFL_OK && l->n_classes != n) status = gfli_wrong_classes(l, "classes", n);
    gfli_json_close(j);
    return status;
}

static gfl_status gfli_read_class_ids(gfli_weight_load *l, int n) {
    const char *text = gfli_blob_meta(&l->blob, "class_ids");
    gfli_json *j = NULL;
    GFLI_TRY(gfli_json_open_memory(l->context, text, strlen(text), "class_ids", &j));
    gfl_status status = GFL_OK;
    int got = 0;
    gfli_json_kind kind = gfli_json_next(j);
    bool good = kind == GFLI_JSON_ARRAY;
    while (good && status == GFL_OK && (kind = gfli_json_next(j)) == GFLI_JSON_NUMBER) {
        if (got == n)
            status = gfli_wrong_classes(l, "class_ids", n);
        else
            good = gfli_json_integer(j, &l->classes[got].id);
        if (good && status == GFL_OK && got > 0) good = l->classes[got].id > l->classes[got - 1].id;
        got++;
    }
    if (status == GFL_OK && (!good || !gfli_is_whole(j, kind)))
        status = gfli_error(l->context, GFL_E_FORMAT,
                            "%s: metadata class_ids is not a JSON array of ascending integers",
                            l->blob.path);
    if (status == GFL_OK && got != n) status = gfli_wrong_classes(l, "class_ids", n);
    gfli_json_close(j);
    return status;
}

static gfl_status gfli_read_classes(gfli_weight_load *l, int n) {
    if (!gfli_blob_meta(&l->blob, "classes")) return GFL_OK;
    GFLI_TRY(gfli_calloc(l->context, (size_t)n, sizeof *l->classes, "classes", &l->classes));
    GFLI_TRY(gfli_read_class_names(l, n));
    return gfli_blob_meta(&l->blob, "class_ids") ? gfli_read_class_ids(l, n) : GFL_OK;
}

/* The number behind the first R or X of a name like "GFL R50"; 0: none. */
static int gfli_depth_in_name(const char *name) {
    for (; *name; name++)
        if ((*name == 'R' || *name == 'X') && name[1] >= '1' && name[1] <= '9')
            return (int)strtol(name + 1, NULL, 10);
    return 0;
}

static gfl_status gfli_check_labels(gfli_weight_load *l, const gfl_arch *arch) {
    const char *format = gfli_blob_meta(&l->blob, "gfl_format");
    const char *name = gfli_blob_meta(&l->blob, "architecture");
    if (format && strcmp(format, "1") != 0)
        return gfli_error(l->context, GFL_E_UNSUPPORTED,
                          "%s: metadata gfl_format is \"%.100s\"; this version reads 1",
                          l->blob.path, format);
    int depth = name ? gfli_depth_in_name(name) : 0;
    if (depth != 0 && depth != arch->depth)
        return gfli_error(
            l->context, GFL_E_MISMATCH,
            "%s: metadata architecture is \"%.100s\", but the tensors are of depth %d",
            l->blob.path, name, arch->depth);
    return GFL_OK;
}

/* ---- loading --------------------------------------------------------------------------------- */

static gfl_status gfli_load_model(gfli_weight_load *l, const gfl_model_opts *opts,
                                  gfl_model **out) {
    gfl_arch arch;
    gfl_preprocess preprocess;
    GFLI_TRY(gfli_deduce_arch(l, &arch));
    GFLI_TRY(gfli_check_labels(l, &arch));
    GFLI_TRY(gfli_read_dialect(l, opts ? opts->dialect : GFL_DIALECT_DEFAULT, &arch.dialect));
    GFLI_TRY(gfli_read_preprocess(l, "channel_order", &preprocess));
    GFLI_TRY(gfli_read_classes(l, arch.n_classes));
    GFLI_TRY(
        gfli_model_new(l->context, &arch, &preprocess, l->classes, opts && opts->trainable, out));
    gfl_status status = gfli_check_tensors(l, *out);
    if (status == GFL_OK) status = gfli_model_build(*out, gfli_fill_from_file, l);
    if (status == GFL_OK) status = gfli_report_load(*out, &l->blob);
    if (status != GFL_OK) {
        gfl_model_destroy(*out);
        *out = NULL;
    }
    return status;
}

gfl_status gfl_model_load(gfl_context *context, const char *path, const gfl_model_opts *opts,
                          gfl_model **out) {
    gfli_weight_load l;
    memset(&l, 0, sizeof l);
    if (out) *out = NULL;
    if (!context || !path || !out)
        return gfli_error(context, GFL_E_ARG, "gfl_model_load: %s is NULL",
                          !context ? "context" : (!path ? "path" : "out"));
    l.context = context;
    GFLI_TRY(gfli_blob_open(context, path, &l.blob));
    gfl_status status = gfli_load_model(&l, opts, out);
    gfli_loader_close(&l);
    return status;
}

gfl_status gfl_model_load_memory(gfl_context *context, const void *bytes, size_t size,
                                 const gfl_model_opts *opts, gfl_model **out) {
    gfli_weight_load l;
    memset(&l, 0, sizeof l);
    if (out) *out = NULL;
    if (!context || !bytes || !out)
        return gfli_error(context, GFL_E_ARG, "gfl_model_load_memory: %s is NULL",
                          !context ? "context" : (!bytes ? "bytes" : "out"));
    l.context = context;
    GFLI_TRY(gfli_blob_open_memory(context, bytes, size, "weights in memory", &l.blob));
    gfl_status status = gfli_load_model(&l, opts, out);
    gfli_loader_close(&l);
    return status;
}

/* ---- a backbone alone ------------------------------------------------------------------------ */

/* torchvision's names, or the backbone of a whole detector. */
static const gfli_tensor *gfli_find_backbone(const gfli_blob *blob, const gfli_param *param) {
    if (!gfli_starts_with(param->name, "backbone.")) return NULL;
    const gfli_tensor *t = gfli_blob_find(blob, param->name + strlen("backbone."));
    return t ? t : gfli_blob_find(blob, param->name);
}

/* A backbone trained on other inputs or with other strides loads, and then detects nothing. */
static gfl_status gfli_check_backbone(gfli_weight_load *l, const gfl_model *model) {
    const gfli_blob *blob = &l->blob;
    const char *style = gfli_blob_meta(blob, "style"), *name = gfli_blob_meta(blob, "arch");
    const char *order = gfli_blob_meta(blob, "input") ? "input" : "channel_order";
    gfl_preprocess p;
    if (style && strcmp(style, "pytorch") != 0)
        return gfli_error(l->context, GFL_E_UNSUPPORTED,
                          "%s: a backbone of style \"%.100s\"; only \"pytorch\" is supported",
                          blob->path, style);
    if (name && gfli_starts_with(name, "resnet") && strtol(name + 6, NULL, 10) != model->arch.depth)
        return gfli_error(l->context, GFL_E_MISMATCH, "%s: a %.100s for a model of depth %d",
                          blob->path, name, model->arch.depth);
    GFLI_TRY(gfli_read_preprocess(l, order, &p));
    bool same = !gfli_blob_meta(blob, order) || p.bgr == model->preprocess.bgr;
    for (int i = 0; i < 3 && gfli_blob_meta(blob, "mean"); i++)
        same = same && fabsf(p.mean[i] - model->preprocess.mean[i]) < 0.01f &&
               fabsf(p.std[i] - model->preprocess.std[i]) < 0.01f;
    if (same) return GFL_OK;
    return gfli_error(l->context, GFL_E_MISMATCH,
                      "%s: the backbone expects %s input with mean %g, %g, %g, the model gives %s "
                      "with %g, %g, %g; create the model with the backbone's preprocessing",
                      blob->path, p.bgr ? "BGR" : "RGB", (double)p.mean[0], (double)p.mean[1],
                      (double)p.mean[2], model->preprocess.bgr ? "BGR" : "RGB",
                      (double)model->preprocess.mean[0], (double)model->preprocess.mean[1],
                      (double)model->preprocess.mean[2]);
}

/* Read every tensor that fits; into the model only when commit. */
static gfl_status gfli_read_backbone(gfli_weight_load *l, gfl_model *model, bool commit,
                                     int *n_read) {
    *n_read = 0;
    for (int i = 0; i < model->n_params; i++) {
        gfli_param *p = &model->params[i];
        const gfli_tensor *t = gfli_find_backbone(&l->blob, p);
        if (!gfli_starts_with(p->name, "backbone.")) continue;
        bool fits = t && gfli_same_shape(p, t);
        if (fits) {
            GFLI_TRY(gfli_reserve(l->context, &l->ready, &l->ready_capacity, p->count,
                                  sizeof(float), "tensor"));
            GFLI_TRY(gfli_read_values(l, p, t, l->ready));
            ++*n_read;
        }
        if (commit && fits) memcpy(p->data, l->ready, p->count * sizeof(float));
        if (commit && !fits) gfli_param_init(p, model->seed, i);
        if (commit && fits) p->loaded = true;
    }
    return GFL_OK;
}

static gfl_status gfli_report_backbone(gfl_model *model, const gfli_blob *blob) {
    GFLI_TRY(gfli_open_reports(model, blob));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        const gfli_tensor *t = gfli_find_backbone(blob, p);
        char why[192] = "";
        if (!gfli_starts_with(p->name, "backbone.")) continue;
        if (!t)
            snprintf(why, sizeof why, "the file has no such tensor");
        else if (!gfli_same_shape(p, t))
            snprintf(why, sizeof why, "the file's has shape %s",
                     gfli_shape(t->rank, t->shape).text);
        GFLI_TRY(gfli_report(model, p->name, why[0] ? GFL_FATE_INITIALISED : GFL_FATE_LOADED,
                             p->rank, p->shape, why));
    }
    for (int i = 0; i < blob->n_tensors; i++) {
        const gfli_tensor *t = &blob->tensors[i];
        char full[256];
        snprintf(full, sizeof full, "backbone.%.200s", t->name);
        int index = gfli_model_find(model, full);
        if (index < 0 && gfli_starts_with(t->name, "backbone."))
            index = gfli_model_find(model, t->name);
        if (index >= 0 && gfli_find_backbone(blob, &model->params[index]) == t) continue;
        if (gfli_is_ignored(t->name)) continue;
        GFLI_TRY(gfli_report(model, t->name, GFL_FATE_LEFT_OVER, t->rank, t->shape,
                             "the backbone has no such tensor"));
    }
    return GFL_OK;
}

static gfl_status gfli_load_backbone(gfli_weight_load *l, gfl_model *model) {
    int n_read;
    GFLI_TRY(gfli_check_backbone(l, model));
    GFLI_TRY(gfli_read_backbone(l, model, false, &n_read));
    if (n_read == 0)
        return gfli_error(l->context, GFL_E_MISMATCH,
                          "%s: none of its %d tensors fits the backbone; expected torchvision's "
                          "names, conv1.weight, layer1.0.conv1.weight and so on",
                          l->blob.path, l->blob.n_tensors);
    GFLI_TRY(gfli_report_backbone(model, &l->blob));
    GFLI_TRY(gfli_read_backbone(l, model, true, &n_read));
    return gfli_model_pack(model, 0);
}

gfl_status gfl_model_load_backbone(gfl_model *model, const char *path) {
    gfli_weight_load l;
    memset(&l, 0, sizeof l);
    if (!model) return GFL_E_ARG;
    if (!path || !model->trainable)
        return gfli_error(model->context, GFL_E_ARG,
                          path ? "gfl_model_load_backbone: create the model with opts.trainable"
                               : "gfl_model_load_backbone: path is NULL");
    l.context = model->context;
    GFLI_TRY(gfli_blob_open(model->context, path, &l.blob));
    gfl_status status = gfli_load_backbone(&l, model);
    gfli_loader_close(&l);
    return status;
}
