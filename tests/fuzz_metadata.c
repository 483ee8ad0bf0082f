/* fuzz_metadata.c - what a file says of a small network beside its tensors, the text of a
 * configuration included: any texts are facts, or an error with a text.  The input is key, 0,
 * value, 0, and so on. */
#include "fuzz_ckpt.h"

/* The tensors of a network, without values. */
static void list_tensors(gfl_context *context, gfli_blob *blob) {
    static const gfl_arch narrow = {50, 1, 0, 4, 32, 32, 1, 2, 7, GFL_DIALECT_MMDET, 0, 0, 0};
    gfl_model table;
    memset(&table, 0, sizeof table);
    table.context = context;
    if (gfli_arch_resolve(context, &narrow, &table.arch) != GFL_OK) abort();
    if (gfli_model_describe(&table) != GFL_OK) abort();
    blob->size = 1 << 20;
    for (int i = 0; i < table.n_params; i++) {
        const gfli_param *p = &table.params[i];
        gfli_tensor *t;
        if (gfli_blob_add(blob, p->name, &t) != GFL_OK) abort();
        t->rank = p->rank;
        t->count = p->count;
        for (int d = 0; d < p->rank; d++) t->shape[d] = p->shape[d];
    }
    gfli_model_undescribe(&table);
    if (gfli_blob_sort(blob) != GFL_OK) abort();
}

/* Keys and values one after the other, the last one as far as it goes. */
static void say(gfli_blob *blob, const uint8_t *data, size_t size) {
    char *text = (char *)malloc(size + 2);
    if (!text) exit(1);
    memcpy(text, data, size);
    memset(text + size, 0, 2);
    for (size_t at = 0; at < size && blob->n_meta < 64;) {
        const char *key = text + at, *value = key + strlen(key) + 1;
        if (value > text + size) break;
        if (gfli_blob_add_meta(blob, key, value) != GFL_OK) abort();
        at = (size_t)(value - text) + strlen(value) + 1;
    }
    free(text);
}

static gfl_status read_all(gfli_weights *w) {
    gfl_model_desc desc;
    gfl_origins origins;
    GFLI_TRY(gfli_config_read(&w->blob));
    GFLI_TRY(gfli_weights_begin(w->context, w));
    GFLI_TRY(gfli_config_refuse(w, true, false));
    GFLI_TRY(gfli_describe_weights(w, GFL_DIALECT_DEFAULT, GFL_STYLE_DEFAULT, &desc, &origins));
    GFLI_TRY(gfli_config_compare(w, &desc.arch, true));
    for (int i = 0; i < 3; i++)
        if (!(desc.preprocess.std[i] > 0) || !gfli_is_finite((double)desc.preprocess.mean[i]))
            abort();
    if (desc.preprocess.scale_long < desc.preprocess.scale_short) abort();
    return gfli_read_classes(w, desc.arch.n_classes, &desc.classes, &origins.classes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfli_weights w;
    memset(&w, 0, sizeof w);
    w.context = context;
    if (gfli_blob_bare_memory(context, "", 0, "input", &w.blob) != GFL_OK) abort();
    list_tensors(context, &w.blob);
    say(&w.blob, data, size);
    const gfl_status status = read_all(&w);
    if (status != GFL_OK && !gfl_context_get_error(context)[0]) abort();
    gfli_weights_end(&w);
    gfl_context_destroy(context);
    return 0;
}
