/* dialect.c - the table of dialects, and options made from it */
#pragma once

static const gfli_dialect gfli_dialects[] = {
    /* name, project, pixel, one_scale, by_location, outside_counts, add_eps, quality_eps, mean_eps,
     * min_weight_sum, warmup_start, warmup_end, bias_lr, bias_decay */
    {"mmdet", "bbox_head.integral.project", 0, false, false, false, false, 1e-6,
     1.1920928955078125e-7, 1, 0.001, 1, 1, 1},
    {"gfocal", "bbox_head.distribution_project.project", 1, true, true, true, true, 1e-7, 0, 0,
     1.0 / 3, 0, 2, 0}};

const gfli_dialect *gfli_dialect_get(gfl_dialect dialect) {
    return &gfli_dialects[dialect == GFL_DIALECT_GFOCAL ? 1 : 0];
}

void gfli_decode_opts_init(const gfl_arch *arch, gfli_decode_opts *out) {
    const gfli_dialect *d = gfli_dialect_get(arch->dialect);
    memset(out, 0, sizeof *out);
    out->n_classes = arch->n_classes;
    out->n_bins = arch->reg_max + 1;
    for (int l = 0; l < GFL_LEVELS; l++) out->stride[l] = gfli_level_stride(l);
    out->inclusive = d->inclusive;
    out->by_location = d->by_location;
    out->divide = d->one_scale;
}

void gfli_assign_opts_init(const gfl_arch *arch, gfli_assign_opts *out) {
    memset(out, 0, sizeof *out);
    for (int l = 0; l < GFL_LEVELS; l++) out->stride[l] = gfli_level_stride(l);
    out->inclusive = gfli_dialect_get(arch->dialect)->inclusive;
}

void gfli_loss_opts_init(const gfl_arch *arch, gfli_loss_opts *out) {
    const gfli_dialect *d = gfli_dialect_get(arch->dialect);
    memset(out, 0, sizeof *out);
    out->n_classes = arch->n_classes;
    out->n_bins = arch->reg_max + 1;
    for (int l = 0; l < GFL_LEVELS; l++) out->stride[l] = gfli_level_stride(l);
    out->inclusive = d->inclusive;
    out->outside_counts = d->outside_counts;
    out->add_eps = d->add_eps;
    out->quality_eps = d->quality_eps;
    out->mean_eps = d->mean_eps;
    out->min_weight_sum = d->min_weight_sum;
    out->share = 1;
}

/* The original's rule, by names: downsample.1 is a batch norm whose name does not say so. */
bool gfli_is_plain_bias(const char *name) {
    const char *end = strrchr(name, '.'), *layer = end;
    if (!end || strcmp(end, ".bias") != 0) return false;
    while (layer > name && layer[-1] != '.') layer--;
    if (strncmp(layer, "bn", 2) != 0 && strncmp(layer, "gn", 2) != 0) return true;
    for (layer += 2; layer < end; layer++)
        if (*layer < '0' || *layer > '9') return true;
    return false;
}

void gfli_box_scale(bool one_scale, int width, int height, int scale_long, int scale_short,
                    double *scale_x, double *scale_y) {
    int w, h;
    gfli_resized_size(width, height, scale_long, scale_short, &w, &h);
    *scale_x = (double)w / width;
    *scale_y = (double)h / height;
    if (one_scale) *scale_x = *scale_y = gfli_resize_factor(width, height, scale_long, scale_short);
}
