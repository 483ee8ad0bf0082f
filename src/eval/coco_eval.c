/* coco_eval.c - COCO's box evaluation: accumulate and summarise */
#pragma once

/* The numbers of pycocotools 2.0.11 (spec 9), bit by bit where they are not means.  A run has these
 * steps; the third is done for each class, on any thread.
 *
 *   1. Sort the results by class.
 *   2. Sort the ground truth by class and image.
 *   3. Sort the results of the class by score; image and place break ties.  That order contains the
 *      order by score inside every image, so one walk through it matches the results of all images
 *      (match.c).  What is left is, per area and threshold, whether each result is a hit or a miss.
 *   4. For each max_dets from the largest down, leave out the results of each image that are too
 *      many, draw the curve of precision over recall for each area and threshold, and add up the
 *      precision at 101 recalls.
 *   5. The twelve numbers are means of these sums over classes with ground truth. */

/* ---- sorting --------------------------------------------------------------------------------- */

uint64_t gfli_eval_score_key(double score) {
    uint64_t bits;
    if (score == 0) score = 0; /* -0 ties with 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 63 ? bits : ~(bits | (uint64_t)1 << 63);
}

static void gfli_eval_insertion_sort(gfli_eval_item *items, size_t n) {
    for (size_t i = 1; i < n; i++) {
        gfli_eval_item item = items[i];
        size_t at = i;
        for (; at > 0 && items[at - 1].key > item.key; at--) items[at] = items[at - 1];
        items[at] = item;
    }
}

/* Byte by byte from the lowest; bytes that are the same everywhere, as most are of scores that
 * were float and of small numbers, cost nothing but their count. */
static void gfli_eval_radix_sort(gfli_eval_item *items, gfli_eval_item *scratch, size_t n) {
    size_t counts[8][256];
    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < 8; b++) counts[b][items[i].key >> (8 * b) & 255]++;
    gfli_eval_item *from = items, *to = scratch;
    for (int b = 0; b < 8; b++) {
        size_t *count = counts[b], sum = 0;
        if (count[from[0].key >> (8 * b) & 255] == n) continue;
        for (int v = 0; v < 256; v++) {
            size_t c = count[v];
            count[v] = sum;
            sum += c;
        }
        for (size_t i = 0; i < n; i++) to[count[from[i].key >> (8 * b) & 255]++] = from[i];
        gfli_eval_item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items) memcpy(items, from, n * sizeof *items);
}

void gfli_eval_sort(gfli_eval_item *items, gfli_eval_item *scratch, size_t n) {
    size_t i = 1;
    while (i < n && items[i - 1].key <= items[i].key) i++;
    if (i >= n) return;
    if (n <= 64)
        gfli_eval_insertion_sort(items, n);
    else
        gfli_eval_radix_sort(items, scratch, n);
}

/* ---- one run --------------------------------------------------------------------------------- */

typedef struct gfli_eval_curve {
    double precision; /* the highest from this true positive on */
    double score;
} gfli_eval_curve;

typedef struct gfli_eval_run {
    gfl_evaluator *evaluator;
    gfli_eval_item *items, *scratch; /* results by class */
    size_t *first_item;              /* [K + 1] */
    gfli_eval_truth *truths;         /* by class, then image */
    int *first_truth;                /* [K + 1] */
    gfli_eval_outcome *outcomes;     /* [n_boxes], by class */
    /* Each class works in a part of its own, so memory does not depend on the number of threads. */
    gfli_eval_group *groups;             /* [n_boxes] at most, from first_item */
    gfli_eval_candidate *candidates;     /* [n_truths], from first_truth */
    gfli_eval_curve *curves;             /* [n_truths + K], from first_truth + k */
    double *precision, *recall, *scores; /* the whole arrays, or NULL */
} gfli_eval_run;

static void gfli_eval_release(gfli_eval_run *run) {
    gfl_context *context = run->evaluator->context;
    gfli_free(context, run->items);
    gfli_free(context, run->scratch);
    gfli_free(context, run->first_item);
    gfli_free(context, run->truths);
    gfli_free(context, run->first_truth);
    gfli_free(context, run->outcomes);
    gfli_free(context, run->groups);
    gfli_free(context, run->candidates);
    gfli_free(context, run->curves);
}

