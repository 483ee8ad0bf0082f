/* test_fixture_import.c - checkpoints of PyTorch, all the way into a model: what fits has the
 * values of the formula, what does not is refused and named */
#include "fixture.h"

/* To the nearest half, ties to even; the fixtures hold no value that a half cannot be near. */
static float to_half(float value) {
    uint32_t bits, sign;
    memcpy(&bits, &value, 4);
    sign = bits & 0x80000000u;
    const float magnitude = fabsf(value);
    const float unit = magnitude < 0x1p-14f ? 0x1p-24f : ldexpf(1, ilogbf(magnitude) - 10);
    const float rounded = (float)nearbyint((double)magnitude / (double)unit) * unit;
    memcpy(&bits, &rounded, 4);
    bits |= sign;
    memcpy(&value, &bits, 4);
    return value;
}

/* Elements of the backbone or of all that are not the formula's. */
static int count_wrong(const gfl_model *model, bool backbone, bool half, size_t *n) {
    int wrong = 0;
    for (int p = 0; p < model->n_params; p++) {
        const gfli_param *param = &model->params[p];
        if (backbone && param->stage == GFLI_STAGE_HEAD) continue;
        size_t in = param->rank == 4 ? (size_t)param->shape[1] : 1;
        size_t area = param->rank == 4 ? (size_t)(param->shape[2] * param->shape[3]) : 1;
        *n += param->count;
        for (size_t i = 0; i < param->count; i++) {
            const size_t o = i / (in * area), c = i / area % in, k = i % area;
            float want = fx_weight(param->name, param->rank, param->shape, model->arch.depth, i);
            if (half) want = to_half(want);
            wrong += param->data[(o * area + k) * in + c] != want;
        }
    }
    return wrong;
}

/* Element 0 of the stem's weights. */
static float first_weight(const gfl_model *model) {
    const gfli_param *p = &model->params[0];
    return fx_weight(p->name, p->rank, p->shape, model->arch.depth, 0);
}

/* Is it the network of the JSON, to the last field? */
static void check_arch(const gfl_arch *got, const fx_json *net) {
    const fx_json *stages = fx_get(net, "dcn_stages"), *dcn = fx_get(net, "dcn");
    int mask = 0;
    CHECK(got->depth == fx_int(net, "depth", 0) && got->groups == fx_int(net, "groups", 0));
    CHECK(got->base_channels == fx_int(net, "base_channels", 0));
    CHECK(got->fpn_channels == fx_int(net, "fpn_out", 0));
    CHECK(got->head_channels == fx_int(net, "head_feat", 0));
    CHECK(got->stacked_convs == fx_int(net, "stacked_convs", 0));
    CHECK(got->n_classes == fx_int(net, "num_classes", 0));
    CHECK(got->reg_max == fx_int(net, "reg_max", 0) && got->dialect == GFL_DIALECT_MMDET);
    for (int i = 0; stages && i < stages->n; i++) mask |= 1 << (stages->items[i].string[1] - '2');
    CHECK((got->deform != 0) == (dcn && dcn->kind != GFLI_JSON_NULL));
    if (got->deform) CHECK(got->deform == 2 && got->deform_stages == mask);
}

static void check_detector(gfl_context *context, const char *path, const fx_json *file,
                           const fx_json *net) {
    const fx_json *classes = fx_get(file, "classes");
    gfl_import_desc opts;
    gfl_model *model = NULL;
    gfl_tensor_report r;
    size_t n = 0;
    memset(&opts, 0, sizeof opts);
    opts.trainable = 1;
    CHECK_OK(context, gfl_model_import(context, path, &opts, &model));
    if (!model) return;
    check_arch(&model->arch, net);
    bool half = strstr(fx_string(file, "text"), "float16") != NULL; /* some are, and do not say */
    half = half || model->params[0].data[0] != first_weight(model);
    CHECK(count_wrong(model, false, half, &n) == 0);
    for (int k = 0; classes && k < classes->n; k++)
        CHECK(strcmp(model->classes[k].name, classes->items[k].string) == 0);
    for (int i = 0; gfl_model_get_report(model, i, &r) == GFL_OK; i++)
        CHECK(r.fate == GFL_FATE_LOADED);
    gfl_model_destroy(model);
}

static void check_backbone(gfl_context *context, const char *path, const fx_json *net) {
    gfl_backbone_info b;
    gfl_model_desc desc;
    gfl_model *model = NULL;
    gfl_tensor_report r;
    size_t n = 0;
    memset(&desc, 0, sizeof desc);
    desc.trainable = 1;
    CHECK_OK(context, gfl_backbone_describe(context, path, NULL, &b));
    CHECK(b.arch.depth == fx_int(net, "depth", 0) && b.stages == 4);
    desc.arch = b.arch;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    if (!model) return;
    CHECK_OK(context, gfl_model_load_backbone(model, path));
    CHECK(count_wrong(model, true, false, &n) == 0);
    for (int i = 0; gfl_model_get_report(model, i, &r) == GFL_OK; i++)
        CHECK(r.fate == (strncmp(r.name, "fc.", 3) ? GFL_FATE_LOADED : GFL_FATE_LEFT_OVER));
    gfl_model_destroy(model);
}

static void check_refusal(gfl_context *context, const char *path, const fx_json *file) {
    gfl_model *model = NULL;
    gfl_status status = gfl_model_import(context, path, NULL, &model);
    CHECK(status == GFL_E_FORMAT || status == GFL_E_MISMATCH || status == GFL_E_UNSUPPORTED);
    CHECK(model == NULL);
    printf("%s: %s\n", gfl_status_get_name(status), gfl_context_get_error(context));
    CHECK(strstr(gfl_context_get_error(context), fx_string(file, "names")) != NULL);
}

static void checkpoints_become_models_or_are_refused(void) {
    fx_case one;
    int accepted = 0, refused = 0, ignored = 0;
    for (fx_list list = fx_open("checkpoints"); fx_next(&list, &one); fx_free_case(&one)) {
        const fx_json *files = fx_get(&one.json, "files");
        for (int i = 0; files && i < files->n; i++) {
            const fx_json *file = &files->items[i];
            const char *expect = fx_string(file, "expect");
            const fx_json *net = fx_get(fx_get(&one.json, "models"), fx_string(file, "net"));
            char path[1024];
            snprintf(path, sizeof path, "%s/%s", one.folder, file->key);
            const int before = test_failures;
            if (!strcmp(expect, "accept"))
                check_detector(one.context, path, file, net);
            else if (strstr(expect, "backbone"))
                check_backbone(one.context, path, net);
            else if (!strcmp(expect, "refuse"))
                check_refusal(one.context, path, file);
            accepted += strncmp(expect, "accept", 6) == 0;
            refused += !strcmp(expect, "refuse");
            ignored += strstr(expect, "ignore") != NULL;
            if (test_failures != before) printf("^ %s\n", file->key);
            FILE *ran = fopen("gfl-fixture-code-was-executed", "r");
            CHECK(ran == NULL);
            if (ran) fclose(ran);
        }
        printf("%d accepted, %d refused, %d of either kind\n", accepted, refused, ignored);
        CHECK(accepted > 0 && refused > 0);
    }
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(checkpoints_become_models_or_are_refused), {0}};
    return test_main(argc, argv, cases);
}
