/* fuzz_state.c - training states: whatever the bytes, a state that fits or an error with a text
 *
 * An input that begins with { is a header alone, and gets its length before it and zeros for
 * numbers behind it; others are whole files.  The trainer's weights are zeros, so that fingerprints
 * in the corpus are the same on every machine. */
#include "train.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory is counted: it must stay in proportion to the input. */
static size_t used, peak;

static void *count_alloc(void *user, size_t bytes) {
    size_t *p = (size_t *)malloc(bytes + 16);
    (void)user;
    if (!p) return NULL;
    *p = bytes;
    used += bytes;
    if (used > peak) peak = used;
    return (unsigned char *)p + 16;
}

static void count_free(void *user, void *p) {
    size_t *start = (size_t *)(void *)((unsigned char *)p - 16);
    (void)user;
    used -= *start;
    free(start);
}

static gfl_context *context;
static gfl_trainer *trainer;
static size_t numbers; /* bytes of a state's tensors */

static void set_up(void) {
    gfl_context_desc cd;
    gfl_model_desc md;
    gfl_trainer_desc td;
    memset(&cd, 0, sizeof cd);
    cd.n_threads = 1;
    cd.allocator.alloc = count_alloc;
    cd.allocator.free = count_free;
    if (gfl_context_create(&cd, &context) != GFL_OK) abort();
    train_micro_desc(&md, 18, 2);
    md.arch.base_channels = md.arch.fpn_channels = md.arch.reg_max = 1;
    gfl_model *model = train_model(context, &md);
    for (int i = 0; i < model->n_params; i++)
        memset(model->params[i].data, 0, model->params[i].count * sizeof(float));
    memset(&td, 0, sizeof td);
    td.frozen_stages = 4;
    td.batch = 2;
    td.warmup = td.loaders = -1;
    if (gfl_trainer_create(context, model, train_dataset(context, 6, NULL, NULL), &td, &trainer))
        abort();
    for (int i = 0; i < model->n_params; i++)
        if (trainer->learner.layout.offset[i] != GFLI_NO_GRADIENT)
            numbers += model->params[i].count * sizeof(float);
}

static gfl_status load(const uint8_t *bytes, size_t size) {
    gfli_blob blob;
    gfl_status status = gfli_blob_open_memory(context, bytes, size, "input", &blob);
    if (status != GFL_OK) return status;
    status = gfli_state_load(trainer, &blob);
    gfli_blob_close(&blob);
    return status;
}

/* What the file is not to decide, whether it was taken or not. */
static void check(gfl_status status, const uint8_t *bytes, size_t size) {
    gfli_learner *l = &trainer->learner;
    for (size_t i = 0; i < l->layout.floats; i++)
        if (!isfinite(l->momentum[i]) || (status != GFL_OK && l->momentum[i] != 7)) abort();
    if (l->updates < 0 || l->updates > trainer->plan.n_steps) abort();
    if (status == GFL_OK) { /* the same bytes with other weights */
        float *weight = &trainer->model->params[0].data[0];
        *weight = 1;
        if (load(bytes, size) != GFL_E_MISMATCH) abort();
        *weight = 0;
        return;
    }
    if (status != GFL_E_FORMAT && status != GFL_E_MISMATCH && status != GFL_E_UNSUPPORTED) abort();
    if (l->updates != 3 || !gfl_context_get_error(context)[0]) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!trainer) set_up();
    const bool bare = size > 0 && data[0] == '{';
    const size_t whole = bare ? 8 + size + numbers : size;
    uint8_t *bytes = (uint8_t *)calloc(whole + 1, 1);
    memcpy(bytes + (bare ? 8 : 0), data, size);
    for (int i = 0; bare && i < 8; i++) bytes[i] = (uint8_t)((uint64_t)size >> 8 * i);
    gfli_learner *l = &trainer->learner;
    for (size_t i = 0; i < l->layout.floats; i++) l->momentum[i] = 7;
    l->updates = 3;
    context->error[0] = 0;
    peak = used;
    const size_t before = used;
    const gfl_status status = load(bytes, whole);
    if (used != before || peak - before > 40 * size + 200000) abort();
    check(status, bytes, whole);
    free(bytes);
    return 0;
}
