/* save.c - weights to safetensors, under mmdetection's names */
#pragma once

/* The shortest decimal that reads back as the same float. */
static void gfli_float_text(float value, char out[32]) {
    double d = (double)value;
    for (double unit = 1; unit <= 1e6; unit *= 10) {
        double rounded = (nearbyint)((double)value * unit) / unit;
        if ((float)rounded != value) continue;
        d = rounded;
        break;
    }
    gfli_json_format(d, out);
}

static gfl_status gfli_put_floats(gfli_put_meta put, void *to, const char *key,
                                  const float values[3]) {
    char text[3][32], joined[100];
    for (int i = 0; i < 3; i++) gfli_float_text(values[i], text[i]);
    snprintf(joined, sizeof joined, "%s,%s,%s", text[0], text[1], text[2]);
    return put(to, key, joined);
}

gfl_status gfli_put_input(const gfl_model *model, gfli_put_meta put, void *to,
                          const char *order_key) {
    const gfl_preprocess *p = &model->preprocess;
    GFLI_TRY(gfli_put_floats(put, to, "mean", p->mean));
    GFLI_TRY(gfli_put_floats(put, to, "std", p->std));
    return put(to, order_key, p->bgr ? "BGR" : "RGB");
}

/* The names as a JSON array, or the ids. */
static gfl_status gfli_put_classes(const gfl_model *model, gfli_put_meta put, void *to,
                                   const char *key, bool names) {
    gfli_text text = {model->context, "class list", NULL, 0, 0};
    gfl_json_writer j = gfli_json_to_text(&text);
    gfl_json_array(&j, NULL);
    for (int i = 0; i < model->arch.n_classes; i++) {
        if (names)
            gfl_json_text(&j, NULL, model->classes[i].name);
        else
            gfl_json_integer(&j, NULL, model->classes[i].id);
    }
    gfl_json_end(&j);
    gfl_status status = j.status;
    if (status == GFL_OK) status = put(to, key, text.bytes);
    gfli_free(model->context, text.bytes);
    return status;
}

/* What nobody has said of the model so far, so that whoever reads the file can say so. */
static gfl_status gfli_put_assumed(const gfl_model *model, gfli_put_meta put, void *to) {
    const gfl_origins *o = &model->origins;
    const struct {
        const char *fact;
        gfl_origin origin;
    } facts[] = {{"style", o->style},
                 {"input", o->preprocess},
                 {"scale", o->scale},
                 {"classes", o->classes}};
    char text[64] = "";
    size_t n = 0;
    for (size_t i = 0; i < GFLI_COUNT(facts); i++)
        if (facts[i].origin == GFL_ORIGIN_DEFAULT)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? "," : "", facts[i].fact);
    return n ? put(to, "assumed", text) : GFL_OK;
}

gfl_status gfli_model_metadata(const gfl_model *model, gfli_put_meta put, void *to) {
    const gfl_preprocess *p = &model->preprocess;
    char text[64], name[32];
    gfli_arch_name(model->context, &model->arch, name);
    snprintf(text, sizeof text, "GFL %s", name);
    GFLI_TRY(put(to, "gfl_format", "1"));
    GFLI_TRY(put(to, "gfl_version", GFL_VERSION_TEXT));
    GFLI_TRY(put(to, "architecture", text));
    GFLI_TRY(put(to, "dialect", gfli_dialect_get(model->arch.dialect)->name));
    GFLI_TRY(put(to, "style", gfli_style_name(&model->arch)));
    GFLI_TRY(gfli_put_classes(model, put, to, "classes", true));
    GFLI_TRY(gfli_put_classes(model, put, to, "class_ids", false));
    GFLI_TRY(gfli_put_input(model, put, to, "channel_order"));
    snprintf(text, sizeof text, "%dx%d", p->scale_long, p->scale_short);
    GFLI_TRY(put(to, "scale", text));
    return gfli_put_assumed(model, put, to);
}

gfl_status gfli_meta_to_blob(void *writer, const char *key, const char *value) {
    return gfli_blob_put_meta((gfli_blob_writer *)writer, key, value);
}

gfl_status gfli_param_values(const gfl_model *model, int index, gfli_values *values,
                             const float **out) {
    const gfli_param *p = &model->params[index];
    GFLI_TRY(gfli_reserve(model->context, &values->data, &values->capacity, 2 * p->count,
                          sizeof(float), "tensor"));
    float *kept = p->rank == 4 ? values->data + p->count : values->data;
    GFLI_TRY(gfli_param_fetch(model, index, kept));
    if (p->rank == 4) gfli_reorder_weight(p, kept, values->data, true);
    *out = values->data;
    return GFL_OK;
}

gfl_status gfli_put_params(const gfl_model *model, gfli_blob_writer *w, int last_stage,
                           size_t skip) {
    gfli_values values = {NULL, 0};
    gfl_status status = GFL_OK;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        if (p->stage > last_stage) continue;
        GFLI_TRY(gfli_blob_declare(w, p->name + skip, GFLI_F32, p->rank, p->shape));
    }
    for (int i = 0; i < model->n_params && status == GFL_OK; i++) {
        const gfli_param *p = &model->params[i];
        const float *data;
        if (p->stage > last_stage) continue;
        status = gfli_param_values(model, i, &values, &data);
        if (status == GFL_OK) status = gfli_blob_write(w, data, p->count * sizeof(float));
    }
    gfli_free(model->context, values.data);
    return status;
}

static gfl_status gfli_model_write(const gfl_model *model, gfli_sink to) {
    gfli_blob_writer *w = NULL;
    GFLI_TRY(gfli_blob_create(model->context, to, &w));
    gfl_status status = gfli_model_metadata(model, gfli_meta_to_blob, w);
    if (status == GFL_OK) status = gfli_put_params(model, w, GFLI_STAGE_HEAD, 0);
    if (status == GFL_OK) return gfli_blob_finish(w);
    gfli_blob_abandon(w);
    return status;
}

gfl_status gfl_model_save(const gfl_model *model, const char *path) {
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, path);
    GFLI_TRAINABLE(model->context, model);
    return gfli_model_write(model, gfli_to_file(path));
}

gfl_status gfl_model_save_memory(const gfl_model *model, gfl_bytes *out) {
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(NULL, model);
    GFLI_NOT_NULL(model->context, out);
    GFLI_TRAINABLE(model->context, model);
    return gfli_model_write(model, gfli_to_memory(out));
}