/* Results of evaluated images and classes, by class; with ignore_classes the order by class
 * remains, because it decides ties inside an image. */
static gfl_status gfli_eval_sort_results(gfli_eval_run *run) {
    const gfl_evaluator *e = run->evaluator;
    const int k = gfli_eval_k(e);
    gfl_context *context = e->context;
    GFLI_TRY(gfli_alloc(context, e->n_boxes, sizeof *run->items, "results", &run->items));
    GFLI_TRY(gfli_alloc(context, e->n_boxes, sizeof *run->scratch, "results", &run->scratch));
    GFLI_TRY(gfli_alloc(context, e->n_boxes, sizeof *run->outcomes, "results", &run->outcomes));
    GFLI_TRY(
        gfli_calloc(context, (size_t)k + 1, sizeof *run->first_item, "classes", &run->first_item));
    size_t n = 0;
    for (size_t i = 0; i < e->n_boxes; i++) {
        const gfli_eval_box *box = &e->boxes[i];
        int slot = e->class_slot[box->label];
        if (slot < 0 || e->image_rank[box->image] < 0) continue;
        run->items[n].key = (uint64_t)slot;
        run->items[n++].index = (uint32_t)i;
        run->first_item[e->ignore_classes ? 1 : slot + 1]++;
    }
    for (int c = 0; c < k; c++) run->first_item[c + 1] += run->first_item[c];
    gfli_eval_sort(run->items, run->scratch, n);
    return GFL_OK;
}

/* pycocotools looks annotations up by id, so that of several with one id it sees the last, several
 * times.  stand_in[i] is the annotation that takes the place of i. */
static gfl_status gfli_eval_stand_ins(const gfl_evaluator *e, int **out) {
    const gfl_dataset *d = e->dataset;
    size_t n = (size_t)d->n_annotations;
    gfli_id_entry *entries = NULL;
    GFLI_TRY(gfli_alloc(e->context, n, sizeof **out, "annotations", out));
    for (int i = 0; i < d->n_annotations; i++) (*out)[i] = i;
    if (!e->compatible || d->summary.n_duplicate_ids == 0) return GFL_OK;
    gfl_status status = gfli_alloc(e->context, n, sizeof *entries, "annotation ids", &entries);
    if (status == GFL_OK) {
        for (int i = 0; i < d->n_annotations; i++) {
            entries[i].id = d->annotations[i].id;
            entries[i].index = i;
        }
        status = gfli_id_sort(e->context, entries, d->n_annotations);
    }
    if (status == GFL_OK) {
        for (int i = d->n_annotations - 2; i >= 0; i--)
            if (gfli_id_compare(entries[i].id, entries[i + 1].id) == 0)
                (*out)[entries[i].index] = (*out)[entries[i + 1].index];
    }
    gfli_free(e->context, entries);
    return status;
}

static void gfli_eval_set_truth(const gfl_evaluator *e, const gfl_annotation *a,
                                gfli_eval_truth *out) {
    memset(out, 0, sizeof *out);
    out->x1 = a->x;
    out->y1 = a->y;
    out->x2 = a->w + a->x;
    out->y2 = a->h + a->y;
    out->area = a->w * a->h;
    out->rank = e->image_rank[a->image];
    out->crowd = a->crowd != 0;
    out->ignored = out->crowd ? ~(uint64_t)0 : gfli_eval_outside(a->area);
    out->uncounted = e->compatible && !a->id.text && a->id.number == 0;
}

/* Ground truth by class, image and place in the file; with ignore_classes by image, class, place.
 * The scratch holds the sorted items, then is free. */
