/* test_arch.c - parameters, names, shapes and limits of every architecture (spec 1, 2, 3, 8.4) */
#include "test.h"

static gfl_context *context;

static gfl_model *describe(const gfl_arch *arch) {
    gfl_preprocess preprocess;
    gfl_model *model = NULL;
    memset(&preprocess, 0, sizeof preprocess);
    CHECK_OK(context, gfli_model_new(context, arch, &preprocess, NULL, false, &model));
    return model;
}

static void counts_are_those_of_the_papers(void) {
    static const struct {
        const char *name;
        int tensors, parameter_tensors;
        int64_t parameters, trainable;
    } table[] = {{"r18", 170, 109, 19420889, 19263385},
                 {"r34", 266, 157, 29529049, 29297561},
                 {"r50", 368, 208, 32440537, 32215193},
                 {"r101", 674, 361, 51432665, 51207321},
                 {"x101-32x4d", 674, 361, 51061209, 50845849},
                 {"x101-32x8d", 674, 361, 95674841, 95244441},
                 {"r101-dcnv2", 734, 421, 53361923, 53136579},
                 {"r101-dcnv1", 734, 421, 52718837, 52493493},
                 {"x101-32x4d-dcnv2", 734, 421, 54918915, 54703555},
                 {"x101-32x4d-dcnv1", 726, 413, 53467053, 53251693},
                 {"x101-32x8d-dcnv2", 734, 421, 103389443, 102959043}};
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfl_arch arch;
        gfl_model_info info;
        CHECK(gfl_arch_find_preset(NULL, table[i].name, &arch) == GFL_OK);
        gfl_model *model = describe(&arch);
        if (!model) return;
        int parameter_tensors = 0, norms = 0;
        for (int p = 0; p < model->n_params; p++) parameter_tensors += !model->params[p].is_buffer;
        for (int l = 0; l < model->n_layers; l++) norms += model->layers[l].bn_gamma >= 0;
        gfl_model_get_info(model, &info);
        CHECK(info.n_parameters == table[i].parameters);
        CHECK(info.n_trainable == table[i].trainable);
        CHECK(parameter_tensors == table[i].parameter_tensors);
        /* state dicts also hold num_batches_tracked of each batch norm, and integral.project */
        CHECK(model->n_params + norms + 1 == table[i].tensors);
        gfl_model_destroy(model);
    }
}

static void check_shape(const gfl_model *model, const char *name, int rank, int a, int b, int c) {
    int at = gfli_model_find(model, name);
    if (at < 0) printf("no parameter %s\n", name);
    CHECK(at >= 0);
    if (at < 0) return;
    const gfli_param *p = &model->params[at];
    CHECK(p->rank == rank);
    CHECK(rank < 1 || p->shape[0] == a);
    CHECK(rank < 4 || (p->shape[1] == b && p->shape[2] == c && p->shape[3] == c));
}

/* An AP belongs to one model: nobody has published one of 32x8d. */
static void presets_say_what_was_published(void) {
    gfl_preset p;
    gfl_arch arch;
    int n = 0;
    for (; gfl_arch_get_preset(n, &p) == GFL_OK; n++) {
        CHECK(gfl_arch_find_preset(NULL, p.name, &arch) == GFL_OK);
        CHECK(memcmp(&arch, &p.arch, sizeof arch) == 0);
        CHECK((p.ap > 0) == (p.published[0] != 0));
        CHECK((p.ap > 0) == (strstr(p.name, "32x8d") == NULL));
        if (p.ap > 0) CHECK(p.ap > 35 && p.ap < 49);
    }
    CHECK(n == 11);
    CHECK(gfl_arch_count_presets() == n);
    CHECK(gfl_arch_get_preset(-1, &p) == GFL_E_ARG && gfl_arch_get_preset(0, NULL) == GFL_E_ARG);
    CHECK(gfl_arch_get_preset(n, &p) == GFL_E_ARG && p.name == NULL);
}

