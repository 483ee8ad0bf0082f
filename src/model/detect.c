/* detect.c - gfl_detector: resize, normalise, forward, decode */
#pragma once

enum { GFLI_MAX_PER_LEVEL = 1000, GFLI_MAX_DETECTIONS = 100 };

/* What a detector has on the device: parts of one allocation. */
enum {
    GFLI_PART_MAPS,
    GFLI_PART_STATS,
    GFLI_PART_SCRATCH, /* of whatever runs: resize, plan, decode */
    GFLI_PART_PIXELS,  /* one resized image */
    GFLI_PART_FOUND,
    GFLI_PART_WANTED, /* what gfli_decode_opts.wanted points to */
    GFLI_PARTS
};

/* A plan of an input size.  Its second run is recorded, so that sizes which come once pay nothing
 * for it. */
typedef struct gfli_ready {
    gfli_plan plan;
    void *recording;
    bool ran, refused; /* refused: it cannot be recorded */
} gfli_ready;

/* An image of the batch after checking. */
typedef struct gfli_resized {
    gfl_image image; /* stride resolved */
    bool on_device;
    int width, height;
} gfli_resized;

struct gfl_detector {
    gfl_context *context;
    const gfl_model *model;
    bool with_distributions;
    gfli_ready ready[GFLI_PLANS];
    gfli_recent recent;
    unsigned char *arena; /* on the model's device */
    size_t parts[GFLI_PARTS];
    unsigned char *found; /* a copy of GFLI_PART_FOUND */
    gfli_resized *images;
    gfli_decode_opts *decoding;
    gfl_detection *items;
    gfl_distribution *distributions;
    size_t found_capacity, images_capacity, decoding_capacity, items_capacity;
    size_t distributions_capacity;
    uint8_t *wanted;   /* [2][n_classes] of the batch, and as GFLI_PART_WANTED has it */
    bool wanted_there; /* it has it */
    int n_begun;       /* images between gfl_detect_start and gfl_detect_finish */
    int most;          /* detections of each, at most */
    bool no_clip;
};

static void gfli_forget_recording(gfl_detector *d, gfli_ready *r) {
    if (r->recording) d->context->backend->record->forget(d->context, r->recording);
    r->recording = NULL;
}

gfl_status gfl_detector_create(gfl_context *context, const gfl_model *model,
                               const gfl_detector_desc *desc, gfl_detector **out) {
    gfl_detector *d;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, model);
    GFLI_NOT_NULL(context, out);
    if (context->backend != model->backend ||
        context->device_index != model->context->device_index ||
        context->precision != model->context->precision)
        return gfli_error(context, GFL_E_ARG,
                          "gfl_detector_create: the model is on \"%s\", precision %d, but the "
                          "context is on \"%s\", precision %d; both must be the same",
                          model->context->device_name, (int)model->context->precision,
                          context->device_name, (int)context->precision);
    GFLI_TRY(gfli_calloc(context, 1, sizeof *d, "detector", &d));
    d->context = context;
    d->model = model;
    d->with_distributions = desc && desc->distributions;
    const gfl_status status =
        gfli_alloc(context, (size_t)model->arch.n_classes, 2, "classes", &d->wanted);
    if (status == GFL_OK)
        *out = d;
    else
        gfl_detector_destroy(d);
    return status;
}

