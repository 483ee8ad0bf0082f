/* test_fixture_export.c - exported files beside mmdetection's state dicts and outputs */
#include "fixture.h"
#include "onnx.h"
#include <unistd.h>

static const char *scratch(void) {
    static char path[64];
    snprintf(path, sizeof path, "test_fixture_export_%ld", (long)getpid());
    return path;
}

static gfl_model *make(gfl_context *context, const gfl_arch *arch) {
    gfl_model_desc desc;
    gfl_model *model = NULL;
    memset(&desc, 0, sizeof desc);
    desc.arch = *arch;
    desc.trainable = 1;
    CHECK_OK(context, gfl_model_create(context, &desc, &model));
    if (!model) exit(1);
    fx_fill_model(model);
    return model;
}

/* ---- state dicts ----------------------------------------------------------------------------- */

/* A case that has only the "model" block of one of the networks; borrows its text. */
static fx_case network(const fx_case *one, const fx_json *block, fx_json *item) {
    static char key[] = "model";
    fx_case net = *one;
    *item = *block;
    item->key = key;
    memset(&net.json, 0, sizeof net.json);
    net.json.kind = GFLI_JSON_OBJECT;
    net.json.items = item;
    net.json.n = 1;
    return net;
}

static void check_entries(gfli_blob *blob, const fx_json *entries) {
    CHECK(entries && entries->n > 100 && blob->n_tensors == entries->n);
    for (int i = 0; i < entries->n; i++) {
        const fx_json *e = &entries->items[i];
        const gfli_tensor *t = gfli_blob_find(blob, e->key);
        bool same = t && t->rank == e->n;
        for (int k = 0; same && k < e->n; k++) same = t->shape[k] == (int64_t)fx_at(e, k)->number;
        if (same) same = (t->dtype == GFLI_I64) == fx_ends(e->key, "num_batches_tracked");
        if (!same) printf("%s is missing or of another shape or type\n", e->key);
        CHECK(same);
    }
}

static void every_key_is_mmdetections(void) {
    fx_list list = fx_open("checkpoints");
    for (fx_case one; fx_next(&list, &one); fx_free_case(&one)) {
        const fx_json *models = fx_get(&one.json, "models");
        for (int m = 0; models && models->kind == GFLI_JSON_OBJECT && m < models->n; m++) {
            fx_json item;
            gfl_arch arch;
            gfli_blob blob;
            const fx_case net = network(&one, &models->items[m], &item);
            fx_arch(&net, &arch);
            gfl_model *model = make(one.context, &arch);
            CHECK_OK(one.context, gfl_model_export(model, GFL_EXPORT_MMDET, NULL, scratch()));
            CHECK_OK(one.context, gfli_blob_open(one.context, scratch(), &blob));
            check_entries(&blob, fx_get(&models->items[m], "entries"));
            printf("%s: %d keys\n", models->items[m].key, blob.n_tensors);
            gfli_blob_close(&blob);
            gfl_model_destroy(model);
        }
    }
    remove(scratch());
}

/* ---- graphs ---------------------------------------------------------------------------------- */

/* 1e-4 of a tensor's largest magnitude, as for the library itself. */
static void compare(fx_case *one, ox_model *m) {
    double worst = 0;
    for (int i = 0; i < m->n_outputs; i++) {
        const char *name = m->outputs[i].name;
        const fx_json *about = fx_get(fx_get(&one->json, "tensors"), name);
        const ox_tensor *got = ox_find(m, name);
        fx_tensor want = fx_load(one, name);
        double largest = fmax(fabs(fx_number(about, "max", 0)), fabs(fx_number(about, "min", 0)));
        CHECK(about && fx_step(one, name) == 1 && want.count == got->count);
        for (size_t k = 0; k < want.count && k < got->count; k++)
            worst = fmax(worst, fabs(got->v[k] - want.data[k]) / largest);
        free(want.data);
    }
    printf("%s: %d outputs, worst %.2g of the largest magnitude\n", one->name, m->n_outputs, worst);
    CHECK(worst <= 1e-4);
}

/* The interpreter is plain and slow: the narrow networks, deformable ones among them. */
static void graphs_of_narrow_networks_give_mmdetections_outputs(void) {
    fx_list list = fx_open("forward");
    int n = list.n, covered = 0;
    for (fx_case one; fx_next(&list, &one); fx_free_case(&one)) {
        gfl_arch arch;
        fx_arch(&one, &arch);
        if (arch.base_channels > 16) continue;
        const fx_json *shape = fx_get(fx_get(&one.json, "input"), "shape");
        gfl_model *model = make(one.context, &arch);
        CHECK_OK(one.context, gfl_model_export(model, GFL_EXPORT_ONNX, NULL, scratch()));
        ox_model m = ox_open(scratch());
        int64_t dims[4];
        for (int i = 0; i < 4; i++) dims[i] = (int64_t)fx_at(shape, i)->number;
        double *input = ox_feed(&m, "input", dims);
        const uint64_t hash = fx_fnv1a64("input");
        for (size_t i = 0; i < (size_t)(dims[0] * dims[1] * dims[2] * dims[3]); i++)
            input[i] = (double)(float)(2 * fx_s(hash, i));
        ox_run(&m);
        compare(&one, &m);
        ox_close(&m);
        gfl_model_destroy(model);
        covered++;
    }
    CHECK(n == 0 || covered > 0);
    remove(scratch());
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(every_key_is_mmdetections),
                                      TEST(graphs_of_narrow_networks_give_mmdetections_outputs),
                                      {0}};
    return test_main(argc, argv, cases);
}
