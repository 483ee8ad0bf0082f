/* onnx_ends.c - what stands before and behind the network: normalising, decoding */
#pragma once

/* ---- before ---------------------------------------------------------------------------------- */

/* Zeros to the right and below, up to multiples of 32: a constant number of them where the size is
 * known, which OpenCV needs. */
static void gfli_onnx_pad(gfli_onnx *g, const char *out, const char *in) {
    const gfl_export_opts *o = &g->opts;
    const int64_t known[8] = {
        0, 0, 0, 0, 0, 0, gfli_pad32(o->height) - o->height, gfli_pad32(o->width) - o->width};
    if (o->width > 0) {
        gfli_onnx_integers(g, "pad.sizes", 1, 8, known);
        gfli_onnx_node(g, "Pad", out, in, "pad.sizes", NULL);
        return;
    }
    static const int64_t divisors[4] = {1, 1, 32, 32}, before[4] = {0, 0, 0, 0};
    gfli_onnx_integers(g, "pad.divisors", 1, 4, divisors);
    gfli_onnx_integers(g, "pad.before", 1, 4, before);
    gfli_onnx_node(g, "Shape", "pad.shape", in, NULL, NULL);
    gfli_onnx_node(g, "Neg", "pad.negative", "pad.shape", NULL, NULL);
    gfli_onnx_node(g, "Mod", "pad.after", "pad.negative", "pad.divisors", NULL);
    const size_t node = gfli_onnx_open(g, "Concat", "pad.sizes", "pad.before", "pad.after", NULL);
    gfli_onnx_int(g, "axis", 0);
    gfli_onnx_close(g, node);
    gfli_onnx_node(g, "Pad", out, in, "pad.sizes", NULL);
}

/* A convolution with kernels of one value. */
static void gfli_onnx_mix(gfli_onnx *g, const char *out, const char *in, const char *weights,
                          int groups) {
    gfli_conv_shape shape;
    memset(&shape, 0, sizeof shape);
    shape.kernel = shape.stride = 1;
    shape.groups = groups;
    const size_t node = gfli_onnx_open(g, "Conv", out, in, weights, NULL);
    gfli_onnx_conv_attributes(g, &shape);
    gfli_onnx_close(g, node);
}

/* From bytes [N, H, W, 3], RGB, to the network's input.  OpenCV wants channels before rows for the
 * rest, and turns them around by a convolution, not by an index. */
static void gfli_onnx_normalise(gfli_onnx *g) {
    static const int64_t order[4] = {0, 3, 1, 2}, three_by_three[4] = {3, 3, 1, 1};
    static const int64_t channels[3] = {3, 1, 1};
    static const float turned[9] = {0, 0, 1, 0, 1, 0, 1, 0, 0};
    const gfl_preprocess *p = &g->model->preprocess;
    const char *image = "image.planes";
    const bool whole = g->opts.width > 0 && g->opts.width % 32 == 0 && g->opts.height % 32 == 0;
    gfli_onnx_floats(g, "image.mean", 3, channels, p->mean);
    gfli_onnx_floats(g, "image.std", 3, channels, p->std);
    gfli_onnx_cast(g, "image.float", "image");
    gfli_onnx_transpose(g, image, "image.float", order, 4);
    if (p->bgr) {
        gfli_onnx_floats(g, "image.order", 4, three_by_three, turned);
        gfli_onnx_mix(g, "image.bgr", image, "image.order", 1);
        image = "image.bgr";
    }
    gfli_onnx_node(g, "Sub", "image.centred", image, "image.mean", NULL);
    gfli_onnx_node(g, "Div", whole ? "input" : "image.normalised", "image.centred", "image.std",
                   NULL);
    if (!whole) gfli_onnx_pad(g, "input", "image.normalised");
}

