/* loader.c - threads that decode and augment ahead */
#pragma once

/* Batches are a ring of three.  The caller holds the first, and those behind it are being made.
 *
 *   1. gfli_loader_next takes back the batch that the caller had, and schedules the next ones.
 *      Their images follow from the order of the epoch.
 *   2. Each sample of a scheduled batch is a task.  Threads take tasks in order, and so does the
 *      caller's thread while it waits for its batch.
 *   3. A task reads the picture, draws its scale and whether it is mirrored, resizes it, and
 *      moves its boxes along.
 *
 * What a sample becomes depends on its image, the epoch and the options alone, so it does not
 * matter who makes it or when.  A batch that failed is made again by the next call. */

enum { GFLI_LOADER_DEPTH = 3, GFLI_LOADER_MIN_SIDE = 32 };

typedef struct gfli_loader_memory {
    size_t pixels, boxes, labels; /* capacities of a sample's buffers */
} gfli_loader_memory;

typedef struct gfli_loader_slot {
    gfli_batch batch;
    gfli_loader_memory *memory; /* [opts.batch], as batch.samples */
    int taken, left;            /* samples handed out; not yet finished */
    gfl_status status;
    int failed; /* the first sample that failed */
    char error[1024];
} gfli_loader_slot;

typedef struct gfli_loader_worker {
    gfli_loader *loader;
    gfl_context *context;
    gfli_thread thread;
    uint8_t *scratch;
    size_t scratch_size;
} gfli_loader_worker;

struct gfli_loader {
    gfl_context *context;
    const gfl_dataset *dataset;
    gfli_loader_opts opts;
    int *images; /* [n_images] of the data set that are trained on */
    bool *portrait;
    int *order, *order_scratch; /* of order_epoch: places in images */
    int n_images, n_batches, order_epoch;
    char *told; /* [images of the data set]: it is known that it cannot be read */
    int n_told;

    gfli_loader_slot ring[GFLI_LOADER_DEPTH];
    int depth;
    uint64_t first, last; /* scheduled batches, counted since the start; slot = number % depth */
    int epoch, index;     /* of the batch to schedule next */
    bool holding;         /* the caller has batch `first` */

    gfli_loader_worker *workers; /* [n_threads + 1]: the caller's comes first */
    int busy;                    /* tasks being worked on */
    bool stop;
    gfli_mutex mutex;
    gfli_condition work, done;
};

/* Images of a batch of all ranks. */
static int gfli_loader_together(const gfli_loader *l) {
    return l->context->ranks.n_ranks * l->opts.batch;
}

/* ---- one sample ------------------------------------------------------------------------------ */

static bool gfli_loader_flips(const gfli_loader *l, int epoch, int image) {
    gfli_rng rng = gfli_rng_make(l->opts.seed, (uint64_t)epoch, (uint64_t)image, GFLI_DRAW_FLIP);
    return !l->opts.no_flip && gfli_rng_uniform(&rng) < 0.5;
}

/* The size of the resized image, and what its boxes are multiplied with. */
static void gfli_loader_size(const gfli_loader *l, int epoch, const gfl_pixels *pixels,
                             gfli_sample *s, double scale[2]) {
    int scale_short = l->opts.scale_short, least = l->opts.scale_short_min;
    gfli_rng rng =
        gfli_rng_make(l->opts.seed, (uint64_t)epoch, (uint64_t)s->image, GFLI_DRAW_SCALE);
    if (least > 0) scale_short = least + gfli_rng_below(&rng, scale_short - least + 1);
    gfli_resized_size(pixels->width, pixels->height, l->opts.scale_long, scale_short, &s->width,
                      &s->height);
    gfli_box_scale(l->opts.one_scale, pixels->width, pixels->height, l->opts.scale_long,
                   scale_short, &scale[0], &scale[1]);
}

/* The boxes to train on, in pixels of the resized and perhaps mirrored image: corners are rounded
 * to float once, then scaled, clipped and mirrored in float (spec 7.2 to 7.5). */
