/* arch.c - architectures: names, defaults, limits, channel counts */
#pragma once

static const gfli_depth gfli_depths[] = {{18, false, {2, 2, 2, 2}},
                                         {34, false, {3, 4, 6, 3}},
                                         {50, true, {3, 4, 6, 3}},
                                         {101, true, {3, 4, 23, 3}}};

const gfli_depth *gfli_arch_depth(int depth) {
    for (size_t i = 0; i < GFLI_COUNT(gfli_depths); i++)
        if (gfli_depths[i].depth == depth) return &gfli_depths[i];
    return NULL;
}

static int gfli_stage_planes(const gfl_arch *arch, int stage) {
    return arch->base_channels << (stage - 1);
}

int gfli_stage_out(const gfl_arch *arch, int stage) {
    int planes = gfli_stage_planes(arch, stage);
    return gfli_arch_depth(arch->depth)->bottleneck ? 4 * planes : planes;
}

int gfli_stage_width(const gfl_arch *arch, int stage) {
    if (arch->groups == 1) return gfli_stage_planes(arch, stage);
    return (arch->base_width << (stage - 1)) * arch->groups;
}

enum { GFLI_C3_C5 = GFL_C3 | GFL_C4 | GFL_C5, GFLI_C4_C5 = GFL_C4 | GFL_C5 };

/* Nobody has published a GFL model of 32x8d, and 32x4d's AP is not its. */
static const struct {
    const char *name;
    int depth, groups, base_width, deform, deform_stages;
    double ap;
    const char *published;
} gfli_presets[] = {
    {"r18", 18, 1, 0, 0, 0, 35.8, "LD, 1x"},
    {"r34", 34, 1, 0, 0, 0, 38.9, "LD, 1x"},
    {"r50", 50, 1, 0, 0, 0, 42.9, "mmdetection, 2x"},
    {"r101", 101, 1, 0, 0, 0, 44.7, "mmdetection, 2x"},
    {"r101-dcnv1", 101, 1, 0, 1, GFLI_C3_C5, 47.1, "mmdetection, 2x"},
    {"r101-dcnv2", 101, 1, 0, 2, GFLI_C3_C5, 47.2, "GFocal, 2x"},
    {"x101-32x4d", 101, 32, 4, 0, 0, 45.9, "mmdetection, 2x"},
    {"x101-32x8d", 101, 32, 8, 0, 0, 0, ""},
    {"x101-32x4d-dcnv1", 101, 32, 4, 1, GFLI_C4_C5, 48.1, "mmdetection, 2x"},
    {"x101-32x4d-dcnv2", 101, 32, 4, 2, GFLI_C3_C5, 48.3, "GFocal, 2x"},
    {"x101-32x8d-dcnv2", 101, 32, 8, 2, GFLI_C3_C5, 0, ""},
};

int gfl_arch_count_presets(void) {
    return (int)GFLI_COUNT(gfli_presets);
}

gfl_status gfl_arch_get_preset(int i, gfl_preset *out) {
    gfl_arch arch;
    if (out) memset(out, 0, sizeof *out);
    if (!out || i < 0 || i >= gfl_arch_count_presets()) return GFL_E_ARG;
    memset(&arch, 0, sizeof arch);
    arch.depth = gfli_presets[i].depth;
    arch.groups = gfli_presets[i].groups;
    arch.base_width = gfli_presets[i].base_width;
    arch.deform = gfli_presets[i].deform;
    arch.deform_stages = gfli_presets[i].deform_stages;
    out->name = gfli_presets[i].name;
    out->ap = gfli_presets[i].ap;
    out->published = gfli_presets[i].published;
    return gfli_arch_resolve(NULL, &arch, &out->arch);
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

void gfli_arch_name(const gfl_arch *arch, char out[32]) {
    const char *deform = arch->deform == 2 ? "-DCNv2" : arch->deform == 1 ? "-DCNv1" : "";
    if (arch->groups == 1)
        snprintf(out, 32, "R%d%s", arch->depth, deform);
    else
        snprintf(out, 32, "X%d-%dx%dd%s", arch->depth, arch->groups, arch->base_width, deform);
}

bool gfli_is_deformable(const gfl_arch *arch, int stage) {
    return arch->deform > 0 && (arch->deform_stages >> (stage - 1) & 1) != 0;
}

static gfl_status gfli_check_range(gfl_context *context, const char *what, int value, int low,
                                   int high) {
    if (value >= low && value <= high) return GFL_OK;
    return gfli_error(context, GFL_E_ARG, "%s is %d; it must be %d..%d", what, value, low, high);
}

static void gfli_default(int *value, int when_zero) {
    if (*value == 0) *value = when_zero;
}

gfl_status gfli_arch_resolve(gfl_context *context, const gfl_arch *in, gfl_arch *out) {
    gfl_arch a = *in;
    gfli_default(&a.depth, 50);
    gfli_default(&a.groups, 1);
    gfli_default(&a.base_width, 4);
    gfli_default(&a.base_channels, 64);
    gfli_default(&a.fpn_channels, 256);
    gfli_default(&a.head_channels, 256);
    gfli_default(&a.stacked_convs, 4);
    gfli_default(&a.n_classes, 80);
    gfli_default(&a.reg_max, 16);
    const gfli_depth *depth = gfli_arch_depth(a.depth);
    if (!depth)
        return gfli_error(context, GFL_E_ARG, "depth is %d; it must be 18, 34, 50 or 101", a.depth);
    GFLI_TRY(gfli_check_range(context, "groups", a.groups, 1, 256));
    GFLI_TRY(gfli_check_range(context, "base_width", a.base_width, 1, 256));
    GFLI_TRY(gfli_check_range(context, "base_channels", a.base_channels, 1, 1024));
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
    if (a.groups > 1 && !depth->bottleneck)
        return gfli_error(context, GFL_E_ARG,
                          "groups is %d with depth %d; only depths 50 and 101 can be grouped",
                          a.groups, a.depth);
    if (a.groups == 1) a.base_width = 0;
    GFLI_TRY(gfli_check_range(context, "deform", a.deform, 0, 2));
    GFLI_TRY(gfli_check_range(context, "deform_stages", a.deform_stages, 0, 15));
    GFLI_TRY(gfli_check_range(context, "style", (int)a.style, 0, (int)GFL_STYLE_CAFFE));
    if (a.deform > 0) gfli_default(&a.deform_stages, GFL_C3 | GFL_C4 | GFL_C5);
    if (a.deform == 0) a.deform_stages = 0;
    if ((a.deform > 0 || a.style == GFL_STYLE_CAFFE) && !depth->bottleneck)
        return gfli_error(context, GFL_E_ARG,
                          "depth %d has no bottlenecks; only those of depths 50 and 101 can be "
                          "deformable or of caffe style",
                          a.depth);
    if (a.style == GFL_STYLE_DEFAULT) a.style = GFL_STYLE_PYTORCH;
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