void gfli_onnx_begin(gfli_onnx *g) {
    static const char *const planes[4] = {"batch", "", "height", "width"};
    static const char *const image[4] = {"batch", "height", "width", ""};
    const gfl_export_opts *o = &g->opts;
    *gfli_onnx_value(g, g->plan.input, 0) = gfli_onnx_join("input", "");
    if (o->pixels) {
        const int64_t sizes[4] = {o->batch, o->height, o->width, 3};
        gfli_onnx_end(g, GFLI_ONNX_GRAPH_INPUT, "image", GFLI_ONNX_U8, 4, sizes, image);
        gfli_onnx_normalise(g);
    } else {
        const int64_t sizes[4] = {o->batch, 3, o->height, o->width};
        gfli_onnx_end(g, GFLI_ONNX_GRAPH_INPUT, "input", GFLI_ONNX_F32, 4, sizes, planes);
    }
}

/* ---- behind: logits -------------------------------------------------------------------------- */

static void gfli_onnx_logits(gfli_onnx *g, const char *name, int slot) {
    const gfli_map *map = &g->plan.maps[slot].map;
    const bool fixed = g->opts.width > 0;
    for (int l = 0; l < GFL_LEVELS; l++) {
        const gfli_onnx_name height = gfli_onnx_at("height", l), width = gfli_onnx_at("width", l);
        const char *const names[4] = {"batch", "", height.text, width.text};
        const int64_t sizes[4] = {g->opts.batch, map->c, fixed ? map->h[l] : 0,
                                  fixed ? map->w[l] : 0};
        gfli_onnx_end(g, GFLI_ONNX_GRAPH_OUTPUT, gfli_onnx_at(name, l).text, GFLI_ONNX_F32, 4,
                      sizes, names);
    }
}

/* ---- behind: scores and boxes ---------------------------------------------------------------- */

static float gfli_onnx_offset(const gfli_onnx *g, int stride) {
    return gfli_position(0, stride, gfli_dialect_get(g->model->arch.dialect)->inclusive);
}

/* "centres.l" f32 [4, points]: x y x y of every location, where the size is known. */
static void gfli_onnx_fixed_centres(gfli_onnx *g, int level) {
    const gfli_map *map = &g->plan.maps[g->plan.cls].map;
    const int w = map->w[level], stride = gfli_level_stride(level);
    const int64_t points = (int64_t)map->h[level] * w, shape[2] = {4, points};
    const float offset = gfli_onnx_offset(g, stride);
    float *centres =
        (float *)gfli_onnx_room(g, gfli_onnx_at("centres", level).text, GFLI_ONNX_F32, 2, shape);
    for (int64_t i = 0; centres && i < points; i++)
        for (int side = 0; side < 4; side++)
            centres[side * points + i] = (float)stride * (float)(side % 2 ? i / w : i % w) + offset;
}

/* One coordinate of "centres.l" f32 [1, points], computed from the size of the map. */
static void gfli_onnx_coordinate(gfli_onnx *g, int level, bool vertical, const char *out) {
    const gfli_onnx_name shape = gfli_onnx_at("centres.shape", level);
    const gfli_onnx_name grid = gfli_onnx_at("centres.grid", level);
    const gfli_onnx_name stride = gfli_onnx_at("centres.stride", level);
    const gfli_onnx_name offset = gfli_onnx_at("centres.offset", level);
    const gfli_onnx_name size = gfli_onnx_join(out, ".size"), cells = gfli_onnx_join(out, ".cells");
    const gfli_onnx_name real = gfli_onnx_join(out, ".real"), far_end = gfli_onnx_join(out, ".far");
    const gfli_onnx_name line = gfli_onnx_join(out, ".line"), lay = gfli_onnx_join(out, ".laid");
    const gfli_onnx_name all = gfli_onnx_join(out, ".all");
    gfli_onnx_node(g, "Gather", size.text, shape.text, vertical ? "two" : "three", NULL);
    gfli_onnx_node(g, "Range", cells.text, "zero", size.text, "one");
    gfli_onnx_cast(g, real.text, cells.text);
    gfli_onnx_node(g, "Mul", far_end.text, real.text, stride.text, NULL);
    gfli_onnx_node(g, "Add", line.text, far_end.text, offset.text, NULL);
    gfli_onnx_node(g, "Reshape", lay.text, line.text, vertical ? "column" : "row", NULL);
    gfli_onnx_node(g, "Expand", all.text, lay.text, grid.text, NULL);
    gfli_onnx_node(g, "Reshape", out, all.text, "row", NULL);
}