static void gfli_loader_boxes(const gfl_image_info *info, const double scale[2], int inclusive,
                              gfli_sample *s) {
    const float scale_x = (float)scale[0], scale_y = (float)scale[1];
    const float w = (float)(s->width - inclusive), h = (float)(s->height - inclusive);
    s->n_boxes = 0;
    for (int i = 0; i < info->n_annotations; i++) {
        const gfl_annotation *a = &info->annotations[i];
        if (a->use != GFL_ANNOTATION_TRAINED) continue;
        float x1 = (float)a->x * scale_x, x2 = (float)(a->x + a->w - inclusive) * scale_x;
        float y1 = (float)a->y * scale_y, y2 = (float)(a->y + a->h - inclusive) * scale_y;
        x1 = fminf(fmaxf(x1, 0), w);
        x2 = fminf(fmaxf(x2, 0), w);
        float *b = s->boxes + 4 * (size_t)s->n_boxes;
        b[0] = s->flip ? w - x2 : x1;
        b[1] = fminf(fmaxf(y1, 0), h);
        b[2] = s->flip ? w - x1 : x2;
        b[3] = fminf(fmaxf(y2, 0), h);
        s->labels[s->n_boxes++] = a->label;
    }
}

static gfl_status gfli_loader_fill(gfli_loader_worker *w, const gfl_image_info *info,
                                   const gfl_pixels *pixels, int epoch, gfli_sample *s,
                                   gfli_loader_memory *m) {
    const gfli_loader *l = w->loader;
    gfl_context *context = w->context;
    double scale[2];
    gfli_loader_size(l, epoch, pixels, s, scale);
    s->flip = gfli_loader_flips(l, epoch, s->image);
    size_t n = (size_t)info->n_annotations, n_pixels = (size_t)s->width * (size_t)s->height;
    GFLI_TRY(gfli_reserve(context, &s->pixels, &m->pixels, 3 * n_pixels, 1, "a training image"));
    GFLI_TRY(gfli_reserve(context, &s->boxes, &m->boxes, 4 * n, sizeof *s->boxes, "boxes"));
    GFLI_TRY(gfli_reserve(context, &s->labels, &m->labels, n, sizeof *s->labels, "labels"));
    gfli_loader_boxes(info, scale, l->opts.inclusive, s);
    size_t scratch =
        gfli_cpu.infer.resize_scratch(context, pixels->width, pixels->height, s->width, s->height);
    GFLI_TRY(gfli_reserve(context, &w->scratch, &w->scratch_size, scratch, 1, "resizing"));
    gfl_image image;
    memset(&image, 0, sizeof image);
    image.pixels = pixels->rgb;
    image.width = pixels->width;
    image.height = pixels->height;
    image.format = GFL_FORMAT_RGB;
    gfli_cpu.infer.resize(context, &image, false, l->opts.bgr, s->width, s->height, s->pixels,
                          w->scratch);
    return GFL_OK;
}

/* Tell the first time that a picture cannot be read, with how many there are by now. */
static void gfli_loader_tell(gfli_loader_worker *w, int image) {
    gfli_loader *l = w->loader;
    if (__atomic_exchange_n(&l->told[image], 1, __ATOMIC_RELAXED)) return;
    int n = __atomic_add_fetch(&l->n_told, 1, __ATOMIC_RELAXED);
    gfli_log(w->context, GFL_LOG_WARNING,
             "%.700s; the next picture of the data set stands in for it (%d such so far)",
             w->context->error, n);
}

/* What a check has found is not tried again. */
static gfl_status gfli_loader_try(gfli_loader_worker *w, int image, gfl_pixels *pixels) {
    const gfl_image_info *info = &w->loader->dataset->images[image];
    char name[GFLI_QUOTED];
    if (info->unreadable)
        return gfli_error(w->context, GFL_E_DATA, "%s cannot be read",
                          gfli_quote(info->file_name, name, sizeof name));
    const gfl_status status = gfl_dataset_read(w->context, w->loader->dataset, image, pixels);
    if (w->loader->dataset->skip_unreadable && gfli_is_unreadable(status))
        gfli_loader_tell(w, image);
    return status;
}

/* The pixels of the sample's picture.  With skip_unreadable the next that can be read stands in for
 * one that cannot, which does not depend on who reads it.  The order of an epoch does not depend on
 * which can be read, so that a run goes on as it began when one has gone bad since. */
static gfl_status gfli_loader_read(gfli_loader_worker *w, gfli_sample *s, gfl_pixels *pixels) {
    const gfli_loader *l = w->loader;
    int at = 0;
    gfl_status status = gfli_loader_try(w, s->image, pixels);
    if (!gfli_is_unreadable(status) || !l->dataset->skip_unreadable) return status;
    while (l->images[at] != s->image) at++;
    for (int i = 1; i < l->n_images && gfli_is_unreadable(status); i++) {
        s->image = l->images[(at + i) % l->n_images];
        status = gfli_loader_try(w, s->image, pixels);
    }
    return status;
}