static gfl_status gfli_eval_sort_truths(gfli_eval_run *run, const int *stand_in,
                                        gfli_eval_item *items, gfli_eval_item *scratch) {
    const gfl_evaluator *e = run->evaluator;
    const gfl_dataset *d = e->dataset;
    size_t n = 0;
    for (int r = 0; r < e->n_ranks; r++) {
        const gfl_image_info *info = &d->images[e->rank_image[r]];
        for (int i = 0; i < info->n_annotations; i++) {
            const gfl_annotation *original = &info->annotations[i];
            int index = stand_in[original - d->annotations];
            const gfl_annotation *a = &d->annotations[index];
            int slot = e->class_slot[a->label], rank = e->image_rank[a->image];
            bool asked = e->ignore_classes || e->class_slot[original->label] >= 0;
            if (!asked || slot < 0 || rank < 0) continue;
            uint64_t major = (uint64_t)(e->ignore_classes ? rank : slot);
            uint64_t minor = (uint64_t)(e->ignore_classes ? slot : rank);
            items[n].key = major << 32 | minor;
            items[n++].index = (uint32_t)index;
            run->first_truth[e->ignore_classes ? 1 : slot + 1]++;
        }
    }
    for (int c = 0; c < gfli_eval_k(e); c++) run->first_truth[c + 1] += run->first_truth[c];
    gfli_eval_sort(items, scratch, n);
    GFLI_TRY(gfli_alloc(e->context, n, sizeof *run->truths, "ground truth", &run->truths));
    for (size_t i = 0; i < n; i++)
        gfli_eval_set_truth(e, &d->annotations[items[i].index], &run->truths[i]);
    return GFL_OK;
}

static gfl_status gfli_eval_gather_truths(gfli_eval_run *run) {
    const gfl_evaluator *e = run->evaluator;
    const size_t n = (size_t)e->dataset->n_annotations;
    int *stand_in = NULL;
    gfli_eval_item *items = NULL, *scratch = NULL;
    GFLI_TRY(gfli_calloc(e->context, (size_t)gfli_eval_k(e) + 1, sizeof *run->first_truth,
                         "classes", &run->first_truth));
    gfl_status status = gfli_eval_stand_ins(e, &stand_in);
    if (status == GFL_OK) status = gfli_alloc(e->context, n, sizeof *items, "annotations", &items);
    if (status == GFL_OK)
        status = gfli_alloc(e->context, n, sizeof *scratch, "annotations", &scratch);
    if (status == GFL_OK) status = gfli_eval_sort_truths(run, stand_in, items, scratch);
    gfli_free(e->context, stand_in);
    gfli_free(e->context, items);
    gfli_free(e->context, scratch);
    return status;
}

static gfl_status gfli_eval_prepare(gfli_eval_run *run) {
    const gfl_evaluator *e = run->evaluator;
    gfl_context *context = e->context;
    GFLI_TRY(gfli_eval_sort_results(run));
    GFLI_TRY(gfli_eval_gather_truths(run));
    const int k = gfli_eval_k(e);
    const size_t n = (size_t)run->first_truth[k];
    GFLI_TRY(gfli_alloc(context, run->first_item[k], sizeof *run->groups, "images", &run->groups));
    GFLI_TRY(gfli_alloc(context, n, sizeof *run->candidates, "ground truth", &run->candidates));
    return gfli_alloc(context, n + (size_t)k, sizeof *run->curves, "curves", &run->curves);
}

/* ---- one class ------------------------------------------------------------------------------- */

/* The images of a class's results, which stand by image, each with its ground truth. */
static void gfli_eval_group_images(gfli_eval_run *run, int k) {
    const gfl_evaluator *e = run->evaluator;
    const size_t first = run->first_item[k];
    gfli_eval_group *groups = run->groups + first;
    int g = run->first_truth[k], n = -1, last = -1;
    for (size_t i = first; i < run->first_item[k + 1]; i++) {
        const int rank = e->image_rank[e->boxes[run->items[i].index].image];
        if (rank != last) {
            while (g < run->first_truth[k + 1] && run->truths[g].rank < rank) g++;
            groups[++n].begin = g;
            while (g < run->first_truth[k + 1] && run->truths[g].rank == rank) g++;
            groups[n].end = g;
            groups[n].seen = 0;
            last = rank;
        }
        run->items[i].group = (uint32_t)n;
    }
}

/* Best score first; of equal scores the earlier image, then the earlier place in the results. */
static void gfli_eval_order(gfli_eval_run *run, int k) {
    const gfl_evaluator *e = run->evaluator;
    const size_t first = run->first_item[k], n = run->first_item[k + 1] - first;
    gfli_eval_item *items = run->items + first;
    for (size_t i = 0; i < n; i++)
        items[i].key = (uint64_t)e->image_rank[e->boxes[items[i].index].image];
    gfli_eval_sort(items, run->scratch + first, n);
    gfli_eval_group_images(run, k);
    for (size_t i = 0; i < n; i++)
        items[i].key = gfli_eval_score_key(e->boxes[items[i].index].score);
    gfli_eval_sort(items, run->scratch + first, n);
}