static void gfli_onnx_free_centres(gfli_onnx *g, int level) {
    const gfli_onnx_name shape = gfli_onnx_at("centres.shape", level);
    const gfli_onnx_name x = gfli_onnx_at("centres.x", level), y = gfli_onnx_at("centres.y", level);
    gfli_onnx_number(g, gfli_onnx_at("centres.stride", level).text,
                     (float)gfli_level_stride(level));
    gfli_onnx_number(g, gfli_onnx_at("centres.offset", level).text,
                     gfli_onnx_offset(g, gfli_level_stride(level)));
    gfli_onnx_node(g, "Shape", shape.text, gfli_onnx_at("cls_score", level).text, NULL, NULL);
    gfli_onnx_node(g, "Gather", gfli_onnx_at("centres.grid", level).text, shape.text,
                   "two_and_three", NULL);
    gfli_onnx_coordinate(g, level, false, x.text);
    gfli_onnx_coordinate(g, level, true, y.text);
    const size_t node =
        gfli_onnx_open(g, "Concat", gfli_onnx_at("centres", level).text, x.text, y.text, x.text);
    gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, y.text);
    gfli_onnx_int(g, "axis", 0);
    gfli_onnx_close(g, node);
}

/* Constants that all levels share. */
static void gfli_onnx_decode_constants(gfli_onnx *g) {
    static const int64_t sums[3] = {0, 4, -1};
    const int64_t bins = g->model->arch.reg_max + 1, shape[4] = {4, bins, 1, 1};
    const int64_t scores[3] = {0, -1, g->model->arch.n_classes};
    const int64_t sides[4] = {0, 4, bins, -1}, rows[4] = {0, 4 * bins, -1, 1};
    gfli_onnx_integers(g, "scores.shape", 1, 3, scores);
    gfli_onnx_integers(g, "bins.shape", 1, 4, sides);
    gfli_onnx_integers(g, "bins.rows", 1, 4, rows);
    gfli_onnx_integers(g, "bins.sums", 1, 3, sums);
    float *project = (float *)gfli_onnx_room(g, "bins", GFLI_ONNX_F32, 4, shape);
    for (int i = 0; project && i < 4 * bins; i++) project[i] = (float)(i % bins);
}

static void gfli_onnx_grid_constants(gfli_onnx *g) {
    static const int64_t indices[4] = {0, 1, 2, 3}, column[2] = {-1, 1}, row[2] = {1, -1};
    gfli_onnx_integers(g, "zero", 0, 1, &indices[0]);
    gfli_onnx_integers(g, "one", 0, 1, &indices[1]);
    gfli_onnx_integers(g, "two", 0, 1, &indices[2]);
    gfli_onnx_integers(g, "three", 0, 1, &indices[3]);
    gfli_onnx_integers(g, "two_and_three", 1, 2, &indices[2]);
    gfli_onnx_integers(g, "column", 1, 2, column);
    gfli_onnx_integers(g, "row", 1, 2, row);
}

static void gfli_onnx_scores(gfli_onnx *g, int level) {
    static const int64_t order[4] = {0, 2, 3, 1};
    const gfli_onnx_name sure = gfli_onnx_at("scores.sigmoid", level);
    const gfli_onnx_name last = gfli_onnx_at("scores.last", level);
    gfli_onnx_node(g, "Sigmoid", sure.text, gfli_onnx_at("cls_score", level).text, NULL, NULL);
    gfli_onnx_transpose(g, last.text, sure.text, order, 4);
    gfli_onnx_node(g, "Reshape", gfli_onnx_at("scores", level).text, last.text, "scores.shape",
                   NULL);
}