static gfl_status gfli_loader_sample(gfli_loader_worker *w, gfli_loader_slot *slot, int i) {
    gfli_sample *s = &slot->batch.samples[i];
    gfl_image_info info;
    gfl_pixels pixels;
    GFLI_TRY(gfli_loader_read(w, s, &pixels));
    info = w->loader->dataset->images[s->image];
    gfl_status status = gfli_loader_fill(w, &info, &pixels, slot->batch.epoch, s, &slot->memory[i]);
    gfl_pixels_free(w->context, &pixels);
    return status;
}

/* ---- scheduling; everything from here to the threads runs with the mutex held ---------------- */

static void gfli_loader_arm(gfli_loader_slot *slot) {
    slot->taken = 0;
    slot->left = slot->batch.n;
    slot->status = GFL_OK;
    slot->failed = -1;
}

static void gfli_loader_schedule(gfli_loader *l) {
    if (l->index >= l->n_batches) {
        l->index = 0;
        l->epoch++;
    }
    if (l->order_epoch != l->epoch) {
        gfli_sampler_order(l->opts.seed, l->epoch, l->n_images, gfli_loader_together(l),
                           l->portrait, l->order, l->order_scratch);
        l->order_epoch = l->epoch;
    }
    gfli_loader_slot *slot = &l->ring[l->last++ % (uint64_t)l->depth];
    const int start = l->index * gfli_loader_together(l) + l->context->ranks.rank * l->opts.batch;
    slot->batch.epoch = l->epoch;
    slot->batch.index = l->index++;
    /* The last batch is filled up from the epoch's first images, as MMDetection 2's GroupSampler
     * does: a full learning rate on what may be one odd image can ruin a run. */
    slot->batch.n = l->opts.batch;
    for (int i = 0; i < slot->batch.n; i++)
        slot->batch.samples[i].image = l->images[l->order[(start + i) % l->n_images]];
    gfli_loader_arm(slot);
}

static void gfli_loader_top_up(gfli_loader *l) {
    while (l->last < l->first + (uint64_t)l->depth) gfli_loader_schedule(l);
    gfli_condition_broadcast(&l->work);
}

static gfli_loader_slot *gfli_loader_find(gfli_loader *l) {
    for (uint64_t i = l->first; i < l->last; i++) {
        gfli_loader_slot *slot = &l->ring[i % (uint64_t)l->depth];
        if (slot->taken < slot->batch.n) return slot;
    }
    return NULL;
}

/* Take the slot's next sample and make it, without the mutex meanwhile. */
static void gfli_loader_work(gfli_loader_worker *w, gfli_loader_slot *slot) {
    gfli_loader *l = w->loader;
    int i = slot->taken++;
    l->busy++;
    gfli_mutex_unlock(&l->mutex);
    gfl_status status = gfli_loader_sample(w, slot, i);
    gfli_mutex_lock(&l->mutex);
    if (status != GFL_OK && (slot->failed < 0 || i < slot->failed)) {
        slot->failed = i;
        slot->status = status;
        memcpy(slot->error, w->context->error, sizeof slot->error);
    }
    slot->left--;
    l->busy--;
    if (slot->left == 0 || l->busy == 0) gfli_condition_broadcast(&l->done);
}

static void gfli_loader_thread(void *p) {
    gfli_loader_worker *w = (gfli_loader_worker *)p;
    gfli_loader *l = w->loader;
    gfli_mutex_lock(&l->mutex);
    while (!l->stop) {
        gfli_loader_slot *slot = gfli_loader_find(l);
        if (slot)
            gfli_loader_work(w, slot);
        else
            gfli_condition_wait(&l->work, &l->mutex);
    }
    gfli_mutex_unlock(&l->mutex);
}

/* ---- the caller's side ----------------------------------------------------------------------- */

int gfli_loader_images(const gfli_loader *loader) {
    return loader->n_images;
}

int gfli_loader_batches(const gfli_loader *loader, int epoch) {
    (void)epoch;
    return loader->n_batches;
}

