/* detect.c - gfl_detector: resize, normalise, forward, decode */
#pragma once

struct gfl_detector {
    gfl_context *context;
    const gfl_model *model;
    bool with_distributions;
    gfli_plan plan;           /* of the last input size; batch 0: none yet */
    float *workspace, *stats; /* these four on the model's device */
    uint8_t *pixels;          /* one resized image */
    void *scratch;            /* of whatever runs: resize, plan, decode */
    gfli_decoded *decoded;
    float *logits; /* of the locations of one image's detections */
    gfl_detection *items;
    gfl_distribution *distributions;
    size_t workspace_capacity, stats_capacity, pixels_capacity, scratch_capacity;
    size_t decoded_capacity, items_capacity, distributions_capacity, logits_capacity;
    int n_items;
};

/* An image of the batch after checking. */
typedef struct gfli_resized {
    gfl_image image; /* stride resolved */
    int width, height;
} gfli_resized;

gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model, int distributions,
                               gfl_detector **out) {
    gfl_detector *d;
    if (out) *out = NULL;
    if (!context || !model || !out)
        return gfli_error(context, GFL_E_ARG, "gfl_detector_create: %s is NULL",
                          !context ? "context" : (!model ? "model" : "out"));
    if (context->backend != model->backend ||
        context->device_index != model->context->device_index ||
        context->precision != model->context->precision)
        return gfli_error(
            context, GFL_E_ARG,
            "gfl_detector_create: the model is on \"%s\", precision %d, the context on "
            "\"%s\", precision %d",
            model->context->device_name, (int)model->context->precision, context->device_name,
            (int)context->precision);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *d, "detector", &d));
    d->context = context;
    d->model = model;
    d->with_distributions = distributions != 0;
    *out = d;
    return GFL_OK;
}

void gfl_detector_destroy(gfl_detector *detector) {
    if (!detector) return;
    gfl_context *context = detector->context;
    gfli_plan_destroy(context, &detector->plan);
    context->backend->free(context, detector->workspace);
    context->backend->free(context, detector->stats);
    context->backend->free(context, detector->pixels);
    context->backend->free(context, detector->scratch);
    gfli_free(context, detector->decoded);
    gfli_free(context, detector->logits);
    gfli_free(context, detector->items);
    gfli_free(context, detector->distributions);
    gfli_free(context, detector);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static gfl_status gfli_check_image(gfl_context *context, const gfl_image *image, int index,
                                   gfl_image *out) {
    static const int bytes[] = {3, 3, 4, 4, 1};
    int format = (int)image->format;
    if (!image->pixels) return gfli_error(context, GFL_E_ARG, "image %d: pixels is NULL", index);
    if (image->width < 1 || image->height < 1 || image->width > GFL_MAX_SIDE ||
        image->height > GFL_MAX_SIDE)
        return gfli_error(context, GFL_E_ARG, "image %d is %d x %d; sides must be 1..%d", index,
                          image->width, image->height, GFL_MAX_SIDE);
    if (format < 0 || format >= (int)GFLI_COUNT(bytes))
        return gfli_error(context, GFL_E_ARG, "image %d: format %d is no gfl_format", index,
                          format);
    ptrdiff_t row = (ptrdiff_t)image->width * bytes[format];
    if (image->stride != 0 && image->stride < row && image->stride > -row)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: stride %td is less than a row of %d pixels, %td bytes", index,
                          image->stride, image->width, row);
    *out = *image;
    if (out->stride == 0) out->stride = row;
    return GFL_OK;
}

