/* arch.c - architectures: kinds of backbones, presets, defaults and limits; preprocessing */
#pragma once

static const gfli_backbone *const gfli_own_backbones[] = {&gfli_resnet, NULL};

const gfli_backbone *const *gfli_backbones(const gfl_context *context) {
    return context && context->backbones ? context->backbones : gfli_own_backbones;
}

const gfli_backbone *gfli_backbone_of(const gfl_context *context, int depth) {
    for (const gfli_backbone *const *b = gfli_backbones(context); *b; b++)
        for (const int *known = (*b)->depths; *known; known++)
            if (*known == depth) return *b;
    return NULL;
}

void gfli_arch_name(const gfl_context *context, const gfl_arch *arch, char out[32]) {
    gfli_backbone_of(context, arch->depth)->name(arch, out);
}

/* ---- presets --------------------------------------------------------------------------------- */

int gfl_arch_count_presets(void) {
    int n = 0;
    for (const gfli_backbone *const *b = gfli_backbones(NULL); *b; b++) n += (*b)->n_presets;
    return n;
}

gfl_status gfl_arch_get_preset(int i, gfl_preset *out) {
    const gfli_backbone *const *b = gfli_backbones(NULL);
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_arch_count_presets()) return GFL_E_ARG;
    for (; i >= (*b)->n_presets; b++) i -= (*b)->n_presets;
    (*b)->preset(i, out);
    return gfli_arch_resolve(NULL, &out->arch, &out->arch);
}

gfl_status gfl_arch_find_preset(gfl_context *context, const char *name, gfl_arch *out) {
    gfl_preset preset;
    if (out) memset(out, 0, sizeof *out);
    GFLI_NOT_NULL(context, name);
    GFLI_NOT_NULL(context, out);
    for (int i = 0; gfl_arch_get_preset(i, &preset) == GFL_OK; i++) {
        if (strcmp(name, preset.name) != 0) continue;
        *out = preset.arch;
        return GFL_OK;
    }
    return gfli_error(
        context, GFL_E_ARG,
        "there is no architecture \"%.40s\"; gfl_arch_get_preset lists those that there are", name);
}

/* ---- defaults and limits --------------------------------------------------------------------- */

gfl_status gfli_check_range(gfl_context *context, const char *what, int value, int low, int high) {
    if (value >= low && value <= high) return GFL_OK;
    return gfli_error(context, GFL_E_ARG, "%s is %d; it must be %d..%d", what, value, low, high);
}

void gfli_default(int *value, int when_zero) {
    if (*value == 0) *value = when_zero;
}

static gfl_status gfli_refuse_depth(gfl_context *context, int depth) {
    char known[128] = "";
    size_t n = 0;
    for (const gfli_backbone *const *b = gfli_backbones(context); *b; b++)
        for (const int *d = (*b)->depths; *d && n < sizeof known; d++)
            n += (size_t)snprintf(known + n, sizeof known - n, n ? ", %d" : "%d", *d);
    return gfli_error(context, GFL_E_ARG, "depth is %d; it must be one of %s", depth, known);
}

gfl_status gfli_arch_resolve(gfl_context *context, const gfl_arch *in, gfl_arch *out) {
    gfl_arch a = *in;
    gfli_default(&a.depth, 50);
    gfli_default(&a.fpn_channels, 256);
    gfli_default(&a.head_channels, 256);
    gfli_default(&a.stacked_convs, 4);
    gfli_default(&a.n_classes, 80);
    gfli_default(&a.reg_max, 16);
    const gfli_backbone *backbone = gfli_backbone_of(context, a.depth);
    if (!backbone) return gfli_refuse_depth(context, a.depth);
    GFLI_TRY(backbone->resolve(context, &a));
    GFLI_TRY(gfli_check_range(context, "fpn_channels", a.fpn_channels, 1, 4096));
    GFLI_TRY(gfli_check_range(context, "head_channels", a.head_channels, GFLI_GN_GROUPS, 4096));
    GFLI_TRY(gfli_check_range(context, "stacked_convs", a.stacked_convs, 1, 32));
    GFLI_TRY(gfli_check_range(context, "n_classes", a.n_classes, 1, GFL_MAX_CLASSES));
    GFLI_TRY(gfli_check_range(context, "reg_max", a.reg_max, 1, GFL_MAX_BINS - 1));
    if (a.head_channels % GFLI_GN_GROUPS != 0)
        return gfli_error(context, GFL_E_ARG,
                          "head_channels is %d; it must be a multiple of %d, the groups of its "
                          "group norms",
                          a.head_channels, GFLI_GN_GROUPS);
    if (a.dialect == GFL_DIALECT_DEFAULT) a.dialect = GFL_DIALECT_MMDET;
    if (a.dialect != GFL_DIALECT_MMDET && a.dialect != GFL_DIALECT_GFOCAL)
        return gfli_error(context, GFL_E_ARG,
                          "dialect is %d; it must be GFL_DIALECT_MMDET or GFL_DIALECT_GFOCAL",
                          (int)a.dialect);
    *out = a;
    return GFL_OK;
}

gfl_status gfli_preprocess_resolve(gfl_context *context, const gfl_preprocess *in,
                                   gfl_preprocess *out) {
    static const float mean[3] = {123.675f, 116.28f, 103.53f};
    static const float deviation[3] = {58.395f, 57.12f, 57.375f};
    gfl_preprocess p = *in;
    bool blank = true;
    for (int i = 0; i < 3; i++) blank = blank && p.mean[i] == 0 && p.std[i] == 0;
    for (int i = 0; blank && i < 3; i++) {
        p.mean[i] = mean[p.bgr ? 2 - i : i];
        p.std[i] = deviation[p.bgr ? 2 - i : i];
    }
    for (int i = 0; i < 3; i++) {
        if (!gfli_is_finite((double)p.mean[i]) || !gfli_is_finite((double)p.std[i]) ||
            !(p.std[i] > 0))
            return gfli_error(context, GFL_E_ARG,
                              "channel %d: mean %g and std %g; the mean must be finite and the std "
                              "positive",
                              i, (double)p.mean[i], (double)p.std[i]);
    }
    gfli_default(&p.scale_long, 1333);
    gfli_default(&p.scale_short, p.scale_long < 800 ? p.scale_long : 800);
    GFLI_TRY(gfli_check_range(context, "scale_long", p.scale_long, 1, GFL_MAX_SIDE));
    GFLI_TRY(gfli_check_range(context, "scale_short", p.scale_short, 1, p.scale_long));
    p.bgr = p.bgr != 0;
    *out = p;
    return GFL_OK;
}

double gfli_resize_factor(int width, int height, int scale_long, int scale_short) {
    double by_long = (double)scale_long / gfli_max(width, height);
    double by_short = (double)scale_short / gfli_min(width, height);
    return by_long < by_short ? by_long : by_short;
}

void gfli_resized_size(int width, int height, int scale_long, int scale_short, int *out_width,
                       int *out_height) {
    double s = gfli_resize_factor(width, height, scale_long, scale_short);
    *out_width = gfli_max(1, (int)(width * s + 0.5));
    *out_height = gfli_max(1, (int)(height * s + 0.5));
}