void gfl_detector_destroy(gfl_detector *detector) {
    if (!detector) return;
    gfl_context *context = detector->context;
    if (detector->n_begun > 0) (void)context->backend->device.finish(context);
    for (int i = 0; i < GFLI_PLANS; i++) {
        gfli_forget_recording(detector, &detector->ready[i]);
        gfli_plan_destroy(context, &detector->ready[i].plan);
    }
    (context->backend->device.free)(context, detector->arena);
    context->backend->device.host_free(context, detector->found);
    gfli_free(context, detector->images);
    gfli_free(context, detector->decoding);
    gfli_free(context, detector->items);
    gfli_free(context, detector->distributions);
    gfli_free(context, detector->wanted);
    gfli_free(context, detector);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static gfl_status gfli_check_size(gfl_context *context, int width, int height, int index) {
    GFLI_DEMAND(context,
                width >= 1 && height >= 1 && width <= GFL_MAX_SIDE && height <= GFL_MAX_SIDE,
                "image %d is %d x %d; sides must be 1..%d", index, width, height, GFL_MAX_SIDE);
    return GFL_OK;
}

static gfl_status gfli_check_image(gfl_context *context, const gfl_image *image, bool on_device,
                                   int index, gfl_image *out) {
    const gfli_backend *ops = context->backend;
    int format = (int)image->format;
    if (!image->pixels) return gfli_error(context, GFL_E_ARG, "image %d: pixels is NULL", index);
    GFLI_TRY(gfli_check_size(context, image->width, image->height, index));
    if (format < 0 || format >= GFLI_FORMATS)
        return gfli_error(context, GFL_E_ARG, "image %d: format is %d, which is not a gfl_format",
                          index, format);
    ptrdiff_t row = (ptrdiff_t)image->width * gfli_pixel_bytes(image->format);
    if (image->stride != 0 && image->stride < row && image->stride > -row)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: stride %td is less than a row of %d pixels, %td bytes", index,
                          image->stride, image->width, row);
    const bool owned = ops->device.owns && ops->device.owns(context, image->pixels);
    if (on_device && !owned)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: on_device is set, but pixels does not point to memory of %s",
                          index, context->device_name);
    if (owned && !on_device)
        return gfli_error(context, GFL_E_ARG,
                          "image %d: pixels points to memory of %s; set on_device to say so", index,
                          context->device_name);
    *out = *image;
    out->stride = gfli_pixel_pitch(image);
    return GFL_OK;
}

/* A limit as it is used: 0 means the default, negative means none. */
static gfl_status gfli_check_limit(gfl_context *context, const char *what, int otherwise,
                                   int *limit) {
    enum { MOST = 1000000 };
    *limit = *limit == 0 ? otherwise : *limit < 0 ? MOST : *limit;
    GFLI_DEMAND(context, *limit <= MOST,
                "%s is %d; it must be 1..%d, 0 for %d, or negative for no limit", what, *limit,
                MOST, otherwise);
    return GFL_OK;
}

/* What the scale of a call is for a picture: of a negative one, its own longer side for both. */
static void gfli_detect_scale(const gfl_detect_opts *opts, int width, int height, int scale[2]) {
    const bool none = opts->scale_long < 0;
    scale[0] = none ? gfli_max(width, height) : opts->scale_long;
    scale[1] = none ? gfli_max(width, height) : opts->scale_short;
}

static gfl_status gfli_check_scale(const gfl_detector *d, gfl_detect_opts *o) {
    const gfl_preprocess *p = &d->model->preprocess;
    if (o->scale_long < 0 && o->scale_short < 0) return GFL_OK;
    GFLI_DEMAND(d->context, (o->scale_long == 0) == (o->scale_short == 0),
                "scale_long is %d and scale_short is %d; set both or none", o->scale_long,
                o->scale_short);
    if (o->scale_long == 0) {
        o->scale_long = p->scale_long;
        o->scale_short = p->scale_short;
    }
    GFLI_DEMAND(d->context,
                o->scale_short >= 1 && o->scale_long >= o->scale_short &&
                    o->scale_long <= GFL_MAX_SIDE,
                "scale_long is %d and scale_short is %d; 1 <= short <= long <= %d must hold, or "
                "both are negative for pictures of their own size",
                o->scale_long, o->scale_short, GFL_MAX_SIDE);
    return GFL_OK;
}

static gfl_status gfli_check_detect_opts(const gfl_detector *d, const gfl_detect_opts *in,
                                         gfl_detect_opts *out) {
    gfl_context *context = d->context;
    memset(out, 0, sizeof *out);
    if (in) *out = *in;
    /* Before any comparison, which NaN may pass or fail under -ffast-math. */
    const bool finite[2] = {gfli_is_finite((double)out->min_score),
                            gfli_is_finite((double)out->nms_iou)};
    if (out->min_score == 0) out->min_score = 0.05f;
    if (out->nms_iou == 0) out->nms_iou = 0.6f;
    GFLI_DEMAND(context, finite[0] && out->min_score < 1,
                "min_score is %g; it must be below 1, or negative for none",
                (double)out->min_score);
    GFLI_DEMAND(context, finite[1] && out->nms_iou <= 1,
                "nms_iou is %g; it must be at most 1, or negative for no suppression",
                (double)out->nms_iou);
    if (out->min_score < 0) out->min_score = FLT_MIN; /* no logit is infinite */
    if (out->nms_iou < 0) out->nms_iou = 2;           /* no IoU is above 1 */
    GFLI_TRY(gfli_check_limit(context, "max_per_level", GFLI_MAX_PER_LEVEL, &out->max_per_level));
    GFLI_TRY(
        gfli_check_limit(context, "max_detections", GFLI_MAX_DETECTIONS, &out->max_detections));
    GFLI_TRY(gfli_check_scale(d, out));
    if (out->event && !context->backend->device.mark)
        return gfli_error(context, GFL_E_ARG, "event is set, but %s has no events; leave it NULL",
                          context->device_name);
    return GFL_OK;
}