/* Outcomes of the best max_dets of each image, in the order of the scores; returns how many. */
static size_t gfli_eval_match_class(gfli_eval_run *run, int k) {
    const gfl_evaluator *e = run->evaluator;
    const size_t first = run->first_item[k];
    gfli_eval_outcome *out = run->outcomes + first;
    gfli_eval_candidate *candidates = run->candidates + run->first_truth[k];
    size_t n = 0;
    for (size_t i = first; i < run->first_item[k + 1]; i++) {
        const gfli_eval_box *box = &e->boxes[run->items[i].index];
        gfli_eval_group *group = &run->groups[first + run->items[i].group];
        if (group->seen == e->max_dets[GFLI_EVAL_M - 1]) continue;
        out[n].place = group->seen++;
        out[n].score = box->score;
        gfli_eval_match(run->truths, group, box, candidates, &out[n]);
        n++;
    }
    return n;
}

/* How many true positives each recall threshold asks for; n_truths + 1: more than there are. */
static void gfli_eval_needs(int n_truths, int needs[GFLI_EVAL_R]) {
    int c = 0;
    for (int r = 0; r < GFLI_EVAL_R; r++) {
        while (c <= n_truths && (double)c / n_truths < r * 0.01) c++;
        needs[r] = c;
    }
}

/* The precision-recall curve of one area and threshold.  Only true positives matter: between them
 * precision falls and recall stays.  curve[0] stands for recall 0; returns the true positives. */
static int gfli_eval_trace(const gfli_eval_outcome *outcomes, size_t n, int bit,
                           gfli_eval_curve *curve) {
    int hits = 0, misses = 0;
    for (size_t i = 0; i < n; i++) {
        misses += (int)(outcomes[i].miss >> bit & 1);
        if (!(outcomes[i].hit >> bit & 1)) continue;
        hits++;
        curve[hits].precision = hits / ((double)(misses + hits) + DBL_EPSILON);
        curve[hits].score = outcomes[i].score;
    }
    curve[0].precision = 0;
    curve[0].score = n ? outcomes[0].score : 0;
    for (int c = hits - 1; c >= 0; c--)
        if (curve[c + 1].precision > curve[c].precision)
            curve[c].precision = curve[c + 1].precision;
    return hits;
}

/* Where entry (t, r, k, a, m) of the whole arrays stands; recall has no r. */
static size_t gfli_eval_at(int n_k, int row, int k, int a, int m) {
    return ((((size_t)row * (size_t)n_k + (size_t)k) * GFLI_EVAL_A + (size_t)a) * GFLI_EVAL_M) +
           (size_t)m;
}

static void gfli_eval_store(gfli_eval_run *run, int k, int a, int m, int t,
                            const gfli_eval_curve *curve, int hits, int n_truths,
                            const int needs[GFLI_EVAL_R], bool any) {
    const int n_k = gfli_eval_k(run->evaluator);
    bool none = n_truths == 0;
    run->recall[gfli_eval_at(n_k, t, k, a, m)] = none ? -1 : (double)hits / n_truths;
    for (int r = 0; r < GFLI_EVAL_R; r++) {
        size_t at = gfli_eval_at(n_k, t * GFLI_EVAL_R + r, k, a, m);
        bool reached = !none && any && needs[r] <= hits;
        run->precision[at] = none ? -1 : reached ? curve[needs[r]].precision : 0;
        run->scores[at] = none ? -1 : reached ? curve[needs[r]].score : 0;
    }
}

