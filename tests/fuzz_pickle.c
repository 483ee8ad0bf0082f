/* fuzz_pickle.c - the unpickler alone: any bytes are values or an error with a text */
#include "fuzz_ckpt.h"

/* Walks what can be walked without end: pickles may contain themselves. */
static void walk(const gfli_pickle *p, uint32_t root) {
    int left = 10000;
    (void)gfli_pickle_get(p, root, "state_dict");
    (void)gfli_pickle_item(p, root, 3);
    for (size_t i = 0; i < p->n_nodes && left > 0; i++, left--) {
        const gfli_pickle_node *n = &p->nodes[i];
        const char *text = gfli_pickle_text(p, (uint32_t)i);
        if (text && strlen(text) >= p->n_texts) abort();
        if ((n->kind == GFLI_PICKLE_LIST || n->kind == GFLI_PICKLE_DICT) && n->n > 0 && !n->a)
            abort();
        if (n->a >= p->n_nodes || n->b >= p->n_nodes) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gfl_context *context = test_context(1);
    gfli_blob blob;
    gfli_pickle p;
    uint32_t root = 0;
    if (gfli_blob_bare_memory(context, data, size, "input", &blob) != GFL_OK) abort();
    gfli_pickle_init(&blob, &p);
    if (gfli_pickle_read(&p, "the pickle", 0, size, &root) == GFL_OK)
        walk(&p, root);
    else if (!gfl_context_get_error(context)[0])
        abort();
    gfli_pickle_free(&p);
    gfli_blob_close(&blob);
    gfl_context_destroy(context);
    return 0;
}