/* The labels that the caller wants, one byte for each. */
static gfl_status gfli_take_labels(gfl_detector *d, const gfl_detect_opts *opts) {
    const int n = d->model->arch.n_classes;
    GFLI_DEMAND(d->context, !opts->labels == (opts->n_labels == 0) && opts->n_labels >= 0,
                "labels is %s, but n_labels is %d; give a list and its length, or neither",
                opts->labels ? "a list" : "NULL", opts->n_labels);
    if (!opts->labels) return GFL_OK;
    memset(d->wanted, 0, (size_t)n);
    for (int i = 0; i < opts->n_labels; i++) {
        GFLI_DEMAND(d->context, opts->labels[i] >= 0 && opts->labels[i] < n,
                    "labels[%d] is %d; the model has the labels 0..%d", i, opts->labels[i], n - 1);
        d->wanted[opts->labels[i]] = 1;
    }
    return GFL_OK;
}

/* From the size of image i to its size for the network, and what decoding it needs. */
static void gfli_take_size(gfl_detector *d, int i, const gfl_detect_opts *opts) {
    const gfl_arch *arch = &d->model->arch;
    gfli_resized *r = &d->images[i];
    gfli_decode_opts *o = &d->decoding[i];
    int scale[2];
    gfli_detect_scale(opts, r->image.width, r->image.height, scale);
    gfli_resized_size(r->image.width, r->image.height, scale[0], scale[1], &r->width, &r->height);
    gfli_decode_opts_init(arch, o);
    o->min_score = opts->min_score;
    o->nms_iou = opts->nms_iou;
    o->max_per_level = opts->max_per_level;
    o->max_detections = opts->max_detections;
    o->agnostic = opts->agnostic != 0;
    o->height = r->height;
    o->width = r->width;
    gfli_box_scale(gfli_dialect_get(arch->dialect)->one_scale, r->image.width, r->image.height,
                   scale[0], scale[1], &o->scale_x, &o->scale_y);
}

static gfl_status gfli_reserve_images(gfl_detector *d, int n) {
    GFLI_DEMAND(d->context, n >= 1 && n <= GFLI_MAX_BATCH,
                "a batch of %d images; 1..%d are allowed", n, GFLI_MAX_BATCH);
    GFLI_DEMAND(d->context, d->n_begun == 0,
                "a batch of %d images is under way; call gfl_detect_finish first, or "
                "use another detector",
                d->n_begun);
    GFLI_TRY(gfli_reserve(d->context, &d->images, &d->images_capacity, (size_t)n, sizeof *d->images,
                          "batch"));
    return gfli_reserve(d->context, &d->decoding, &d->decoding_capacity, (size_t)n,
                        sizeof *d->decoding, "batch");
}

