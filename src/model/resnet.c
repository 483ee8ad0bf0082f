/* resnet.c - the backbones ResNet and ResNeXt, plain or with deformable convolutions */
#pragma once

/* Residual blocks of a depth, stage by stage. */
typedef struct gfli_depth {
    int depth;
    bool bottleneck;
    int blocks[4];
} gfli_depth;

static const gfli_depth gfli_depths[] = {{18, false, {2, 2, 2, 2}},
                                         {34, false, {3, 4, 6, 3}},
                                         {50, true, {3, 4, 6, 3}},
                                         {101, true, {3, 4, 23, 3}}};

static const gfli_depth *gfli_resnet_depth(int depth) {
    for (size_t i = 0; i < GFLI_COUNT(gfli_depths); i++)
        if (gfli_depths[i].depth == depth) return &gfli_depths[i];
    return NULL;
}

static int gfli_stage_planes(const gfl_arch *arch, int stage) {
    return arch->base_channels << (stage - 1);
}

static int gfli_stage_out(const gfl_arch *arch, int stage) {
    int planes = gfli_stage_planes(arch, stage);
    return gfli_resnet_depth(arch->depth)->bottleneck ? 4 * planes : planes;
}

static int gfli_stage_width(const gfl_arch *arch, int stage) {
    if (arch->groups == 1) return gfli_stage_planes(arch, stage);
    return (arch->base_width << (stage - 1)) * arch->groups;
}

static bool gfli_is_deformable(const gfl_arch *arch, int stage) {
    return arch->deform > 0 && (arch->deform_stages >> (stage - 1) & 1) != 0;
}

/* ---- architectures --------------------------------------------------------------------------- */

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

static void gfli_resnet_preset(int i, gfl_preset *out) {
    out->name = gfli_presets[i].name;
    out->ap = gfli_presets[i].ap;
    out->published = gfli_presets[i].published;
    out->arch.depth = gfli_presets[i].depth;
    out->arch.groups = gfli_presets[i].groups;
    out->arch.base_width = gfli_presets[i].base_width;
    out->arch.deform = gfli_presets[i].deform;
    out->arch.deform_stages = gfli_presets[i].deform_stages;
}

static void gfli_resnet_name(const gfl_arch *arch, char out[32]) {
    const char *deform = arch->deform == 2 ? "-DCNv2" : arch->deform == 1 ? "-DCNv1" : "";
    if (arch->groups == 1)
        snprintf(out, 32, "R%d%s", arch->depth, deform);
    else
        snprintf(out, 32, "X%d-%dx%dd%s", arch->depth, arch->groups, arch->base_width, deform);
}

static void gfli_resnet_file_name(const gfl_arch *arch, char out[48]) {
    if (arch->groups > 1)
        snprintf(out, 48, "resnext%d_%dx%dd", arch->depth, arch->groups, arch->base_width);
    else
        snprintf(out, 48, "resnet%d", arch->depth);
}

static gfl_status gfli_resnet_resolve(gfl_context *context, gfl_arch *a) {
    const bool bottleneck = gfli_resnet_depth(a->depth)->bottleneck;
    gfli_default(&a->groups, 1);
    gfli_default(&a->base_width, 4);
    gfli_default(&a->base_channels, 64);
    GFLI_TRY(gfli_check_range(context, "groups", a->groups, 1, 256));
    GFLI_TRY(gfli_check_range(context, "base_width", a->base_width, 1, 256));
    GFLI_TRY(gfli_check_range(context, "base_channels", a->base_channels, 1, 1024));
    if (a->groups > 1 && !bottleneck)
        return gfli_error(context, GFL_E_ARG,
                          "groups is %d with depth %d; only depths 50 and 101 can be grouped",
                          a->groups, a->depth);
    if (a->groups == 1) a->base_width = 0;
    GFLI_TRY(gfli_check_range(context, "deform", a->deform, 0, 2));
    GFLI_TRY(gfli_check_range(context, "deform_stages", a->deform_stages, 0, 15));
    GFLI_TRY(gfli_check_range(context, "style", (int)a->style, 0, (int)GFL_STYLE_CAFFE));
    if (a->deform > 0) gfli_default(&a->deform_stages, GFL_C3 | GFL_C4 | GFL_C5);
    if (a->deform == 0) a->deform_stages = 0;
    if ((a->deform > 0 || a->style == GFL_STYLE_CAFFE) && !bottleneck)
        return gfli_error(context, GFL_E_ARG,
                          "depth %d has no bottlenecks; only those of depths 50 and 101 can be "
                          "deformable or of caffe style",
                          a->depth);
    if (a->style == GFL_STYLE_DEFAULT) a->style = GFL_STYLE_PYTORCH;
    return GFL_OK;
}

/* ---- description ----------------------------------------------------------------------------- */

/* One residual block; the shortcut is computed late, when the branch has become small. */
static int gfli_describe_block(gfli_describer *d, int stage, int block, int in) {
    const gfl_arch *arch = &d->model->arch;
    const bool bottleneck = gfli_resnet_depth(arch->depth)->bottleneck;
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
    int down = -1;
    if (block == 0 && (stride != 1 || in_c != out_c))
        down =
            gfli_add_conv_bn(d, "downsample.0", "downsample.1", false, in_c, out_c, 1, stride, 1);
    for (int i = 0; i < last; i++) x = gfli_run_conv(d, conv[i], x, true);
    return gfli_run_residual_conv(d, conv[last], x,
                                  down < 0 ? in : gfli_run_conv(d, down, in, false));
}

