/* fuzz_import.c - a whole checkpoint: any bytes become a model, or an error with a text, within the
 * budget that test_budget.c states */
#include "fuzz_ckpt.h"
#include "meter.h"
#include <unistd.h>

enum { PER_BYTE = 80, ANYWAY = 12 << 20 }; /* a network of no weights has its tables too */

static void expect_text(gfl_context *context, gfl_status status) {
    if (status != GFL_OK && !gfl_context_get_error(context)[0]) abort();
}

static void use(gfl_context *context, const char *path) {
    gfl_model *model = NULL;
    gfl_model_info info;
    gfl_backbone_info backbone;
    gfl_import_desc opts;
    memset(&opts, 0, sizeof opts);
    opts.dialect = GFL_DIALECT_MMDET;
    gfl_status status = gfl_model_import(context, path, &opts, &model);
    expect_text(context, status);
    if ((status == GFL_OK) != (model != NULL)) abort();
    if (model) {
        gfl_model_get_info(model, &info);
        for (int i = 0; i < 3; i++)
            if (!(info.preprocess.std[i] > 0)) abort();
        if (!info.classes[info.arch.n_classes - 1].name) abort();
    }
    gfl_model_destroy(model);
    expect_text(context, gfl_backbone_describe(context, path, NULL, &backbone));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    meter m = {0, 0, SIZE_MAX};
    char path[64];
    gfl_context_desc desc;
    gfl_context *context;
    snprintf(path, sizeof path, "/tmp/gfl_fuzz_import_%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) exit(1);
    memset(&desc, 0, sizeof desc);
    desc.n_threads = 1;
    desc.allocator.alloc = meter_alloc;
    desc.allocator.free = meter_free;
    desc.allocator.user = &m;
    if (gfl_context_create(&desc, &context) != GFL_OK) abort();
    use(context, path);
    gfl_context_destroy(context);
    remove(path);
    if (m.held || m.peak > ANYWAY + PER_BYTE * size) abort();
    return 0;
}