/* One class, area and max_dets: ten curves. */
static void gfli_eval_accumulate(gfli_eval_run *run, int k, int a, int m, size_t n, int n_truths,
                                 gfli_eval_curve *curve) {
    const gfli_eval_outcome *outcomes = run->outcomes + run->first_item[k];
    gfli_eval_sums *sums = &run->evaluator->sums[k];
    int needs[GFLI_EVAL_R] = {0};
    sums->present[a] = n_truths > 0;
    if (n_truths > 0) gfli_eval_needs(n_truths, needs);
    for (int t = 0; t < GFLI_EVAL_T; t++) {
        double sum = 0;
        int hits = n_truths > 0 ? gfli_eval_trace(outcomes, n, a * GFLI_EVAL_T + t, curve) : 0;
        if (run->precision) gfli_eval_store(run, k, a, m, t, curve, hits, n_truths, needs, n > 0);
        if (n_truths == 0) continue;
        for (int r = 0; r < GFLI_EVAL_R && needs[r] <= hits; r++) sum += curve[needs[r]].precision;
        sums->precision[a][m] += sum;
        if (t == 0) sums->precision50[a][m] = sum;
        if (t == 5) sums->precision75[a][m] = sum;
        sums->recall[a][m] += (double)hits / n_truths;
    }
}

static void gfli_eval_class(void *arg, int k, int slot) {
    gfli_eval_run *run = (gfli_eval_run *)arg;
    gfl_evaluator *e = run->evaluator;
    gfli_eval_outcome *outcomes = run->outcomes + run->first_item[k];
    gfli_eval_curve *curve = run->curves + run->first_truth[k] + k;
    (void)slot;
    int n_truths[GFLI_EVAL_A] = {0};
    memset(&e->sums[k], 0, sizeof e->sums[k]);
    gfli_eval_order(run, k);
    size_t n = gfli_eval_match_class(run, k);
    for (int g = run->first_truth[k]; g < run->first_truth[k + 1]; g++)
        for (int a = 0; a < GFLI_EVAL_A; a++)
            n_truths[a] += !(run->truths[g].ignored >> (a * GFLI_EVAL_T) & 1);
    /* From the largest max_dets down, what is left of an image falls out. */
    for (int m = GFLI_EVAL_M - 1; m >= 0; m--) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (outcomes[i].place < e->max_dets[m]) outcomes[kept++] = outcomes[i];
        n = kept;
        for (int a = 0; a < GFLI_EVAL_A; a++)
            gfli_eval_accumulate(run, k, a, m, n, n_truths[a], curve);
    }
}

/* ---- the twelve numbers ---------------------------------------------------------------------- */

typedef enum gfli_eval_number {
    GFLI_EVAL_AP,
    GFLI_EVAL_AP50,
    GFLI_EVAL_AP75,
    GFLI_EVAL_AR
} gfli_eval_number;

static double gfli_eval_mean(const gfl_evaluator *e, int first, int count, gfli_eval_number what,
                             int a, int m) {
    double sum = 0, n = 0;
    for (int k = first; k < first + count; k++) {
        const gfli_eval_sums *s = &e->sums[k];
        if (!s->present[a]) continue;
        n += what == GFLI_EVAL_AP   ? GFLI_EVAL_T * GFLI_EVAL_R
             : what == GFLI_EVAL_AR ? GFLI_EVAL_T
                                    : GFLI_EVAL_R;
        sum += what == GFLI_EVAL_AP     ? s->precision[a][m]
               : what == GFLI_EVAL_AP50 ? s->precision50[a][m]
               : what == GFLI_EVAL_AP75 ? s->precision75[a][m]
                                        : s->recall[a][m];
    }
    return n > 0 ? sum / n : -1;
}

static void gfli_eval_summarise(const gfl_evaluator *e, int first, int count,
                                gfl_eval_result *out) {
    const int last = GFLI_EVAL_M - 1;
    int ap = e->compatible ? -1 : last;
    for (int m = 0; m < GFLI_EVAL_M; m++)
        if (e->max_dets[m] == 100) ap = m;
    out->ap = ap < 0 ? -1 : gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 0, ap);
    out->ap50 = gfli_eval_mean(e, first, count, GFLI_EVAL_AP50, 0, last);
    out->ap75 = gfli_eval_mean(e, first, count, GFLI_EVAL_AP75, 0, last);
    out->ap_small = gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 1, last);
    out->ap_medium = gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 2, last);
    out->ap_large = gfli_eval_mean(e, first, count, GFLI_EVAL_AP, 3, last);
    for (int m = 0; m < GFLI_EVAL_M; m++)
        out->ar[m] = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 0, m);
    out->ar_small = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 1, last);
    out->ar_medium = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 2, last);
    out->ar_large = gfli_eval_mean(e, first, count, GFLI_EVAL_AR, 3, last);
}

