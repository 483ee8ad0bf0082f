/* fpn.c - the neck: a pyramid of five levels from the last three stages (spec 2) */
#pragma once

int gfli_describe_neck(gfli_describer *d, const int features[4]) {
    static const char *const names[] = {"P3", "P4", "P5", "P6", "P7"};
    const int c = d->model->arch.fpn_channels;
    int layer[3], lateral[3], conv[GFL_LEVELS], level[GFL_LEVELS];
    for (int i = 0; i < 3; i++) {
        gfli_describe_names(d, "neck.lateral_convs.%d.", i);
        layer[i] = gfli_add_conv_bias(d, "conv", GFLI_INIT_XAVIER, GFLI_INIT_ZERO,
                                      gfli_map_channels(d, features[i + 1]), c, 1, 1);
    }
    for (int i = 0; i < GFL_LEVELS; i++) {
        gfli_describe_names(d, "neck.fpn_convs.%d.", i);
        conv[i] =
            gfli_add_conv_bias(d, "conv", GFLI_INIT_XAVIER, GFLI_INIT_ZERO, c, c, 3, i < 3 ? 1 : 2);
    }
    for (int i = 0; i < 3; i++) lateral[i] = gfli_run_conv(d, layer[i], features[i + 1], false);
    for (int i = 2; i > 0; i--) gfli_run_upsample_add(d, lateral[i], lateral[i - 1]);
    const int pyramid = gfli_add_pyramid(d, c, "P");
    for (int i = 0; i < GFL_LEVELS; i++) {
        level[i] = gfli_add_level(d, pyramid, i, names[i]);
        gfli_run_level_conv(d, conv[i], i < 3 ? lateral[i] : level[i - 1], level[i]);
    }
    return pyramid;
}

gfl_status gfli_deduce_neck(gfli_weights *w, gfl_arch *arch) {
    return gfli_deduce_dim(w, "neck.lateral_convs.0.conv.weight", 0, &arch->fpn_channels);
}
