/* loader.h - batches: sampling, augmentation, decoding ahead */
#pragma once

/* One image as a step wants it: resized, not yet mirrored and not yet normalised.  The boxes are
 * already those of the mirrored image when flip is set. */
typedef struct gfli_sample {
    int image;         /* index into the data set */
    int width, height; /* resized */
    bool flip;         /* mirror the columns while normalising */
    uint8_t *pixels;   /* u8 [height][width][3], RGB or BGR */
    float *boxes;      /* [n_boxes][4] x1 y1 x2 y2, resized pixels */
    int *labels;       /* [n_boxes] */
    int n_boxes;
} gfli_sample;

typedef struct gfli_batch {
    gfli_sample *samples;
    int n;
    int height, width; /* of the padded input: multiples of 32 */
    int epoch, index;
} gfli_batch;

typedef struct gfli_loader_opts {
    int batch; /* of each rank; or as many images as there are for it */
    uint64_t seed;
    int scale_long, scale_short;
    int scale_short_min; /* > 0: the short side is drawn from [min, scale_short] */
    bool bgr;
    int inclusive;  /* as in gfli_decode_opts */
    bool one_scale; /* as in gfli_dialect */
    bool no_flip;
    bool drop_empty;  /* leave out images without any annotation, or under 32 pixels */
    bool no_grouping; /* batches may mix landscape and portrait */
    int n_threads;    /* that decode ahead; 0: decode in gfli_loader_next */
} gfli_loader_opts;

/* Each rank's share of a batch, of n images at most together; batches of an epoch of n images. */
static inline int gfli_rank_batch(int batch, int n, int n_ranks) {
    return gfli_min(batch, gfli_ceil_div(n, n_ranks));
}

static inline int gfli_epoch_batches(int n, int rank_batch, int n_ranks) {
    return gfli_ceil_div(n, n_ranks * rank_batch);
}

typedef struct gfli_loader gfli_loader;

/* The data set is borrowed; its summary says why when no image is left to train on (GFL_E_DATA). */
gfl_status gfli_loader_create(gfl_context *context, const gfl_dataset *dataset,
                              const gfli_loader_opts *opts, gfli_loader **out);
void gfli_loader_destroy(gfli_loader *loader); /* NULL is allowed */

/* Images that are trained on, and batches of an epoch (the same for every epoch). */
int gfli_loader_images(const gfli_loader *loader);
int gfli_loader_batches(const gfli_loader *loader, int epoch);

/* Make the batch (epoch, index) the next one; any position, at any time.  Batches depend on the
 * options, the epoch, the index and the context's rank alone, whatever the number of threads: the
 * ranks share the images that one rank with larger batches would have in the same place. */
gfl_status gfli_loader_start(gfli_loader *loader, int epoch, int index);

/* The next batch, valid until the next call; after an epoch's last one comes the next epoch.  A
 * file that cannot be read is an error that names it; the loader stays at that batch. */
gfl_status gfli_loader_next(gfli_loader *loader, const gfli_batch **out);

/* What a stream of random numbers is for; part of every saved training run, so never renumbered. */
enum { GFLI_DRAW_ORDER = 1, GFLI_DRAW_SCALE = 2, GFLI_DRAW_FLIP = 3 };

/* The images of an epoch, batch after batch: order[i * batch..] are batch i of all ranks, the last
 * of which the loader fills up.  With portrait given, an image goes to the bucket of its kind, a
 * full bucket is a batch, and what is left in the two at the end is cut into batches together,
 * portraits first.
 * (Source: MMDetection 3, AspectRatioBatchSampler.)
 *
 *   portrait  [n], or NULL: no buckets
 *   order     [n], written; values 0..n-1
 *   scratch   [n + 2 * batch]
 */
void gfli_sampler_order(uint64_t seed, int epoch, int n, int batch, const bool *portrait,
                        int *order, int *scratch);
