/* test_fixture_checkpoints.c - PyTorch checkpoints made by the official implementation, and hostile
 * variations of one (fixtures/checkpoints) */
#include "fixture.h"
#include <unistd.h>

#include "../src/ckpt/ckpt.h"

static gfl_context *context;

static const fx_json *net_of(const fx_json *models, const char *name) {
    for (int i = 0; models && i < models->n; i++)
        if (!strcmp(models->items[i].key, name)) return &models->items[i];
    return NULL;
}

/* The file's name of an entry: as it is, or as wrappers, old versions and torchvision have it. */
static const gfli_tensor *find_entry(const gfli_blob *blob, const char *entry) {
    char name[256];
    const gfli_tensor *t = gfli_blob_find(blob, entry);
    if (t) return t;
    snprintf(name, sizeof name, "module.%s", entry);
    t = gfli_blob_find(blob, name);
    if (t) return t;
    if (!strncmp(entry, "backbone.", 9)) t = gfli_blob_find(blob, entry + 9);
    const char *old = strstr(entry, "conv2.conv_offset");
    if (t || !old) return t;
    snprintf(name, sizeof name, "%.*sconv2_offset%s", (int)(old - entry), entry, old + 17);
    return gfli_blob_find(blob, name);
}

static float wanted_value(const char *entry, int rank, const int64_t *shape, int depth, size_t i) {
    if (fx_ends(entry, ".project")) return (float)i;
    return fx_weight(entry, rank, shape, depth, i);
}

/* Every value is the formula's, or the float16 nearest to it. */
static bool same_values(gfli_blob *blob, const gfli_tensor *t, const char *entry, int depth) {
    bool same = true;
    float *values = (float *)malloc((t->count + 1) * sizeof *values);
    CHECK_OK(context, gfli_blob_read_f32(blob, t, values));
    for (size_t i = 0; i < t->count && same; i++) {
        const double want = (double)wanted_value(entry, t->rank, t->shape, depth, i);
        const double half = fmax(fabs(want) * 0x1p-11, 0x1p-25);
        same = fabs((double)values[i] - want) <= (t->dtype == GFLI_F16 ? half : 0);
        if (!same) printf("%s[%zu] is %.9g, not %.9g\n", entry, i, (double)values[i], want);
    }
    free(values);
    return same;
}

static void check_counter(gfli_blob *blob, const gfli_tensor *t) {
    int64_t counter = -1;
    CHECK(t->dtype == GFLI_I64 && t->rank == 0);
    CHECK_OK(context, gfli_blob_read_raw(blob, t, &counter));
    CHECK(counter == 0);
}

static void check_tensors(gfli_blob *blob, const fx_json *file, const fx_json *net) {
    const bool backbone_only = !!strstr(fx_string(file, "expect"), "backbone");
    const fx_json *entries = fx_get(net, "entries");
    int found = 0;
    for (int i = 0; entries && i < entries->n; i++) {
        const fx_json *e = &entries->items[i];
        const gfli_tensor *t = find_entry(blob, e->key);
        if (!t && backbone_only && strncmp(e->key, "backbone.", 9) != 0) continue;
        if (!t && fx_ends(e->key, "num_batches_tracked")) continue;
        if (!t) printf("%s: %s is missing\n", blob->path, e->key);
        CHECK(t != NULL);
        if (!t) continue;
        found++;
        bool same = t->rank == e->n;
        for (int d = 0; same && d < e->n; d++) same = t->shape[d] == (int64_t)fx_at(e, d)->number;
        CHECK(same);
        if (fx_ends(e->key, "num_batches_tracked"))
            check_counter(blob, t);
        else
            CHECK(same_values(blob, t, e->key, fx_int(net, "depth", 0)));
    }
    CHECK(found > 50 && (backbone_only || found == blob->n_tensors));
}

static void check_meta(const gfli_blob *blob, const fx_json *file) {
    const fx_json *classes = fx_get(file, "classes");
    const char *epoch = gfli_blob_meta(blob, "epoch"), *text = gfli_blob_meta(blob, "classes");
    if (fx_get(file, "epoch")) CHECK(epoch && atoi(epoch) == fx_int(file, "epoch", -1));
    CHECK(!classes || text);
    for (int i = 0; text && classes && i < classes->n; i++) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", classes->items[i].string);
        CHECK(strstr(text, quoted) != NULL);
    }
}

static void accepted(const char *path, const fx_json *file, const fx_json *models) {
    gfli_blob blob;
    const fx_json *net = net_of(models, fx_string(file, "net"));
    gfl_status status = gfli_ckpt_open(context, path, &blob);
    if (status != GFL_OK) printf("%s\n", gfl_context_get_error(context));
    CHECK(status == GFL_OK && net);
    if (status != GFL_OK || !net) return;
    check_tensors(&blob, file, net);
    check_meta(&blob, file);
    gfli_blob_close(&blob);
}

/* Refused by name, by the reader or, where the file is sound, by what makes a model of it. */
static void refused(const char *path, const fx_json *file) {
    gfl_import_desc opts;
    gfl_model *model = NULL;
    memset(&opts, 0, sizeof opts);
    opts.dialect = GFL_DIALECT_MMDET;
    const gfl_status status = gfl_model_import(context, path, &opts, &model);
    const bool may_pass = !!strstr(fx_string(file, "expect"), "ignore");
    if (status == GFL_OK) {
        if (!may_pass) printf("%s was accepted\n", path);
        CHECK(may_pass);
        gfl_model_destroy(model);
        return;
    }
    const char *why = gfl_context_get_error(context);
    printf("  %s\n", why);
    CHECK(status == GFL_E_FORMAT || status == GFL_E_MISMATCH);
    CHECK(strstr(why, path) && strstr(why, fx_string(file, "names")));
}

static void every_file_is_what_it_should_be(void) {
    char path[900];
    int n_accepted = 0, n_refused = 0;
    snprintf(path, sizeof path, "%s/checkpoints/checkpoints.json", fx_root());
    if (access(path, R_OK) != 0) {
        printf("skipped: no %s\n", path);
        exit(77);
    }
    fx_json root = fx_read_json(path);
    const fx_json *files = fx_get(&root, "files"), *models = fx_get(&root, "models");
    for (int i = 0; files && i < files->n; i++) {
        const fx_json *file = &files->items[i];
        snprintf(path, sizeof path, "%s/checkpoints/%s", fx_root(), file->key);
        if (!strncmp(fx_string(file, "expect"), "accept", 6)) {
            accepted(path, file, models);
            n_accepted++;
        } else {
            refused(path, file);
            n_refused++;
        }
    }
    printf("%d files accepted, %d refused\n", n_accepted, n_refused);
    CHECK(n_accepted > 0 && n_refused > 0);
    CHECK(access("gfl-fixture-code-was-executed", F_OK) != 0);
    fx_free_json(&root);
}

int main(int argc, char **argv) {
    static const test_case cases[] = {TEST(every_file_is_what_it_should_be), {0}};
    context = test_context(2);
    int result = test_main(argc, argv, cases);
    gfl_context_destroy(context);
    return result;
}
