/* box.h - boxes of detections: from a cell's distributions to what overlaps what (spec 6) */
#pragma once

/* Pixels from a position of a level to the next (spec 2). */
static inline int gfli_level_stride(int level) {
    return 8 << level;
}

/* Where position `cell` of a level stands, in pixels of the resized image. */
GFLI_HD static inline float gfli_position(int cell, int stride, int inclusive) {
    return (float)(cell * stride) + 0.5f * (float)(inclusive * (stride - 1));
}

/* A value that is no number stays so, and is dropped with the boxes that have no area. */
GFLI_HD static inline float gfli_clamp_side(float v, int limit) {
    if (v < 0.0f) return 0.0f;
    return v > (float)limit ? (float)limit : v;
}

GFLI_HD static inline void gfli_clip_box(gfl_detection *box, int right, int bottom) {
    box->x1 = gfli_clamp_side(box->x1, right);
    box->y1 = gfli_clamp_side(box->y1, bottom);
    box->x2 = gfli_clamp_side(box->x2, right);
    box->y2 = gfli_clamp_side(box->y2, bottom);
}

/* The box around a cell whose sides' distributions have these logits [4][n_bins], clipped to
 * 0..right and 0..bottom.  p [n_bins] is overwritten, or NULL, which takes longer. */
GFLI_HD static inline void gfli_box_around(int cell_x, int cell_y, const float *logits, int n_bins,
                                           float *p, int stride, int inclusive, int right,
                                           int bottom, gfl_detection *box) {
    const float x = gfli_position(cell_x, stride, inclusive);
    const float y = gfli_position(cell_y, stride, inclusive);
    float d[4];
    for (int side = 0; side < 4; side++)
        d[side] = gfli_rounded(gfli_integral(logits + side * n_bins, n_bins, p) * (float)stride);
    box->x1 = x - d[0];
    box->y1 = y - d[1];
    box->x2 = x + d[2];
    box->y2 = y + d[3];
    gfli_clip_box(box, right, bottom);
}

/* What coordinates are divided by, or multiplied with, to become those of the original image. */
static inline float gfli_rescale_factor(bool divide, double scale) {
    return (float)(divide ? scale : 1.0 / scale);
}

GFLI_HD static inline float gfli_rescaled(float v, float factor, bool divide) {
    return gfli_rounded(divide ? v / factor : v * factor);
}

GFLI_HD static inline void gfli_rescale_box(gfl_detection *box, float factor_x, float factor_y,
                                            bool divide) {
    box->x1 = gfli_rescaled(box->x1, factor_x, divide);
    box->y1 = gfli_rescaled(box->y1, factor_y, divide);
    box->x2 = gfli_rescaled(box->x2, factor_x, divide);
    box->y2 = gfli_rescaled(box->y2, factor_y, divide);
}

GFLI_HD static inline bool gfli_has_area(const gfl_detection *box, float inclusive) {
    return box->x2 - box->x1 + inclusive > 0.0f && box->y2 - box->y1 + inclusive > 0.0f;
}

/* ---- suppression ----------------------------------------------------------------------------- */

/* A box, moved to where only the boxes are that it can suppress. */
typedef struct gfli_apart {
    float x1, y1, x2, y2, area, label;
} gfli_apart;

/* step: one more than the largest coordinate of all boxes; 0: classes do not matter. */
GFLI_HD static inline gfli_apart gfli_move_apart(const gfl_detection *box, float step,
                                                 float inclusive) {
    gfli_apart a;
    const float offset = gfli_rounded((float)box->label * step);
    a.x1 = box->x1 + offset;
    a.y1 = box->y1 + offset;
    a.x2 = box->x2 + offset;
    a.y2 = box->y2 + offset;
    a.area = gfli_rounded((a.x2 - a.x1 + inclusive) * (a.y2 - a.y1 + inclusive));
    a.label = (float)box->label;
    return a;
}

/* Whether their IoU is above `iou`.  No overlap suppresses nothing, not even two boxes without
 * area: 0 / 0 is no IoU. */
GFLI_HD static inline bool gfli_overlaps(const gfli_apart *a, const gfli_apart *b, float iou,
                                         float inclusive) {
    const float x1 = a->x1 > b->x1 ? a->x1 : b->x1, x2 = a->x2 < b->x2 ? a->x2 : b->x2;
    const float y1 = a->y1 > b->y1 ? a->y1 : b->y1, y2 = a->y2 < b->y2 ? a->y2 : b->y2;
    const float w = x2 - x1 + inclusive, h = y2 - y1 + inclusive;
    if (!(w > 0.0f && h > 0.0f)) return false;
    const float inter = gfli_rounded(w * h);
    return inter / (a->area + b->area - inter) > iou;
}
