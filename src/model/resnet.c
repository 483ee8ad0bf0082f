/* resnet.c - the backbones ResNet and ResNeXt, plain or with deformable convolutions */
#pragma once

/* One residual block; the shortcut is computed late, when the branch has become small. */
static int gfli_describe_block(gfli_describer *d, int stage, int block, int in) {
    const gfl_arch *arch = &d->model->arch;
    const bool bottleneck = gfli_arch_depth(arch->depth)->bottleneck;
    const int in_c = gfli_map_channels(d, in), out_c = gfli_stage_out(arch, stage);
    const int width = gfli_stage_width(arch, stage), stride = stage > 1 && block == 0 ? 2 : 1;
    const bool caffe = arch->style == GFL_STYLE_CAFFE;
    const int first = caffe ? stride : 1, second = caffe ? 1 : stride;
    int conv[3] = {0, 0, 0}, last = 1, x = in;
    gfli_describe_names(d, "backbone.layer%d.%d.", stage, block);
    if (!bottleneck) {
        conv[0] = gfli_add_conv_bn(d, "conv1", "bn1", false, in_c, width, 3, stride, 1);
        conv[1] = gfli_add_conv_bn(d, "conv2", "bn2", true, width, width, 3, 1, 1);
    } else {
        conv[0] = gfli_add_conv_bn(d, "conv1", "bn1", false, in_c, width, 1, first, 1);
        conv[1] =
            gfli_is_deformable(arch, stage)
                ? gfli_add_deform_bn(d, "conv2", "bn2", arch->deform + 1, width, second,
                                     arch->groups)
                : gfli_add_conv_bn(d, "conv2", "bn2", false, width, width, 3, second, arch->groups);
        conv[last = 2] = gfli_add_conv_bn(d, "conv3", "bn3", true, width, out_c, 1, 1, 1);
    }
    int shortcut = in;
    const bool projected = block == 0 && (stride != 1 || in_c != out_c);
    const int down = !projected ? -1
                                : gfli_add_conv_bn(d, "downsample.0", "downsample.1", false, in_c,
                                                   out_c, 1, stride, 1);
    for (int i = 0; i < last; i++) x = gfli_run_conv(d, conv[i], x, true);
    if (projected) shortcut = gfli_run_conv(d, down, in, false);
    return gfli_run_residual_conv(d, conv[last], x, shortcut);
}

void gfli_describe_resnet(gfli_describer *d, int features[4]) {
    const gfl_arch *arch = &d->model->arch;
    const gfli_depth *depth = gfli_arch_depth(arch->depth);
    gfli_describe_names(d, "backbone.");
    const int stem = gfli_add_conv_bn(d, "conv1", "bn1", false, 3, arch->base_channels, 7, 2, 1);
    int x = gfli_run_max_pool(d, gfli_run_conv(d, stem, d->model->network.input, true));
    gfli_name_map(d, x, "stem");
    for (int stage = 1; stage <= 4; stage++) {
        gfli_describe_stage(d, stage);
        for (int block = 0; block < depth->blocks[stage - 1]; block++)
            x = gfli_describe_block(d, stage, block, x);
        features[stage - 1] = x;
    }
}
