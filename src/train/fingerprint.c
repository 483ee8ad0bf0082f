/* fingerprint.c - one number for all weights of a model, one for all that a data set says */
#pragma once

static uint64_t gfli_hash_word(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 32);
}

static uint64_t gfli_hash_text(uint64_t hash, const char *text) {
    for (; text && *text; text++) hash = gfli_hash_word(hash, (unsigned char)*text);
    return gfli_hash_word(hash, 256);
}

static uint64_t gfli_hash_real(uint64_t hash, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return gfli_hash_word(hash, bits);
}

static uint64_t gfli_hash_id(uint64_t hash, gfl_id id) {
    hash = gfli_hash_text(hash, id.text);
    return id.text ? hash : gfli_hash_word(hash, (uint64_t)id.number);
}

static uint64_t gfli_hash_floats(uint64_t hash, const float *x, size_t n) {
    for (size_t k = 0; k < n; k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        hash = gfli_hash_word(hash, bits);
    }
    return hash;
}

gfl_status gfli_hash_model(const gfl_model *model, uint64_t *out) {
    gfl_status status = GFL_OK;
    float *values;
    *out = 0;
    GFLI_TRY(
        gfli_alloc(model->context, gfli_largest_param(model), sizeof *values, "tensor", &values));
    for (int i = 0; i < model->n_params && status == GFL_OK; i++) {
        status = gfli_param_fetch(model, i, values);
        *out = gfli_hash_text(*out, model->params[i].name);
        if (status == GFL_OK) *out = gfli_hash_floats(*out, values, model->params[i].count);
    }
    gfli_free(model->context, values);
    return status;
}

/* Names and shapes of the parameters. */
uint64_t gfli_hash_network(const gfl_model *model) {
    uint64_t hash = 0;
    for (int i = 0; i < model->n_params; i++) {
        const gfli_param *p = &model->params[i];
        hash = gfli_hash_text(hash, p->name);
        for (int k = 0; k < p->rank; k++) hash = gfli_hash_word(hash, (uint64_t)p->shape[k]);
    }
    return hash;
}

/* Ids, names, sizes and boxes: what decides about batches and targets, but for the pixels. */
uint64_t gfli_hash_dataset(const gfl_dataset *dataset) {
    uint64_t hash = 0;
    int n_images = gfl_dataset_count_images(dataset),
        n_classes = gfl_dataset_count_classes(dataset);
    const gfl_class *classes = gfl_dataset_get_classes(dataset);
    for (int i = 0; i < n_classes; i++) hash = gfli_hash_text(hash, classes[i].name);
    for (int i = 0; i < n_images; i++) {
        gfl_image_info info;
        if (gfl_dataset_get_image(dataset, i, &info) != GFL_OK) continue;
        hash = gfli_hash_text(gfli_hash_id(hash, info.id), info.file_name);
        hash = gfli_hash_word(hash, (uint64_t)info.width << 32 | (uint32_t)info.height);
        for (int k = 0; k < info.n_annotations; k++) {
            const gfl_annotation *a = &info.annotations[k];
            hash = gfli_hash_real(gfli_hash_real(hash, a->x), a->y);
            hash = gfli_hash_real(gfli_hash_real(hash, a->w), a->h);
            hash = gfli_hash_real(hash, a->area);
            hash = gfli_hash_word(hash, (uint64_t)a->label << 2 | (uint64_t)(a->crowd != 0) << 1 |
                                            (uint64_t)(a->ignore != 0));
        }
    }
    return hash;
}

void gfli_hash_format(uint64_t hash, char out[24]) {
    snprintf(out, 24, "%016llx", (unsigned long long)hash);
}
