/* deduce.c - the architecture in the shapes of a file's tensors */
#pragma once

/* Dimension `axis` of a convolution's weights. */
static gfl_status gfli_deduce_dim(gfli_weights *w, const char *name, int axis, int *out) {
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

/* How many tensors a format with one number has, counting from 0. */
static int gfli_count_numbered(const gfli_weights *w, const char *before, const char *after) {
    char name[96];
    int n = 0;
    do snprintf(name, sizeof name, "%s%d%s", before, n, after);
    while (gfli_weights_find(w, name) && ++n < 1000);
    return n;
}

/* The depth whose stages are the file's, as far as those go. */
static gfl_status gfli_deduce_depth(gfli_weights *w, gfl_arch *arch, int *stages) {
    static const int known[] = {18, 34, 50, 101};
    bool bottleneck = false;
    int blocks[4], n_fitting = 0;
    *stages = 0;
    for (int i = 0; i < w->n_entries; i++)
        bottleneck = bottleneck || (strncmp(w->entries[i].name, "backbone.layer", 14) == 0 &&
                                    gfli_ends_with(w->entries[i].name, ".conv3.weight"));
    for (int stage = 1; stage <= 4; stage++) {
        char before[32];
        snprintf(before, sizeof before, "backbone.layer%d.", stage);
        blocks[stage - 1] = gfli_count_numbered(w, before, ".conv1.weight");
        if (blocks[stage - 1] > 0 && *stages == stage - 1) *stages = stage;
    }
    for (size_t i = 0; i < GFLI_COUNT(known) && *stages > 0; i++) {
        const gfli_depth *d = gfli_arch_depth(known[i]);
        if (d->bottleneck != bottleneck ||
            memcmp(d->blocks, blocks, (size_t)*stages * sizeof *blocks) != 0)
            continue;
        arch->depth = known[i];
        n_fitting++;
    }
    if (n_fitting == 1) return GFL_OK;
    if (n_fitting > 1 || *stages == 0)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor backbone.layer%d.0.conv1.weight is missing, and the "
                          "others do not tell the depth",
                          w->blob.path, *stages + 1);
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: its stages have %d, %d, %d and %d %s blocks; only ResNet-18, 34, 50 and "
                      "101 are supported",
                      w->blob.path, blocks[0], blocks[1], blocks[2], blocks[3],
                      bottleneck ? "bottleneck" : "basic");
}

/* Groups and their width from the first 3x3 of a bottleneck; the other stages follow from it. */
static gfl_status gfli_deduce_groups(gfli_weights *w, gfl_arch *arch) {
    static const char name[] = "backbone.layer1.0.conv2.weight";
    int width, per_group;
    arch->groups = 1;
    if (!gfli_arch_depth(arch->depth)->bottleneck) return GFL_OK;
    GFLI_TRY(gfli_deduce_dim(w, name, 0, &width));
    GFLI_TRY(gfli_deduce_dim(w, name, 1, &per_group));
    if (width % per_group != 0)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: %s has %d filters of %d channels, which do not make whole groups",
                          w->blob.path, name, width, per_group);
    arch->groups = width / per_group;
    if (arch->groups > 1) arch->base_width = per_group;
    if (arch->groups > 1 || width == arch->base_channels) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: %s has %d filters of all %d channels; without groups the stem of %d "
                      "channels (backbone.conv1.weight) asks for %d: wide ResNets are not "
                      "supported",
                      w->blob.path, name, width, per_group, arch->base_channels,
                      arch->base_channels);
}

/* 1 or 2, by the channels of one offset convolution. */
static gfl_status gfli_deduce_version(gfli_weights *w, const gfli_tensor *t, int *version) {
    *version = t->rank == 4 && t->shape[0] == 18 ? 1 : t->rank == 4 && t->shape[0] == 27 ? 2 : 0;
    if (*version) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: %s has shape %s; an offset convolution has 18 filters (DCN v1) or 27 "
                      "(v2)",
                      w->blob.path, t->name, gfli_shape(t->rank, t->shape).text);
}

