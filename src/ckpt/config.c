/* config.c - what mmdetection's configuration, a text in its checkpoints, says of a model */
#pragma once

/* The text is parsed as data (python.c) and asked three things: facts that no tensor shows, such as
 * mean, std, order of channels, style, scale and classes; whether it asks for what gfl does not
 * have; and whether what it says of the network contradicts the tensors. */

enum { GFLI_CONFIG_SHOWN = 200 };

static bool gfli_config_is_named(gfli_py *py, uint32_t dict, const char *name) {
    const char *type = gfli_py_text(py, gfli_py_get(py, dict, "type"));
    const char *scope = type ? strrchr(type, '.') : NULL; /* mmdet.Resize */
    return type && !strcmp(scope ? scope + 1 : type, name);
}

/* The first of several paths that leads to something. */
static uint32_t gfli_config_any(gfli_py *py, const char *const *paths, size_t n) {
    uint32_t found = 0;
    for (size_t i = 0; i < n && !found; i++) found = gfli_py_find(py, paths[i]);
    return found;
}

/* The steps from a file to the network's input, as of a test. */
static uint32_t gfli_config_pipeline(gfli_py *py) {
    static const char *const paths[] = {
        "data.test.pipeline", "test_dataloader.dataset.pipeline", "test_pipeline",
        "data.val.pipeline",  "val_dataloader.dataset.pipeline",  "val_pipeline"};
    return gfli_config_any(py, paths, GFLI_COUNT(paths));
}

/* A step of the pipeline, or one inside its first step that has some; *around is that one. */
static uint32_t gfli_config_step(gfli_py *py, const char *name, uint32_t *around) {
    uint32_t inside = 0;
    *around = 0;
    for (uint32_t i = gfli_py_first(py, gfli_config_pipeline(py)); i; i = gfli_py_next(py, i)) {
        if (gfli_config_is_named(py, i, name)) return i;
        if (!inside) inside = gfli_py_get(py, i, "transforms");
        if (inside && !*around) *around = i;
    }
    for (uint32_t i = gfli_py_first(py, inside); i; i = gfli_py_next(py, i))
        if (gfli_config_is_named(py, i, name)) return i;
    return 0;
}

/* ---- facts ----------------------------------------------------------------------------------- */

/* What the file says by itself goes before what its configuration says. */
static gfl_status gfli_config_say(gfli_blob *b, const char *key, const char *value) {
    return gfli_blob_meta(b, key) ? GFL_OK : gfli_blob_add_meta(b, key, value);
}

static bool gfli_config_numbers(gfli_py *py, uint32_t list, int n, double *out) {
    int got = 0;
    for (uint32_t i = gfli_py_first(py, list); i; i = gfli_py_next(py, i), got++)
        if (got == n || !gfli_py_number(py, i, &out[got])) return false;
    return got == n;
}

static uint32_t gfli_config_preprocessor(gfli_py *py) {
    static const char *const paths[] = {"model.data_preprocessor", "data_preprocessor"};
    return gfli_config_any(py, paths, GFLI_COUNT(paths));
}

/* mmengine has a preprocessor in the model; before it a step of the pipeline did the same. */
static gfl_status gfli_config_input(gfli_blob *b, gfli_py *py) {
    char mean[GFLI_CONFIG_SHOWN] = "0,0,0", deviation[GFLI_CONFIG_SHOWN] = "1,1,1";
    double three[3];
    uint32_t around, from = gfli_config_preprocessor(py);
    bool swap = gfli_py_bool(py, gfli_py_get(py, from, "bgr_to_rgb"), false) ||
                gfli_py_bool(py, gfli_py_get(py, from, "rgb_to_bgr"), false) ||
                gfli_py_bool(py, gfli_py_get(py, from, "to_rgb"), false);
    const bool optional = from != 0;
    if (!from) from = gfli_config_step(py, "Normalize", &around);
    if (!from) from = gfli_py_find(py, "img_norm_cfg");
    if (!optional) swap = gfli_py_bool(py, gfli_py_get(py, from, "to_rgb"), true);
    const uint32_t values[2] = {gfli_py_get(py, from, "mean"), gfli_py_get(py, from, "std")};
    char *const texts[2] = {mean, deviation};
    for (int i = 0; i < 2; i++) {
        const bool none = !values[i] || py->nodes[values[i]].kind == GFLI_PY_NONE;
        if (none && optional) continue;
        if (!gfli_config_numbers(py, values[i], 3, three)) return GFL_OK;
        gfli_py_shown_as(py, values[i], texts[i], GFLI_CONFIG_SHOWN);
    }
    const uint32_t load = gfli_config_step(py, "LoadImageFromFile", &around);
    const char *loaded = gfli_py_text(py, gfli_py_get(py, load, "channel_order"));
    const bool rgb = (loaded && !strcmp(loaded, "rgb")) != swap;
    if (gfli_blob_meta(b, "mean") || gfli_blob_meta(b, "std") || gfli_blob_meta(b, "input") ||
        gfli_blob_meta(b, "channel_order"))
        return GFL_OK;
    GFLI_TRY(gfli_config_say(b, "mean", mean));
    GFLI_TRY(gfli_config_say(b, "std", deviation));
    return gfli_config_say(b, "channel_order", rgb ? "RGB" : "BGR");
}