static gfl_status gfli_take_images(gfl_detector *d, const gfl_image *images, int n,
                                   const gfl_detect_opts *opts) {
    for (int i = 0; i < n; i++) {
        gfli_resized *r = &d->images[i];
        r->on_device = opts->on_device != 0;
        GFLI_TRY(gfli_check_image(d->context, &images[i], r->on_device, i, &r->image));
        gfli_take_size(d, i, opts);
    }
    return GFL_OK;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Where detections go in `bytes`, which is as long as needed or NULL; returns how long that is. */
static size_t gfli_lay_out_found(int n, int most, size_t logits, void *bytes, gfli_found *out) {
    gfli_cutter c = {(unsigned char *)bytes, 0};
    const size_t all = (size_t)n * (size_t)most;
    out->most = most;
    out->count = (int *)gfli_cut(&c, (size_t)n * sizeof *out->count);
    out->items = (gfli_decoded *)gfli_cut(&c, all * sizeof *out->items);
    out->logits = (float *)gfli_cut(&c, all * logits * sizeof *out->logits);
    if (logits == 0) out->logits = NULL;
    return c.used;
}

/* For images of one size in pixels, before and after resizing. */
static void gfli_parts_of(const gfl_model *model, const gfli_plan *plan, int width, int height,
                          int resized_w, int resized_h, const gfli_decode_opts *opts,
                          bool distributions, size_t parts[GFLI_PARTS]) {
    const gfli_backend *ops = model->backend;
    const gfli_map *cls = &plan->maps[plan->cls].map, *reg = &plan->maps[plan->reg].map;
    const size_t resize =
        ops->infer.resize_scratch(model->context, width, height, resized_w, resized_h);
    const size_t decode = ops->infer.decode_scratch(cls, opts);
    gfli_found ignored;
    parts[GFLI_PART_MAPS] = plan->workspace_bytes;
    parts[GFLI_PART_STATS] = plan->stats_floats * sizeof(float);
    parts[GFLI_PART_SCRATCH] = plan->scratch_bytes;
    if (resize > parts[GFLI_PART_SCRATCH]) parts[GFLI_PART_SCRATCH] = resize;
    if (decode > parts[GFLI_PART_SCRATCH]) parts[GFLI_PART_SCRATCH] = decode;
    parts[GFLI_PART_PIXELS] = (size_t)resized_w * (size_t)resized_h * 3;
    parts[GFLI_PART_FOUND] = gfli_lay_out_found(plan->batch, gfli_most_detections(cls, opts),
                                                distributions ? (size_t)reg->c : 0, NULL, &ignored);
    parts[GFLI_PART_WANTED] = (size_t)opts->n_classes;
    for (int i = 0; i < GFLI_PARTS; i++) parts[i] = gfli_padded(parts[i]);
}

size_t gfli_detector_bytes(const gfl_model *model, const gfli_plan *plan, int width, int height) {
    gfli_decode_opts opts;
    size_t parts[GFLI_PARTS], bytes = 0;
    gfli_decode_opts_init(&model->arch, &opts);
    opts.max_per_level = GFLI_MAX_PER_LEVEL;
    opts.max_detections = GFLI_MAX_DETECTIONS;
    gfli_parts_of(model, plan, width, height, width, height, &opts, false, parts);
    for (int i = 0; i < GFLI_PARTS; i++) bytes += parts[i];
    return bytes;
}

static void *gfli_arena_part(const gfl_detector *d, int part) {
    unsigned char *p = d->arena;
    for (int i = 0; i < part; i++) p += d->parts[i];
    return p;
}

/* Every part as large as now or as it was before; recordings know the old addresses. */
static gfl_status gfli_reserve_parts(gfl_detector *d, const size_t need[GFLI_PARTS]) {
    const gfli_backend *ops = d->context->backend;
    size_t most[GFLI_PARTS], bytes = 0;
    bool fits = d->arena != NULL;
    for (int i = 0; i < GFLI_PARTS; i++) {
        most[i] = need[i] > d->parts[i] ? need[i] : d->parts[i];
        fits = fits && need[i] <= d->parts[i];
        bytes += most[i];
    }
    if (fits) return GFL_OK;
    for (int i = 0; i < GFLI_PLANS; i++) gfli_forget_recording(d, &d->ready[i]);
    (ops->device.free)(d->context, d->arena);
    d->arena = NULL;
    memset(d->parts, 0, sizeof d->parts);
    d->wanted_there = false;
    GFLI_TRY(ops->device.alloc(d->context, bytes, 1, "detector's workspace", &d->arena));
    memcpy(d->parts, most, sizeof most);
    return GFL_OK;
}

/* The detections of the batch, as the device has them or as they are copied. */
static size_t gfli_found_of(const gfl_detector *d, const gfli_plan *plan, void *bytes,
                            gfli_found *out) {
    const size_t logits = d->with_distributions ? (size_t)plan->maps[plan->reg].map.c : 0;
    return gfli_lay_out_found(plan->batch, d->most, logits, bytes, out);
}

static gfl_status gfli_reserve_found(gfl_detector *d, size_t bytes) {
    const gfli_device_ops *device = &d->context->backend->device;
    return gfli_reserve_by(d->context, device->host_alloc, device->host_free, &d->found,
                           &d->found_capacity, bytes, 1, "detections");
}

/* What the caller gets: room for as many detections as there can be. */
static gfl_status gfli_reserve_lists(gfl_detector *d, size_t most) {
    GFLI_TRY(gfli_reserve(d->context, &d->items, &d->items_capacity, most, sizeof *d->items,
                          "detections"));
    if (!d->with_distributions) return GFL_OK;
    return gfli_reserve(d->context, &d->distributions, &d->distributions_capacity, most,
                        sizeof *d->distributions, "distributions");
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* A plan in the memory of the one that makes room; all get the memory that any of them needs. */
static gfl_status gfli_make_plan(gfl_detector *d, int batch, int height, int width,
                                 gfli_ready *out) {
    gfli_forget_recording(d, out);
    out->ran = out->refused = false;
    for (int i = 0; i < GFLI_PLANS; i++)
        GFLI_TRY(gfli_plan_reserve(d->context, d->model, &d->ready[i].plan));
    return gfli_plan_recreate(d->context, d->model, batch, height, width, false, &out->plan);
}

static gfl_status gfli_find_plan(gfl_detector *d, int batch, int height, int width,
                                 gfli_ready **out) {
    bool known;
    const int at = gfli_recent_find(&d->recent, batch, height, width, &known);
    *out = &d->ready[at];
    const gfl_status status =
        known ? GFL_OK : gfli_make_plan(d, batch, height, width, &d->ready[at]);
    if (status != GFL_OK) gfli_recent_forget(&d->recent, at);
    return status;
}

static gfl_status gfli_prepare(gfl_detector *d, int n, gfli_ready **out) {
    size_t parts[GFLI_PARTS], need[GFLI_PARTS] = {0};
    gfli_found ignored;
    int height = 0, width = 0;
    for (int i = 0; i < n; i++) {
        height = gfli_max(height, gfli_pad32(d->images[i].height));
        width = gfli_max(width, gfli_pad32(d->images[i].width));
    }
    GFLI_TRY(gfli_find_plan(d, n, height, width, out));
    gfli_plan *plan = &(*out)->plan;
    for (int i = 0; i < n; i++) {
        const gfli_resized *r = &d->images[i];
        gfli_parts_of(d->model, plan, r->image.width, r->image.height, r->width, r->height,
                      &d->decoding[i], d->with_distributions, parts);
        for (int k = 0; k < GFLI_PARTS; k++) need[k] = parts[k] > need[k] ? parts[k] : need[k];
    }
    d->most = gfli_most_detections(&plan->maps[plan->cls].map, d->decoding);
    GFLI_TRY(gfli_reserve_parts(d, need));
    GFLI_TRY(gfli_reserve_found(d, gfli_found_of(d, plan, NULL, &ignored)));
    GFLI_TRY(gfli_reserve_lists(d, (size_t)n * (size_t)d->most));
    gfli_plan_bind(plan, gfli_arena_part(d, GFLI_PART_MAPS));
    return GFL_OK;
}

static void gfli_load_image(gfl_detector *d, const gfli_plan *plan, int index) {
    const gfli_backend *ops = d->model->backend;
    const gfl_preprocess *p = &d->model->preprocess;
    const gfli_resized *r = &d->images[index];
    uint8_t *pixels = (uint8_t *)gfli_arena_part(d, GFLI_PART_PIXELS);
    ops->infer.resize(d->context, &r->image, r->on_device, p->bgr != 0, r->width, r->height, pixels,
                      gfli_arena_part(d, GFLI_PART_SCRATCH));
    ops->infer.normalise(d->context, pixels, r->width, r->height, p->mean, p->std, false,
                         &plan->maps[plan->input].map, index);
}

/* The network, step by step where the caller wants to be asked. */
static gfl_status gfli_run_steps(gfl_detector *d, const gfli_plan *plan,
                                 const gfl_detect_opts *opts) {
    const int n = plan->n_steps;
    for (int i = 0; i < n; i++) {
        if (opts && opts->progress && opts->progress(opts->user, i, n) != 0)
            return gfli_error(d->context, GFL_E_STOPPED,
                              "gfl_detect: stopped by the progress callback after %d of %d steps",
                              i, n);
        gfli_plan_run_step(d->context, d->model, plan, i,
                           (float *)gfli_arena_part(d, GFLI_PART_STATS),
                           gfli_arena_part(d, GFLI_PART_SCRATCH));
    }
    return GFL_OK;
}

static gfl_status gfli_forward(gfl_detector *d, gfli_ready *r, const gfl_detect_opts *opts) {
    const gfli_backend *ops = d->context->backend;
    if (!ops->record || opts->progress || !r->ran || r->refused) {
        r->ran = true;
        return gfli_run_steps(d, &r->plan, opts);
    }
    if (!r->recording && ops->record->begin(d->context)) {
        (void)gfli_run_steps(d, &r->plan, NULL);
        r->recording = ops->record->end(d->context);
    }
    r->refused = !r->recording;
    if (r->refused) return gfli_run_steps(d, &r->plan, opts);
    ops->record->replay(d->context, r->recording);
    return GFL_OK;
}

/* An upload waits for what the device does, so it comes before all else, and only where other
 * classes are wanted than last time. */
static void gfli_load_labels(gfl_detector *d, int n) {
    const size_t classes = (size_t)d->model->arch.n_classes;
    uint8_t *there = (uint8_t *)gfli_arena_part(d, GFLI_PART_WANTED);
    for (int i = 0; i < n; i++) d->decoding[i].wanted = there;
    if (d->wanted_there && memcmp(d->wanted, d->wanted + classes, classes) == 0) return;
    d->context->backend->device.upload(d->context, there, d->wanted, classes);
    memcpy(d->wanted + classes, d->wanted, classes);
    d->wanted_there = true;
}

/* Everything up to the copy of what is found. */
static gfl_status gfli_begin_batch(gfl_detector *d, int n, const gfl_detect_opts *opts) {
    const gfli_backend *ops = d->context->backend;
    gfli_ready *r;
    gfli_found found;
    GFLI_TRY(gfli_prepare(d, n, &r));
    const gfli_plan *plan = &r->plan;
    if (opts->labels) gfli_load_labels(d, n);
    for (int i = 0; i < n; i++) gfli_load_image(d, plan, i);
    GFLI_TRY(gfli_forward(d, r, opts));
    const size_t bytes = gfli_found_of(d, plan, gfli_arena_part(d, GFLI_PART_FOUND), &found);
    ops->infer.decode(d->context, &plan->maps[plan->cls].map, &plan->maps[plan->reg].map,
                      d->decoding, &found, gfli_arena_part(d, GFLI_PART_SCRATCH));
    ops->device.download(d->context, d->found, gfli_arena_part(d, GFLI_PART_FOUND), bytes);
    if (opts->event) ops->device.mark(d->context, opts->event);
    return GFL_OK;
}

/* From the logits of the location a detection comes from to distances in the caller's pixels. */
static void gfli_describe_sides(const gfli_decoded *from, const float *logits,
                                const gfli_decode_opts *opts, gfl_distribution *out) {
    int l = from->level, bins = opts->n_bins;
    memset(out, 0, sizeof *out);
    out->x =
        (float)((double)gfli_position(from->x, opts->stride[l], opts->inclusive) / opts->scale_x);
    out->y =
        (float)((double)gfli_position(from->y, opts->stride[l], opts->inclusive) / opts->scale_y);
    for (int side = 0; side < 4; side++) {
        float *p = out->bins[side];
        double mean = (double)gfli_integral(logits + side * bins, bins, p), var = 0;
        for (int k = 0; k < bins; k++) var += (double)p[k] * (k - mean) * (k - mean);
        out->bin_width[side] =
            (float)(opts->stride[l] / (side % 2 == 0 ? opts->scale_x : opts->scale_y));
        out->mean[side] = (float)mean * out->bin_width[side];
        out->stddev[side] = (float)(sqrt)(var)*out->bin_width[side];
    }
}

/* The detections of image `index`, `first` in the detector's lists. */
static void gfli_collect(gfl_detector *d, const gfli_found *found, int index, size_t first) {
    const gfli_decode_opts *o = &d->decoding[index];
    const gfl_image *image = &d->images[index].image;
    const size_t at = (size_t)index * (size_t)found->most, logits = 4 * (size_t)o->n_bins;
    for (int i = 0; i < found->count[index]; i++) {
        const gfli_decoded *from = &found->items[at + (size_t)i];
        gfl_detection *item = &d->items[first + (size_t)i];
        *item = from->detection;
        /* a right or lower edge is where the last pixel of the box ends */
        item->x2 += (float)o->inclusive;
        item->y2 += (float)o->inclusive;
        if (!d->no_clip) gfli_clip_box(item, image->width, image->height);
        if (d->with_distributions)
            gfli_describe_sides(from, found->logits + (at + (size_t)i) * logits, o,
                                &d->distributions[first + (size_t)i]);
    }
}

static gfl_status gfli_finish_batch(gfl_detector *d, int n, gfl_detection_list *out) {
    gfli_found found;
    size_t first = 0;
    const size_t logits = d->with_distributions ? 4 * (size_t)d->decoding[0].n_bins : 0;
    GFLI_TRY(d->context->backend->device.finish(d->context));
    (void)gfli_lay_out_found(n, d->most, logits, d->found, &found);
    for (int i = 0; i < n; i++) {
        gfli_collect(d, &found, i, first);
        out[i].items = d->items + first;
        out[i].distributions = d->with_distributions ? d->distributions + first : NULL;
        out[i].count = found.count[i];
        first += (size_t)found.count[i];
    }
    return GFL_OK;
}

/* ---- calls ----------------------------------------------------------------------------------- */

gfl_status gfl_detector_get_size(gfl_detector *detector, int width, int height,
                                 const gfl_detect_opts *opts, gfl_input_size *out) {
    gfl_detect_opts resolved;
    int scale[2];
    GFLI_NOT_NULL(NULL, detector);
    GFLI_NOT_NULL(detector->context, out);
    memset(out, 0, sizeof *out);
    GFLI_TRY(gfli_check_size(detector->context, width, height, 0));
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    gfli_detect_scale(&resolved, width, height, scale);
    gfli_resized_size(width, height, scale[0], scale[1], &out->width, &out->height);
    out->padded_width = gfli_pad32(out->width);
    out->padded_height = gfli_pad32(out->height);
    return GFL_OK;
}

gfl_status gfl_detector_reserve(gfl_detector *detector, int width, int height, int batch,
                                const gfl_detect_opts *opts) {
    gfl_detect_opts resolved;
    gfli_ready *ready;
    GFLI_NOT_NULL(NULL, detector);
    GFLI_TRY(gfli_check_size(detector->context, width, height, 0));
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    GFLI_TRY(gfli_reserve_images(detector, batch));
    for (int i = 0; i < batch; i++) {
        memset(&detector->images[i], 0, sizeof detector->images[i]);
        detector->images[i].image.width = width;
        detector->images[i].image.height = height;
        gfli_take_size(detector, i, &resolved);
    }
    return gfli_prepare(detector, batch, &ready);
}

gfl_status gfl_detect_start(gfl_detector *detector, const gfl_image *images, int n,
                            const gfl_detect_opts *opts) {
    gfl_detect_opts resolved;
    GFLI_NOT_NULL(NULL, detector);
    gfl_context *context = detector->context;
    GFLI_NOT_NULL(context, images);
    GFLI_TRY(gfli_reserve_images(detector, n));
    GFLI_TRY(gfli_model_check_packed(context, detector->model, "gfl_detect"));
    GFLI_TRY(gfli_check_detect_opts(detector, opts, &resolved));
    GFLI_TRY(gfli_take_labels(detector, &resolved));
    GFLI_TRY(gfli_take_images(detector, images, n, &resolved));
    const gfl_status status = gfli_begin_batch(detector, n, &resolved);
    if (status != GFL_OK) { /* nothing reads the images any more */
        char text[sizeof context->error];
        memcpy(text, context->error, sizeof text);
        if (context->backend->device.finish(context) == GFL_OK)
            memcpy(context->error, text, sizeof text);
        return status;
    }
    detector->no_clip = resolved.no_clip != 0;
    detector->n_begun = n;
    return GFL_OK;
}

gfl_status gfl_detect_finish(gfl_detector *detector, gfl_detection_list *out) {
    GFLI_NOT_NULL(NULL, detector);
    const int n = detector->n_begun;
    GFLI_DEMAND(detector->context, n > 0, "gfl_detect_finish: no batch was started");
    GFLI_NOT_NULL(detector->context, out);
    memset(out, 0, (size_t)n * sizeof *out);
    detector->n_begun = 0;
    return gfli_finish_batch(detector, n, out);
}

gfl_status gfl_detect(gfl_detector *detector, const gfl_image *images, int n,
                      const gfl_detect_opts *opts, gfl_detection_list *out) {
    GFLI_NOT_NULL(NULL, detector);
    GFLI_NOT_NULL(detector->context, out);
    if (n > 0 && n <= GFLI_MAX_BATCH) memset(out, 0, (size_t)n * sizeof *out);
    GFLI_TRY(gfl_detect_start(detector, images, n, opts));
    return gfl_detect_finish(detector, out);
}