static gfl_status gfli_check_detect_opts(const gfl_detector *d, const gfl_detect_opts *in,
                                         gfl_detect_opts *out) {
    enum { MOST = 1000000 };
    const gfl_preprocess *p = &d->model->preprocess;
    gfl_context *context = d->context;
    memset(out, 0, sizeof *out);
    if (in) *out = *in;
    if (out->min_score == 0) out->min_score = 0.05f;
    if (out->nms_iou == 0) out->nms_iou = 0.6f;
    if (out->max_per_level == 0) out->max_per_level = 1000;
    if (out->max_detections == 0) out->max_detections = 100;
    if (!(out->min_score > 0 && out->min_score < 1))
        return gfli_error(context, GFL_E_ARG, "min_score is %g; it must be between 0 and 1",
                          (double)out->min_score);
    if (!(out->nms_iou > 0 && out->nms_iou <= 1))
        return gfli_error(context, GFL_E_ARG, "nms_iou is %g; it must be above 0 and at most 1",
                          (double)out->nms_iou);
    if (out->max_per_level < 1 || out->max_per_level > MOST)
        return gfli_error(context, GFL_E_ARG, "max_per_level is %d; it must be 1..%d",
                          out->max_per_level, MOST);
    if (out->max_detections < 1 || out->max_detections > MOST)
        return gfli_error(context, GFL_E_ARG, "max_detections is %d; it must be 1..%d",
                          out->max_detections, MOST);
    if ((out->scale_long == 0) != (out->scale_short == 0))
        return gfli_error(context, GFL_E_ARG, "scale_long %d and scale_short %d: give both or none",
                          out->scale_long, out->scale_short);
    if (out->scale_long == 0) {
        out->scale_long = p->scale_long;
        out->scale_short = p->scale_short;
    }
    if (out->scale_short < 1 || out->scale_long < out->scale_short ||
        out->scale_long > GFL_MAX_SIDE)
        return gfli_error(context, GFL_E_ARG,
                          "scale_long %d and scale_short %d; 1 <= short <= long <= %d must hold",
                          out->scale_long, out->scale_short, GFL_MAX_SIDE);
    return GFL_OK;
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* gfli_reserve on the device. */
static gfl_status gfli_reserve_device(gfl_detector *d, void *pointer_to_pointer, size_t *capacity,
                                      size_t need, size_t size, const char *what) {
    const gfli_backend *ops = d->context->backend;
    void *old, *none = NULL;
    memcpy(&old, pointer_to_pointer, sizeof old);
    if (old && need <= *capacity) return GFL_OK;
    ops->free(d->context, old);
    memcpy(pointer_to_pointer, &none, sizeof none);
    *capacity = 0;
    GFLI_TRY(ops->alloc(d->context, need, size, what, pointer_to_pointer));
    *capacity = need;
    return GFL_OK;
}

static gfl_status gfli_need_scratch(gfl_detector *d, size_t bytes) {
    return gfli_reserve_device(d, &d->scratch, &d->scratch_capacity, bytes, 1,
                               "detector's scratch");
}

/* The plan and the workspace of an input size; the largest workspace stays. */
static gfl_status gfli_prepare(gfl_detector *d, int batch, int height, int width) {
    gfli_plan *plan = &d->plan;
    if (plan->batch != batch || plan->height != height || plan->width != width) {
        gfli_plan_destroy(d->context, plan);
        GFLI_TRY(gfli_plan_create(d->context, d->model, batch, height, width, false, plan));
    }
    GFLI_TRY(gfli_reserve_device(d, &d->workspace, &d->workspace_capacity, plan->workspace_floats,
                                 sizeof(float), "detector's feature maps"));
    GFLI_TRY(gfli_reserve_device(d, &d->stats, &d->stats_capacity, plan->stats_floats,
                                 sizeof(float), "group norm statistics"));
    gfli_plan_bind(plan, d->workspace);
    return GFL_OK;
}

static gfl_status gfli_load_image(gfl_detector *d, const gfli_resized *r, int index) {
    const gfli_backend *ops = d->model->backend;
    const gfl_preprocess *p = &d->model->preprocess;
    size_t bytes = (size_t)r->width * (size_t)r->height * 3;
    GFLI_TRY(gfli_reserve_device(d, &d->pixels, &d->pixels_capacity, bytes, 1, "resized image"));
    GFLI_TRY(gfli_need_scratch(
        d, ops->resize_scratch(d->context, r->image.width, r->image.height, r->width, r->height)));
    ops->resize(d->context, &r->image, p->bgr != 0, r->width, r->height, d->pixels, d->scratch);
    ops->normalise(d->context, d->pixels, r->width, r->height, p->mean, p->std, false,
                   &d->plan.slots[d->plan.input].map, index);
    return GFL_OK;
}

/* From the logits of the location a detection comes from to distances in the caller's pixels. */
static void gfli_describe_sides(const gfl_detector *d, const gfli_decoded *from,
                                const float *logits, const gfli_decode_opts *opts,
                                gfl_distribution *out) {
    int l = from->level, bins = opts->n_bins;
    memset(out, 0, sizeof *out);
    out->x = (float)((double)gfli_position(from->x, opts->stride[l], opts->pixel) / opts->scale_x);
    out->y = (float)((double)gfli_position(from->y, opts->stride[l], opts->pixel) / opts->scale_y);
    for (int side = 0; side < 4; side++) {
        float *p = out->bins[side];
        double mean = (double)d->model->backend->integral(logits + side * bins, bins, p), var = 0;
        for (int k = 0; k < bins; k++) var += (double)p[k] * (k - mean) * (k - mean);
        out->bin_width[side] =
            (float)(opts->stride[l] / (side % 2 == 0 ? opts->scale_x : opts->scale_y));
        out->mean[side] = (float)mean * out->bin_width[side];
        out->stddev[side] = (float)sqrt(var) * out->bin_width[side];
    }
}

static float gfli_clip(float v, int high) {
    return v < 0 ? 0 : (v > (float)high ? (float)high : v);
}

/* Append image index's detections to the detector's lists. */
static gfl_status gfli_collect(gfl_detector *d, const gfl_detect_opts *opts, const gfli_resized *r,
                               int index, int *count) {
    const gfli_map *cls = &d->plan.slots[d->plan.cls].map;
    const gfli_map *reg = &d->plan.slots[d->plan.reg].map;
    gfli_decode_opts o;
    gfli_decode_opts_init(&d->model->arch, &o);
    o.min_score = opts->min_score;
    o.nms_iou = opts->nms_iou;
    o.max_per_level = opts->max_per_level;
    o.max_detections = opts->max_detections;
    o.height = r->height;
    o.width = r->width;
    gfli_box_scale(gfli_dialect_get(d->model->arch.dialect)->one_scale, r->image.width,
                   r->image.height, opts->scale_long, opts->scale_short, &o.scale_x, &o.scale_y);
    GFLI_TRY(gfli_need_scratch(d, d->model->backend->decode_scratch(cls, &o)));
    int n = d->model->backend->decode(d->context, cls, reg, index, &o, d->decoded, d->scratch);
    size_t need = (size_t)d->n_items + (size_t)n;
    GFLI_TRY(
        gfli_grow(d->context, &d->items, &d->items_capacity, need, sizeof *d->items, "detections"));
    if (d->with_distributions) {
        GFLI_TRY(gfli_grow(d->context, &d->distributions, &d->distributions_capacity, need,
                           sizeof *d->distributions, "distributions"));
        GFLI_TRY(gfli_reserve(d->context, &d->logits, &d->logits_capacity,
                              (size_t)n * (size_t)reg->c, sizeof(float), "distributions"));
        d->model->backend->location_logits(d->context, reg, index, d->decoded, n, d->logits);
    }
    GFLI_TRY(d->model->backend->finish(d->context));
    for (int i = 0; i < n; i++) {
        gfl_detection *item = &d->items[d->n_items + i];
        *item = d->decoded[i].detection;
        /* a right or lower edge is where the last pixel of the box ends */
        item->x2 += (float)o.pixel;
        item->y2 += (float)o.pixel;
        if (!opts->no_clip) {
            item->x1 = gfli_clip(item->x1, r->image.width);
            item->y1 = gfli_clip(item->y1, r->image.height);
            item->x2 = gfli_clip(item->x2, r->image.width);
            item->y2 = gfli_clip(item->y2, r->image.height);
        }
        if (d->with_distributions)
            gfli_describe_sides(d, &d->decoded[i], d->logits + (size_t)i * (size_t)reg->c, &o,
                                &d->distributions[d->n_items + i]);
    }
    d->n_items += n;
    *count = n;
    return GFL_OK;
}

/* The network, step by step where the caller wants to be asked. */
static gfl_status gfli_detect_forward(gfl_detector *d, const gfl_detect_opts *opts) {
    const int n = d->plan.n_steps;
    for (int i = 0; i < n; i++) {
        if (opts->progress && opts->progress(opts->user, i, n) != 0)
            return gfli_error(d->context, GFL_E_STOPPED,
                              "gfl_detect: stopped by the progress callback after %d of %d steps",
                              i, n);
        gfli_plan_step(d->context, d->model, &d->plan, i, d->stats, d->scratch);
    }
    return GFL_OK;
}

static gfl_status gfli_detect_batch(gfl_detector *d, const gfli_resized *images, int n,
                                    const gfl_detect_opts *opts, gfl_detections *out) {
    int height = 0, width = 0;
    for (int i = 0; i < n; i++) {
        height = gfli_max(height, gfli_pad32(images[i].height));
        width = gfli_max(width, gfli_pad32(images[i].width));
    }
    GFLI_TRY(gfli_prepare(d, n, height, width));
    for (int i = 0; i < n; i++) GFLI_TRY(gfli_load_image(d, &images[i], i));
    GFLI_TRY(gfli_need_scratch(d, d->plan.scratch_bytes));
    GFLI_TRY(gfli_detect_forward(d, opts));
    GFLI_TRY(gfli_reserve(d->context, &d->decoded, &d->decoded_capacity,
                          (size_t)opts->max_detections, sizeof *d->decoded, "detections"));
    d->n_items = 0;
    for (int i = 0; i < n; i++) GFLI_TRY(gfli_collect(d, opts, &images[i], i, &out[i].count));
    size_t first = 0;
    for (int i = 0; i < n; i++) {
        out[i].items = d->items + first;
        out[i].distributions = d->with_distributions ? d->distributions + first : NULL;
        first += (size_t)out[i].count;
    }
    return GFL_OK;
}

gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                      const gfl_detect_opts *opts, gfl_detections *out) {
    gfl_detect_opts resolved;
    gfli_resized *resized = NULL;
    if (!detector) return GFL_E_ARG;
    gfl_context *context = detector->context;
    if (!images || !out || n < 1)
        return gfli_error(context, GFL_E_ARG, "gfl_detect: %s",
                          n < 1 ? "n is not positive"
                                : (images ? "out is NULL" : "images is NULL"));
    memset(out, 0, (size_t)n * sizeof *out);
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    GFLI_TRY(gfli_alloc(context, (size_t)n, sizeof *resized, "batch", &resized));
    gfl_status status = GFL_OK;
    for (int i = 0; i < n && status == GFL_OK; i++) {
        status = gfli_check_image(context, &images[i], i, &resized[i].image);
        if (status == GFL_OK)
            gfli_resized_size(images[i].width, images[i].height, resolved.scale_long,
                              resolved.scale_short, &resized[i].width, &resized[i].height);
    }
    if (status == GFL_OK) status = gfli_detect_batch(detector, resized, n, &resolved, out);
    if (status != GFL_OK) memset(out, 0, (size_t)n * sizeof *out);
    gfli_free(context, resized);
    return status;
}