gfl_status gfli_loader_start(gfli_loader *l, int epoch, int index) {
    if (epoch < 0 || index < 0 || index > l->n_batches)
        return gfli_error(l->context, GFL_E_ARG,
                          "there is no batch %d of epoch %d: an epoch has %d", index, epoch,
                          l->n_batches);
    gfli_mutex_lock(&l->mutex);
    l->last = l->first; /* nothing left to take */
    l->holding = false;
    while (l->busy > 0) gfli_condition_wait(&l->done, &l->mutex);
    l->epoch = epoch;
    l->index = index;
    gfli_loader_top_up(l);
    gfli_mutex_unlock(&l->mutex);
    return GFL_OK;
}

static void gfli_loader_measure(gfli_batch *batch) {
    batch->width = batch->height = 0;
    for (int i = 0; i < batch->n; i++) {
        batch->width = gfli_max(batch->width, gfli_pad32(batch->samples[i].width));
        batch->height = gfli_max(batch->height, gfli_pad32(batch->samples[i].height));
    }
}

gfl_status gfli_loader_next(gfli_loader *l, const gfli_batch **out) {
    *out = NULL;
    gfli_mutex_lock(&l->mutex);
    if (l->holding) l->first++;
    l->holding = false;
    gfli_loader_top_up(l);
    gfli_loader_slot *slot = &l->ring[l->first % (uint64_t)l->depth];
    while (slot->left > 0) {
        if (slot->taken < slot->batch.n)
            gfli_loader_work(&l->workers[0], slot);
        else
            gfli_condition_wait(&l->done, &l->mutex);
    }
    gfl_status status = slot->status;
    if (status == GFL_OK) {
        l->holding = true;
        gfli_loader_measure(&slot->batch);
        *out = &slot->batch;
    } else {
        (void)gfli_error(l->context, status, "%s", slot->error);
        gfli_loader_arm(slot); /* the next call tries again */
    }
    gfli_mutex_unlock(&l->mutex);
    return status;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static gfl_status gfli_loader_check_opts(gfl_context *context, const gfli_loader_opts *o) {
    if (o->batch < 1 || o->batch > 65536)
        return gfli_error(context, GFL_E_ARG, "batch is %d; it must be 1..65536", o->batch);
    if (o->scale_long < 1 || o->scale_short < 1 || o->scale_long > GFL_MAX_SIDE ||
        o->scale_short > o->scale_long)
        return gfli_error(
            context, GFL_E_ARG,
            "scale_long is %d and scale_short is %d; 1 <= short <= long <= %d must hold",
            o->scale_long, o->scale_short, GFL_MAX_SIDE);
    if (o->scale_short_min < 0 || o->scale_short_min > o->scale_short)
        return gfli_error(context, GFL_E_ARG,
                          "scale_short_min is %d; it must be 0..%d, which is scale_short",
                          o->scale_short_min, o->scale_short);
    if (o->n_threads < 0 || o->n_threads > GFLI_MAX_THREADS)
        return gfli_error(context, GFL_E_ARG,
                          "%d loader threads were asked for; there can be 0..%d", o->n_threads,
                          GFLI_MAX_THREADS);
    return GFL_OK;
}

/* The official recipe leaves out what has no annotation at all, crowds counting as one, and small
 * pictures; an image whose annotations are all of no use stays, as background. */
static bool gfli_loader_wants(const gfli_loader *l, const gfl_image_info *image) {
    if (!l->opts.drop_empty) return true;
    bool is_small = image->width > 0 && image->height > 0 &&
                    gfli_min(image->width, image->height) < GFLI_LOADER_MIN_SIDE;
    return image->n_annotations > 0 && !is_small;
}

static gfl_status gfli_loader_choose(gfli_loader *l) {
    int n = gfl_dataset_count_images(l->dataset);
    const int n_ranks = l->context->ranks.n_ranks;
    const size_t size = (size_t)n;
    GFLI_TRY(gfli_alloc(l->context, size, sizeof *l->images, "the images", &l->images));
    GFLI_TRY(gfli_alloc(l->context, size, sizeof *l->order, "the images", &l->order));
    GFLI_TRY(gfli_calloc(l->context, size, 1, "the images", &l->told));
    if (!l->opts.no_grouping)
        GFLI_TRY(gfli_alloc(l->context, size, sizeof *l->portrait, "the images", &l->portrait));
    for (int i = 0; i < n; i++) {
        const gfl_image_info *image = &l->dataset->images[i];
        if (!gfli_loader_wants(l, image)) continue;
        if (l->portrait) l->portrait[l->n_images] = image->width < image->height;
        l->images[l->n_images++] = i;
    }
    if (l->n_images == 0)
        return gfli_error(l->context, GFL_E_DATA,
                          "%s: there is no image to train on: it has %d images%s", l->dataset->name,
                          n, n > 0 ? ", none of which has an annotation and can be read" : "");
    l->opts.batch = gfli_rank_batch(l->opts.batch, l->n_images, n_ranks);
    l->n_batches = gfli_epoch_batches(l->n_images, l->opts.batch, n_ranks);
    l->order_epoch = -1;
    return gfli_alloc(l->context, size + 2 * (size_t)gfli_loader_together(l),
                      sizeof *l->order_scratch, "the images", &l->order_scratch);
}

static gfl_status gfli_loader_prepare_slots(gfli_loader *l) {
    size_t batch = (size_t)l->opts.batch;
    l->depth = l->opts.n_threads > 0 ? GFLI_LOADER_DEPTH : 1;
    for (int i = 0; i < l->depth; i++) {
        gfli_loader_slot *slot = &l->ring[i];
        GFLI_TRY(gfli_calloc(l->context, batch, sizeof *slot->batch.samples, "a batch",
                             &slot->batch.samples));
        GFLI_TRY(gfli_calloc(l->context, batch, sizeof *slot->memory, "a batch", &slot->memory));
    }
    return GFL_OK;
}

static gfl_status gfli_loader_start_threads(gfli_loader *l) {
    int n = l->opts.n_threads;
    GFLI_TRY(
        gfli_calloc(l->context, (size_t)n + 1, sizeof *l->workers, "loader threads", &l->workers));
    for (int i = 0; i <= n; i++) l->workers[i].loader = l;
    l->workers[0].context = l->context;
    for (int i = 1; i <= n; i++) {
        gfli_loader_worker *w = &l->workers[i];
        GFLI_TRY(gfli_context_child(l->context, &w->context));
        GFLI_TRY(gfli_thread_start(l->context, &w->thread, gfli_loader_thread, w));
    }
    return GFL_OK;
}

gfl_status gfli_loader_create(gfl_context *context, const gfl_dataset *dataset,
                              const gfli_loader_opts *opts, gfli_loader **out) {
    gfli_loader *l;
    *out = NULL;
    GFLI_TRY(gfli_loader_check_opts(context, opts));
    GFLI_TRY(gfli_calloc(context, 1, sizeof *l, "a loader", &l));
    l->context = context;
    l->dataset = dataset;
    l->opts = *opts;
    gfli_mutex_init(&l->mutex);
    gfli_condition_init(&l->work);
    gfli_condition_init(&l->done);
    gfl_status status = gfli_loader_choose(l);
    if (status == GFL_OK) status = gfli_loader_prepare_slots(l);
    if (status == GFL_OK) status = gfli_loader_start_threads(l);
    if (status != GFL_OK) {
        gfli_loader_destroy(l);
        return status;
    }
    *out = l;
    return GFL_OK;
}

static void gfli_loader_free_slot(gfli_loader *l, gfli_loader_slot *slot) {
    for (int i = 0; slot->batch.samples && i < l->opts.batch; i++) {
        gfli_free(l->context, slot->batch.samples[i].pixels);
        gfli_free(l->context, slot->batch.samples[i].boxes);
        gfli_free(l->context, slot->batch.samples[i].labels);
    }
    gfli_free(l->context, slot->batch.samples);
    gfli_free(l->context, slot->memory);
}

void gfli_loader_destroy(gfli_loader *l) {
    if (!l) return;
    gfli_mutex_lock(&l->mutex);
    l->stop = true;
    gfli_condition_broadcast(&l->work);
    gfli_mutex_unlock(&l->mutex);
    for (int i = 0; l->workers && i <= l->opts.n_threads; i++) {
        gfli_thread_join(&l->workers[i].thread);
        gfli_free(l->context, l->workers[i].scratch);
        if (i > 0) gfl_context_destroy(l->workers[i].context);
    }
    for (int i = 0; i < GFLI_LOADER_DEPTH; i++) gfli_loader_free_slot(l, &l->ring[i]);
    gfli_condition_destroy(&l->done);
    gfli_condition_destroy(&l->work);
    gfli_mutex_destroy(&l->mutex);
    gfli_free(l->context, l->workers);
    gfli_free(l->context, l->images);
    gfli_free(l->context, l->portrait);
    gfli_free(l->context, l->told);
    gfli_free(l->context, l->order);
    gfli_free(l->context, l->order_scratch);
    gfli_free(l->context, l);
}
