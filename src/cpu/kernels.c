/* kernels.c - which rows of kernels there are, and which a machine can run */
#pragma once

/* Fastest first. */
static const gfli_kernels *const gfli_kernel_rows[] = {
#if GFLI_X86_KERNELS
    &gfli_avx512,
    &gfli_avx2,
#endif
#if GFLI_NEON_KERNELS
    &gfli_neon,
#endif
    &gfli_portable,
};

const gfli_kernels *gfli_kernels_at(int i) {
    int n = 0;
    for (size_t k = 0; k < GFLI_COUNT(gfli_kernel_rows); k++)
        if ((gfli_kernel_rows[k]->available)() && n++ == i) return gfli_kernel_rows[k];
    return NULL;
}

const char *gfl_cpu_get_kernel(int i) {
    const gfli_kernels *row = gfli_kernels_at(i);
    return row ? row->name : NULL;
}

gfl_status gfli_choose_kernels(gfl_context *context, const char *name) {
    char names[100] = "";
    const gfli_kernels *row;
    for (int i = 0; (row = gfli_kernels_at(i)) != NULL; i++) {
        const size_t used = strlen(names);
        context->device = (void *)row; /* which nobody writes to */
        if (!name || strcmp(row->name, name) == 0) return GFL_OK;
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", row->name);
    }
    return gfli_error(context, GFL_E_ARG, "kernel \"%.40s\" is none of %s", name, names);
}