/* Long and short side, or false; *ratio: is the shape of pictures kept? */
static bool gfli_config_scale(gfli_py *py, double scale[2], bool *ratio) {
    uint32_t around, resize = gfli_config_step(py, "Resize", &around);
    const bool fixed = !resize && gfli_config_step(py, "FixScaleResize", &around) != 0;
    if (fixed) resize = gfli_config_step(py, "FixScaleResize", &around);
    uint32_t value = gfli_py_get(py, resize, "scale");
    const bool newer = value != 0; /* where not keeping the ratio is the default */
    if (!value) value = gfli_py_get(py, resize, "img_scale");
    if (!value && resize) value = gfli_py_get(py, around, "img_scale");
    const uint32_t only = gfli_py_first(py, value);
    if (only && !gfli_py_next(py, only) && gfli_py_first(py, gfli_py_target(py, only)))
        value = gfli_py_target(py, only);
    *ratio = gfli_py_bool(py, gfli_py_get(py, resize, "keep_ratio"), fixed || !newer);
    if (gfli_py_number(py, value, &scale[0])) scale[1] = scale[0];
    return (gfli_py_number(py, value, &scale[0]) || gfli_config_numbers(py, value, 2, scale)) &&
           scale[0] >= 1 && scale[1] >= 1 && scale[0] <= GFL_MAX_SIDE && scale[1] <= GFL_MAX_SIDE;
}

static gfl_status gfli_config_classes(gfli_blob *b, gfli_py *py) {
    static const char *const paths[] = {"metainfo.classes",
                                        "data.test.classes",
                                        "test_dataloader.dataset.metainfo.classes",
                                        "data.train.classes",
                                        "train_dataloader.dataset.metainfo.classes",
                                        "classes",
                                        "CLASSES"};
    const uint32_t list = gfli_config_any(py, paths, GFLI_COUNT(paths));
    gfli_text text = {b->context, "class names", NULL, 0, 0};
    gfl_json_writer j = gfli_json_to_text(&text);
    if (!gfli_py_first(py, list) || gfli_blob_meta(b, "classes")) return GFL_OK;
    for (uint32_t i = gfli_py_first(py, list); i; i = gfli_py_next(py, i))
        if (!gfli_py_text(py, i)) return GFL_OK;
    gfl_json_array(&j, NULL);
    for (uint32_t i = gfli_py_first(py, list); i && j.status == GFL_OK; i = gfli_py_next(py, i))
        gfl_json_text(&j, NULL, gfli_py_text(py, i));
    gfl_json_end(&j);
    gfl_status status = j.status;
    if (status == GFL_OK) status = gfli_blob_add_meta(b, "classes", text.bytes);
    gfli_free(b->context, text.bytes);
    return status;
}

static gfl_status gfli_config_facts(gfli_blob *b, gfli_py *py) {
    const char *style = gfli_py_text(py, gfli_py_find(py, "model.backbone.style"));
    double depth = 0, scale[2];
    bool ratio;
    char text[64];
    GFLI_TRY(gfli_config_input(b, py));
    GFLI_TRY(gfli_config_classes(b, py));
    gfli_py_number(py, gfli_py_find(py, "model.backbone.depth"), &depth);
    if (style && depth >= 50) GFLI_TRY(gfli_config_say(b, "style", style)); /* of bottlenecks */
    if (!gfli_config_scale(py, scale, &ratio) || !ratio) return GFL_OK;
    snprintf(text, sizeof text, "%dx%d", (int)scale[0], (int)scale[1]);
    return gfli_config_say(b, "scale", text);
}

gfl_status gfli_config_read(gfli_blob *b) {
    const char *text = gfli_blob_meta(b, "cfg");
    gfli_py py;
    if (!text) return GFL_OK;
    GFLI_TRY(gfli_py_read(b->context, text, &py));
    const gfl_status status = gfli_config_facts(b, &py);
    gfli_py_free(&py);
    return status;
}

/* ---- what is not supported ------------------------------------------------------------------- */

