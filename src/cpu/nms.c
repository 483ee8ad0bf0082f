/* nms.c - non-maximum suppression, class by class or across classes */
#pragma once

/* ---- ranks ----------------------------------------------------------------------------------- */

static void gfli_heap_sink(uint64_t *heap, size_t n, size_t at) {
    const uint64_t rank = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= rank) break;
        heap[at] = heap[child];
    }
    heap[at] = rank;
}

void gfli_heap_make(uint64_t *ranks, size_t n) {
    for (size_t i = n / 2; i-- > 0;) gfli_heap_sink(ranks, n, i);
}

void gfli_heap_replace(uint64_t *heap, size_t n, uint64_t rank) {
    heap[0] = rank;
    gfli_heap_sink(heap, n, 0);
}

void gfli_sort_ranks(uint64_t *ranks, size_t n) {
    gfli_heap_make(ranks, n);
    while (n > 1) {
        const uint64_t largest = ranks[0];
        n--;
        gfli_heap_replace(ranks, n, ranks[n]);
        ranks[n] = largest;
    }
}

/* ---- suppression ----------------------------------------------------------------------------- */

/* One more than the largest coordinate, and whether classes are apart for sure once shifted: not
 * when boxes start below 0, pixels make up for the 1 that is between them, or float32 is too coarse
 * to keep it. */
static float gfli_class_step(const gfli_decoded *boxes, int n, int inclusive, bool *apart) {
    float largest = -FLT_MAX, smallest = FLT_MAX;
    int labels = 0;
    for (int i = 0; i < n; i++) {
        const gfl_detection *d = &boxes[i].detection;
        const float c[4] = {d->x1, d->y1, d->x2, d->y2};
        for (int k = 0; k < 4; k++) {
            if (c[k] > largest) largest = c[k];
            if (c[k] < smallest) smallest = c[k];
        }
        labels = gfli_max(labels, d->label + 1);
    }
    *apart = inclusive == 0 && smallest >= 0.0f && ((double)largest + 1.0) * labels < 8388608.0;
    return largest + 1.0f;
}

int gfli_nms(const gfli_decoded *boxes, int n, const gfli_decode_opts *opts, int max_keep,
             int *keep, uint64_t *ranks, float *scratch) {
    gfli_apart *kept = (gfli_apart *)(void *)scratch;
    const float inclusive = (float)opts->inclusive;
    bool apart = false;
    int n_kept = 0;
    const float step = opts->agnostic ? 0.0f : gfli_class_step(boxes, n, opts->inclusive, &apart);
    for (int i = 0; i < n; i++) ranks[i] = gfli_rank(boxes[i].detection.score, (uint64_t)i);
    gfli_sort_ranks(ranks, (size_t)n);
    for (int i = 0; i < n && n_kept < max_keep; i++) {
        const int at = (int)gfli_rank_index(ranks[i]);
        const gfli_apart box = gfli_move_apart(&boxes[at].detection, step, inclusive);
        bool suppressed = false;
        for (int k = 0; k < n_kept && !suppressed; k++) {
            if (apart && kept[k].label != box.label) continue;
            suppressed = gfli_overlaps(&kept[k], &box, opts->nms_iou, inclusive);
        }
        if (suppressed) continue;
        kept[n_kept] = box;
        keep[n_kept++] = at;
    }
    return n_kept;
}
