/* deduce.c - the architecture in the shapes of a file's tensors */
#pragma once

gfl_status gfli_deduce_dim(gfli_weights *w, const char *name, int axis, int *out) {
    const gfli_tensor *t = gfli_weights_find(w, name);
    if (!t)
        return gfli_error(w->context, GFL_E_MISMATCH, "%s: the tensor %s is missing", w->blob.path,
                          name);
    if (t->rank != 4 || t->shape[axis] < 1 || t->shape[axis] > 1 << 24)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: %s has shape %s, which is not the shape of a convolution",
                          w->blob.path, t->name, gfli_shape(t->rank, t->shape).text);
    *out = (int)t->shape[axis];
    return GFL_OK;
}

int gfli_count_numbered(const gfli_weights *w, const char *before, const char *after) {
    char name[96];
    int n = 0;
    do snprintf(name, sizeof name, "%s%d%s", before, n, after);
    while (gfli_weights_find(w, name) && ++n < 1000);
    return n;
}

/* The number behind `text`, which it must be the first digit of. */
static const char *gfli_read_count(const char *text, int *out) {
    for (*out = 0; *text >= '0' && *text <= '9' && *out < 100000; text++)
        *out = 10 * *out + (*text - '0');
    return text;
}

/* "model-00001-of-00002.safetensors" holds some of a model's tensors. */
static gfl_status gfli_refuse_part(const gfli_weights *w) {
    for (const char *at = w->blob.path; (at = strstr(at, "-of-")) != NULL; at += 4) {
        const char *first = at;
        int part, parts;
        while (first > w->blob.path && first[-1] >= '0' && first[-1] <= '9') first--;
        gfli_read_count(first, &part);
        const char *end = gfli_read_count(at + 4, &parts);
        if (first == at || first == w->blob.path || first[-1] != '-' || *end != '.' || parts < 2)
            continue;
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: it is part %d of %d of a sharded model: join the parts first, for "
                          "example by load_file() of each and one save_file() in Python",
                          w->blob.path, part, parts);
    }
    return GFL_OK;
}

const gfli_backbone *gfli_backbone_in(const gfli_weights *w) {
    const gfli_backbone *const *all = gfli_backbones(w->context);
    for (const gfli_backbone *const *b = all; *b; b++)
        if (gfli_weights_find(w, (*b)->stem)) return *b;
    return *all;
}

gfl_status gfli_deduce_backbone(gfli_weights *w, gfl_arch *arch, int *stages) {
    memset(arch, 0, sizeof *arch);
    GFLI_TRY(gfli_refuse_part(w));
    return gfli_backbone_in(w)->deduce(w, arch, stages);
}

/* Of neck and head. */
static const gfli_relative gfli_relatives[] = {
    {"bbox_head.reg_conf.", "", "GFLv2, another detector,"},
    {"bbox_head.", ".bn.", "a GFL head with batch norm"},
    {"bbox_head.cls_convs.", ".conv.bias", "a GFL head without normalisation"},
    {"neck.", ".bn.", "a pyramid with batch norm"},
    {"neck.", ".gn.", "a pyramid with group norm"},
    {NULL, NULL, NULL},
};

static gfl_status gfli_refuse_relative(const gfli_weights *w, const gfli_entry *entry,
                                       const gfli_relative *known) {
    for (; known->front; known++)
        if (strncmp(entry->name, known->front, strlen(known->front)) == 0 &&
            strstr(entry->name, known->inside))
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: %s is not supported (the tensor %s)", w->blob.path, known->what,
                              entry->tensor->name);
    return GFL_OK;
}

/* Things that are read too, but elsewhere, and things that only look like GFL. */
static gfl_status gfli_refuse_relatives(const gfli_weights *w) {
    const gfli_backbone *backbone = gfli_backbone_in(w);
    bool head = false, stem = gfli_weights_find(w, backbone->stem) != NULL;
    GFLI_TRY(gfli_refuse_part(w));
    for (int i = 0; i < w->n_entries; i++) {
        const char *name = w->entries[i].name;
        head = head || strncmp(name, "bbox_head.", 10) == 0 || strncmp(name, "neck.", 5) == 0;
        GFLI_TRY(gfli_refuse_relative(w, &w->entries[i], gfli_relatives));
        GFLI_TRY(gfli_refuse_relative(w, &w->entries[i], backbone->relatives));
    }
    if (stem && head) return GFL_OK;
    if (stem)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensors of neck and head are missing; this looks like a bare "
                          "backbone, which gfl_model_load_backbone reads (gfl train --weights)",
                          w->blob.path);
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: the tensor %s is missing; this is not a detector with mmdetection's "
                      "names",
                      w->blob.path, backbone->stem);
}

gfl_status gfli_deduce_detector(gfli_weights *w, gfl_arch *arch) {
    GFLI_TRY(gfli_refuse_relatives(w));
    GFLI_TRY(gfli_deduce_backbone(w, arch, NULL));
    GFLI_TRY(gfli_deduce_neck(w, arch));
    return gfli_deduce_head(w, arch);
}
