/* match.c - a detection against the ground truth of its image, all thresholds at once */
#pragma once

/* pycocotools matches the detections of an image once for each of 4 ranges of areas and 10 IoU
 * thresholds.  Here one pass does all 40 at once: a set of pairs (area, threshold) is the bits of a
 * number, bit 10 * area + threshold.  For each ground truth, `taken` holds the pairs at which an
 * earlier detection has it.  A detection then looks for the best ground truth, takes it at all
 * pairs that this one can still be had at, and looks for the next best at the pairs that are
 * left. */

static const double gfli_eval_ious[GFLI_EVAL_T] = {
    0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.8999999999999999, 0.95};

/* Both ends belong to a range, so an area of 1024 is small and medium. */
uint64_t gfli_eval_outside(double area) {
    static const double ranges[GFLI_EVAL_A][2] = {{0, 1e10}, {0, 1024}, {1024, 9216}, {9216, 1e10}};
    uint64_t outside = 0;
    for (int a = 0; a < GFLI_EVAL_A; a++)
        if (area < ranges[a][0] || area > ranges[a][1])
            outside |= (uint64_t)0x3FF << (a * GFLI_EVAL_T);
    return outside;
}

/* With a crowd any part of the region is a match: the union is the detection itself. */
static double gfli_eval_iou(const gfli_eval_truth *t, const gfli_eval_box *b) {
    double bx2 = b->w + b->x, by2 = b->h + b->y;
    double w = (bx2 < t->x2 ? bx2 : t->x2) - (b->x > t->x1 ? b->x : t->x1);
    if (!(w > 0)) return 0;
    double h = (by2 < t->y2 ? by2 : t->y2) - (b->y > t->y1 ? b->y : t->y1);
    if (!(h > 0)) return 0;
    double area = b->w * b->h, inter = w * h;
    return inter / (t->crowd ? area : area + t->area - inter);
}

/* The thresholds an IoU reaches, as the lowest ten bits. */
static uint32_t gfli_eval_reached(double iou) {
    uint32_t mask = 0;
    for (int t = 0; t < GFLI_EVAL_T && iou >= gfli_eval_ious[t]; t++) mask |= (uint32_t)1 << t;
    return mask;
}

/* Ground truth that reaches the lowest threshold, in its order. */
static int gfli_eval_candidates(const gfli_eval_truth *truths, const gfli_eval_group *group,
                                const gfli_eval_box *box, gfli_eval_candidate *out) {
    int n = 0;
    for (int g = group->begin; g < group->end; g++) {
        double iou = gfli_eval_iou(&truths[g], box);
        if (!(iou >= gfli_eval_ious[0])) continue;
        out[n].iou = iou;
        out[n].truth = g;
        out[n++].reached = gfli_eval_reached(iou);
    }
    return n;
}

/* The pairs of area and threshold, none of them found yet, at which a detection may have this
 * ground truth: those where it is free, and ignored or not as asked. */
static uint64_t gfli_eval_offer(const gfli_eval_candidate *c, const gfli_eval_truth *t,
                                bool ignored, uint64_t found) {
    const uint64_t row = c->reached, twice = row | row << GFLI_EVAL_T;
    return (twice | twice << (2 * GFLI_EVAL_T)) & (ignored ? t->ignored : ~t->ignored) &
           (t->crowd ? ~found : ~(t->taken | found));
}

/* The candidate of the highest IoU that has something to offer, of equal ones the later, as
 * pycocotools' loop chooses; -1: none has. */
static int gfli_eval_best(const gfli_eval_candidate *candidates, int n,
                          const gfli_eval_truth *truths, bool ignored, uint64_t found) {
    int best = -1;
    for (int i = 0; i < n; i++) {
        const gfli_eval_candidate *c = &candidates[i];
        if (best >= 0 && c->iou < candidates[best].iou) continue;
        if (gfli_eval_offer(c, &truths[c->truth], ignored, found)) best = i;
    }
    return best;
}

/* Each choice takes what is offered, at least one of the 40 pairs, so however many candidates there
 * are they are looked through 42 times at most.  Ignored ones come second, since a real match is
 * preferred. */
void gfli_eval_match(gfli_eval_truth *truths, const gfli_eval_group *group,
                     const gfli_eval_box *box, gfli_eval_candidate *scratch,
                     gfli_eval_outcome *out) {
    const uint64_t all = ((uint64_t)1 << (GFLI_EVAL_A * GFLI_EVAL_T)) - 1;
    uint64_t found = 0, matched = 0, ignored = 0;
    const int n = gfli_eval_candidates(truths, group, box, scratch);
    for (int second = 0; second < 2 && n > 0; second++) {
        int best;
        while ((best = gfli_eval_best(scratch, n, truths, second != 0, found)) >= 0) {
            gfli_eval_truth *t = &truths[scratch[best].truth];
            const uint64_t take = gfli_eval_offer(&scratch[best], t, second != 0, found);
            found |= take;
            t->taken |= take;
            if (!t->uncounted) matched |= take;
            if (second) ignored |= take;
        }
    }
    ignored |= ~matched & gfli_eval_outside(box->w * box->h);
    out->hit = matched & ~ignored;
    out->miss = all & ~matched & ~ignored;
}
