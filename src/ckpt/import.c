/* import.c - a checkpoint of PyTorch, or anyone's safetensors, as a model */
#pragma once

enum { GFLI_COCO_CLASSES = 80 };

static const char *const gfli_coco_names[GFLI_COCO_CLASSES] = {
    "person",        "bicycle",      "car",
    "motorcycle",    "airplane",     "bus",
    "train",         "truck",        "boat",
    "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench",        "bird",
    "cat",           "dog",          "horse",
    "sheep",         "cow",          "elephant",
    "bear",          "zebra",        "giraffe",
    "backpack",      "umbrella",     "handbag",
    "tie",           "suitcase",     "frisbee",
    "skis",          "snowboard",    "sports ball",
    "kite",          "baseball bat", "baseball glove",
    "skateboard",    "surfboard",    "tennis racket",
    "bottle",        "wine glass",   "cup",
    "fork",          "knife",        "spoon",
    "bowl",          "banana",       "apple",
    "sandwich",      "orange",       "broccoli",
    "carrot",        "hot dog",      "pizza",
    "donut",         "cake",         "chair",
    "couch",         "potted plant", "bed",
    "dining table",  "toilet",       "tv",
    "laptop",        "mouse",        "remote",
    "keyboard",      "cell phone",   "microwave",
    "oven",          "toaster",      "sink",
    "refrigerator",  "book",         "clock",
    "vase",          "scissors",     "teddy bear",
    "hair drier",    "toothbrush"};

/* Category ids 1..90 without those that COCO never used. */
static void gfli_coco_classes(gfl_class out[GFLI_COCO_CLASSES]) {
    static const int left_out[] = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91};
    size_t skipped = 0;
    for (int k = 0, id = 1; k < GFLI_COCO_CLASSES; k++, id++) {
        for (; id == left_out[skipped]; skipped++) id++;
        out[k].name = gfli_coco_names[k];
        out[k].id = id;
    }
}

/* The original repository has underscores where COCO has spaces. */
static bool gfli_is_coco_name(const char *name, const char *coco) {
    for (; *name && *coco; name++, coco++)
        if (*name != *coco && !(*name == '_' && *coco == ' ')) return false;
    return *name == *coco;
}

static bool gfli_are_coco_names(const gfl_class *classes) {
    for (int k = 0; k < GFLI_COCO_CLASSES; k++)
        if (!gfli_is_coco_name(classes[k].name, gfli_coco_names[k])) return false;
    return true;
}

gfl_status gfli_override(gfli_weights *w, const gfl_preprocess *given, gfl_preprocess *p,
                         gfl_origin *origin) {
    if (!given) return GFL_OK;
    if (given->std[0] != 0 || given->std[1] != 0 || given->std[2] != 0) {
        memcpy(p->mean, given->mean, sizeof p->mean);
        memcpy(p->std, given->std, sizeof p->std);
        p->bgr = given->bgr;
        *origin = GFL_ORIGIN_GIVEN;
    }
    if (given->scale_long) p->scale_long = given->scale_long;
    if (given->scale_short) p->scale_short = given->scale_short;
    return gfli_preprocess_resolve(w->context, p, p);
}

/* What decides first is refused first: a configuration that asks for another network.  Then the
 * tensors say what the network is, the file and the caller say the rest, and what the configuration
 * says of the network must agree with the tensors.  Last come the classes, and the weights. */
static gfl_status gfli_import(gfli_weights *w, const gfl_import_desc *how, gfl_model **out) {
    gfl_model_desc desc;
    gfl_origins origins;
    gfl_class coco[GFLI_COCO_CLASSES];
    const bool scale_given =
        how->preprocess && (how->preprocess->scale_long || how->preprocess->scale_short);
    GFLI_TRY(gfli_config_refuse(w, true, scale_given));
    GFLI_TRY(gfli_describe_weights(w, how->dialect, how->style, &desc, &origins));
    GFLI_TRY(gfli_override(w, how->preprocess, &desc.preprocess, &origins.preprocess));
    GFLI_TRY(gfli_config_compare(w, &desc.arch, true));
    if (scale_given) origins.scale = GFL_ORIGIN_GIVEN;
    const int n = desc.arch.n_classes;
    if (how->classes && how->n_classes != n)
        return gfli_error(w->context, GFL_E_MISMATCH,
                          "%s: bbox_head.gfl_cls.weight has %d classes, but %d were asked for",
                          w->blob.path, n, how->n_classes);
    desc.classes = how->classes;
    if (!how->classes) GFLI_TRY(gfli_read_classes(w, n, &desc.classes, &origins.classes));
    if (n == GFLI_COCO_CLASSES && !w->has_ids &&
        (!desc.classes || (desc.classes == w->classes && gfli_are_coco_names(w->classes)))) {
        gfli_coco_classes(coco);
        desc.classes = coco;
    }
    return gfli_load_weights(w, &desc, &origins, how->trainable != 0, out);
}

gfl_status gfl_model_import(gfl_context *context, const char *path, const gfl_import_desc *desc,
                            gfl_model **out) {
    gfli_weights w;
    gfl_import_desc how;
    memset(&w, 0, sizeof w);
    memset(&how, 0, sizeof how);
    if (desc) how = *desc;
    if (out) *out = NULL;
    GFLI_NOT_NULL(context, context);
    GFLI_NOT_NULL(context, path);
    GFLI_NOT_NULL(context, out);
    GFLI_TRY(gfli_ckpt_open(context, path, &w.blob));
    gfl_status status = gfli_weights_begin(context, &w);
    if (status == GFL_OK) status = gfli_import(&w, &how, out);
    gfli_weights_end(&w);
    return status;
}
