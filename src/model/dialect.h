/* dialect.h - what the two published families of GFL compute differently */
#pragma once

/* Spec 0.2 as one table.  Operations get these numbers through their options; none of them knows
 * the name of a dialect. */
typedef struct gfli_dialect {
    const char *name;    /* in metadata, options and messages */
    const char *project; /* the buffer of its head; only this name tells dialects apart */

    /* 0: corners lie between pixels.  1: corners are pixels that belong to the box, so that a width
     * is x2 - x1 + 1, the last coordinate of an image its size - 1, and the position that stands
     * for a cell its middle pixel. */
    int inclusive;
    /* Training boxes and detections follow the factor of the resize before sizes are rounded (else
     * the ratio of the sizes along each axis); detections by a division (else by a multiplication
     * with the inverse). */
    bool one_scale;
    bool by_location; /* candidates of a level: its best locations, then their classes above the
                         threshold; else its best pairs of location and class */

    bool outside_counts;   /* positions outside the valid area are negatives of the class loss */
    bool add_eps;          /* unions and hulls + eps; else at least eps */
    double quality_eps;    /* ... of the IoU that class scores learn */
    double mean_eps;       /* added to what a mean divides by */
    double min_weight_sum; /* what the box losses are divided by is at least this */

    double warmup_start; /* factor of the first update's rate */
    int warmup_end;      /* the last update of the warm-up before the full rate: warmup - this */
    double bias_lr;      /* factors for biases other than those of bn and gn layers */
    double bias_decay;
} gfli_dialect;

/* Of a resolved architecture. */
const gfli_dialect *gfli_dialect_get(gfl_dialect dialect);

/* Everything in the options that follows from the architecture; the rest becomes 0. */
void gfli_decode_opts_init(const gfl_arch *arch, gfli_decode_opts *out);
void gfli_assign_opts_init(const gfl_arch *arch, gfli_assign_opts *out);
void gfli_loss_opts_init(const gfl_arch *arch, gfli_loss_opts *out); /* normalisers: the batch's */

/* Is the parameter of this name a bias in the sense of bias_lr and bias_decay? */
bool gfli_is_plain_bias(const char *name);

/* What boxes of a width x height image are multiplied with when it is fitted into long x short. */
void gfli_box_scale(bool one_scale, int width, int height, int scale_long, int scale_short,
                    double *scale_x, double *scale_y);