static const gfli_config_row gfli_config_detector[] = {
    {"model.bbox_head.type", "GFLHead|LDHead"},
    {"model.neck.type", "FPN"},
    {"model.neck.add_extra_convs", "on_output"},
    {"model.neck.num_outs", "5"},
    {"model.neck.relu_before_extra_convs", "False"},
    {"model.neck.norm_cfg", "None"},
    {"model.neck.act_cfg", "None"},
    {"model.neck.conv_cfg.type", "Conv2d|Conv"},
    {"model.neck.upsample_cfg.mode", "nearest"},
    {"model.bbox_head.conv_cfg.type", "Conv2d|Conv"},
    {"model.bbox_head.norm_cfg.type", "GN"},
    {"model.bbox_head.norm_cfg.num_groups", "32"},
    {"model.bbox_head.norm_cfg.eps", "1e-05"},
    {"model.bbox_head.anchor_generator.strides", "[8, 16, 32, 64, 128]"},
    {"model.bbox_head.anchor_generator.center_offset", "0"},
    {"model.bbox_head.loss_cls.use_sigmoid", "True"},
    {NULL, NULL},
};

/* Numbers of a test that change detections a little, or that a user chooses. */
static const gfli_config_row gfli_config_choices[] = {
    {"model.data_preprocessor.pad_size_divisor", "32"},
    {"model.data_preprocessor.pad_value", "0"},
    {"model.test_cfg.score_thr", "0.05"},
    {"model.test_cfg.nms.type", "nms"},
    {"model.test_cfg.nms.iou_threshold", "0.6"},
    {"model.test_cfg.max_per_img", "100"},
    {"model.test_cfg.nms_pre", "1000"},
    {"model.test_cfg.min_bbox_size", "0"},
    {"test_cfg.score_thr", "0.05"}, /* mmdetection before 2.4 */
    {"test_cfg.nms.type", "nms"},
    {"test_cfg.nms.iou_thr", "0.6"},
    {"test_cfg.nms.iou_threshold", "0.6"},
    {"test_cfg.max_per_img", "100"},
    {"test_cfg.nms_pre", "1000"},
    {"test_cfg.min_bbox_size", "0"},
};

/* Is the text one of those between the bars?  Types may have a scope in front. */
static bool gfli_config_fits(const char *text, const char *wanted) {
    const char *scope = strrchr(text, '.');
    for (const char *at = wanted;; at++) {
        const size_t n = strcspn(at, "|");
        if (!strncmp(text, at, n) && !text[n]) return true;
        if (scope && !strncmp(scope + 1, at, n) && !scope[1 + n]) return true;
        at += n;
        if (!*at) return false;
    }
}

/* "model.neck.num_outs = 4", if that is said and not wanted. */
static bool gfli_config_differs(gfli_py *py, const gfli_config_row *row, char *out, size_t size) {
    char shown[GFLI_CONFIG_SHOWN], quoted[GFLI_QUOTED];
    const uint32_t node = gfli_py_find(py, row->path);
    if (!node || py->nodes[node].kind == GFLI_PY_UNKNOWN ||
        gfli_config_fits(gfli_py_shown_as(py, node, shown, sizeof shown), row->wanted))
        return false;
    snprintf(out, size, "%s = %s", row->path, gfli_quote(shown, quoted, sizeof quoted));
    return true;
}

/* "GFLHead|LDHead" as "GFLHead or LDHead". */
static const char *gfli_config_choice(const char *wanted, char *out, size_t size) {
    size_t n = 0;
    for (; *wanted && n + 5 < size; wanted++) {
        const char one[2] = {*wanted, 0};
        n += (size_t)snprintf(out + n, size - n, "%s", *wanted == '|' ? " or " : one);
    }
    return out;
}

static gfl_status gfli_config_refuse_rows(const gfli_weights *w, gfli_py *py,
                                          const gfli_config_row *row) {
    char said[GFLI_CONFIG_SHOWN], ours[64];
    for (; row->path; row++)
        if (gfli_config_differs(py, row, said, sizeof said))
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: its configuration says %s, which is not supported: gfl has %s",
                              w->blob.path, said,
                              gfli_config_choice(row->wanted, ours, sizeof ours));
    return GFL_OK;
}

/* Which stage of the backbone the pyramid begins with. */
static gfl_status gfli_config_check_levels(const gfli_weights *w, gfli_py *py) {
    double start = 0, stage = -1;
    const uint32_t indices = gfli_py_find(py, "model.backbone.out_indices");
    if (!gfli_py_find(py, "model.neck.type")) return GFL_OK;
    gfli_py_number(py, gfli_py_find(py, "model.neck.start_level"), &start);
    if (!indices) stage = start;
    for (uint32_t i = gfli_py_first(py, indices); i; i = gfli_py_next(py, i), start--)
        if (start == 0) gfli_py_number(py, i, &stage);
    if (stage == 1) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: its configuration begins the pyramid at a stage of the backbone other "
                      "than C3 (model.neck.start_level is not 1), which gfl does not support",
                      w->blob.path);
}

