/* ranks.c - what the trainers of all ranks agree on before and between steps */
#pragma once

/* Bytes of the host go through the trainer's desk: ranks exchange memory of the device. */

gfl_status gfli_trainer_agree(const gfl_trainer *trainer, gfl_status mine, const char *what) {
    gfl_context *context = trainer->context;
    const gfli_device_ops *device = &context->backend->device;
    double failed[2] = {0, 0};
    if (mine != GFL_OK) {
        failed[0] = 1;
        failed[1] = context->ranks.rank;
    }
    device->upload(context, trainer->desk, failed, sizeof failed);
    GFLI_TRY(gfli_group_sum(context, trainer->desk, 2, GFL_SUM_F64));
    GFLI_TRY(gfli_group_settle(context, what));
    device->download(context, failed, trainer->desk, sizeof failed);
    GFLI_TRY(device->finish(context));
    if (mine != GFL_OK || failed[0] == 0) return mine;
    return gfli_group_blame(context, failed[0], failed[1], what);
}

/* Up to GFLI_DESK bytes of rank 0, for all. */
static gfl_status gfli_trainer_hear(const gfl_trainer *trainer, void *bytes, size_t n,
                                    const char *what) {
    gfl_context *context = trainer->context;
    const gfli_device_ops *device = &context->backend->device;
    device->upload(context, trainer->desk, bytes, n);
    GFLI_TRY(gfli_group_broadcast(context, trainer->desk, n));
    GFLI_TRY(gfli_group_settle(context, what));
    device->download(context, bytes, trainer->desk, n);
    return device->finish(context);
}

/* The first line that differs. */
static gfl_status gfli_compare_lines(gfl_context *context, const char *mine, const char *theirs) {
    while (*mine || *theirs) {
        const size_t n = strcspn(mine, "\n"), m = strcspn(theirs, "\n");
        if (n != m || memcmp(mine, theirs, n) != 0)
            return gfli_error(context, GFL_E_MISMATCH,
                              "rank %d: %.*s; rank 0: %.*s.  It must be the same on all ranks",
                              context->ranks.rank, (int)n, mine, (int)m, theirs);
        mine += n + (mine[n] != 0);
        theirs += m + (theirs[m] != 0);
    }
    return GFL_OK;
}

gfl_status gfli_trainer_compare(const gfl_trainer *trainer, gfl_status mine,
                                const char text[GFLI_DESK], const char *what) {
    char theirs[GFLI_DESK];
    memset(theirs, 0, sizeof theirs);
    if (mine == GFL_OK) snprintf(theirs, sizeof theirs, "%s", text);
    GFLI_TRY(gfli_trainer_hear(trainer, theirs, sizeof theirs, what));
    theirs[sizeof theirs - 1] = 0;
    if (mine == GFL_OK && theirs[0]) /* else rank 0 has failed */
        mine = gfli_compare_lines(trainer->context, text, theirs);
    return gfli_trainer_agree(trainer, mine, what);
}

static void gfli_put_line(char text[GFLI_DESK], const char *key, const char *value) {
    const size_t used = strlen(text);
    snprintf(text + used, GFLI_DESK - used, "%s = %s\n", key, value);
}

/* Everything that decides about a training. */
static void gfli_describe_trainer(const gfl_trainer *trainer, char text[GFLI_DESK]) {
    gfli_state_fields f;
    char value[32];
    text[0] = 0;
    gfli_put_line(text, "version of gfl", GFL_VERSION_TEXT);
    snprintf(value, sizeof value, "%d", trainer->context->ranks.n_ranks);
    gfli_put_line(text, "ranks", value);
    gfli_describe_training(trainer, &trainer->plan.desc, &f);
    for (int i = 0; i < f.n; i++) gfli_put_line(text, f.fields[i].key, f.fields[i].value);
    gfli_hash_format(gfli_hash_network(trainer->model), value);
    gfli_put_line(text, "fingerprint of the network", value);
    gfli_hash_format(gfli_hash_dataset(trainer->dataset), value);
    gfli_put_line(text, "fingerprint of the data set", value);
}

gfl_status gfli_trainer_share(gfl_trainer *trainer) {
    gfli_learner *l = &trainer->learner;
    gfl_model *model = trainer->model;
    struct {
        int64_t updates;
        double lr;
    } position = {l->updates, trainer->plan.desc.lr};
    if (trainer->context->ranks.rank > 0)
        gfli_model_changed(model, 0); /* even if it fails halfway */
    GFLI_TRY(
        gfli_group_broadcast(trainer->context, model->values, model->n_values * sizeof(float)));
    GFLI_TRY(gfli_group_broadcast(trainer->context, l->momentum, l->layout.floats * sizeof(float)));
    GFLI_TRY(gfli_trainer_hear(trainer, &position, sizeof position, "the weights of rank 0"));
    l->updates = position.updates;
    trainer->plan.desc.lr = position.lr;
    trainer->positioned = false;
    return GFL_OK;
}

gfl_status gfli_trainer_join(gfl_trainer *trainer, gfl_status mine) {
    char text[GFLI_DESK] = "";
    if (mine == GFL_OK) gfli_describe_trainer(trainer, text);
    GFLI_TRY(gfli_trainer_compare(trainer, mine, text, "creating a trainer"));
    return gfli_trainer_share(trainer);
}