static void names_and_shapes_are_mmdetections(void) {
    gfl_arch arch;
    CHECK(gfl_arch_find_preset(NULL, "x101-32x4d", &arch) == GFL_OK);
    gfl_model *model = describe(&arch);
    if (!model) return;
    check_shape(model, "backbone.conv1.weight", 4, 64, 3, 7);
    check_shape(model, "backbone.bn1.running_var", 1, 64, 0, 0);
    check_shape(model, "backbone.layer1.0.conv1.weight", 4, 128, 64, 1);
    check_shape(model, "backbone.layer1.0.downsample.0.weight", 4, 256, 64, 1);
    check_shape(model, "backbone.layer1.0.downsample.1.running_mean", 1, 256, 0, 0);
    check_shape(model, "backbone.layer3.22.conv2.weight", 4, 512, 16, 3);
    check_shape(model, "backbone.layer4.2.conv2.weight", 4, 1024, 32, 3);
    check_shape(model, "backbone.layer4.2.conv3.weight", 4, 2048, 1024, 1);
    check_shape(model, "backbone.layer4.2.bn3.bias", 1, 2048, 0, 0);
    check_shape(model, "neck.lateral_convs.2.conv.weight", 4, 256, 2048, 1);
    check_shape(model, "neck.fpn_convs.4.conv.bias", 1, 256, 0, 0);
    check_shape(model, "bbox_head.cls_convs.3.conv.weight", 4, 256, 256, 3);
    check_shape(model, "bbox_head.reg_convs.3.gn.weight", 1, 256, 0, 0);
    check_shape(model, "bbox_head.gfl_cls.weight", 4, 80, 256, 3);
    check_shape(model, "bbox_head.gfl_reg.bias", 1, 68, 0, 0);
    check_shape(model, "bbox_head.scales.4.scale", 0, 0, 0, 0);
    CHECK(gfli_model_find(model, "backbone.layer1.1.downsample.0.weight") < 0);
    CHECK(gfli_model_find(model, "backbone.layer3.23.conv1.weight") < 0);
    CHECK(gfli_model_find(model, "neck.lateral_convs.0.conv.weight") <
          gfli_model_find(model, "neck.fpn_convs.0.conv.weight"));
    gfl_model_destroy(model);
}

static void a_basic_first_stage_has_no_projection(void) {
    gfl_arch arch;
    CHECK(gfl_arch_find_preset(NULL, "r34", &arch) == GFL_OK);
    arch.base_channels = 24;
    gfl_model *model = describe(&arch);
    if (!model) return;
    CHECK(gfli_model_find(model, "backbone.layer1.0.downsample.0.weight") < 0);
    check_shape(model, "backbone.layer2.0.downsample.0.weight", 4, 48, 24, 1);
    check_shape(model, "backbone.layer4.2.conv2.weight", 4, 192, 192, 3);
    gfl_model_destroy(model);
}

static void zero_means_the_default_of_each_field(void) {
    gfl_arch zero, arch;
    memset(&zero, 0, sizeof zero);
    CHECK(gfli_arch_resolve(context, &zero, &arch) == GFL_OK);
    CHECK(arch.depth == 50 && arch.groups == 1 && arch.base_channels == 64);
    CHECK(arch.fpn_channels == 256 && arch.head_channels == 256 && arch.stacked_convs == 4);
    CHECK(arch.n_classes == 80 && arch.reg_max == 16 && arch.base_width == 0);
    gfl_arch again;
    CHECK(gfli_arch_resolve(context, &arch, &again) == GFL_OK);
    CHECK(memcmp(&arch, &again, sizeof arch) == 0);
}

static void refuse(gfl_arch arch, const char *text) {
    gfl_model_desc desc;
    gfl_model *model = (gfl_model *)&desc;
    memset(&desc, 0, sizeof desc);
    desc.arch = arch;
    CHECK_ERROR(context, gfl_model_create(context, &desc, &model), GFL_E_ARG, text);
    CHECK(model == NULL);
}