gfl_status gfli_evaluator_arrays(gfl_evaluator *evaluator, double *precision, double *recall,
                                 double *scores) {
    gfli_eval_run run;
    memset(&run, 0, sizeof run);
    run.evaluator = evaluator;
    run.precision = precision;
    run.recall = recall;
    run.scores = scores;
    evaluator->done = false;
    gfl_status status = gfli_eval_prepare(&run);
    if (status == GFL_OK) {
        gfli_parallel_for(evaluator->context, gfli_eval_k(evaluator), gfli_eval_class, &run);
        gfli_eval_summarise(evaluator, 0, gfli_eval_k(evaluator), &evaluator->result);
        evaluator->done = true;
    }
    gfli_eval_release(&run);
    return status;
}

gfl_status gfl_evaluator_run(gfl_evaluator *evaluator, gfl_eval_result *out) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, out);
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_evaluator_arrays(evaluator, NULL, NULL, NULL));
    *out = evaluator->result;
    return GFL_OK;
}

gfl_status gfl_evaluator_get_class_result(const gfl_evaluator *evaluator, int label,
                                          gfl_eval_result *out) {
    GFLI_NOT_NULL(NULL, evaluator);
    GFLI_NOT_NULL(evaluator->context, out);
    memset(out, 0, sizeof *out);
    gfl_context *context = evaluator->context;
    if (!evaluator->done)
        return gfli_error(context, GFL_E_ARG,
                          "gfl_evaluator_get_class_result: call gfl_evaluator_run first");
    if (evaluator->ignore_classes)
        return gfli_error(context, GFL_E_ARG,
                          "the evaluation ignores classes: there is no class %d", label);
    if (label < 0 || label >= evaluator->dataset->n_classes || evaluator->class_slot[label] < 0)
        return gfli_error(context, GFL_E_ARG, "class %d is not evaluated", label);
    gfli_eval_summarise(evaluator, evaluator->class_slot[label], 1, out);
    return GFL_OK;
}

/* ---- text ------------------------------------------------------------------------------------ */

/* One line as pycocotools prints it, in any locale. */
static void gfli_eval_line(char out[128], bool precision, const char *ious, const char *area,
                           int max_dets, double value) {
    char number[32];
    snprintf(number, sizeof number, "%.3f", value);
    for (char *p = number; *p; p++)
        if (!strchr("0123456789-", *p)) *p = '.';
    snprintf(out, 128, " Average %s @[ IoU=%-9s | area=%6s | maxDets=%3d ] = %s\n",
             precision ? "Precision  (AP)" : "Recall     (AR)", ious, area, max_dets, number);
}

size_t gfl_evaluator_get_summary(const gfl_evaluator *evaluator, char *out, size_t capacity) {
    static const char *const areas[GFLI_EVAL_A] = {"all", "small", "medium", "large"};
    if (out && capacity) out[0] = 0;
    if (!evaluator || !evaluator->done) return 0;
    const gfl_eval_result *r = &evaluator->result;
    const double values[12] = {r->ap,        r->ap50,     r->ap75,      r->ap_small,
                               r->ap_medium, r->ap_large, r->ar[0],     r->ar[1],
                               r->ar[2],     r->ar_small, r->ar_medium, r->ar_large};
    const int *max_dets = evaluator->max_dets, last = max_dets[GFLI_EVAL_M - 1];
    bool hundred = max_dets[0] == 100 || max_dets[1] == 100 || evaluator->compatible;
    size_t n = 0;
    for (int i = 0; i < 12; i++) {
        char text[128];
        const char *ious = i == 1 ? "0.50" : i == 2 ? "0.75" : "0.50:0.95";
        int area = i >= 3 && i < 6 ? i - 2 : i >= 9 ? i - 8 : 0;
        int dets = i == 0 && hundred ? 100 : i >= 6 && i < 9 ? max_dets[i - 6] : last;
        gfli_eval_line(text, i < 6, ious, areas[area], dets, values[i]);
        for (const char *p = text; *p; p++, n++)
            if (out && n + 1 < capacity) out[n] = *p;
    }
    if (out && capacity) out[n < capacity ? n : capacity - 1] = 0;
    return n;
}