/* The mean of each side's distribution, in pixels, from the centre outwards: the sum over the bins
 * is a convolution of each side, as OpenCV has no sum with its axes as an input. */
static void gfli_onnx_boxes(gfli_onnx *g, int level) {
    static const int64_t shape[2] = {4, 1}, order[3] = {0, 2, 1};
    const float stride = (float)gfli_level_stride(level),
                outwards[4] = {-stride, -stride, stride, stride};
    const gfli_onnx_name bins = gfli_onnx_at("bins.logits", level);
    const gfli_onnx_name share = gfli_onnx_at("bins.shares", level);
    const gfli_onnx_name part = gfli_onnx_at("bins.parts", level);
    const gfli_onnx_name sum = gfli_onnx_at("bins.sum", level);
    const gfli_onnx_name mean = gfli_onnx_at("bins.mean", level);
    const gfli_onnx_name sides = gfli_onnx_at("sides", level);
    const gfli_onnx_name away = gfli_onnx_at("boxes.away", level);
    const gfli_onnx_name corner = gfli_onnx_at("boxes.corners", level);
    gfli_onnx_floats(g, sides.text, 2, shape, outwards);
    gfli_onnx_node(g, "Reshape", bins.text, gfli_onnx_at("bbox_pred", level).text, "bins.shape",
                   NULL);
    const size_t node = gfli_onnx_open(g, "Softmax", share.text, bins.text, NULL, NULL);
    gfli_onnx_int(g, "axis", 2);
    gfli_onnx_close(g, node);
    gfli_onnx_node(g, "Reshape", part.text, share.text, "bins.rows", NULL);
    gfli_onnx_mix(g, sum.text, part.text, "bins", 4);
    gfli_onnx_node(g, "Reshape", mean.text, sum.text, "bins.sums", NULL);
    gfli_onnx_node(g, "Mul", away.text, mean.text, sides.text, NULL);
    gfli_onnx_node(g, "Add", corner.text, away.text, gfli_onnx_at("centres", level).text, NULL);
    gfli_onnx_transpose(g, gfli_onnx_at("boxes", level).text, corner.text, order, 3);
}

/* All levels of an output, one after the other. */
static void gfli_onnx_gather_levels(gfli_onnx *g, const char *name, int last) {
    const gfli_map *map = &g->plan.maps[g->plan.cls].map;
    static const char *const names[3] = {"batch", "points", ""};
    const int64_t points = (int64_t)gfli_points(map); /* the plan is of one image */
    const int64_t sizes[3] = {g->opts.batch, g->opts.width > 0 ? points : 0, last};
    const size_t node = gfli_onnx_open(g, "Concat", name, NULL, NULL, NULL);
    for (int l = 0; l < GFL_LEVELS; l++)
        gfli_pb_text(&g->nodes, GFLI_ONNX_NODE_INPUT, gfli_onnx_at(name, l).text);
    gfli_onnx_int(g, "axis", 1);
    gfli_onnx_close(g, node);
    gfli_onnx_end(g, GFLI_ONNX_GRAPH_OUTPUT, name, GFLI_ONNX_F32, 3, sizes, names);
}

void gfli_onnx_finish(gfli_onnx *g) {
    if (!g->opts.decode) {
        gfli_onnx_logits(g, "cls_score", g->plan.cls);
        gfli_onnx_logits(g, "bbox_pred", g->plan.reg);
        return;
    }
    gfli_onnx_decode_constants(g);
    if (g->opts.width == 0) gfli_onnx_grid_constants(g);
    for (int l = 0; l < GFL_LEVELS; l++) {
        if (g->opts.width > 0)
            gfli_onnx_fixed_centres(g, l);
        else
            gfli_onnx_free_centres(g, l);
        gfli_onnx_scores(g, l);
        gfli_onnx_boxes(g, l);
    }
    gfli_onnx_gather_levels(g, "scores", g->model->arch.n_classes);
    gfli_onnx_gather_levels(g, "boxes", 4);
}