static void fields_out_of_range_are_refused_by_name(void) {
    gfl_arch ok, arch;
    memset(&ok, 0, sizeof ok);
    arch = ok, arch.depth = 52, refuse(arch, "depth is 52");
    arch = ok, arch.groups = -1, refuse(arch, "groups is -1");
    arch = ok, arch.depth = 18, arch.groups = 32, refuse(arch, "only depths 50 and 101");
    arch = ok, arch.head_channels = 48, refuse(arch, "head_channels is 48");
    arch = ok, arch.fpn_channels = -4, refuse(arch, "fpn_channels is -4");
    arch = ok, arch.stacked_convs = 1000, refuse(arch, "stacked_convs is 1000");
    arch = ok, arch.n_classes = GFL_MAX_CLASSES + 1, refuse(arch, "n_classes is 65537");
    arch = ok, arch.reg_max = GFL_MAX_BINS, refuse(arch, "reg_max is 64");
    arch = ok, arch.base_channels = -64, refuse(arch, "base_channels is -64");
    arch = ok, arch.dialect = (gfl_dialect)7, refuse(arch, "dialect is 7");
    CHECK(gfl_arch_find_preset(NULL, "r51", &arch) == GFL_E_ARG);
    CHECK(gfl_arch_find_preset(NULL, NULL, &arch) == GFL_E_ARG);
    CHECK(gfl_arch_find_preset(NULL, "r50", NULL) == GFL_E_ARG);
}

static void preprocessing_has_defaults_and_limits(void) {
    gfl_preprocess in, out;
    memset(&in, 0, sizeof in);
    CHECK(gfli_preprocess_resolve(context, &in, &out) == GFL_OK);
    CHECK(out.mean[0] == 123.675f && out.std[2] == 57.375f);
    CHECK(out.scale_long == 1333 && out.scale_short == 800 && !out.bgr);
    in.bgr = 1;
    CHECK(gfli_preprocess_resolve(context, &in, &out) == GFL_OK);
    CHECK(out.mean[0] == 103.53f && out.std[0] == 57.375f);
    in.mean[1] = 3;
    CHECK_ERROR(context, gfli_preprocess_resolve(context, &in, &out), GFL_E_ARG, "std");
    memset(&in, 0, sizeof in);
    in.scale_long = 100, in.scale_short = 200;
    CHECK_ERROR(context, gfli_preprocess_resolve(context, &in, &out), GFL_E_ARG, "scale_short");
    in.scale_long = 100000;
    CHECK_ERROR(context, gfli_preprocess_resolve(context, &in, &out), GFL_E_ARG, "scale_long");
}

static void images_are_resized_as_mmdetection_does(void) {
    static const int table[][6] = {{640, 480, 1067, 800, 1088, 800},
                                   {640, 427, 1199, 800, 1216, 800},
                                   {640, 360, 1333, 750, 1344, 768},
                                   {426, 640, 800, 1202, 800, 1216},
                                   {612, 612, 800, 800, 800, 800}};
    int w, h;
    for (size_t i = 0; i < GFLI_COUNT(table); i++) {
        gfli_resized_size(table[i][0], table[i][1], 1333, 800, &w, &h);
        CHECK(w == table[i][2] && h == table[i][3]);
        CHECK(gfli_pad32(w) == table[i][4] && gfli_pad32(h) == table[i][5]);
    }
    gfli_resized_size(16384, 1, 1333, 800, &w, &h);
    CHECK(w == 1333 && h == 1);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(counts_are_those_of_the_papers),
                                      TEST(presets_say_what_was_published),
                                      TEST(names_and_shapes_are_mmdetections),
                                      TEST(a_basic_first_stage_has_no_projection),
                                      TEST(zero_means_the_default_of_each_field),
                                      TEST(fields_out_of_range_are_refused_by_name),
                                      TEST(preprocessing_has_defaults_and_limits),
                                      TEST(images_are_resized_as_mmdetection_does),
                                      {0}};
    context = test_context(1);
    int status = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return status;
}
