/* names.c - what other people's files call a parameter */
#pragma once

/* The files that exist: implus/GFocal and mmdetection 1 to 3 (the names that the model has too),
 * backbones of other libraries (rules of backbones), and each of them inside a wrapper.  Rules are
 * applied until none changes the name. */
static const gfli_name_rule gfli_name_rules[] = {
    {"module.", "", false},    /* DistributedDataParallel */
    {"_orig_mod.", "", false}, /* torch.compile */
    {"model.", "", false},     /* Lightning and the like */
    {NULL, NULL, false},
};

bool gfli_ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Counters and constants that files carry and nobody needs. */
static bool gfli_is_ignored(const char *name) {
    return gfli_ends_with(name, ".num_batches_tracked") ||
           gfli_ends_with(name, gfli_dialect_get(GFL_DIALECT_MMDET)->project) ||
           gfli_ends_with(name, gfli_dialect_get(GFL_DIALECT_GFOCAL)->project);
}

/* Apply the first rule that fits; *changed stays false when none does. */
static gfl_status gfli_rename_once(gfl_context *context, const gfli_name_rule *rule, char **name,
                                   bool *changed) {
    for (; rule->from && !*changed; rule++) {
        char *at = strstr(*name, rule->from), *longer;
        if (!at || (!rule->anywhere && at != *name)) continue;
        size_t before = (size_t)(at - *name), size = strlen(*name) + strlen(rule->to) + 1;
        GFLI_TRY(gfli_alloc(context, size, 1, "tensor name", &longer));
        snprintf(longer, size, "%.*s%s%s", (int)before, *name, rule->to, at + strlen(rule->from));
        gfli_free(context, *name);
        *name = longer;
        *changed = true;
    }
    return GFL_OK;
}

static gfl_status gfli_rename_tensor(gfl_context *context, char **name) {
    for (bool changed = true; changed;) {
        changed = false;
        GFLI_TRY(gfli_rename_once(context, gfli_name_rules, name, &changed));
        for (const gfli_backbone *const *b = gfli_backbones(context); *b; b++)
            GFLI_TRY(gfli_rename_once(context, (*b)->rules, name, &changed));
    }
    return GFL_OK;
}

static gfl_status gfli_add_entry(gfli_weights *w, const gfli_tensor *tensor) {
    gfli_entry *e = &w->entries[w->n_entries];
    GFLI_TRY(gfli_strdup(w->context, tensor->name, &e->name));
    e->tensor = tensor;
    w->n_entries++;
    return gfli_rename_tensor(w->context, &e->name);
}

static int gfli_compare_entries(const void *a, const void *b) {
    return strcmp(((const gfli_entry *)a)->name, ((const gfli_entry *)b)->name);
}

gfl_status gfli_weights_begin(gfl_context *context, gfli_weights *w) {
    w->context = context;
    GFLI_TRY(gfli_calloc(context, (size_t)w->blob.n_tensors, sizeof *w->entries, "tensor names",
                         &w->entries));
    for (int i = 0; i < w->blob.n_tensors; i++)
        if (!gfli_is_ignored(w->blob.tensors[i].name))
            GFLI_TRY(gfli_add_entry(w, &w->blob.tensors[i]));
    if (w->n_entries > 1)
        qsort(w->entries, (size_t)w->n_entries, sizeof *w->entries, gfli_compare_entries);
    for (int i = 1; i < w->n_entries; i++) {
        const gfli_entry *a = &w->entries[i - 1], *b = &w->entries[i];
        if (strcmp(a->name, b->name) == 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "%s: the tensors %s and %s would both be %s; the file holds more "
                              "than one model",
                              w->blob.path, a->tensor->name, b->tensor->name, a->name);
    }
    return GFL_OK;
}

const gfli_tensor *gfli_weights_find(const gfli_weights *w, const char *name) {
    int low = 0, high = w->n_entries;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(w->entries[middle].name, name);
        if (order == 0) return w->entries[middle].tensor;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void gfli_free_classes(gfl_context *context, gfl_class *classes, int n) {
    for (int i = 0; classes && i < n; i++) gfli_free(context, (void *)(uintptr_t)classes[i].name);
    gfli_free(context, classes);
}

void gfli_weights_end(gfli_weights *w) {
    for (int i = 0; i < w->n_entries; i++) gfli_free(w->context, w->entries[i].name);
    gfli_free(w->context, w->entries);
    gfli_free_classes(w->context, w->classes, w->n_classes);
    gfli_free(w->context, w->raw);
    gfli_free(w->context, w->ready);
    gfli_blob_close(&w->blob);
}