static gfl_status gfli_config_check_parts(const gfli_weights *w, gfli_py *py) {
    static const char *const parts[] = {"model.backbone", "model.neck", "model.bbox_head"};
    for (size_t i = 0; i < GFLI_COUNT(parts); i++)
        if (gfli_py_first(py, gfli_py_find(py, parts[i])))
            return gfli_error(w->context, GFL_E_UNSUPPORTED,
                              "%s: its configuration says that %s consists of several parts, "
                              "which gfl does not support",
                              w->blob.path, parts[i]);
    return GFL_OK;
}

/* A fixed shape of the input is no setting of gfl's; whoever gives a scale knows better. */
static gfl_status gfli_config_check_resize(const gfli_weights *w, gfli_py *py) {
    double scale[2];
    uint32_t around;
    bool ratio = true;
    const bool known = gfli_config_scale(py, scale, &ratio);
    if (gfli_config_step(py, "FixShapeResize", &around)) ratio = false;
    if (ratio || (!known && !around)) return GFL_OK;
    return gfli_error(w->context, GFL_E_UNSUPPORTED,
                      "%s: its configuration resizes pictures without keeping their shape, which "
                      "gfl does not support; to fit them into a scale all the same, convert it "
                      "with one: gfl convert --scale LxS",
                      w->blob.path);
}

static gfl_status gfli_config_refuse_in(const gfli_weights *w, gfli_py *py, bool detector,
                                        bool scale_given) {
    char said[GFLI_CONFIG_SHOWN];
    GFLI_TRY(gfli_config_check_parts(w, py));
    GFLI_TRY(gfli_config_refuse_rows(w, py, gfli_backbone_in(w)->config));
    if (!detector) return GFL_OK;
    GFLI_TRY(gfli_config_refuse_rows(w, py, gfli_config_detector));
    GFLI_TRY(gfli_config_check_levels(w, py));
    if (!scale_given) GFLI_TRY(gfli_config_check_resize(w, py));
    for (size_t i = 0; i < GFLI_COUNT(gfli_config_choices); i++)
        if (gfli_config_differs(py, &gfli_config_choices[i], said, sizeof said))
            gfli_log(w->context, GFL_LOG_WARNING,
                     "%s: its configuration says %s; gfl has %s unless it is told otherwise",
                     w->blob.path, said, gfli_config_choices[i].wanted);
    return GFL_OK;
}

gfl_status gfli_config_refuse(const gfli_weights *w, bool detector, bool scale_given) {
    const char *text = gfli_blob_meta(&w->blob, "cfg");
    gfli_py py;
    if (!text) return GFL_OK;
    GFLI_TRY(gfli_py_read(w->context, text, &py));
    const gfl_status status = gfli_config_refuse_in(w, &py, detector, scale_given);
    gfli_py_free(&py);
    return status;
}

/* ---- what contradicts the tensors ------------------------------------------------------------ */

static gfl_status gfli_config_compare_in(const gfli_weights *w, gfli_py *py, const gfl_arch *a,
                                         bool detector) {
    const struct {
        const char *path;
        int tensors;
        bool compared;
    } rows[] = {{"model.backbone.depth", a->depth, true},
                {"model.backbone.base_channels", a->base_channels, true},
                {"model.backbone.groups", a->groups, true},
                {"model.backbone.base_width", a->base_width, a->groups > 1},
                {"model.neck.out_channels", a->fpn_channels, detector},
                {"model.bbox_head.feat_channels", a->head_channels, detector},
                {"model.bbox_head.stacked_convs", a->stacked_convs, detector},
                {"model.bbox_head.num_classes", a->n_classes, detector},
                {"model.bbox_head.reg_max", a->reg_max, detector}};
    for (size_t i = 0; i < GFLI_COUNT(rows); i++) {
        char said[GFLI_CONFIG_SHOWN], number[16];
        const gfli_config_row row = {rows[i].path, number};
        snprintf(number, sizeof number, "%d", rows[i].tensors);
        if (rows[i].compared && gfli_config_differs(py, &row, said, sizeof said))
            return gfli_error(w->context, GFL_E_MISMATCH,
                              "%s: its configuration says %s, but its tensors have %s",
                              w->blob.path, said, number);
    }
    return GFL_OK;
}

gfl_status gfli_config_compare(const gfli_weights *w, const gfl_arch *arch, bool detector) {
    const char *text = gfli_blob_meta(&w->blob, "cfg");
    gfli_py py;
    if (!text) return GFL_OK;
    GFLI_TRY(gfli_py_read(w->context, text, &py));
    const gfl_status status = gfli_config_compare_in(w, &py, arch, detector);
    gfli_py_free(&py);
    return status;
}
