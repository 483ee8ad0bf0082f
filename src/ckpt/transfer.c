/* transfer.c - a model of other classes from a model: rows of the classifier go over by class */
#pragma once

static int gfli_find_class(const gfl_class *classes, int n, const char *name) {
    for (int k = 0; k < n; k++)
        if (strcmp(classes[k].name, name) == 0) return k;
    return -1;
}

/* Lists of the caller: without holes. */
static gfl_status gfli_check_names(gfl_context *context, const char *list, const gfl_class *classes,
                                   int n) {
    GFLI_DEMAND(context, n >= 0 && (n == 0 || classes), "%s: %d classes at NULL", list, n);
    for (int k = 0; k < n; k++)
        GFLI_DEMAND(context, classes[k].name, "%s: class %d has no name", list, k);
    return GFL_OK;
}

gfl_status gfl_match_classes(gfl_context *context, const gfl_class *from, int n_from,
                             const gfl_class *to, int n_to, const gfl_rename *renames,
                             int n_renames, int *map) {
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, map);
    GFLI_TRY(gfli_check_names(context, "from", from, n_from));
    GFLI_TRY(gfli_check_names(context, "to", to, n_to));
    GFLI_DEMAND(context, n_renames >= 0, "renames: there are %d of them", n_renames);
    for (int i = 0; i < n_renames; i++)
        GFLI_DEMAND(context, renames && renames[i].from && renames[i].to,
                    "gfl_match_classes: rename %d lacks a name", i);
    for (int k = 0; k < n_to; k++) map[k] = -2;
    for (int i = 0; i < n_renames; i++) {
        int old = gfli_find_class(from, n_from, renames[i].from);
        int now = gfli_find_class(to, n_to, renames[i].to);
        if (old < 0 || now < 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "renaming %s to %s: there is no class \"%s\" in the %s list",
                              renames[i].from, renames[i].to,
                              old < 0 ? renames[i].from : renames[i].to, old < 0 ? "old" : "new");
        if (map[now] != -2)
            return gfli_error(context, GFL_E_MISMATCH,
                              "renaming %s to %s: %s is already renamed to that", renames[i].from,
                              renames[i].to, from[map[now]].name);
        map[now] = old;
    }
    for (int k = 0; k < n_to; k++)
        if (map[k] == -2) map[k] = gfli_find_class(from, n_from, to[k].name);
    return GFL_OK;
}

typedef struct gfli_transfer {
    const gfl_model *source;
    const int *map;
} gfli_transfer;

static bool gfli_is_classifier(const gfl_model *model, int param) {
    const gfli_layer *layer = &model->layers[model->network.classifier];
    return param == layer->weight || param == layer->bias;
}

/* The rows of the classes that both know; those of new ones are fresh. */
static gfl_status gfli_fill_classes(const gfli_transfer *t, gfl_model *model, int index,
                                    float *to) {
    const size_t row = model->params[index].count / (size_t)model->arch.n_classes;
    float *from;
    GFLI_TRY(gfli_alloc(model->context, t->source->params[index].count, sizeof *from, "a tensor",
                        &from));
    const gfl_status status = gfli_param_fetch(t->source, index, from);
    gfli_param_init(&model->params[index], model->seed, index, to);
    for (int k = 0; k < model->arch.n_classes && status == GFL_OK; k++)
        if (t->map[k] >= 0)
            memcpy(to + (size_t)k * row, from + (size_t)t->map[k] * row, row * sizeof *to);
    gfli_free(model->context, from);
    model->params[index].loaded = true;
    return status;
}

static gfl_status gfli_fill_from_model(void *arg, gfl_model *model, int index, float *to) {
    const gfli_transfer *t = (const gfli_transfer *)arg;
    gfli_param *param = &model->params[index];
    if (gfli_is_classifier(model, index)) return gfli_fill_classes(t, model, index, to);
    param->loaded = t->source->params[index].loaded;
    return gfli_param_fetch(t->source, index, to);
}

static gfl_status gfli_report_transfer(gfl_model *model, const int *map) {
    int n_new = 0;
    char why[96];
    for (int k = 0; k < model->arch.n_classes; k++) n_new += map[k] < 0;
    snprintf(why, sizeof why, "%d of %d classes are new", n_new, model->arch.n_classes);
    GFLI_TRY(gfli_open_reports(model, (size_t)model->n_params));
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        bool afresh = n_new > 0 && gfli_is_classifier(model, i);
        GFLI_TRY(gfli_report(model, p->name, afresh ? GFL_FATE_INITIALISED : GFL_FATE_LOADED,
                             p->rank, p->shape, afresh ? why : ""));
    }
    return GFL_OK;
}

static gfl_status gfli_create_from(gfl_context *context, const gfl_model *source,
                                   const gfl_transfer_desc *how, const int *map, gfl_model **out) {
    gfli_transfer t = {source, map};
    gfl_arch arch = source->arch;
    arch.n_classes = how->n_classes;
    GFLI_TRY(gfli_model_new(context, &arch, how->preprocess ? how->preprocess : &source->preprocess,
                            how->classes, true, out));
    (*out)->seed = how->seed;
    (*out)->origins = source->origins;
    (*out)->origins.classes = GFL_ORIGIN_GIVEN;
    gfl_status status = gfli_model_build(*out, gfli_fill_from_model, &t);
    if (status == GFL_OK) status = gfli_report_transfer(*out, map);
    if (status == GFL_OK) return GFL_OK;
    gfl_model_destroy(*out);
    *out = NULL;
    return status;
}

gfl_status gfl_model_create_from(gfl_context *context, const gfl_model *source,
                                 const gfl_transfer_desc *desc, gfl_model **out) {
    int *map = NULL;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, source);
    GFLI_NOT_NULL(context, desc);
    GFLI_NOT_NULL(context, desc->classes);
    GFLI_NOT_NULL(context, out);
    GFLI_TRAINABLE(context, source);
    GFLI_DEMAND(context, desc->n_classes >= 1 && desc->n_classes <= GFL_MAX_CLASSES,
                "gfl_model_create_from: %d classes; 1..%d are allowed", desc->n_classes,
                GFL_MAX_CLASSES);
    GFLI_TRY(gfli_alloc(context, (size_t)desc->n_classes, sizeof *map, "class map", &map));
    gfl_status status = GFL_OK;
    if (!desc->map)
        status = gfl_match_classes(context, source->classes, source->arch.n_classes, desc->classes,
                                   desc->n_classes, NULL, 0, map);
    for (int k = 0; k < desc->n_classes && desc->map && status == GFL_OK; k++) {
        map[k] = desc->map[k];
        if (map[k] < -1 || map[k] >= source->arch.n_classes)
            status = gfli_error(context, GFL_E_ARG,
                                "gfl_model_create_from: map[%d] is %d; labels of the source are "
                                "0..%d",
                                k, map[k], source->arch.n_classes - 1);
    }
    if (status == GFL_OK) status = gfli_create_from(context, source, desc, map, out);
    gfli_free(context, map);
    return status;
}
