/* head.c - the head: towers of classes and boxes, the same for every level (spec 3) */
#pragma once

/* The layers of a tower are consecutive; returns the first. */
static int gfli_add_tower(gfli_describer *d, const char *name) {
    const gfl_arch *arch = &d->model->arch;
    const int first = d->model->n_layers;
    for (int i = 0; i < arch->stacked_convs; i++) {
        gfli_describe_names(d, "bbox_head.%s.%d.", name, i);
        (void)gfli_add_conv_gn(d, "conv", "gn", i == 0 ? arch->fpn_channels : arch->head_channels,
                               arch->head_channels);
    }
    return first;
}

static int gfli_run_tower(gfli_describer *d, int first, int last, int x) {
    for (int i = 0; i < d->model->arch.stacked_convs; i++)
        x = gfli_run_group_norm(d, first + i, gfli_run_conv(d, first + i, x, false));
    return gfli_run_conv(d, last, x, false);
}

void gfli_describe_head(gfli_describer *d, int pyramid) {
    const gfl_arch *arch = &d->model->arch;
    gfli_network *net = &d->model->network;
    const int c = arch->head_channels, sides = 4 * (arch->reg_max + 1);
    const int classes = gfli_add_tower(d, "cls_convs"), boxes = gfli_add_tower(d, "reg_convs");
    gfli_describe_names(d, "bbox_head.");
    net->classifier = gfli_add_conv_bias(d, "gfl_cls", GFLI_INIT_NORMAL, GFLI_INIT_PRIOR, c,
                                         arch->n_classes, 3, 1);
    const int reg =
        gfli_add_conv_bias(d, "gfl_reg", GFLI_INIT_NORMAL, GFLI_INIT_ZERO, c, sides, 3, 1);
    for (int i = 0; i < GFL_LEVELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "scales.%d.scale", i);
        const int scale = gfli_add_scale(d, name);
        if (i == 0) net->scale = scale;
    }
    const int first = net->n_steps;
    net->cls = gfli_run_tower(d, classes, net->classifier, pyramid);
    const int between = net->n_steps;
    const int x = gfli_run_tower(d, boxes, reg, pyramid);
    for (int i = first; i < between && d->status == GFL_OK; i++) {
        net->steps[i].pair = i + between - first;
        net->steps[i + between - first].pair = i;
    }
    net->reg = gfli_run_level_scale(d, x, net->scale);
    gfli_name_map(d, net->cls, "cls_score");
    gfli_name_map(d, net->reg, "bbox_pred");
}

gfl_status gfli_deduce_head(gfli_weights *w, gfl_arch *arch) {
    int rows;
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