/* Version and stages of the deformable convolutions; told holds the tensor that told first. */
static gfl_status gfli_deduce_deform(gfli_weights *w, gfl_arch *arch, int stages) {
    const gfli_depth *depth = gfli_arch_depth(arch->depth);
    const gfli_tensor *told = NULL;
    for (int stage = 1; stage <= stages; stage++) {
        const gfli_tensor *with = NULL;
        int without = -1, version;
        for (int block = 0; block < depth->blocks[stage - 1]; block++) {
            char name[64];
            snprintf(name, sizeof name, "backbone.layer%d.%d.conv2.conv_offset.weight", stage,
                     block);
            const gfli_tensor *t = gfli_weights_find(w, name);
            if (!t) without = block;
            if (!t) continue;
            GFLI_TRY(gfli_deduce_version(w, t, &version));
            if (told && version != arch->deform)
                return gfli_error(w->context, GFL_E_MISMATCH,
                                  "%s: %s is of DCN v%d, %s of v%d; one model has one version",
                                  w->blob.path, told->name, arch->deform, t->name, version);
            arch->deform = version;
            told = with = t;
        }
        if (with && without >= 0)
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: %s is there, but backbone.layer%d.%d.conv2.conv_offset.weight "
                              "is not; the blocks of a stage are deformable either all or none",
                              w->blob.path, with->name, stage, without);
        if (with) arch->deform_stages |= 1 << (stage - 1);
    }
    return GFL_OK;
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

gfl_status gfli_deduce_backbone(gfli_weights *w, gfl_arch *arch, int *stages) {
    memset(arch, 0, sizeof *arch);
    GFLI_TRY(gfli_refuse_part(w));
    GFLI_TRY(gfli_deduce_depth(w, arch, stages));
    GFLI_TRY(gfli_deduce_dim(w, "backbone.conv1.weight", 0, &arch->base_channels));
    GFLI_TRY(gfli_deduce_groups(w, arch));
    return gfli_deduce_deform(w, arch, *stages);
}

/* Parts of networks that look like GFL and are not: what a name begins with and holds. */
static const struct {
    const char *front, *inside, *what;
} gfli_relatives[] = {
    {"bbox_head.reg_conf.", "", "GFLv2, another detector,"},
    {"bbox_head.", ".bn.", "a GFL head with batch norm"},
    {"bbox_head.cls_convs.", ".conv.bias", "a GFL head without normalisation"},
    {"neck.", ".bn.", "a pyramid with batch norm"},
    {"neck.", ".gn.", "a pyramid with group norm"},
    {"backbone.gn1.", "", "a backbone with group norm"},
    {"backbone.stem.", "", "a ResNet with a deep stem"},
};

/* Things that are read too, but elsewhere, and things that only look like GFL. */
static gfl_status gfli_refuse_relatives(gfli_weights *w) {
    bool head = false, stem = gfli_weights_find(w, "backbone.conv1.weight") != NULL;
    GFLI_TRY(gfli_refuse_part(w));
    for (int i = 0; i < w->n_entries; i++) {
        const char *name = w->entries[i].name;
        head = head || strncmp(name, "bbox_head.", 10) == 0 || strncmp(name, "neck.", 5) == 0;
        for (size_t k = 0; k < GFLI_COUNT(gfli_relatives); k++) {
            const char *front = gfli_relatives[k].front;
            if (strncmp(name, front, strlen(front)) != 0 || !strstr(name, gfli_relatives[k].inside))
                continue;
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: %s is not supported (the tensor %s)", w->blob.path,
                              gfli_relatives[k].what, w->entries[i].tensor->name);
        }
    }
    if (stem && head) return GFL_OK;
    return gfli_error(w->context, GFL_E_MISMATCH,
                      stem ? "%s: the tensors of neck and head are missing; this looks like a bare "
                             "backbone, which gfl_model_load_backbone reads (gfl train --weights)"
                           : "%s: the tensor backbone.conv1.weight is missing; this is not a "
                             "detector with mmdetection's names",
                      w->blob.path);
}

gfl_status gfli_deduce_detector(gfli_weights *w, gfl_arch *arch) {
    int stages, rows;
    GFLI_TRY(gfli_refuse_relatives(w));
    GFLI_TRY(gfli_deduce_backbone(w, arch, &stages));
    if (stages < 4)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the tensor backbone.layer%d.0.conv1.weight is missing", w->blob.path,
                          stages + 1);
    GFLI_TRY(gfli_deduce_dim(w, "neck.lateral_convs.0.conv.weight", 0, &arch->fpn_channels));
    GFLI_TRY(gfli_deduce_dim(w, "bbox_head.cls_convs.0.conv.weight", 0, &arch->head_channels));
    arch->stacked_convs = gfli_count_numbered(w, "bbox_head.cls_convs.", ".conv.weight");
    GFLI_TRY(gfli_deduce_dim(w, "bbox_head.gfl_cls.weight", 0, &arch->n_classes));
    GFLI_TRY(gfli_deduce_dim(w, "bbox_head.gfl_reg.weight", 0, &rows));
    if (rows % 4 != 0 || rows < 8)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: bbox_head.gfl_reg.weight has %d filters; four sides need a multiple "
                          "of 4, at least 8",
                          w->blob.path, rows);
    arch->reg_max = rows / 4 - 1;
    return GFL_OK;
}