static void gfli_describe_resnet(gfli_describer *d, int features[4]) {
    const gfl_arch *arch = &d->model->arch;
    const gfli_depth *depth = gfli_resnet_depth(arch->depth);
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

/* ---- files ----------------------------------------------------------------------------------- */

/* The depth whose stages are the file's, as far as those go. */
static gfl_status gfli_deduce_depth(gfli_weights *w, gfl_arch *arch, int *stages) {
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
    for (size_t i = 0; i < GFLI_COUNT(gfli_depths) && *stages > 0; i++) {
        const gfli_depth *d = &gfli_depths[i];
        if (d->bottleneck != bottleneck ||
            memcmp(d->blocks, blocks, (size_t)*stages * sizeof *blocks) != 0)
            continue;
        arch->depth = d->depth;
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
    if (!gfli_resnet_depth(arch->depth)->bottleneck) return GFL_OK;
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
    const gfli_depth *depth = gfli_resnet_depth(arch->depth);
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

static gfl_status gfli_resnet_deduce(gfli_weights *w, gfl_arch *arch, int *stages) {
    int there;
    GFLI_TRY(gfli_deduce_depth(w, arch, &there));
    GFLI_TRY(gfli_deduce_dim(w, gfli_resnet.stem, 0, &arch->base_channels));
    GFLI_TRY(gfli_deduce_groups(w, arch));
    GFLI_TRY(gfli_deduce_deform(w, arch, there));
    if (stages) *stages = there;
    if (stages || there == 4) return GFL_OK;
    return gfli_error(w->context, GFL_E_MISMATCH,
                      "%s: the tensor backbone.layer%d.0.conv1.weight is missing", w->blob.path,
                      there + 1);
}

static gfl_status gfli_resnet_compare(const gfli_weights *w, const gfl_backbone_info *b,
                                      const gfl_arch *m) {
    if (b->arch.depth != m->depth || b->arch.groups != m->groups ||
        b->arch.base_width != m->base_width || b->arch.base_channels != m->base_channels) {
        char file[32], wanted[32];
        gfli_resnet_name(&b->arch, file);
        gfli_resnet_name(m, wanted);
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the backbone is %s with a stem of %d channels, but the model is %s "
                          "with %d; create the model that gfl_backbone_describe describes",
                          w->blob.path, file, b->arch.base_channels, wanted, m->base_channels);
    }
    if (b->arch.deform &&
        (b->arch.deform != m->deform || b->arch.deform_stages != m->deform_stages))
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the backbone has deformable convolutions of version %d in stages "
                          "%d, but the model has version %d in stages %d; create the model that "
                          "gfl_backbone_describe describes",
                          w->blob.path, b->arch.deform, b->arch.deform_stages, m->deform,
                          m->deform_stages);
    if (b->style == GFL_ORIGIN_FILE && b->arch.style != m->style &&
        gfli_resnet_depth(m->depth)->bottleneck)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: the backbone is of %s style, but the model is of %s style; create "
                          "the model with the arch.style that gfl_backbone_describe gives",
                          w->blob.path, gfli_style_name(&b->arch), gfli_style_name(m));
    return GFL_OK;
}

static const int gfli_resnet_depths[] = {18, 34, 50, 101, 0};

static const char *const gfli_resnet_before_depth[] = {"R", "X", "resnet", "resnext", NULL};

/* Of bare backbones: torchvision's, timm's, OpenMMLab's. */
static const gfli_name_rule gfli_resnet_rules[] = {
    {"backbone.body.", "backbone.", false}, /* torchvision's detectors */
    {"conv1.", "backbone.conv1.", false},
    {"bn1.", "backbone.bn1.", false},
    {"layer1.", "backbone.layer1.", false},
    {"layer2.", "backbone.layer2.", false},
    {"layer3.", "backbone.layer3.", false},
    {"layer4.", "backbone.layer4.", false},
    {".conv2_offset.", ".conv2.conv_offset.", true}, /* mmdetection before 1.0 */
    {NULL, NULL, false},
};

static const gfli_relative gfli_resnet_relatives[] = {
    {"backbone.gn1.", "", "a backbone with group norm"},
    {"backbone.stem.", "", "a ResNet with a deep stem"},
    {NULL, NULL, NULL},
};

static const gfli_config_row gfli_resnet_config[] = {
    {"model.backbone.type", "ResNet|ResNeXt"},
    {"model.backbone.num_stages", "4"},
    {"model.backbone.strides", "[1, 2, 2, 2]"},
    {"model.backbone.dilations", "[1, 1, 1, 1]"},
    {"model.backbone.style", "pytorch|caffe"},
    {"model.backbone.deep_stem", "False"},
    {"model.backbone.avg_down", "False"},
    {"model.backbone.conv_cfg.type", "Conv2d|Conv"},
    {"model.backbone.norm_cfg.type", "BN|BN2d|SyncBN|MMSyncBN"},
    {"model.backbone.norm_cfg.eps", "1e-05"},
    {NULL, NULL},
};

const gfli_backbone gfli_resnet = {"a ResNet",
                                   gfli_resnet_depths,
                                   gfli_resnet_resolve,
                                   (int)GFLI_COUNT(gfli_presets),
                                   gfli_resnet_preset,
                                   gfli_resnet_name,
                                   gfli_resnet_file_name,
                                   gfli_describe_resnet,
                                   "backbone.conv1.weight",
                                   "backbone.layer",
                                   gfli_resnet_before_depth,
                                   gfli_resnet_rules,
                                   gfli_resnet_relatives,
                                   gfli_resnet_config,
                                   gfli_resnet_deduce,
                                   gfli_resnet_compare};
